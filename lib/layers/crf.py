"""A linear-chain conditional random field: how probable a sequence of tags is, and which sequence is most probable."""

from itertools import pairwise
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lib.precision import one_thread

NEVER = -1e30  # the score of what cannot be; finite, because the difference of two infinities is NaN
TINY = 1e-200  # a sum of weights above this has lost nothing that counts to underflow, which begins at 1e-308
RESCALE = 8  # tokens from one rescaling of the weights to the next


class LinearChainCRF(nn.Module):
    """p(y | x) = exp(s(x, y)) / sum over y' of exp(s(x, y')), where s(x, y) adds up the scores of the tags at their
    tokens (the emissions) and of the steps from tag to tag (Lafferty et al. 2001; Lample et al. 2016, section 2.2).

    Parameters: transitions [K, K] (from, to), start [K], end [K]. As in Lample et al. an extra tag, K, stands before
    the first token and after the last, which makes start and end steps like all others, and padding more of that tag.
    `forbidden`, bool [K, K] (from, to), and `forbidden_start`, bool [K], name the steps, such as O -> I-PER, that
    carry no probability and are never decoded.

    emissions are [B, T, K], tags [B, T] from 0 to K - 1, and mask [B, T] is True for the tokens of a row, at least
    one, and False for the padding after them, where emissions and tags may be anything, even NaN. The likelihood is
    computed in double precision, under autocast too, the best tags in that of the emissions, at least single.
    Raises ValueError for other input (masks and tags are looked at on the CPU only), and for `forbidden` that leaves no
    sequence.
    """

    def __init__(self, num_tags: int, forbidden: Tensor | None = None, forbidden_start: Tensor | None = None):
        super().__init__()
        self.num_tags = num_tags
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags).uniform_(-0.1, 0.1))
        self.start = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        forbidden = _checked_ban("forbidden", forbidden, num_tags, num_tags)
        forbidden_start = _checked_ban("forbidden_start", forbidden_start, num_tags)
        _require_sequence(forbidden, forbidden_start)
        self.register_buffer("forbidden", F.pad(forbidden, (0, 1, 0, 1)), persistent=False)  # (K + 1, K + 1)
        self.register_buffer("forbidden_start", forbidden_start[:, None], persistent=False)  # (K, 1)

    @one_thread()
    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """log p(tags | emissions) of each row [B], in nats (Lample et al. 2016, eq. 1).

        Tags that take a forbidden step have -inf, and their row no gradient; a mean over the batch is then -inf too,
        one over `likelihood[likelihood.isfinite()]` leaves such rows out.
        """
        self._check_shapes(emissions, mask)
        if mask.device.type == "cpu":  # elsewhere the answer would have to be waited for
            _check_mask(mask)
            _check_tags(tags, mask, self.num_tags)
        path = F.pad(tags.masked_fill(~mask, self.num_tags).T, (0, 0, 1, 1), value=self.num_tags)  # (T + 2, B)
        likelihood = _log_likelihood(emissions, self._steps(), path, self._never(mask))
        likelihood = likelihood.masked_fill(likelihood < NEVER / 2, -torch.inf)
        return likelihood.to(_at_least_single(emissions))

    @torch.inference_mode()
    @one_thread()
    def decode(self, emissions: Tensor, mask: Tensor) -> list[list[int]]:
        """The most probable tags of each row, one a token (Viterbi; Lample et al. 2016, eq. 2).

        The best scores are found on the device and move to the host in one piece, where the paths are traced back.
        """
        self._check_shapes(emissions, mask)
        steps, scores = self._steps(), emissions.permute(1, 2, 0)  # (K + 1, K + 1), (T, K, B)
        best = scores.new_empty(scores.shape, dtype=_at_least_single(emissions)).copy_(scores)
        best[0].add_(steps[-1, :-1, None]).masked_fill_(self.forbidden_start, NEVER)
        _keep_best(best, steps[:-1, :-1].T.to(best.dtype))
        best, into, inside = _to_host(best.transpose(1, 2), steps[:-1].T.to(best.dtype), mask.T)
        _check_mask(inside.T > 0)
        paths = _trace_back(best, into, inside > 0).tolist()
        return [path[:length] for path, length in zip(paths, inside.sum(0, dtype=int).tolist(), strict=True)]

    def _never(self, mask: Tensor) -> Tensor:
        """True where a tag cannot stand (T + 1, K + 1, B): tag K at a token, the others at padding, one longer here."""
        inside = F.pad(mask.T, (0, 0, 0, 1))[:, None]  # (T + 1, 1, B)
        never = torch.cat([(~inside).expand(-1, self.num_tags, -1), inside], 1)
        never[0, :-1] |= self.forbidden_start
        return never

    def _steps(self) -> Tensor:
        """The score of each step, from tag K and to it too: (K + 1, K + 1)."""
        rows = torch.cat([self.transitions, self.start[None]])  # (K + 1, K)
        steps = torch.cat([rows, F.pad(self.end, (0, 1))[:, None]], 1)  # (K + 1, K + 1)
        return steps.double().masked_fill(self.forbidden, NEVER)

    def _check_shapes(self, emissions: Tensor, mask: Tensor) -> None:
        if emissions.ndim != 3 or emissions.shape[2] != self.num_tags or emissions.numel() == 0:
            raise ValueError(f"expected emissions [B, T, {self.num_tags}], got {[*emissions.shape]}")
        if mask.shape != emissions.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(f"expected mask as bool {[*emissions.shape[:2]]}, got {mask.dtype} {[*mask.shape]}")


