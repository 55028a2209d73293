"""Losses that rank a pair's score above those of wrong pairs, over a score matrix: rows images, columns captions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pairwise_ranking_loss(
    scores: Tensor,
    positives: Tensor,
    margin: float,
    negatives: str | int = "all",
    directions: str = "both",
    reduction: str = "mean",
) -> Tensor:
    """Hinges [margin - s(pair) + s(wrong pair)]_+ summed over the negatives of each pair -> scalar.

    scores [B, B], the pairs on the diagonal; positives [B, B] is True where caption j belongs to image i, and such a
    caption is never a negative. negatives: "all" in the batch (Kiros et al. 2014; Gu et al. 2018, L_Rank),
    "hardest" for the greatest violation alone (VSE++, Faghri et al. 2018, eq. 6), or a number of them drawn anew for
    each anchor without replacement, from torch's global generator (fewer where the batch has fewer). directions:
    "both", or "images" for image anchors against wrong captions only (DeViSE, Frome et al. 2013, eq. 1).
    reduction: "mean" over the B pairs, or "sum" as the released VSE code does, B times as much: with SGD that only
    rescales the learning rate, with Adam nothing but gradient clipping notices.
    Raises ValueError for shapes that do not fit or an unknown option.
    """
    _check(scores, positives)
    _check_options(negatives, directions, reduction)
    wrong = ~_with_pairs(positives)  # (B, B)
    loss = _hinges(scores, wrong, margin, negatives)  # (B,)
    if directions == "both":
        loss = loss + _hinges(scores.T, wrong.T, margin, negatives)
    return loss.mean() if reduction == "mean" else loss.sum()


def contrastive_loss(
    scores: Tensor,
    positives: Tensor,
    temperature: float | Tensor,
    row_weight: float = 0.5,
    present: Tensor | None = None,
) -> Tensor:
    """InfoNCE both ways -> scalar: cross-entropy of each pair among its row and among its column, `row_weight` of the
    first and the rest of the second.

    scores [B, B], the pairs on the diagonal; positives [B, B] as in `pairwise_ranking_loss`: an image's other captions
    are left out of the softmax instead of being pushed away. Pairs that are not `present` [B] count for nothing; where
    none is, the loss is zero. van den Oord et al. 2018, eq. 4, in both directions as in CLIP (Radford et al. 2021,
    fig. 3). Raises ValueError for shapes that do not fit.
    """
    _check(scores, positives)
    pairs = torch.arange(len(scores), device=scores.device)  # (B,)
    out = _with_pairs(positives).fill_diagonal_(False)  # (B, B)
    if present is not None:
        out |= ~(present[:, None] & present).fill_diagonal_(True)
    logits = (scores / temperature).masked_fill(out, -torch.inf)  # (B, B)
    ways = [F.cross_entropy(way, pairs, reduction="none") for way in (logits, logits.T)]  # (B,) each
    loss = row_weight * ways[0] + (1 - row_weight) * ways[1]
    return loss.mean() if present is None else (loss * present).sum() / present.sum().clamp(min=1)


def _hinges(scores: Tensor, wrong: Tensor, margin: float, negatives: str | int) -> Tensor:
    """The loss of each row as anchor (B,)."""
    hinges = (margin - scores.diagonal()[:, None] + scores).relu().masked_fill(~wrong, 0)  # (B, B)
    if negatives == "all":
        return hinges.sum(1)
    if negatives == "hardest":
        return hinges.max(1).values
    draws = torch.rand(wrong.shape, device=wrong.device).masked_fill(~wrong, -1)  # wrong ones come first
    return hinges.gather(1, draws.topk(min(negatives, len(draws))).indices).sum(1)


def _with_pairs(positives: Tensor) -> Tensor:
    return positives | torch.eye(len(positives), dtype=torch.bool, device=positives.device)


def _check(scores: Tensor, positives: Tensor) -> None:
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) == 0:
        raise ValueError(f"expected square scores [B, B] with a pair on each diagonal entry, got {[*scores.shape]}")
    if positives.shape != scores.shape or positives.dtype != torch.bool:
        raise ValueError(f"expected positives as bool {[*scores.shape]}, got {positives.dtype} {[*positives.shape]}")


def _check_options(negatives: str | int, directions: str, reduction: str) -> None:
    count = isinstance(negatives, int) and not isinstance(negatives, bool) and negatives > 0
    if not count and negatives not in ("all", "hardest"):
        raise ValueError(f"negatives is 'all', 'hardest' or a positive number, got {negatives!r}")
    if directions not in ("both", "images"):
        raise ValueError(f"directions is 'both' or 'images', got {directions!r}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is 'mean' or 'sum', got {reduction!r}")
