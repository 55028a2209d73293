"""Pointing: the next word is generated from a vocabulary or copied from words at hand, and the ways to it add up.

    P(y) = lambda P_gen(y) + (1 - lambda) (a sum_{i: x_i = y} alpha_i + b sum_{j: w_j = y} beta_j)

with the source's words x and their attention alpha, and other candidates w with weights beta, such as the words of a
classifier's best phrases (See et al. 2017, eq. 9; Wang et al. 2020, the unified output). With a + b = 1 P sums to one;
the released code of Wang et al. has a = b = 1, and P sums to 2 - lambda. Everything is kept in logarithms, which do
not vanish in any precision: lambda as its logit, alpha and beta as their logarithms.

In shapes, `...` is whatever runs in parallel, [B, T] or only the rows that are no padding; V is the vocabulary, C the
candidates, S the words of a source.
"""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NEVER = -1e30  # the logarithm of nothing; finite, because the difference of two infinities is NaN
ROWS = 32  # of logits that a CPU works on at a time: what it makes of so few stays in its cache


def extended_ids(words: Tensor, source: Tensor, size: int, unknown: int, room: int) -> Tensor:
    """Ids of `words` [B, W] in a vocabulary of `size` words that each example extends by its own source's -> [B, W].

    words and source [B, S] are numbers that tell any two words apart, those below `size` being the vocabulary's ids. A
    word beyond it gets `size` plus its place among the distinct such words of the source, in their order, if it is
    there and one of the first `room`; any other gets `unknown`. Ids of the source itself: words = source.
    """
    source = F.pad(source, (0, 1), value=-1)  # (B, S + 1), so that there is something to look at
    first = (source[:, :, None] == source[:, None, :]).int().argmax(2)  # (B, S + 1): where its word comes first
    positions = torch.arange(source.shape[1], device=source.device)  # (S + 1,)
    place = ((source >= size) & (first == positions)).cumsum(1) - 1  # (B, S + 1): right where a word comes first
    same = words[:, :, None] == source[:, None, :]  # (B, W, S + 1)
    place = place.gather(1, same.int().argmax(2))  # (B, W)
    beyond = torch.where(same.any(2) & (place < room), size + place, unknown)  # (B, W)
    return torch.where(words < size, words, beyond)


