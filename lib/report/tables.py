"""Tables: mean ± std over seeds, the paper's numbers and comparisons beside ours with their verdicts."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib.report.claims import comparisons, judge_comparisons, judge_numbers, published
from lib.report.evidence import Evidence, decimal
from lib.report.intervals import Score, score
from lib.run import experiment
from lib.run.paper import find_paper, find_variant, owned, task_of
from lib.run.store import Result, read


def summary(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Runs, one row each -> one row a variant: `seeds`, and mean and std (over seeds, n - 1) of each metric."""
    groups = runs.groupby("variant", sort=False)
    columns = {("runs", "seeds"): groups.size(), ("runs", "seconds"): groups["seconds"].agg(_took)}
    for metric in metrics:
        columns[metric, "mean"], columns[metric, "std"] = groups[metric].mean(), groups[metric].std()
    return pd.DataFrame(columns)


def _took(seconds: pd.Series) -> float | str:
    """The mean; of times too far apart for one, as a laptop's and a graphics card's are, from which to which."""
    least, most = seconds.min(), seconds.max()
    return f"{least:.0f} to {most:.0f}" if most > max(60, 3 * least) else round(seconds.mean(), 1)


def ablation_table(runs: pd.DataFrame, paper: str, metrics: Sequence[str], dataset: str) -> pd.DataFrame:
    """The table people read: a row a variant with "mean ± std", and beside it the published row, if there is one."""
    means, claims = summary(runs, metrics), published(paper, dataset)
    rows = []
    for name, row in means.iterrows():
        ours = {metric: _plus_minus(row[metric]) for metric in metrics}
        rows.append({"variant": find_variant(paper, name).title, **ours, "seeds": int(row["runs", "seeds"])})
        rows[-1] |= _paper_says(claims, name, metrics)
        rows[-1]["seconds"] = row["runs", "seconds"]
    return pd.DataFrame(rows).fillna("")


def by_seeds(paper: str, rows: Sequence[str], seeds: Sequence[int]) -> list[tuple[list[str], list[int]]]:
    """The rows with the seeds that they are run with: three will do for those that no verdict compares, one for a run
    that is only shown."""
    compared = {claim[side] for claim in comparisons(paper) for side in ("above", "below") if side in claim}
    only_shown = {find_paper(paper).on_show: 1}
    most = {name: len(seeds) if name in compared else 3 for name in rows} | only_shown
    counts = {name: min(most[name], len(seeds)) for name in rows}
    return [([name for name in rows if counts[name] == count], list(seeds[:count]))
            for count in sorted(set(counts.values()))]  # fmt: skip


def ablate(paper: str, rows: Sequence[str], seeds: Sequence[int], settings: Mapping) -> pd.DataFrame:
    """The runs of these rows, each with as many of the seeds as `by_seeds` says, as `experiment.ablate` has them.

    A row "paper/variant" is another paper's, with the same profile and those of the settings that are its own too.
    """
    parts = [_ablate(paper, names, some, settings) for names, some in by_seeds(paper, rows, seeds)]
    order = {name: place for place, name in enumerate(rows)}
    runs = pd.concat(parts, ignore_index=True)
    return runs.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _ablate(paper: str, rows: Sequence[str], seeds: Sequence[int], settings: Mapping) -> pd.DataFrame:
    named, parts = defaultdict(dict), []  # of each paper its variants, by the names that they have among the rows
    for row in rows:
        owner, variant = owned(paper, row)
        named[owner][variant] = row
    for owner, names in named.items():
        known = {"profile", *(field.name for field in dataclasses.fields(find_paper(owner).Settings))}
        theirs = {name: value for name, value in settings.items() if owner == paper or name in known}
        runs = experiment.ablate(owner, list(names), seeds, theirs)
        parts.append(runs.assign(variant=runs["variant"].map(names)))
    return pd.concat(parts, ignore_index=True)


def what_changes(paper: str, rows: Sequence[str]) -> pd.DataFrame:
    """Each variant and the settings that make it."""
    variants = [find_variant(paper, name) for name in rows]
    changes = [", ".join(f"{key} {value}" for key, value in one.changes.items()) or "nothing" for one in variants]
    table = {"what it is": [one.title for one in variants], "what it changes": changes}
    return pd.DataFrame(table, index=pd.Index(rows, name="variant"))


def headline(runs: pd.DataFrame, paper: str, metrics: Sequence[str], corpus: str) -> str:
    """The last row of some runs, in one sentence."""
    last = runs[runs["variant"] == runs["variant"].iloc[-1]]
    found = ", ".join(f"{metric} {last[metric].mean():.1f}" for metric in metrics)
    title = find_variant(paper, last["variant"].iloc[0]).title
    return f"{title}: {found} on test, mean of {len(last)} seed(s) on {corpus}"


def over_seeds(values: pd.Series) -> str:
    """What people read of a metric's values: "mean ± std" (n - 1), the mean alone of a single one, a dash of none."""
    return _plus_minus({"mean": values.mean(), "std": values.std()})


def _plus_minus(cell: Mapping[str, float]) -> str:
    if np.isnan(cell["mean"]):  # a row that knows no such metric
        return "–"
    return f"{cell['mean']:.1f}" if np.isnan(cell["std"]) else f"{cell['mean']:.1f} ± {cell['std']:.1f}"


