"""Beam search: the most probable sequences that a decoder can write, for all examples and all beams at once."""

from collections.abc import Callable, Collection
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from lib.names import require_known

State = dict[str, Tensor]
Step = Callable[[Tensor, State], tuple[Tensor, State]]

LOOK = 8  # tokens between two looks at whether the search is over, because each waits for the device


class Hypotheses(NamedTuple):
    """The n best sequences of each of B examples, the best first: tokens [B, n, T], filled up with `end`, scores
    [B, n], numbers of tokens [B, n], `end` included, and what the search was told to keep, {name: [B, n, ...]}.

    Where there are fewer than n, the others have score -inf and length 0.
    """

    tokens: Tensor
    scores: Tensor
    lengths: Tensor
    kept: State


@torch.no_grad()
def search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    beams: int,
    n_best: int,
    longest: int,
    length_power: float,
    keep: Collection[str] = (),
) -> Hypotheses:
    """The best sequences that `step` makes of up to `longest` tokens, `end` included (T = `longest`).

    state: tensors [B, ...], a row an example. step(tokens [N], state) -> (log-probabilities [N, V], state) is given
    the last tokens, at first `start`, and says how probable each next one is. There N = B x beams, the beams of an
    example side by side, and the state's tensors are [N, ...]: each row follows its beam. What all beams of an example
    share need not be in the state, the step may close over it and see N as (B, beams). The vocabulary may be extended
    for each example, up to the same V, and what an example lacks has -inf. Called again, a step may write over the
    log-probabilities that it returned before.

    Of each length the best `beams` sequences without `end` go on. Those with `end` are finished: their score is the
    sum of their log-probabilities over length ** length_power, with the number of tokens as length, and the best
    `n_best` of all lengths are the result. Sequences that `longest` cuts off only stand where too few are finished,
    and after them. No two are the same. If `beams` is at least the number of sequences without `end`, nothing can be
    missed. The device is not waited for, but at each eighth token, to see if any that goes on could still be among the
    best; that takes log-probabilities to be at most 0.

    keep: names of tensors of the state to have with each hypothesis, as they were when its last token was chosen, such
    as an attention that the step writes into one at each token.
    Raises ValueError for a state without tensors, an unknown name, or a number out of its range.
    """
    _check(state, keep, {"beams": beams, "n_best": n_best, "longest": longest}, length_power)
    live = _nothing(state, state, beams, longest, end)
    live.tokens[:, :, 0], live.scores[:, 0] = start, 0  # one beam is enough to begin with
    finished = _nothing(state, keep, n_best, longest, end)
    for length in range(1, longest + 1):
        log_p, live = _ask(step, live, length)  # (B, K, V)
        finished = _best(finished, _finish(live, log_p[:, :, end], length**length_power, keep))
        live = _go_on(live, log_p, length, end)
        if length % LOOK == 0 and not (live.scores / longest**length_power > finished.scores[:, -1:]).any():
            break
    return _fill(finished, _finish(live, 0, longest**length_power, keep), end)


# ---- what is on the way: K beams, `start` before the tokens, sums of log-probabilities for scores, all state kept ----


def _nothing(state: State, keep: Collection[str], count: int, longest: int, end: int) -> Hypotheses:
    """`count` hypotheses an example that are not there, with a token more than `longest` for `start`."""
    like = next(iter(state.values()))
    scores = torch.full((len(like), count), -torch.inf, device=like.device)
    tokens = torch.full((len(like), count, longest + 1), end, device=like.device)
    kept = {name: state[name][:, None].expand(-1, count, *state[name].shape[1:]) for name in keep}
    return Hypotheses(tokens, scores, torch.zeros_like(scores, dtype=torch.long), kept)


def _ask(step: Step, live: Hypotheses, length: int) -> tuple[Tensor, Hypotheses]:
    """The log-probabilities of token number `length` (B, K, V), and what is on the way with the state after them."""
    state = {name: x.flatten(0, 1) for name, x in live.kept.items()}
    log_p, state = step(live.tokens[:, :, length - 1].flatten(), state)  # (N, V)
    kept = {name: x.unflatten(0, live.scores.shape) for name, x in state.items()}
    lengths = torch.full_like(live.lengths, length)
    return log_p.unflatten(0, live.scores.shape), live._replace(lengths=lengths, kept=kept)


