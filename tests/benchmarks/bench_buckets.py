"""Seconds of a MAF epoch in length buckets and padded to 128: python tests/benchmarks/bench_buckets.py --data-dir DIR

DIR holds Twitter-2015 (train.txt, valid.txt, test.txt); without it the posts are IconWorld's. Dev is not scored, so the
seconds are those of training. The two take turns on the same posts, in fresh models; of each the best turn counts,
because a shared machine is only ever slowed down. The first rows warm up.
"""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.papers import maf  # noqa: E402
from lib.run import experiment  # noqa: E402
from lib.run.training import fit  # noqa: E402
from lib.tasks import tagging  # noqa: E402

import torch  # noqa: E402  isort: skip


def seconds(variant: str, settings: dict) -> float:
    """How long one epoch takes to train."""
    chosen = experiment.resolve("maf", variant, {**settings, "epochs": 1})
    data = tagging.load(chosen)
    tagging.prepare(data)
    torch.manual_seed(0)
    model = maf.build(tagging.context(data), chosen)
    maf.initialise(model, tagging.context(data), chosen)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"checkpoint_seconds": 1e9, "log": lambda line: None}
        (epoch,) = fit(model, data.train, chosen, 0, Path(folder), lambda model: {"F1": 0.0}, "F1", **quiet)
    return epoch["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--posts", type=int, help="first posts of the training split, all of them if not given")
    parser.add_argument("--turns", type=int, default=2)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # missing pictures
    corpus = {"dataset": "twitter2015", "data_dir": chosen.data_dir} if chosen.data_dir else {}
    settings = {"profile": "paper", "longest": 128, "train_limit": chosen.posts, **corpus}
    for padded in (False, True):
        seconds("text", {**settings, "train_limit": 64, "pad_pairs": padded})
    print("| model | in buckets, s | padded to 128, s | times as fast | threads | load |")
    print("|---|---|---|---|---|---|")
    for variant in ("text", "full"):
        taken = {False: [], True: []}
        for pads in [False, True] * chosen.turns:
            taken[pads].append(seconds(variant, {**settings, "pad_pairs": pads}))
        bucketed, padded = min(taken[False]), min(taken[True])
        machine = f"{torch.get_num_threads()} | {os.getloadavg()[0]:.1f}"
        print(f"| {variant} | {bucketed:.1f} | {padded:.1f} | {padded / bucketed:.1f} | {machine} |", flush=True)


if __name__ == "__main__":
    main()
