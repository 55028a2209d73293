"""Tables with mean ± std and the paper's numbers beside ours, their provenance, and the index of all reports."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lib.files import replacing, write_json
from lib.report.claims import bootstrap, comparison_verdict, comparisons, interval, published, verdict
from lib.run.experiment import NOT_DECIDING
from lib.run.paper import find_paper
from lib.run.provenance import provenance
from lib.run.store import REPORTS, Result, keep_records, read


def summary(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Runs, one row each -> one row a variant: `seeds`, and mean and std (over seeds, n - 1) of each metric."""
    groups = runs.groupby("variant", sort=False)
    columns = {("runs", "seeds"): groups.size(), ("runs", "seconds"): groups["seconds"].mean().round(1)}
    for metric in metrics:
        columns[metric, "mean"], columns[metric, "std"] = groups[metric].mean(), groups[metric].std()
    return pd.DataFrame(columns)


def ablation_table(runs: pd.DataFrame, paper: str, metrics: Sequence[str], dataset: str) -> pd.DataFrame:
    """The table people read: a row a variant with "mean ± std", and beside it the published row, if there is one."""
    means, claims = summary(runs, metrics), published(paper, dataset)
    titles = {name: variant.title for name, variant in find_paper(paper).VARIANTS.items()}
    rows = []
    for name, row in means.iterrows():
        ours = {metric: _plus_minus(row[metric]) for metric in metrics}
        rows.append({"variant": titles[name], **ours, "seeds": int(row["runs", "seeds"])})
        rows[-1] |= _paper_says(claims, name, metrics)
        rows[-1]["seconds"] = row["runs", "seconds"]
    return pd.DataFrame(rows).fillna("")


def _plus_minus(cell: pd.Series) -> str:
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


def claims_table(runs: pd.DataFrame, paper: str, dataset: str) -> pd.DataFrame:
    """Each published number beside ours: mean over seeds, 95 % bootstrap interval over the test queries, verdict."""
    metrics, rows = _metrics(paper), []
    for claim in published(paper, dataset).to_dict("records"):
        results = _results(runs, claim["variant"])
        for metric in [name for name in claim if name in metrics and pd.notna(claim[name])]:
            row = {"claim": claim["row"], "metric": metric, "published": claim[metric]}
            source = {"source": claim["source"], "we know it from": claim["sure"]}
            rows.append(row | _ours(results, metric, claim[metric]) | source)
    return pd.DataFrame(rows)


def _metrics(paper: str) -> tuple[str, ...]:
    """The metrics of a paper for which there are statistics of test units."""
    found = find_paper(paper)
    return found.task(found.Settings()).metrics


def _results(runs: pd.DataFrame, variant: str) -> list[Result]:
    mine = runs[runs["variant"] == variant].sort_values("seed")
    return [read(Path(folder)) for folder in mine["folder"]]


def _ours(results: list[Result], metric: str, claimed: float) -> dict:
    if not results:
        return {"ours": "", "95 % interval": "", "verdict": "not run"}
    low, high = interval(_draws(results, metric))
    ours = np.mean([result.scores["test"][metric] for result in results])
    judged = verdict(claimed, (low, high), len(results))
    return {"ours": f"{ours:.1f}", "95 % interval": f"{low:.1f} to {high:.1f}", "verdict": judged}


def _draws(results: list[Result], metric: str) -> np.ndarray:
    return bootstrap(np.stack([result.statistics(metric) for result in results]))


def comparisons_table(runs: pd.DataFrame, paper: str) -> pd.DataFrame:
    """Each "A is better than B" of the paper beside ours: the difference, its 95 % bootstrap interval, the verdict."""
    rows = []
    for claim in comparisons(paper):
        above, below = (_results(runs, claim[side]) for side in ("above", "below"))
        for metric in claim["metrics"] if above and below else []:
            draws = _draws(above, metric) - _draws(below, metric)
            ours, theirs = (np.mean([r.scores["test"][metric] for r in side]) for side in (above, below))
            row = {"claim": claim["claim"], "metric": metric, "difference": f"{ours - theirs:+.1f}"}
            row["95 % interval"] = "{:+.1f} to {:+.1f}".format(*interval(draws))
            row["verdict"] = comparison_verdict(interval(draws), min(len(above), len(below)))
            rows.append({**row, "source": claim["source"]})
    return pd.DataFrame(rows)