def _paper_says(claims: pd.DataFrame, variant: str, metrics: Sequence[str]) -> dict[str, str]:
    if claims.empty or variant not in set(claims["variant"]):
        return {"published": "–"} if not claims.empty else {}
    mine = claims[claims["variant"] == variant]
    return {"published": "; ".join(_one_line(claim.dropna(), metrics) for _, claim in mine.iterrows())}


def _one_line(claim: pd.Series, metrics: Sequence[str]) -> str:
    """A claim's numbers in the table's order: 18.0 / 40.9 / 55.0 | 12.5 / 37.0 / 51.5, a group for each first word of
    longer names."""
    groups = defaultdict(list)
    for metric in metrics:
        if metric in claim and not metric.endswith("median"):
            groups[" ".join(metric.split()[:-1])].append(f"{claim[metric]:.1f}")
    return " | ".join(" / ".join(values) for values in groups.values())


def judged_numbers(runs: pd.DataFrame, paper: str, dataset: str) -> pd.DataFrame:
    """Each number that the paper published on a corpus, judged by our runs: see `claims.judge_numbers`."""

    def values(variant: str, metric: str) -> list[float]:
        tested = [result.scores["test"] for result in results_of(runs, paper, variant)]
        return [scores[metric] for scores in tested if metric in scores]

    def settings(variant: str) -> Mapping:
        result = results_of(runs, paper, variant)[0]
        return (result.settings or result.identity["settings"]) | {"test examples": result.units}

    return judge_numbers(paper, dataset, values, settings)


def judged_comparisons(runs: pd.DataFrame, paper: str, dataset: str) -> pd.DataFrame:
    """Each "A is better than B" that can be judged by our runs: see `claims.judge_comparisons`."""

    def scored(variant: str, metric: str) -> Score | None:
        if not (results := results_of(runs, paper, variant)):
            return None
        try:
            sums = np.stack([result.statistics(metric) for result in results])
        except KeyError:  # no function of sums over units
            values = [result.scores["test"].get(metric) for result in results]
            return Score(np.array(values)) if None not in values else None
        task = task_of(paper, variant)
        return score(sums, partial(task.combine, results[0].without_group(metric)))

    def shared_parent(variant: str) -> bool:
        return find_variant(paper, variant).shared

    return judge_comparisons(paper, dataset, scored, shared_parent)


def numbers_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Judged numbers as people read them: ours is a mean over seeds, beside the 95 % interval of another run."""
    if judged.empty:
        return judged
    shown = dict(claim=judged["row"], metric=judged["metric"], published=judged["published"])
    shown |= {"ours": judged.apply(decimal, axis=1, name="value"), "95 % interval": _ranges(judged)}
    shown |= {"verdict": judged["text"]}
    about = {"differs in": judged["differs"], "source": judged["source"], "known from": judged["sure"]}
    return pd.DataFrame(shown | about)


def comparisons_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Judged comparisons as people read them: the difference, its interval over seeds and test units at the level at
    which it was tested, p-values alone and among all comparisons (Holm), the verdict."""
    if judged.empty:
        return judged
    shown = dict(claim=judged["claim"], metric=judged["metric"])
    shown |= {"difference": judged.apply(decimal, axis=1, name="value", sign="+")}
    shown |= {"interval": _ranges(judged, "+"), "p": _p(judged["p"]), "p, Holm": _p(judged["adjusted"])}
    return pd.DataFrame(shown | {"verdict": judged["text"], "source": judged["source"]})


def _p(values: pd.Series) -> list[str]:
    return ["" if pd.isna(p) else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") for p in values.astype(float)]


def _ranges(judged: pd.DataFrame, sign: str = "") -> list[str]:
    rows = judged.to_dict("records")
    return [f"{low} to {decimal(row, 'high', sign)}" if (low := decimal(row, "low", sign)) else "" for row in rows]


def results_of(runs: pd.DataFrame, paper: str, variant: str) -> list[Result]:
    """The results of a variant's runs (rows of `experiment.ablate`), by seed."""
    mine = runs[runs["variant"] == variant].sort_values("seed")
    return [read(Path(folder), find_variant(paper, variant).output) for folder in mine["folder"]]


def ingredients_table(runs: pd.DataFrame, paper: str, whole: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Dev scores of `whole` and of its relatives, mean ± std over seeds, with the difference in the first metric."""
    dev = pd.DataFrame([read(Path(folder)).scores["dev"] for folder in runs["folder"]], index=runs.index)
    means = summary(runs[["variant", "seed", "seconds"]].assign(**dev), metrics)
    change = means[metrics[0], "mean"] - means.loc[whole, (metrics[0], "mean")]
    titles = [find_variant(paper, name).title for name in means.index]
    columns = {"variant": titles, f"change in dev {metrics[0]}": change.to_numpy()}
    columns |= {f"dev {metric}": [_plus_minus(row) for _, row in means[metric].iterrows()] for metric in metrics}
    seconds = means["runs", "seconds"].to_numpy()
    return pd.DataFrame({**columns, "seeds": means["runs", "seeds"].to_numpy(), "seconds": seconds})


def evident(evidence: Evidence, kind: str) -> pd.DataFrame:
    """The judged "numbers" or "comparisons" of a report, as people read them; of a report of old its table of them."""
    verdicts = evidence.verdicts()
    judged = verdicts[verdicts["kind"] == kind] if "kind" in verdicts else verdicts
    if judged.empty:
        return evidence.table({"numbers": "claims"}.get(kind, kind))
    judged = judged.fillna({"differs": ""}).reset_index(drop=True)
    return numbers_table(judged.assign(row=judged["claim"])) if kind == "numbers" else comparisons_table(judged)