# ---- the sum over all sequences; C = K + 1 tags, path is (T + 2, B), never (T + 1, C, B) ----


def _log_likelihood(emissions: Tensor, steps: Tensor, path: Tensor, never: Tensor) -> Tensor:
    """s(x, y) - log Z of each row (B,): the fast way, unless a weight became zero in it or too small for a double."""
    likelihood, least = _Scaled.apply(emissions, steps, path, never)
    return likelihood if least > TINY else _in_logarithms(emissions, steps, path, never)


def _in_logarithms(emissions: Tensor, steps: Tensor, path: Tensor, never: Tensor) -> Tensor:
    """The plain forward recursion, for scores however far apart."""
    lattice = _lattice(emissions, never)
    state = steps[-1, :, None] + lattice[0]  # (C, B)
    for scores in lattice[1:]:
        state = torch.logsumexp(state[:, None] + steps[..., None], 0) + scores
    return _score(lattice, steps, path) - state[-1]


def _lattice(emissions: Tensor, never: Tensor) -> Tensor:
    """The score of each tag at each token (T + 1, C, B); rows innermost make long inner loops."""
    return F.pad(emissions.permute(1, 2, 0), (0, 0, 0, 1, 0, 1)).double().masked_fill(never, NEVER)


def _score(lattice: Tensor, steps: Tensor, path: Tensor) -> Tensor:
    """s(x, y) of each row (B,)."""
    return lattice.gather(1, path[1:, None]).sum((0, 1)) + steps[path[:-1], path[1:]].sum(0)