def ingredients_table(runs: pd.DataFrame, paper: str, whole: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Dev scores of `whole` and of its relatives, mean ± std over seeds, with the difference in the first metric."""
    dev = pd.DataFrame([read(Path(folder)).scores["dev"] for folder in runs["folder"]], index=runs.index)
    means = summary(runs[["variant", "seed", "seconds"]].assign(**dev), metrics)
    titles = {name: variant.title for name, variant in find_paper(paper).VARIANTS.items()}
    change = means[metrics[0], "mean"] - means.loc[whole, (metrics[0], "mean")]
    columns = {"variant": [titles[name] for name in means.index], f"change in dev {metrics[0]}": change.to_numpy()}
    columns |= {f"dev {metric}": [_plus_minus(row) for _, row in means[metric].iterrows()] for metric in metrics}
    seconds = means["runs", "seconds"].to_numpy()
    return pd.DataFrame({**columns, "seeds": means["runs", "seeds"].to_numpy(), "seconds": seconds})


KEPT_PROFILES = ("small", "paper", "original")


class Report:
    """A folder `reports/<dataset>/<paper>/` of tables, figures and the provenance of both.

    Only a profile that is meant for a report writes one, and only if it is not `limited` to a part of the data; any
    other writes to `reports/smoke/`, which is not kept.
    """

    def __init__(self, paper: str, dataset: str, profile: str, limited: bool = False, root: Path = REPORTS):
        self.paper, self.dataset, self.profile = paper, dataset, profile
        self.root = root
        self.keeps = profile in KEPT_PROFILES and not limited
        self.folder = root / ("" if self.keeps else "smoke") / dataset / paper
        self.folder.mkdir(parents=True, exist_ok=True)
        self.page = []  # Markdown, in the order of the notebook

    def table(self, name: str, title: str, table: pd.DataFrame, digits: int = 1) -> None:
        """Write `name`.csv, and the table on the report's page; an empty one is left out."""
        if table.empty:
            return
        with self._file(f"{name}.csv") as path:
            table.to_csv(path, index=False, float_format=f"%.{digits + 2}f")
        self.page += [f"## {title}", table.to_markdown(index=False, floatfmt=f".{digits}f")]

    def figure(self, name: str, title: str, figure: plt.Figure) -> None:
        """Write `name`.png, and show it on the report's page."""
        with self._file(f"{name}.png") as path:
            figure.savefig(path, dpi=110, bbox_inches="tight", format="png")
        self.page += [f"## {title}", f"![{title}]({name}.png)"]

    def _file(self, name: str) -> AbstractContextManager[Path]:
        return replacing(self.folder / name)

    def finish(self, runs: pd.DataFrame, parameters: Mapping, deviations: Sequence[str], headline: str) -> None:
        """Write the page, the runs one by one, their records, the provenance, and this report's line in the index.

        `deviations` says where this differs from the paper; `headline` is one sentence with the main number.
        """
        self.table("runs", "Every run", runs.drop(columns="folder"), digits=2)
        results = [read(Path(folder)) for folder in runs["folder"]]
        content = {
            **{"paper": self.paper, "dataset": self.dataset, "profile": self.profile, "headline": headline},
            "parameters": {name: value for name, value in parameters.items() if name not in NOT_DECIDING},
            "deviations": list(deviations),
            "runs": {result.folder.name: result.provenance | {"identity": result.identity} for result in results},
            "data": results[0].identity["data"],
            "report": provenance(),
        }
        write_json(self.folder / "provenance.json", content)
        differs = "\n".join(f"- {line}" for line in deviations)
        title = f"# {self.paper.upper()} on {self.dataset}, profile {self.profile}"
        foot = ["## Where this differs from the paper", differs, "## Provenance", self.provenance_line()]
        with replacing(self.folder / "README.md") as path:
            path.write_text("\n\n".join([title, headline, *self.page, *foot]) + "\n", encoding="utf-8")
        if self.keeps:
            keep_records(results, self.folder / "records")
        index(self.root)

    def provenance_line(self) -> str:
        """One line for the foot of a table in a notebook."""
        now = provenance()
        packages = ", ".join(f"{name} {now['packages'][name]}" for name in ("torch", "transformers", "timm"))
        return f"commit {now['commit']} · {packages} · {now['hardware']} · {now['time']}"


def index(root: Path = REPORTS) -> None:
    """Write `README.md` of the reports' folder: every report with its headline, from what lies there."""
    rows = []
    for path in sorted(root.glob("*/*/provenance.json")):  # smoke runs lie deeper
        said = json.loads(path.read_text(encoding="utf-8"))
        folder = path.parent.relative_to(root).as_posix()
        commit = said["report"]["commit"]
        rows.append(f"| [{folder}]({folder}/README.md) | {said['profile']} | {said['headline']} | {commit} |")
    lines = [
        "# Reports",
        "",
        "Written by the notebooks, run by papermill with the data set's parameters. Each folder holds the ablation",
        "table, every run, the published claims with verdicts, figures, the tables as CSV, and `provenance.json`.",
        "What `make reports` writes lies in `smoke/`: it shows that all of it works, and is not kept.",
        "",
        "| report | profile | in one sentence | commit |",
        "|---|---|---|---|",
        *rows,
    ]
    with replacing(root / "README.md") as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
