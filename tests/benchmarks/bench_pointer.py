"""The pointer's loss beside the form that builds the mixed distribution: python tests/benchmarks/bench_pointer.py [...]

Prints a Markdown table: milliseconds of all that follows the output layer's product, forward and backward, and of a
whole training step, medians over the turns that the forms take, the least in brackets; then megabytes of activations,
those that forward keeps for backward, and the most there are at once, without parameters, their gradients and the
optimiser. "Packed" is ours on the rows that are words, without the padding.
"""

import argparse
import os
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.layers.pointer import AdditiveAttention, candidates, log_likelihood  # noqa: E402  before torch, for its set-up

import torch  # noqa: E402  isort: skip
from torch import Tensor, nn  # noqa: E402  isort: skip
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402  isort: skip
from torch.utils._pytree import tree_leaves  # noqa: E402  isort: skip

ROOM, EMBEDDED, CLASS_WORDS = 15, 200, 9
Loss = Callable[..., Tensor]


def ours(logits: Tensor, switch: Tensor, alpha: Tensor, source: Tensor, beta: Tensor, words: Tensor, target: Tensor):
    return log_likelihood(logits, switch, *candidates((0.5, alpha, source), (0.5, beta, words)), target)


def plain(logits: Tensor, switch: Tensor, alpha: Tensor, source: Tensor, beta: Tensor, words: Tensor, target: Tensor):
    """The logarithm of the mixed distribution, as pointer-generators have it, and the target's."""
    lam = switch.sigmoid()[..., None]
    mixed = torch.cat([lam * logits.softmax(-1), logits.new_zeros(*logits.shape[:-1], ROOM)], -1)
    for weights, ids in ((alpha, source), (beta, words)):
        mass = 0.5 * (1 - lam) * weights.exp()
        mixed = mixed.scatter_add(-1, ids.expand(mass.shape), mass)
    return (mixed + 1e-8).log().gather(-1, target[..., None])[..., 0]


class Model(nn.Module):
    """A text encoder, a decoder that attends to it, and the output layer; the classifier's words are given."""

    def __init__(self, vocabulary: int, hidden: int):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, EMBEDDED)
        self.encode = nn.GRU(EMBEDDED, hidden // 2, 2, bidirectional=True, batch_first=True)
        self.decode = nn.GRU(EMBEDDED, hidden, batch_first=True)
        self.attention = AdditiveAttention(hidden, hidden, hidden)
        self.merge, self.output = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, vocabulary)
        self.switch = nn.Linear(2 * hidden, 1)

    def forward(self, batch: dict[str, Tensor], loss: Loss, packed: bool) -> Tensor:
        mask, size = batch["source"] > 0, self.embed.num_embeddings
        memory, _ = self.encode(self.embed(batch["source"] % size))  # (B, S, D)
        states, _ = self.decode(self.embed(batch["target"] % size))  # (B, T, D); which word goes in costs the same
        context, alpha = self.attention(states, memory, self.attention.keys(memory), mask)  # (B, T, D), (B, T, S)
        both = torch.cat([context, states], -1)  # (B, T, 2 D)
        beta, target = batch["scores"].log_softmax(-1)[:, None], batch["target"]  # (B, 1, J), (B, T)
        per_word = [both, alpha, target, *(batch[x][:, None] for x in ("source", "words")), beta]
        weight = batch["real"].float()
        if packed:
            per_word = [
                x.expand(*target.shape, -1)[batch["real"]] if x.ndim == 3 else x[batch["real"]] for x in per_word
            ]
            weight = weight[batch["real"]]
        both, alpha, target, source, words, beta = per_word
        logits, switch = self.output(self.merge(both)), self.switch(both)[..., 0]
        return -(weight * loss(logits, switch, alpha, source, beta, words, target)).sum()


def make_batch(sizes: argparse.Namespace) -> dict[str, Tensor]:
    """Sources of random words, some beyond the vocabulary; keyphrases of 1 to T - 1 words and an end, mostly 1."""
    source = torch.randint(1, sizes.vocabulary, (sizes.batch, sizes.source))
    source[:, :2] = torch.tensor([sizes.vocabulary, sizes.vocabulary + 1])
    lengths = 2 + (torch.rand(sizes.batch, 1) ** 3 * (sizes.length - 1)).long()
    target = torch.randint(1, sizes.vocabulary, (sizes.batch, sizes.length))
    words = torch.randint(1, sizes.vocabulary, (sizes.batch, CLASS_WORDS))
    real = torch.arange(sizes.length) < lengths
    return dict(source=source, target=target, words=words, scores=torch.randn(words.shape), real=real)


