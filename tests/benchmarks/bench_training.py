"""Seconds of an epoch with its dev scores, of VSE variants: python tests/benchmarks/bench_training.py [--data-dir DIR]

Without a folder it uses IconWorld. The features are computed before the clock starts. Prints one Markdown row each.
"""

import argparse
import tempfile
from pathlib import Path

from lib.run import experiment

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data-dir", help="folder of Flickr8k; IconWorld if not given")
parser.add_argument("--profile", default="paper")
parser.add_argument("--variants", nargs="+", default=["sum", "gru-hardest", "lstm", "best"])
parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
chosen = parser.parse_args()

where = {"dataset": "flickr8k", "data_dir": chosen.data_dir} if chosen.data_dir else {}
settings = {"profile": chosen.profile, "precision": chosen.precision, "epochs": 2, **where}
print("| variant | precision | seconds an epoch |\n|---|---|---|")
for variant in chosen.variants:
    with tempfile.TemporaryDirectory() as folder:
        result = experiment.run("vse", variant, 0, settings, Path(folder), log=lambda line: None)
    first, second = (record["seconds"] for record in result.history)
    print(f"| {variant} | {chosen.precision} | {second - first:.1f} |", flush=True)
