"""What the papers claim, and whether the numbers measured here bear it out."""

from functools import cache

import numpy as np
import pandas as pd
import yaml

from lib.setup import ROOT

SEEDS_NEEDED = 3


@cache
def _claims() -> dict:
    return yaml.safe_load((ROOT / "lib/report/claims.yaml").read_text(encoding="utf-8"))


def published(paper: str, dataset: str) -> pd.DataFrame:
    """The paper's rows on a data set: one row a claim, with `row`, `variant`, `source`, `sure` and the metrics.

    Empty where the paper says nothing of the data set, as on IconWorld.
    """
    return pd.DataFrame(_claims().get(paper, {}).get(dataset, []))


def comparisons(paper: str) -> list[dict]:
    """Which variant the paper says is better than which: `claim`, `above`, `below`, `metrics`, `source`."""
    return _claims().get(paper, {}).get("comparisons", [])


def bootstrap(summands: np.ndarray, seed: int = 0, draws: int = 2000) -> np.ndarray:
    """A ratio of sums in percent, over resampled examples [draws]: summands [S, U, 2] of S seeds, the same U examples.

    Each draw is the mean over seeds of sum(first) / sum(second). Two calls with as many examples resample the same
    ones, so the difference of their draws is paired.
    """
    count = summands.shape[1]
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)  # (draws, U)
    sums = np.einsum("du,suk->dsk", times, summands, optimize=True)  # (draws, S, 2)
    return 100 * (sums[..., 0] / np.maximum(sums[..., 1], 1e-9)).mean(1)  # nothing over nothing is nothing


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws."""
    return tuple(np.percentile(draws, [2.5, 97.5]))


def verdict(value: float, ours: tuple[float, float], seeds: int) -> str:
    """How a published `value` stands beside ours: inside our interval it is "reproduced"; "above" and
    "not reproduced" where all of our interval is above or below it; "inconclusive" under three seeds."""
    low, high = ours
    if seeds < SEEDS_NEEDED:
        return "inconclusive"
    return "above" if low > value else "not reproduced" if high < value else "reproduced"


def comparison_verdict(difference: tuple[float, float], seeds: int) -> str:
    """Of "A above B": "reproduced" where the difference's interval is above zero, "not reproduced" where below."""
    low, high = difference
    if seeds < SEEDS_NEEDED or low <= 0 <= high:
        return "inconclusive"
    return "reproduced" if low > 0 else "not reproduced"
