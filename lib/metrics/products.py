"""K3M's three tasks: rank of the right answer, F1 of the alignment decision, accuracy; as scores and as sums.

Each `…_sums` gives, by the metric's name, the two summands of every example [N, 2]; `combine` makes the score of any
added-up rows. So a bootstrap adds up drawn examples, a breakdown chosen ones, and a mixture those of several passes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib.metrics.retrieval import TIE

KS = (1, 5, 10)


def combine(sums: np.ndarray) -> np.ndarray:
    """Of sums [..., 2] the first in per cent of the second; 0 where there is nothing to divide by."""
    sums = np.asarray(sums, float)
    return 100 * np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] > 0)


def rank_at(scores: Tensor, answer: Tensor, ks: Sequence[int] = KS) -> dict[str, float]:
    """{"Rank@k": per cent of questions whose right answer is among the first k, "MRR": mean reciprocal rank in per
    cent} (Zhu et al. 2021, Table 2).

    scores [Q, P]: of each question's candidates, the higher the likelier, -inf for none; answer [Q]: which is right.
    A wrong candidate with an equal score ranks first, so a collapsed model gets the worst ranks.
    Raises ValueError for shapes that do not fit, an answer that is no candidate, a k below one, a NaN score.
    """
    return _scores(rank_sums(scores, answer, ks))


def rank_sums(scores: Tensor, answer: Tensor, ks: Sequence[int] = KS) -> dict[str, np.ndarray]:
    """The summands of `rank_at`, each [Q, 2]; arguments and errors are the same."""
    if any(k < 1 for k in ks):
        raise ValueError(f"each k is at least 1, got {[*ks]}")
    rank = ranks(scores, answer).numpy()  # (Q,)
    found = {f"Rank@{k}": rank < k for k in ks}
    return {name: _with_ones(values) for name, values in (found | {"MRR": 1 / (rank + 1)}).items()}


def ranks(scores: Tensor, answer: Tensor) -> Tensor:
    """The rank of each right answer [Q], from 0, ties against the model; arguments and errors as in `rank_at`."""
    scores, answer = torch.as_tensor(scores), torch.as_tensor(answer)
    if scores.ndim != 2 or answer.shape != scores.shape[:1] or answer.is_floating_point():
        raise ValueError(f"expected scores [Q, P] and answer [Q] of integers, got {[*scores.shape]}, {[*answer.shape]}")
    answer = answer.to(scores.device, torch.long)
    if len(answer) and not (0 <= answer.min() and answer.max() < scores.shape[1]):
        raise ValueError(f"an answer is from 0 to {scores.shape[1] - 1}, got {answer.min()} to {answer.max()}")
    _refuse_nan(scores)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    own = scores.gather(1, answer[:, None])  # (Q, 1)
    return ((scores >= own * (1 - TIE * own.sign())).sum(1) - 1).cpu()


def alignment(scores: Tensor, same: Tensor, threshold: float) -> dict[str, float]:
    """{"precision", "recall", "F1"} in per cent of calling a pair the same product where its score [M] is at least
    `threshold`; same [M] says which are (Zhu et al. 2021, Fig. 4). Choose the threshold on dev, see `best_threshold`.

    Where there is nothing to divide by, a score is 0. Raises ValueError for shapes that do not fit or a NaN score.
    """
    return _scores(alignment_sums(scores, same, threshold))


def alignment_sums(scores: Tensor, same: Tensor, threshold: float) -> dict[str, np.ndarray]:
    """The summands of `alignment`, each [M, 2]; arguments and errors are the same."""
    scores, same = _pairs(scores, same)
    said = (scores >= threshold).astype(int)
    right = said * same
    sums = {"precision": (right, said), "recall": (right, same), "F1": (2 * right, said + same)}
    return {name: np.stack(columns, axis=1) for name, columns in sums.items()}


def best_threshold(scores: Tensor, same: Tensor) -> float:
    """The threshold of the highest F1 on these pairs, half way between two scores; of equally good ones the highest.

    scores [M], same [M] as in `alignment`. Raises ValueError as it does, and where no pair is the same product.
    """
    scores, same = _pairs(scores, same)
    if not same.any():
        raise ValueError(f"none of {len(same)} pairs is of the same product, so no threshold is better than another")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    right, said = same[order].cumsum(), np.arange(1, len(same) + 1)
    f1 = 2 * right / (said + same.sum())
    ends = np.append(ranked[:-1] > ranked[1:], True)  # pairs with equal scores are called alike
    last = np.argmax(np.where(ends, f1, -1))
    return float(ranked[last] if last + 1 == len(ranked) else _between(ranked[last + 1], ranked[last]))


def _between(low: float, high: float) -> float:
    """Above `low` and at most `high`, half way where numbers allow."""
    middle = low / 2 + high / 2
    return middle if low < middle <= high else high


def accuracy(predicted: Tensor, gold: Tensor) -> float:
    """Per cent of items [N] whose predicted class is the gold one (Zhu et al. 2021, Fig. 3).

    Raises ValueError for shapes that do not fit.
    """
    return float(combine(accuracy_sums(predicted, gold)["accuracy"].sum(0)))


def accuracy_sums(predicted: Tensor, gold: Tensor) -> dict[str, np.ndarray]:
    """The summands of `accuracy` [N, 2]; arguments and errors are the same."""
    predicted, gold = (torch.as_tensor(classes).cpu().numpy() for classes in (predicted, gold))
    if predicted.ndim != 1 or predicted.shape != gold.shape:
        raise ValueError(f"expected predicted [N] and gold [N], got {[*predicted.shape]} and {[*gold.shape]}")
    return {"accuracy": _with_ones(predicted == gold)}


def _scores(sums: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(combine(rows.sum(0))) for name, rows in sums.items()}


def _with_ones(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1)


def _pairs(scores: Tensor, same: Tensor) -> tuple[np.ndarray, np.ndarray]:
    scores, same = torch.as_tensor(scores), torch.as_tensor(same)
    if scores.ndim != 1 or same.shape != scores.shape:
        raise ValueError(f"expected scores [M] and same [M], got {[*scores.shape]} and {[*same.shape]}")
    _refuse_nan(scores)
    return scores.double().cpu().numpy(), same.bool().long().cpu().numpy()


def _refuse_nan(scores: Tensor) -> None:
    bad = scores.isnan()
    if bad.any():
        raise ValueError(f"{bad.sum()} of {bad.numel()} scores are NaN, the first at {bad.nonzero()[0].tolist()}")
