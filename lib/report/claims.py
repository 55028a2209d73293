"""What the papers claim and what is said of it: verdicts on numbers and comparisons, which know no paper and no run."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lib.report.intervals import LEVEL, Estimate, Score, contrast, difference, holm, holm_levels, predicted

FEW_SEEDS = 3  # the least for a verdict where the claims file does not ask for more
Metric = str | Mapping[str, float]  # a name, or a contrast: names and their weights


# ---- the claims file ----


@cache
def _claims() -> dict:
    return yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))


def published(paper: str, corpus: str) -> pd.DataFrame:
    """The paper's rows on a corpus: `row`, `variant`, `source`, `sure`, `setting`, `runs` and the metrics.

    Empty where the paper says nothing of the corpus, as on IconWorld.
    """
    return pd.DataFrame(_published(paper, corpus))


def _published(paper: str, corpus: str) -> list[dict]:
    return _claims().get(paper, {}).get("published", {}).get(corpus, [])


def comparisons(paper: str, corpus: str | None = None) -> list[dict]:
    """Which variant should be above which (`claim`, `above`, `below` or `at_least`, `metrics`, `source`), of the
    claims that are about this corpus, or of all."""
    claims = _claims().get(paper, {}).get("comparisons", [])
    return [claim for claim in claims if corpus is None or corpus in claim.get("corpora", [corpus])]


def margin(paper: str, metric: Metric) -> float:
    """The difference in a metric that is taken for none, fixed before any run; of a contrast the widest of its terms.

    Raises ValueError for a metric without one.
    """
    margins = _claims().get(paper, {}).get("margins", {})
    return max(_first_match(margins, name, paper) for name in terms(metric))


def _first_match(margins: Mapping[str, float], name: str, paper: str) -> float:
    for pattern, width in margins.items():
        if fnmatchcase(name, pattern):
            return width
    raise ValueError(f"metric {name!r} has no margin among those of {paper!r} in claims.yaml, expected one")


def tested(paper: str, corpus: str) -> dict[str, int]:
    """How many units the corpus's test split has in the papers, as a setting; empty where that is not known."""
    known = _claims().get(paper, {}).get("tested", {})
    return {"test examples": known[corpus]} if corpus in known else {}


def seeds_needed(paper: str, corpus: str) -> int:
    """How many seeds a row needs before anything is said of it."""
    return _claims().get(paper, {}).get("seeds", {}).get(corpus, FEW_SEEDS)


def terms(metric: Metric) -> dict[str, float]:
    """The names of a metric or contrast, with their weights."""
    return {metric: 1.0} if isinstance(metric, str) else dict(metric)


def named(metric: Metric) -> str:
    """A metric or contrast as a page writes it: "accuracy/TMR100 - accuracy"."""
    if isinstance(metric, str):
        return metric
    return " ".join(f"{'-' if w < 0 else '+'} {_times(abs(w))}{name}" for name, w in metric.items()).removeprefix("+ ")


def _times(weight: float) -> str:
    return "" if weight == 1 else f"{weight:g} "


# ---- verdicts ----


@dataclass(frozen=True)
class Verdict:
    """What is said of a claim: the bare `word`, the `text` with all that qualifies it, and the numbers behind it."""

    word: str
    text: str
    value: float
    low: float
    high: float
    p: float = np.nan
    adjusted: float = np.nan


def number_word(ours: Estimate, value: float, margin: float, within: float = 0.0) -> np.ndarray:
    """Whether our runs' prediction is "higher" or "lower" than a published `value`, known up to ± `within`.

    "agrees" asks for both: the value lies in the interval, and differs from our mean by no more than the margin. All
    else is "not told apart".
    """
    low, high = ours.interval()
    inside = (low <= value + within) & (value - within <= high)
    near = np.abs(ours.value - value) <= margin
    cases = [inside & near, low > value + within, high < value - within]
    return np.select(cases, ["agrees", "higher", "lower"], "not told apart")


def number_verdict(
    values: Sequence[float],
    value: float,
    margin: float,
    runs: int = 1,
    within: float = 0.0,
    differs: Mapping | None = None,
    needed: int = FEW_SEEDS,
) -> Verdict:
    """Our runs' values [n] beside a published one, the mean of `runs`; `differs` is what `differing` found."""
    ours = predicted(values, runs)
    if ours.seeds < needed:
        return _none(ours, needed)
    word = str(number_word(ours, value, margin, within))
    return Verdict(word, f"{word}, in another setting" if differs else word, ours.value, *ours.interval())