def _go_on(live: Hypotheses, log_p: Tensor, length: int, end: int) -> Hypotheses:
    """The best K continuations of an example's beams by a word that is not `end`."""
    sums, places = _largest(live.scores, log_p, end)  # (B, K)
    live = _pick(live, places // log_p.shape[2])._replace(scores=sums)
    live.tokens[:, :, length] = places % log_p.shape[2]
    return live


def _largest(scores: Tensor, log_p: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """The K largest sums of scores [B, K] and log_p [B, K, V] but for those of `end`, and their places among K x V."""
    beams, size = log_p.shape[1:]
    places = _promising(scores, log_p)  # (B, M)
    sums = scores.gather(1, places // size) + log_p.flatten(1).gather(1, places)
    best, which = sums.masked_fill(places % size == end, -torch.inf).topk(beams)  # (B, K)
    return best, places.gather(1, which)


def _promising(scores: Tensor, log_p: Tensor) -> Tensor:
    """Some places of K x V that the K largest sums without `end` are among (B, M): to sort all of them takes long.

    They are in the 2 K blocks of words with the largest maxima, of which `end` can have made K large, one a beam; or
    among the few words that are left after the last block.
    """
    beams, size = log_p.shape[1:]
    width, count = isqrt(size), size // isqrt(size)
    blocks = log_p[:, :, : count * width].unflatten(2, (count, width))  # (B, K, count, width)
    maxima = (blocks.amax(3) + scores[:, :, None]).flatten(1)  # (B, K x count)
    chosen = maxima.topk(min(2 * beams, beams * count)).indices[:, :, None]  # (B, 2 K, 1)
    beam, words, left = (
        torch.arange(*span, device=chosen.device) for span in ((beams,), (width,), (count * width, size))
    )
    inside = chosen // count * size + chosen % count * width + words  # (B, 2 K, width)
    after = (beam[:, None] * size + left).flatten()  # (K x fewer than width,)
    return torch.cat([inside.flatten(1), after.expand(len(inside), -1)], 1)


# ---- what is finished: scores over lengths ----


def _finish(live: Hypotheses, last: Tensor | float, scale: float, keep: Collection[str]) -> Hypotheses:
    """What is on the way as it would be finished, by an `end` of this log-probability."""
    return live._replace(scores=(live.scores + last) / scale, kept={name: live.kept[name] for name in keep})


def _best(finished: Hypotheses, more: Hypotheses) -> Hypotheses:
    """The best of both, as many as were finished before."""
    both = _join(finished, more)
    return _pick(both, both.scores.topk(finished.scores.shape[1]).indices)


def _fill(finished: Hypotheses, cut: Hypotheses, end: int) -> Hypotheses:
    """Cut off sequences in the places after the finished ones, without what is not there and without `start`."""
    count = (finished.scores > -torch.inf).sum(1, keepdim=True)  # (B, 1)
    places = torch.arange(finished.scores.shape[1], device=count.device)  # (n,)
    of_cut = places - count  # (B, n)
    free = (of_cut >= 0) & (of_cut < cut.scores.shape[1])
    result = _pick(_join(finished, cut), torch.where(free, len(places) + of_cut, places))
    missing = result.scores == -torch.inf  # (B, n)
    tokens = result.tokens[:, :, 1:].masked_fill(missing[:, :, None], end)
    return result._replace(tokens=tokens, lengths=result.lengths.masked_fill(missing, 0))


def _join(first: Hypotheses, second: Hypotheses) -> Hypotheses:
    """The hypotheses of both, an example's side by side."""
    tensors = (torch.cat(pair, 1) for pair in zip(first[:3], second[:3], strict=True))
    return Hypotheses(*tensors, {name: torch.cat([x, second.kept[name]], 1) for name, x in first.kept.items()})


def _pick(hypotheses: Hypotheses, index: Tensor) -> Hypotheses:
    """Those at index [B, n]."""
    rows = torch.arange(len(index), device=index.device)[:, None]  # (B, 1)
    return Hypotheses(
        *(x[rows, index] for x in hypotheses[:3]), {name: x[rows, index] for name, x in hypotheses.kept.items()}
    )


def _check(state: State, keep: Collection[str], counts: dict[str, int], length_power: float) -> None:
    if not state:
        raise ValueError("the state is empty, expected a tensor with a row for each example")
    for name in keep:
        require_known("tensor of the state", name, state)
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}, expected at least 1")
    if length_power < 0:
        raise ValueError(f"length_power is {length_power}, expected at least 0")
