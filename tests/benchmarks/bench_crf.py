"""Milliseconds of the CRF beside those of pytorch-crf: python tests/benchmarks/bench_crf.py [--batch B] [...]

Prints a Markdown table. The two take turns of a few calls, so that they meet the same load, and neither is timed only
on what the other left of the caches; times are medians over the turns, the least in brackets.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.layers.crf import LinearChainCRF  # noqa: E402  before torch: lib sets how its threads wait

import torch  # noqa: E402  isort: skip
from torch import Tensor, nn  # noqa: E402  isort: skip

CALLS = 5


def same_fields(num_tags: int) -> tuple[LinearChainCRF, nn.Module]:
    """Ours and pytorch-crf's, with the same parameters."""
    try:
        from torchcrf import CRF
    except ImportError:
        sys.exit("There is no torchcrf to compare with: pip install pytorch-crf brings it.")
    ours, theirs = LinearChainCRF(num_tags), CRF(num_tags, batch_first=True)
    names = {"transitions": "transitions", "start": "start_transitions", "end": "end_transitions"}
    ours.load_state_dict({mine: theirs.state_dict()[other] for mine, other in names.items()})
    return ours, theirs


def tasks(num_tags: int, emissions: Tensor, tags: Tensor, mask: Tensor) -> dict[str, tuple[Callable, Callable]]:
    """What is measured, as ours and as pytorch-crf's."""
    ours, theirs = same_fields(num_tags)
    leaf = emissions.clone().requires_grad_()
    return {
        "log-likelihood, backward": (
            lambda: ours.log_likelihood(leaf, tags, mask).sum().backward(),
            lambda: theirs(leaf, tags, mask, reduction="sum").backward(),
        ),
        "decode": (lambda: ours.decode(emissions, mask), torch.no_grad()(lambda: theirs.decode(emissions, mask))),
    }


def in_turns(calls: tuple[Callable, ...], turns: int) -> list[list[float]]:
    """The milliseconds of each call in each turn, a mean over a few; the first turn is only to warm up."""
    times = [[] for _ in calls]
    for _ in range(1 + turns):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            taken.append(1000 * (time.perf_counter() - start) / CALLS)
    return [taken[1:] for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("batch", 64), ("length", 64), ("tags", 13), ("threads", 2), ("turns", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    torch.set_num_threads(sizes.threads)
    torch.manual_seed(0)
    emissions = torch.randn(sizes.batch, sizes.length, sizes.tags)
    tags = torch.randint(sizes.tags, (sizes.batch, sizes.length))
    masks = {
        "full": torch.ones(tags.shape, dtype=torch.bool),
        "random": torch.arange(sizes.length) <= torch.randint(sizes.length, (sizes.batch, 1)),
    }
    print("| task | B x T x K | lengths | ms ours | ms pytorch-crf | ratio | threads | load |")
    print("|---|---|---|---|---|---|---|---|")
    shape = " x ".join(map(str, emissions.shape))
    for lengths, mask in masks.items():
        for task, calls in tasks(sizes.tags, emissions, tags, mask).items():
            ours, theirs = in_turns(calls, sizes.turns)
            shown = " | ".join(f"{median(taken):.2f} ({min(taken):.2f})" for taken in (ours, theirs))
            ratio = f"{median(theirs) / median(ours):.1f} ({min(theirs) / min(ours):.1f})"
            machine = f"{torch.get_num_threads()} | {os.getloadavg()[0]:.1f}"
            print(f"| {task} | {shape} | {lengths} | {shown} | {ratio} | {machine} |", flush=True)


if __name__ == "__main__":
    main()