class _Scaled(torch.autograd.Function):
    """`_in_logarithms` with weights instead of their logarithms, and the least of the sums of weights it formed.

    The gradient is how often each tag and step was observed, less how often it was to be expected, which the backward
    recursion counts (Lafferty et al. 2001, section 4).
    """

    @staticmethod
    def forward(ctx, emissions: Tensor, steps: Tensor, path: Tensor, never: Tensor) -> tuple[Tensor, Tensor]:
        lattice = _lattice(emissions, never)
        peak, top = lattice.amax(1, keepdim=True), steps.amax()  # (T + 1, 1, B), ()
        weights, into = _exp(lattice - peak), _exp(steps.T - top)  # (T + 1, C, B), (to, from)
        states, sums, scale = _forward_recursion(weights, into)
        log_z = states[-1, -1].log() + (scale.log() + peak).sum((0, 1)) + len(lattice) * top  # (B,)
        least = sums.amin()
        ctx.save_for_backward(states, weights.div_(scale), into, path)
        ctx.mark_non_differentiable(least)
        ctx.dtype = emissions.dtype
        return _score(lattice, steps, path) - log_z, least

    @staticmethod
    @once_differentiable
    @one_thread()
    def backward(ctx, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states, weights, into, path = ctx.saved_tensors
        ahead = _backward_recursion(-gradient / states[-1, -1], weights, into)
        steps = torch.bmm(states[:-1], weights.mul(ahead).transpose(1, 2)).sum(0).mul_(into.T)  # (from, to)
        tags = ahead.mul_(states[1:])  # (T + 1, C, B)
        observed = gradient.expand(len(tags), -1)  # (T + 1, B)
        steps.index_put_((path[:-1], path[1:]), observed, accumulate=True)
        tags.scatter_add_(1, path[1:, None], observed[:, None])
        return tags[:-1, :-1].permute(2, 0, 1).to(ctx.dtype), steps, None, None


def _forward_recursion(weights: Tensor, into: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha[t] = weights[t] * (into @ alpha[t - 1]) / scale[t], with alpha[-1] first: (T + 2, C, B).

    Also the sums in brackets (T + 1, C, B), and scale (T + 1, 1, B), which is 1 where alpha was left as it was.
    """
    states = weights.new_zeros(len(weights) + 1, *weights.shape[1:])
    states[0, -1] = 1
    sums, scale = torch.empty_like(weights), torch.ones_like(weights[:, :1])
    rows = zip(pairwise(states.unbind()), sums.unbind(), weights.unbind(), strict=True)
    for t, ((before, here), reached, weight) in enumerate(rows):
        torch.mul(torch.mm(into, before, out=reached), weight, out=here)
        if t % RESCALE == 0:
            here.div_(torch.sum(here, 0, keepdim=True, out=scale[t]))
    return states, sums, scale


def _backward_recursion(last: Tensor, weights: Tensor, into: Tensor) -> Tensor:
    """beta[t - 1] = into.T @ (weights[t] * beta[t]), from beta[T] = last (T + 1, C, B)."""
    ahead, product, back = torch.empty_like(weights), torch.empty_like(weights[0]), into.T
    ahead[-1] = last
    rows = list(zip(ahead.unbind(), weights.unbind(), strict=True))
    for (here, weight), (before, _) in pairwise(reversed(rows)):
        torch.mm(back, torch.mul(weight, here, out=product), out=before)
    return ahead


def _at_least_single(emissions: Tensor) -> torch.dtype:
    return torch.promote_types(emissions.dtype, torch.float32)


def _exp(x: Tensor) -> Tensor:
    """exp(x) as a power of two: MKL's exp is ten times as slow where the result vanishes."""
    return (x / log(2)).exp2_()


# ---- the best sequence ----


def _keep_best(scores: Tensor, into: Tensor) -> None:
    """Turns the score of each tag at each token (T, K, B) into that of the best path that ends there, in place."""
    into, highest = into[..., None], torch.empty_like(scores[0])  # (to, from, 1), (K, B)
    paths = scores.new_empty(*into.shape[:2], scores.shape[2])  # (to, from, B)
    for before, here in pairwise(scores.unbind()):
        here.add_(torch.amax(torch.add(into, before, out=paths), 1, out=highest))


def _trace_back(best: np.ndarray, into: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The best path of each row (B, T + 1), from the scores of the best paths to each tag (T, B, K); K in padding."""
    path = np.full((len(inside) + 1, inside.shape[1]), best.shape[2])
    for t in reversed(range(len(inside))):
        np.copyto(path[t], (into.take(path[t + 1], 0) + best[t]).argmax(1), where=inside[t])
    return path.T


def _to_host(*tensors: Tensor) -> list[np.ndarray]:
    """The tensors on the host, of one type: moved together, they wait for the device only once."""
    together = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    parts = together.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).numpy() for part, tensor in zip(parts, tensors, strict=True)]


# ---- what comes in ----


def _checked_ban(name: str, ban: Tensor | None, *shape: int) -> Tensor:
    ban = torch.zeros(shape, dtype=torch.bool) if ban is None else ban
    if ban.shape != shape or ban.dtype != torch.bool:
        raise ValueError(f"expected {name} as bool {[*shape]}, got {ban.dtype} {[*ban.shape]}")
    return ban


def _require_sequence(forbidden: Tensor, forbidden_start: Tensor) -> None:
    """A sequence longer than K meets some tag twice, so where there is one, there are some of every length."""
    reached = ~forbidden_start  # (K,)
    for _ in range(len(forbidden)):
        reached = (reached[:, None] & ~forbidden).any(0)
    if not reached.any():
        raise ValueError(f"forbidden and forbidden_start allow no sequence of {len(forbidden) + 1} tags")


def _check_mask(mask: Tensor | np.ndarray) -> None:
    wrong = ~mask[:, 0] | (mask[:, 1:] > mask[:, :-1]).any(1)  # (B,)
    if wrong.any():
        row = wrong.tolist().index(True)
        raise ValueError(f"row {row} of mask is not True, once or more, and then only False")


def _check_tags(tags: Tensor, mask: Tensor, num_tags: int) -> None:
    if tags.shape != mask.shape or tags.dtype != torch.long:
        raise ValueError(f"expected tags as int64 {[*mask.shape]}, got {tags.dtype} {[*tags.shape]}")
    wrong = mask & ((tags < 0) | (tags >= num_tags))  # (B, T)
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        raise ValueError(f"tags[{row}, {token}] is {tags[row, token].item()}, expected 0 to {num_tags - 1}")
