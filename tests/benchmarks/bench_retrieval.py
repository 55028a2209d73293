"""Seconds and memory of the retrieval metric: python tests/benchmarks/bench_retrieval.py [--images N] [...]

Prints one row of a Markdown table for each similarity, each measured in a fresh process. COCO's 5k test is the default.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.metrics.retrieval import evaluate  # noqa: E402


def measure(similarity: str, images: int, captions: int, dimension: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of all threads, and MB beyond the inputs of one evaluation of random vectors."""
    torch.manual_seed(0)
    pictures, sentences = torch.randn(images, dimension), torch.randn(captions, dimension)
    owner = torch.arange(captions) % images
    evaluate(pictures[:10], sentences[:10], owner[:10], similarity)  # what torch loads on its first call is not ours
    before, cpu, wall = _peak(), time.process_time(), time.perf_counter()
    evaluate(pictures, sentences, owner, similarity)
    return time.perf_counter() - wall, time.process_time() - cpu, _peak() - before


def _peak() -> float:
    """The highest memory this process ever held, in MB; Linux counts it in KB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("images", 5_000), ("captions", 25_000), ("dimension", 1_024)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    print("| similarity | images x captions x dimension | wall s | CPU s | MB beyond the inputs | threads | load |")
    print("|---|---|---|---|---|---|---|")
    shape = f"{sizes.images:,} x {sizes.captions:,} x {sizes.dimension:,}"
    for similarity in ("cosine", "order"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            wall, cpu, memory = pool.apply(measure, (similarity, *vars(sizes).values()))
        machine = f"{torch.get_num_threads()} | {os.getloadavg()[0]:.1f}"
        print(f"| {similarity} | {shape} | {wall:.1f} | {cpu:.1f} | {memory:.0f} | {machine} |", flush=True)


if __name__ == "__main__":
    main()