class AdditiveAttention(nn.Module):
    """Where to look in a memory: softmax_i(v . tanh(W_q q + W_k m_i + b)) (Bahdanau et al. 2015, section A.1.2).

    forward(query [B, T, Q], memory [B, S, M], keys(memory) [B, S, D], mask [B, S]) -> context [B, T, M] and the
    weights' logarithms [B, T, S], in at least single precision, NEVER where the mask is False. The keys are an
    argument, because a decoder asks the same memory again and again; its beams are queries too. Where a whole mask is
    False there is no weight, and the context is zero.
    """

    def __init__(self, query_dim: int, memory_dim: int, dim: int):
        super().__init__()
        self.W_q, self.W_k = nn.Linear(query_dim, dim), nn.Linear(memory_dim, dim, bias=False)
        self.v = nn.Linear(dim, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        return self.W_k(memory)  # (B, S, D)

    def forward(self, query: Tensor, memory: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.v((self.W_q(query)[:, :, None] + keys[:, None]).tanh_()).squeeze(-1)  # (B, T, S)
        padding = ~mask[:, None]  # (B, 1, S)
        weights = _precise(scores).masked_fill(padding, NEVER).log_softmax(-1).masked_fill(padding, NEVER)
        return weights.exp().to(memory.dtype) @ memory, weights


def candidates(*places: tuple[float, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What can be copied, from several places, as one list: log-weights [..., C] and ids [..., C].

    Each place is its share (a or b, 0 leaves it out), the log-weights of its words [..., C_i] and their ids
    [..., C_i], of length one where they are the same for all, such as a source's ids [B, 1, S]. A word may occur any
    number of times. Padding has the log-weight NEVER or -inf, whatever its id, and a place may be nothing else.
    """
    places = [(_precise(weights) + log(share), ids) for share, weights, ids in places if share]
    weights, ids = (_side_by_side(parts) for parts in zip(*places, strict=True))
    return weights.clamp(min=NEVER), ids


# ---- one word: its probability, and where it comes from ----


def log_likelihood(logits: Tensor, switch: Tensor, weights: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """log P(target) of each word [...], in nats; the distribution over all words is never built.

    logits [..., V] make P_gen, switch [...] is the logit of lambda; weights and ids [..., C] are the `candidates`;
    target [...] has ids from 0 to V - 1, or beyond for words that only candidates have. The result is in at least
    single precision, whatever the logits are in. A target that can be neither generated nor copied has -inf and no
    gradient.
    """
    likelihood = _ways(logits, switch, weights, ids, target).logsumexp(-1)  # (...)
    return likelihood.masked_fill(likelihood < NEVER / 2, -torch.inf)


def origins(logits: Tensor, switch: Tensor, weights: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """Which share of P(target) was generated, and which copied from each candidate [..., 1 + C]; it sums to one.

    Arguments as in `log_likelihood`, for targets that can be made.
    """
    return _ways(logits, switch, weights, ids, target).softmax(-1)


def _ways(logits: Tensor, switch: Tensor, weights: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """The log-probability of each way to the target (..., 1 + C): generate it, copy it from each candidate."""
    switch = _precise(switch)
    generated = F.logsigmoid(switch) + log_softmax_at(logits, target)  # (...)
    copied = weights.masked_fill(ids != target[..., None], NEVER) + F.logsigmoid(-switch)[..., None]  # (..., C)
    return torch.cat([generated[..., None], copied], -1)


def log_softmax_at(logits: Tensor, target: Tensor) -> Tensor:
    """log P_gen(target) [...], of logits [..., V], NEVER where the target is beyond the vocabulary."""
    size = logits.shape[-1]
    picked = _LogSoftmaxAt.apply(logits.reshape(-1, size), target.reshape(-1).clamp(max=size - 1))  # (M,)
    return picked.view(target.shape).masked_fill(target >= size, NEVER)


class _LogSoftmaxAt(torch.autograd.Function):
    """log softmax(logits [M, V])[target [M]]. It keeps nothing of that size but the logits, which were there before,
    and makes nothing but their gradient."""

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        rows = ROWS if logits.device.type == "cpu" else max(1, len(logits))
        portions = zip(logits.split(rows), target[:, None].split(rows), strict=True)
        return torch.cat([_precise(part).log_softmax(1).gather(1, words) for part, words in portions])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        logits, target = ctx.saved_tensors
        column = gradient[:, None]  # (M, 1)
        result = _precise(logits).softmax(1).mul_(-column).scatter_add_(1, target[:, None], column)  # (M, V)
        return result.to(logits.dtype), None


# ---- all words ----


@torch.no_grad()
def log_distribution(logits: Tensor, switch: Tensor, weights: Tensor, ids: Tensor) -> Tensor:
    """log P of every word [N, V + room], for one step of a decoder; -inf for what can be neither made nor copied.

    logits [N, V + room] are -inf for the words beyond the vocabulary, as from an `ExtendedOutput`; switch [N]; weights
    and ids [N, C]. The logits are used up: the result is written over them, because new memory costs a CPU time.
    Logits in half precision are kept, and the result is in single.
    """
    logits, switch = _precise(logits), _precise(switch)[:, None]  # (N, V + room), (N, 1)
    torch.log_softmax(logits, 1, out=logits).add_(F.logsigmoid(switch))  # a row is read before it is written
    copied = _like_for_like(weights, ids) + F.logsigmoid(-switch)  # (N, C)
    total = torch.logaddexp(logits.gather(1, ids), copied)  # (N, C)
    return logits.scatter_(1, ids, total.masked_fill(total < NEVER / 2, -torch.inf))


def _like_for_like(weights: Tensor, ids: Tensor) -> Tensor:
    """The logarithm of each candidate's weight with that of all others of the same word (N, C)."""
    same, peak = ids[:, :, None] == ids[:, None, :], weights.amax(1, keepdim=True)  # (N, C, C), (N, 1)
    shares = (weights - peak).exp()[:, None]  # (N, 1, C)
    return torch.maximum((shares * same).sum(2).log() + peak, weights)  # at least its own, where a share vanished


class ExtendedOutput:
    """An output layer that makes logits for `room` more words, all -inf: called with hidden [N, D] -> [N, V + room].

    It is for decoding, without gradients. It writes each result over the one before, because new memory costs a CPU
    time, and copies the layer's weights: make a new one when the layer has learned.
    """

    @torch.no_grad()
    def __init__(self, output: nn.Linear, room: int):
        self.weight = F.pad(output.weight, (0, 0, 0, room)).T  # (D, V + room)
        self.bias = F.pad(output.bias, (0, room), value=-torch.inf)  # (V + room,)
        self.logits = self.bias.new_empty(0, len(self.bias))

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        if len(hidden) != len(self.logits):
            self.logits = self.bias.new_empty(len(hidden), len(self.bias))
        return torch.addmm(self.bias, hidden.to(self.weight.dtype), self.weight, out=self.logits)


def _side_by_side(parts: tuple[Tensor, ...]) -> Tensor:
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
