"""Beam search beside a plain one and beside its own output products: python tests/benchmarks/bench_beam.py [...]

Prints a Markdown table. A GRU that attends to a source and copies from it searches keyphrases of random posts: all at
once, post by post and beam by beam, and the output layer's products alone. What is compared takes turns, so that it
meets the same load; times are medians over the turns, the least in brackets.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.layers.beam import Step, search  # noqa: E402  before torch: lib sets how its threads wait
from lib.layers.pointer import AdditiveAttention, ExtendedOutput, candidates, log_distribution  # noqa: E402

import torch  # noqa: E402  isort: skip
from torch import Tensor, nn  # noqa: E402  isort: skip

START, END, ROOM, EMBEDDED = 2, 3, 15, 200
Found = list[tuple[float, tuple[int, ...]]]


class Decoder(nn.Module):
    """CMKP's decoder without pictures: GRU, additive attention, an output layer in two parts, copy from the source."""

    def __init__(self, vocabulary: int, hidden: int):
        super().__init__()
        self.embed, self.cell = nn.Embedding(vocabulary, EMBEDDED), nn.GRUCell(EMBEDDED, hidden)
        self.attention = AdditiveAttention(hidden, hidden, hidden)
        self.merge, self.output = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, vocabulary)
        self.switch = nn.Linear(2 * hidden, 1)
        self.extended = None  # made when the weights are there

    def step(self, memory: Tensor, source: Tensor) -> Step:
        """The step for B posts with memory [B, S, D] and source [B, S], any number of beams each."""
        keys, mask = self.attention.keys(memory), source > 0

        def step(tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            known = tokens.masked_fill(tokens >= self.embed.num_embeddings, 1)
            hidden = self.cell(self.embed(known), state["hidden"])  # (N, D)
            queries = hidden.unflatten(0, (len(source), -1))  # (B, K, D)
            context, alpha = self.attention(queries, memory, keys, mask)  # (B, K, D), (B, K, S)
            both = torch.cat([context, queries], 2).flatten(0, 1)  # (N, 2 D)
            weights, ids = candidates((1, alpha, source[:, None].expand(alpha.shape)))  # (B, K, S)
            logits = self.extended(self.merge(both))  # (N, V + room)
            log_p = log_distribution(logits, self.switch(both)[:, 0], weights.flatten(0, 1), ids.flatten(0, 1))
            return log_p, {"hidden": hidden}

        return step


def plain(decoder: Decoder, memory: Tensor, source: Tensor, hidden: Tensor, sizes: argparse.Namespace) -> Found:
    """The best hypotheses of one post, beam by beam."""
    step, finished, live = decoder.step(memory, source), [], [(0.0, (), {"hidden": hidden})]
    for length in range(1, sizes.longest + 1):
        longer = []
        for total, words, state in live:
            log_p, state = step(torch.tensor([words[-1] if words else START]), state)
            finished.append(((total + log_p[0, END].item()) / length, (*words, END)))
            values, ids = log_p[0].topk(sizes.beams + 1)
            pairs = zip(values.tolist(), ids.tolist(), strict=True)
            longer += [(total + value, (*words, word), state) for value, word in pairs if word != END]
        live = sorted(longer, key=lambda entry: entry[0], reverse=True)[: sizes.beams]
    return sorted(finished, reverse=True)[: sizes.n_best]


def compared(sizes: argparse.Namespace, vocabulary: int) -> tuple[Callable, Callable, Callable]:
    """The search of all posts, the plain one, and nothing but the search's output products."""
    torch.manual_seed(0)
    decoder = Decoder(vocabulary, sizes.hidden)
    decoder.output.weight.data.mul_(3)  # some words are likelier than others
    decoder.extended = ExtendedOutput(decoder.output, ROOM)
    memory, hidden = torch.randn(sizes.batch, sizes.source, sizes.hidden), torch.randn(sizes.batch, sizes.hidden)
    source = torch.randint(4, vocabulary + ROOM, (sizes.batch, sizes.source))
    rules = dict(beams=sizes.beams, n_best=sizes.n_best, longest=sizes.longest, length_power=1)
    merged = torch.randn(sizes.batch * sizes.beams, sizes.hidden)

    def batched():
        return search(decoder.step(memory, source), {"hidden": hidden}, start=START, end=END, **rules)

    def by_post():
        posts = zip(memory.split(1), source.split(1), hidden.split(1), strict=True)
        return [plain(decoder, *post, sizes) for post in posts]

    def products():
        for _ in range(sizes.longest):
            decoder.output(merged)

    return batched, by_post, products


def in_turns(calls: tuple[Callable, ...], turns: int) -> list[list[float]]:
    """The milliseconds of each call in each turn; the first turn is only to warm up."""
    times = [[] for _ in calls]
    for _ in range(1 + turns):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - start))
    return [taken[1:] for taken in times]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = dict(batch=64, source=40, hidden=300, beams=10, n_best=5, longest=6, threads=2, turns=10)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    torch.set_num_threads(sizes.threads)
    print("| posts x beams x tokens x words | beside | ms search | ms the other | ratio | threads | load |")
    print("|---|---|---|---|---|---|---|")
    for vocabulary, other in ((5_000, "by post and beam"), (45_000, "output products")):
        batched, by_post, products = compared(sizes, vocabulary)
        if vocabulary == 5_000:
            scores, plainly = batched().scores, [[score for score, _ in post] for post in by_post()]
            torch.testing.assert_close(scores, torch.tensor(plainly))
        calls = (batched, by_post if vocabulary == 5_000 else products)
        ours, theirs = in_turns(calls, sizes.turns)
        shown = " | ".join(f"{median(taken):.1f} ({min(taken):.1f})" for taken in (ours, theirs))
        ratio = f"{median(theirs) / median(ours):.2f} ({min(theirs) / min(ours):.2f})"
        shape = f"{sizes.batch} x {sizes.beams} x {sizes.longest} x {vocabulary:,}"
        print(f"| {shape} | {other} | {shown} | {ratio} | {sizes.threads} | {os.getloadavg()[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