FORMS = {"plain": (plain, False), "ours": (ours, False), "ours, packed": (ours, True)}


def prepare(sizes: argparse.Namespace, name: str) -> tuple[Model, dict[str, Tensor], Callable[[], Tensor]]:
    """A model, a batch, and the loss of the model on it in one of the forms; the same each time."""
    torch.manual_seed(0)
    torch.set_num_threads(sizes.threads)
    model, batch = Model(sizes.vocabulary, sizes.hidden), make_batch(sizes)
    return model, batch, lambda: model(batch, *FORMS[name])


def whole_step(sizes: argparse.Namespace, name: str) -> Callable[[], None]:
    model, _, loss = prepare(sizes, name)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        optimizer.zero_grad()

    return step


def after_product(sizes: argparse.Namespace, name: str) -> Callable[[], None]:
    """Forward and backward of a form alone, from logits to their gradient."""
    model, batch, _ = prepare(sizes, name)
    form, packed = FORMS[name]
    shape = (int(batch["real"].sum()),) if packed else batch["real"].shape
    logits, switch = torch.randn(*shape, sizes.vocabulary, requires_grad=True), torch.randn(shape, requires_grad=True)
    alpha = torch.randn(*shape, sizes.source).log_softmax(-1).requires_grad_()
    beta = torch.randn(*shape, CLASS_WORDS).log_softmax(-1).requires_grad_()
    source, words = (torch.randint(sizes.vocabulary + ROOM, x.shape) for x in (alpha, beta))
    target = torch.randint(sizes.vocabulary, shape)

    def call() -> None:
        form(logits, switch, alpha, source, beta, words, target).sum().backward()
        for leaf in (logits, switch, alpha, beta):
            leaf.grad = None

    return call


def in_turns(calls: list[Callable[[], None]], turns: int) -> list[list[float]]:
    """The milliseconds of each call in each turn; the first turn is only to warm up."""
    times = [[] for _ in calls]
    for _ in range(1 + turns):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - start))
    return [taken[1:] for taken in times]


def memory(sizes: argparse.Namespace, name: str) -> tuple[float, float]:
    """Megabytes of activations: what forward keeps for backward, and the most that there is at once in both."""
    model, _, loss = prepare(sizes, name)
    owned, kept = {parameter.data_ptr() for parameter in model.parameters()}, {}
    with Peak({parameter.numel() for parameter in model.parameters()}) as peak:
        with torch.autograd.graph.saved_tensors_hooks(lambda x: _note(x, kept), lambda x: x):
            result = loss()
        result.backward()
    return sum(size for key, size in kept.items() if key not in owned) / 1e6, peak.most / 1e6


def _note(x: Tensor, kept: dict[int, int]) -> Tensor:
    kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    return x


class Peak(TorchDispatchMode):
    """The most bytes of tensors there were at once, but for those as large as a parameter: they are its gradient."""

    def __init__(self, parameters: set[int]):
        super().__init__()
        self.parameters, self.now, self.most, self.alive = parameters, 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.numel() not in self.parameters:
                self.count(x.untyped_storage())
        return result

    def count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:
            self.alive.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())

    def forget(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = dict(batch=64, length=6, source=40, vocabulary=45_000, hidden=300, threads=2, turns=20)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    print("| form | B x T x V | ms after the product | ms whole step | MB kept | MB at most | threads | load |")
    print("|---|---|---|---|---|---|---|---|")
    shape = f"{sizes.batch} x {sizes.length} x {sizes.vocabulary:,}"
    used = [memory(sizes, name) for name in FORMS]
    after, whole = (
        in_turns([part(sizes, name) for name in FORMS], sizes.turns) for part in (after_product, whole_step)
    )
    for name, (kept, most), *times in zip(FORMS, used, after, whole, strict=True):
        shown = " | ".join(f"{median(taken):.1f} ({min(taken):.1f})" for taken in times)
        load = os.getloadavg()[0]
        print(f"| {name} | {shape} | {shown} | {kept:.0f} | {most:.0f} | {sizes.threads} | {load:.1f} |", flush=True)


if __name__ == "__main__":
    main()
