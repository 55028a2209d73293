"""Milliseconds of a CIDEr-D reward beside pycocoevalcap's: python tests/benchmarks/bench_cider.py [--turns N] [...]

Candidates are like the references, a few of whose words were exchanged. Ours counts the references once, before, and
reads strings, or ids as a model samples them; pycocoevalcap's knows only strings and counts the references each time.
Prints a Markdown table. All take turns, so that they meet the same load; times are medians over the turns, the least
in brackets; the difference is the greatest between two scores of one candidate.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.metrics.captions import CiderD  # noqa: E402  before torch: lib sets how its threads wait

import numpy as np  # noqa: E402  isort: skip
import torch  # noqa: E402  isort: skip
from torch.nn.utils.rnn import pad_sequence  # noqa: E402  isort: skip


def sentences(sizes: argparse.Namespace, random: np.random.Generator) -> tuple[list[list[str]], list[str]]:
    """The references of each candidate, of words as frequent as in a language (Zipf's law), and the candidates."""
    often = 1 / np.arange(1, sizes.words + 1)
    words = np.array([f"w{rank}" for rank in range(sizes.words)])

    def sentence() -> np.ndarray:
        return random.choice(words, random.integers(sizes.length // 2, 3 * sizes.length // 2), p=often / often.sum())

    references = [[sentence() for _ in range(sizes.references)] for _ in range(sizes.candidates)]
    changed = [np.where(random.random(len(r[0])) < 0.3, random.choice(words, len(r[0])), r[0]) for r in references]
    return [[" ".join(one) for one in several] for several in references], [" ".join(one) for one in changed]


def numbers(sentence: str) -> list[int]:
    return [int(word[1:]) + 1 for word in sentence.split()]


def tasks(references: list[list[str]], candidates: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    """What is measured: each returns the scores of all candidates."""
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError:
        sys.exit("There is no pycocoevalcap to compare with: pip install pycocoevalcap brings it.")
    gold, found = dict(enumerate(references)), {i: [candidate] for i, candidate in enumerate(candidates)}
    text, by_id = CiderD(references), CiderD([[*map(numbers, several)] for several in references])
    ids = pad_sequence([torch.tensor(numbers(candidate)) for candidate in candidates], batch_first=True)
    return {
        "pycocoevalcap": lambda: Cider().compute_score(gold, found)[1],
        "ours, strings": lambda: text.score(candidates).numpy(),
        "ours, ids": lambda: by_id.score(ids).numpy(),
        "ours, references counted anew": lambda: CiderD(references).score(candidates).numpy(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("candidates", 640), ("references", 5), ("length", 11), ("words", 3000), ("turns", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    calls = tasks(*sentences(sizes, np.random.default_rng(0)))
    expected, times = calls["pycocoevalcap"](), {name: [] for name in calls}
    for _ in range(1 + sizes.turns):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    times = {name: taken[1:] for name, taken in times.items()}  # the first turn is only to warm up
    print(f"{sizes.candidates} candidates, {sizes.references} references each; load {os.getloadavg()[0]:.1f}\n")
    print("| what | ms | times as fast | difference |\n|---|---|---|---|")
    for name, taken in times.items():
        ratio, difference = median(times["pycocoevalcap"]) / median(taken), abs(calls[name]() - expected).max()
        print(f"| {name} | {median(taken):.1f} ({min(taken):.1f}) | {ratio:.1f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
