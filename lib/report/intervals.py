"""Intervals: how far a measured value can be trusted, over seeds and over test examples.

Two kinds of question have two kinds of interval. What another run would give on the same test set varies by training
alone: a prediction interval over runs. What is above what on any test examples varies by seeds, each variant's own,
and by the examples, which both sides share.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

LEVEL = 0.05


@dataclass(frozen=True)
class Score:
    """A metric of one variant: its value with each seed [S], and by how much each test unit raises it [S, N], mean
    zero; None where a metric is no function of sums over units."""

    values: np.ndarray
    units: np.ndarray | None = None


def score(sums: np.ndarray, combine: Callable[[np.ndarray], np.ndarray]) -> Score:
    """A metric that `combine` makes of summands added up over test units (pictures, posts, products).

    sums: [S, N, k], k summands of each of N units, with each of S seeds; combine: sums [..., k] -> values [...],
    defined for every sum that can occur. A unit's effect is its jackknife pseudo-value: what the metric loses without
    it, times N - 1 (Efron and Tibshirani 1993, chapter 11).
    """
    sums = np.asarray(sums, float)
    total = sums.sum(-2)  # (S, k)
    without = combine(total[..., None, :] - sums)  # (S, N)
    effects = (sums.shape[-2] - 1) * (without.mean(-1, keepdims=True) - without)  # (S, N)
    return Score(combine(total), effects)


def contrast(weights: Iterable[float], scores: Iterable[Score]) -> Score:
    """A weighted sum of one variant's scores, over the same seeds and units: a loss from clean to degraded, say."""
    pairs = list(zip(weights, scores, strict=True))
    values = sum(weight * part.values for weight, part in pairs)
    summable = all(part.units is not None for _, part in pairs)
    return Score(values, sum(weight * part.units for weight, part in pairs) if summable else None)


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error and their degrees of freedom; `seeds` of the side that has fewer, and whether test
    units are in the error as well as seeds."""

    value: float
    error: float
    df: float
    seeds: int
    over_units: bool

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The two-sided t interval that misses the truth in a share `level` of all cases."""
        reach = student.isf(level / 2, self.df) * self.error
        return self.value - reach, self.value + reach

    def p(self, null: float = 0.0) -> float:
        """How often a value as far from `null`, or farther, would come by chance; two-sided."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(self.value - null) / self.error
        return np.where(self.value == null, 1.0, 2 * student.sf(t, self.df))


def predicted(values: np.ndarray, runs: int = 1) -> Estimate:
    """What the mean of `runs` other runs of the same training will be, by our runs' values [n] on the same test set:
    a prediction interval, mean ± t(n - 1) s sqrt(1/n + 1/runs)."""
    values = np.asarray(values, float)
    count = values.shape[-1]
    spread = values.std(-1, ddof=1) if count > 1 else np.nan
    return Estimate(values.mean(-1), spread * np.sqrt(1 / count + 1 / runs), count - 1, count, over_units=False)


def difference(above: Score, below: Score | float = 0.0) -> Estimate:
    """How far a variant is above another, or above a number, with the error of both seeds and test units.

    Seeds are each variant's own, units are shared. A seed's mean over units holds the noise of that seed on each unit,
    and so does a unit's mean over seeds: it is taken out of the latter, that it may not count twice. Where one side is
    no function of sums the error is that of seeds. Raises ValueError for sides of different units.
    """
    sides = [side for side in (above, below) if isinstance(side, Score)]
    value = above.values.mean(-1) - (below.values.mean(-1) if isinstance(below, Score) else below)
    counts = np.array([side.values.shape[-1] for side in sides])
    over_units = all(side.units is not None for side in sides)
    if counts.min() < 2:
        return Estimate(value, np.nan, np.nan, counts.min(), over_units)
    seeds = [side.values.var(-1, ddof=1) / count for side, count in zip(sides, counts, strict=True)]
    examples, units = _example_variance(sides) if over_units else (0.0, np.inf)
    return Estimate(value, *standard_error(seeds, counts, examples, units), counts.min(), over_units)


def _example_variance(sides: Sequence[Score]) -> tuple[np.ndarray, int]:
    """Variance of the (paired) value over test units, without the noise of single seeds on them; how many units."""
    widths = {side.units.shape[-1] for side in sides}
    if len(widths) > 1:
        raise ValueError(f"the sides have {' and '.join(map(str, widths))} test units, expected the same ones")
    count = widths.pop()
    means = [side.units.mean(-2) for side in sides]  # (N,) each
    paired = means[0] - means[1] if len(sides) == 2 else means[0]
    noise = sum(_seed_noise(side.units, mean) for side, mean in zip(sides, means, strict=True))
    return np.maximum(0, (paired.var(-1, ddof=1) - noise) / count), count


def _seed_noise(units: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Variance of a unit's mean over seeds that comes of the seeds: the interaction of a two-way table [S, N]."""
    seeds, count = units.shape[-2:]
    rest = units - mean[..., None, :]  # rows have mean zero already
    return (rest**2).sum((-1, -2)) / ((seeds - 1) * (count - 1) * seeds)


def standard_error(
    seeds: Sequence[np.ndarray], counts: Sequence[int], examples: np.ndarray, units: int
) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of a value with the variances `seeds` of its sides' means, over `counts`
    seeds, and `examples` over test units.

    The degrees of freedom of seeds are Welch's. Both parts together have those of each part weighted harmonically by
    its share in the variance: Satterthwaite takes the squared share, and with three seeds says too often that one of
    two variants is better if only one of them varies (4 instead of 2.5 %).
    """
    varies = sum(seeds)
    variance = varies + examples
    with np.errstate(divide="ignore", invalid="ignore"):
        welch = varies**2 / sum(part**2 / (count - 1) for part, count in zip(seeds, counts, strict=True))
        share = varies / variance
    welch = np.where(varies > 0, welch, min(counts) - 1)
    share = np.where(variance > 0, share, 1.0)
    return np.sqrt(variance), 1 / (share / welch + (1 - share) / (units - 1))


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values of one family, adjusted so that all verdicts together err at most as often as one (Holm 1979)."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def holm_levels(p: Sequence[float]) -> np.ndarray:
    """The level at which each of a family's hypotheses was tested, or the procedure stopped: an interval at that
    level leaves the null out exactly if Holm rejects it."""
    rejected = (holm(p) <= LEVEL).sum()
    rank = np.argsort(np.argsort(p))
    return LEVEL / (len(p) - np.minimum(rank, min(rejected, len(p) - 1)))