def differing(claimed: Mapping, ours: Mapping) -> dict[str, tuple]:
    """The settings of a published row that are others here, as {name: (claimed, ours)}; what is not known is other."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in ours.items()}
    return {name: (value, plain.get(name)) for name, value in claimed.items() if plain.get(name) != value}


def told(differs: Mapping[str, tuple]) -> str:
    """What differs, on one line: "epochs 12 (published 15)"."""
    return "; ".join(f"{name} {ours} (published {claimed})" for name, (claimed, ours) in differs.items())


def printed_within(value: float) -> float:
    """Half of the last place of a number as it is written: 18.0 is known up to 0.05, a median of 8 up to 0.5."""
    decimals = len(str(value).partition(".")[2])
    return 0.5 * 10**-decimals


@dataclass(frozen=True)
class Comparison:
    """A claim that a difference is above `null`: above zero, by so much, or, where nothing is to be lost, above minus
    the margin. `word` is what is said if it is."""

    estimate: Estimate
    null: float = 0.0
    word: str = "holds"
    needed: int = FEW_SEEDS


def comparison_verdicts(asked: Sequence[Comparison], corpus: str = "") -> list[Verdict]:
    """Verdicts on all comparisons of one paper and corpus, one family for Holm's correction; the intervals are at the
    level at which each was tested, so that a null outside of one is a verdict."""
    verdicts = [_none(one.estimate, one.needed) for one in asked]
    family = [i for i, one in enumerate(asked) if one.estimate.seeds >= max(2, one.needed)]
    p = np.array([asked[i].estimate.p(asked[i].null) for i in family])
    for i, *numbers in zip(family, p, holm(p), holm_levels(p), strict=True):
        verdicts[i] = _judged(asked[i], *numbers, corpus)
    return verdicts


def comparison_word(value: float, null: float, adjusted: float, word: str = "holds") -> np.ndarray:
    """`word` or "does not hold", where the adjusted p-value tells a difference from its null; else "not told apart"."""
    told_apart = np.asarray(adjusted) <= LEVEL
    cases = [told_apart & (value > null), told_apart & (value < null)]
    return np.select(cases, [word, "does not hold"], "not told apart")


def _judged(one: Comparison, p: float, adjusted: float, level: float, corpus: str) -> Verdict:
    word = str(comparison_word(one.estimate.value, one.null, adjusted, one.word))
    notes = [word + (" on IconWorld" if corpus.startswith("iconworld") else "")]
    if not one.estimate.over_units:
        notes.append("over seeds only, the metric is no sum over examples")
    return Verdict(word, "; ".join(notes), one.estimate.value, *one.estimate.interval(level), p, adjusted)


def _none(ours: Estimate, needed: int) -> Verdict:
    text = f"no verdict: {ours.seeds} of {max(2, needed)} seeds"
    return Verdict("no verdict", text, ours.value, *ours.interval())


# ---- all claims of a paper ----


# Of a published row; the rest are metrics.
ABOUT = ("row", "variant", "source", "sure", "setting", "runs", "within", "matters")


def judge_numbers(
    paper: str, corpus: str, values: Callable[[str, str], np.ndarray], settings: Callable[[str], Mapping]
) -> pd.DataFrame:
    """All numbers published on a corpus beside ours, a row each, for the variants that were run.

    values(variant, metric) -> [S], one a seed, empty where it was not run; settings(variant) -> its settings by name.
    """
    rows = []
    for claim in _published(paper, corpus):
        for metric in [name for name in claim if name not in ABOUT]:
            ours = np.asarray(values(claim["variant"], metric))
            if len(ours):
                rows.append(_number_row(paper, corpus, claim, metric, ours, settings(claim["variant"])))
    return pd.DataFrame(rows)


def _number_row(paper: str, corpus: str, claim: dict, metric: str, ours: np.ndarray, settings: Mapping) -> dict:
    own = _claims()[paper].get("setting", {}) | tested(paper, corpus)
    differs = differing(own | claim["setting"], settings)
    known = dict(runs=claim.get("runs", 1), within=claim.get("within", printed_within(claim[metric])))
    options = dict(differs=differs, needed=seeds_needed(paper, corpus), **known)
    verdict = number_verdict(ours, claim[metric], margin(paper, metric), **options)
    about = {name: claim[name] for name in ("row", "variant", "source", "sure")}
    about |= dict(matters=metric in claim.get("matters", []), digits=digits(margin(paper, metric)))
    return dict(**about, metric=metric, published=claim[metric], **vars(verdict), differs=told(differs))


def judge_comparisons(
    paper: str, corpus: str, scored: Callable[[str, str], Score | None], shared_parent: Callable[[str], bool]
) -> pd.DataFrame:
    """All comparisons of a paper that can be made on a corpus, a row each, judged as one family.

    scored(variant, metric) -> its Score, None where it was not run; shared_parent(variant): whether one parent serves
    all its seeds.
    """
    asked, rows = [], []
    for claim in comparisons(paper, corpus):
        for metric in claim["metrics"]:
            above = _contrast(scored, claim["above"], metric)
            below = claim["at_least"] if "at_least" in claim else _contrast(scored, claim["below"], metric)
            if above is None or below is None:
                continue
            asked.append(_asked(paper, corpus, claim, metric, difference(above, below)))
            rows.append(_about(paper, claim, metric, shared_parent))
    verdicts = comparison_verdicts(asked, corpus)
    return pd.DataFrame([row | vars(verdict) for row, verdict in zip(rows, verdicts, strict=True)])


def _about(paper: str, claim: dict, metric: Metric, shared_parent: Callable[[str], bool]) -> dict:
    """What a row of comparisons says beside its verdict; an aim is part of the metric: "colour - 90"."""
    about = {name: claim.get(name, "") for name in ("claim", "above", "below", "source")}
    aim = f" - {claim['at_least']:g}" if claim.get("at_least") else ""
    about |= dict(metric=named(metric) + aim, matters=named(metric) in claim.get("matters", []))
    shared = any(shared_parent(claim[side]) for side in ("above", "below") if side in claim)
    return about | dict(digits=digits(margin(paper, metric)), shared_parent=shared)


def digits(margin: float) -> int:
    """How many decimals a metric is printed with, by the difference in it that is taken for none: one, or more."""
    return max(1, math.ceil(-math.log10(margin)))


def _contrast(scored: Callable[[str, str], Score | None], variant: str, metric: Metric) -> Score | None:
    parts = [scored(variant, name) for name in terms(metric)]
    return None if None in parts else contrast(terms(metric).values(), parts)


def _asked(paper: str, corpus: str, claim: dict, metric: Metric, estimate: Estimate) -> Comparison:
    needed = seeds_needed(paper, corpus)
    if claim.get("no_worse"):
        return Comparison(estimate, -margin(paper, metric), "no worse", needed)
    return Comparison(estimate, claim.get("by", 0.0), needed=needed)
