"""What the papers claim, and whether the numbers measured here bear it out."""

from functools import cache

import numpy as np
import pandas as pd
import yaml

from lib.setup import ROOT

SEEDS_NEEDED = 3


@cache
def _claims() -> dict:
    return yaml.safe_load((ROOT / "lib/claims.yaml").read_text(encoding="utf-8"))


def published(paper: str, dataset: str) -> pd.DataFrame:
    """The paper's rows on a data set: one row a claim, with `row`, `variant`, `source`, `sure` and the metrics.

    Empty where the paper says nothing of the data set, as on IconWorld.
    """
    return pd.DataFrame(_claims().get(paper, {}).get(dataset, []))


def comparisons(paper: str) -> list[dict]:
    """Which variant the paper says is better than which: `claim`, `above`, `below`, `metrics`, `source`."""
    return _claims().get(paper, {}).get("comparisons", [])


def bootstrap_interval(hits: np.ndarray, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """The 95 % interval of a share in percent, over resampled queries: hits [S, Q] of S seeds on the same queries.

    A difference of two models' hits gives the interval of the difference, paired by query.
    """
    per_query = 100 * np.asarray(hits, float).mean(0)
    random = np.random.default_rng(seed)
    means = per_query[random.integers(0, len(per_query), (draws, len(per_query)))].mean(1)
    return tuple(np.percentile(means, [2.5, 97.5]))


def verdict(value: float, interval: tuple[float, float], seeds: int) -> str:
    """How a published `value` stands beside ours: inside our interval it is "reproduced"; "above" and
    "not reproduced" where all of our interval is above or below it; "inconclusive" under three seeds."""
    low, high = interval
    if seeds < SEEDS_NEEDED:
        return "inconclusive"
    return "above" if low > value else "not reproduced" if high < value else "reproduced"


def comparison_verdict(interval: tuple[float, float], seeds: int) -> str:
    """Of "A above B": "reproduced" where the difference's interval is above zero, "not reproduced" where below."""
    low, high = interval
    if seeds < SEEDS_NEEDED or low <= 0 <= high:
        return "inconclusive"
    return "reproduced" if low > 0 else "not reproduced"
