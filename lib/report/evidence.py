"""Reports that were made, read again: what a notebook shows before anybody runs anything, and the index of all."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Image, Markdown

from lib.files import replacing
from lib.run.store import REPORTS

VERDICTS = (
    "How to read a verdict:",
    "",
    "- *agrees*, *higher*, *lower*: a published number beside ours. It agrees if another run of ours could have given",
    "  it (it lies in the 95 % interval) and our mean is within a margin that was fixed beforehand. *In another",
    "  setting*: encoder, data or training are not those of the paper. Of ranks the lower one is the better one.",
    "- *holds*, *does not hold*, *not told apart*: a difference between two rows. Its interval counts what other seeds",
    "  and other test examples could have changed, and is widened for the number of the paper's claims (Holm). A claim",
    "  holds if all of it lies above zero, and does not hold if all of it lies below.",
    "- *no worse*: all of the interval lies above minus the margin.",
    "- *no verdict*: too few seeds were run. *On IconWorld*: a mechanism was seen, not the paper's number.",
    "- *known from*: where we have a published number from: its *source*, a *copy*, or *memory*.",
)
LEGEND = "*✔ it held, ✘ it did not, ▲ ▼ above or below what was published, ○ not decided by these runs*"
SIGNS = {"holds": "✔", "no worse": "✔", "agrees": "✔", "higher": "▲", "lower": "▼", "does not hold": "✘"}


class Evidence:
    """The report of a paper on a corpus, as it lies in `reports/`; where there is none, its parts say so."""

    def __init__(self, paper: str, dataset: str, root: Path = REPORTS):
        self.folder, path = root / dataset / paper, root / dataset / paper / "provenance.json"
        self.story = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.missing = Markdown(f"*No report of {paper} on {dataset} yet: run this notebook with profile small.*")

    def table(self, name: str) -> pd.DataFrame:
        """One of its tables; empty where it has none of that name."""
        path = self.folder / f"{name}.csv"
        return pd.read_csv(path, keep_default_na=False) if path.exists() else pd.DataFrame()

    def figure(self, name: str) -> Image | Markdown:
        """One of its figures, or that there is no report."""
        path = self.folder / f"{name}.png"
        return Image(filename=str(path)) if path.exists() else self.missing

    def verdicts(self, that_matter: bool = False) -> pd.DataFrame:
        """Its judged numbers and comparisons, all or those that the pages open with: claim, metric, published, value,
        low, high, text, differs, matters."""
        kinds = {"numbers": "row", "comparisons": "claim"}
        paths = {name: self.folder / f"{name}.csv" for name in kinds}
        judged = [pd.read_csv(path).assign(kind=name).rename(columns={kinds[name]: "claim"})
                  for name, path in paths.items() if path.exists()]  # fmt: skip
        known = [table for table in judged if "word" in table]  # in reports of old the verdicts were texts only
        verdicts = pd.concat(known, ignore_index=True) if known else pd.DataFrame(columns=["claim", "matters"])
        return verdicts[verdicts["matters"].astype(bool)] if that_matter else verdicts

    def provenance(self) -> Markdown:
        """Where its numbers come from, for under a table; or that there is no report."""
        if not self.story:
            return self.missing
        said, runs = self.story["report"], self.story["runs"]
        command = f" `{self.story['command']}`" if "command" in self.story else ""  # older reports did not keep it
        made = f"profile {self.story['profile']}, commit {said['commit']}, {said['time'][:10]}"
        return Markdown(f"*{made_on(runs)}, {made}.{command}*")


def made_on(runs: Mapping[str, Mapping]) -> str:
    """How many of the runs of a `provenance.json` were made on what."""
    counts = Counter(run["hardware"] for run in runs.values())
    return ", ".join(f"{count} run{'s' * (count > 1)} on {hardware}" for hardware, count in counts.most_common())


def reports(root: Path = REPORTS) -> list[tuple[str, str]]:
    """(corpus, paper) of every report; smoke runs lie deeper."""
    return [(path.parent.parent.name, path.parent.name) for path in sorted(root.glob("*/*/provenance.json"))]


def found(paper: str, most: int = 10, root: Path = REPORTS) -> Markdown:
    """What all reports of a paper say of its claims that matter, a line each, drawn from them."""
    rows = []
    for dataset, name in reports(root):
        if name == paper:
            verdicts = Evidence(paper, dataset, root).verdicts(True).to_dict("records")
            rows += [(row["word"] == "no verdict", _line(row, dataset)) for row in verdicts]
    shown = [f"- {line}" for _, line in sorted(rows, key=lambda row: row[0])[:most]]
    if not shown:
        return Markdown("- No report yet: run this notebook with profile small.")
    return Markdown("\n".join([*shown, "", LEGEND]))


def _line(row: dict, dataset: str) -> str:
    """One verdict as a sentence."""
    sign = SIGNS.get(row["word"], "○")
    beside = f", published {row['published']:g}" if row["kind"] == "numbers" else ""
    return f"{sign} **{row['claim']}**: {row['text']}. *{dataset}, {row['metric']} {_ours(row)}{beside}*"


def _ours(row: dict) -> str:
    """A mean over seeds, or a difference with its interval, if it has one."""
    if row["kind"] == "numbers":
        return decimal(row, "value")
    low, high = decimal(row, "low", "+"), decimal(row, "high", "+")
    return decimal(row, "value", "+") + (f" ({low} to {high})" if low else "")


def decimal(row: Mapping, name: str, sign: str = "") -> str:
    """A number of a judged row with the decimals of its metric, without a negative zero; nothing where there is none.
    Rows of old reports have one decimal."""
    digits = row.get("digits", np.nan)
    places = 1 if np.isnan(digits) else int(digits)
    return "" if np.isnan(row[name]) else f"{round(row[name], places) + 0.0:{sign}.{places}f}"


def that_matter(root: Path = REPORTS) -> pd.DataFrame:
    """A row a claim that matters, over all reports."""
    rows = []
    for dataset, paper in sorted(reports(root), key=lambda report: report[::-1]):
        evidence = Evidence(paper, dataset, root)
        rows += [_index_row(row, dataset, paper, evidence.story) for row in evidence.verdicts(True).to_dict("records")]
    return pd.DataFrame(rows).fillna("")


def _index_row(row: dict, dataset: str, paper: str, story: dict) -> dict:
    return {
        "paper": paper,
        "claim": f"{row['claim']}, {row['metric']}",
        "data": f"[{dataset}]({dataset}/{paper}/README.md)",
        "published": row.get("published", "") if row["kind"] == "numbers" else "–",
        "ours": _ours(row),
        "verdict": row["text"],
        "what differs": row.get("differs", ""),
        "core-hours": story.get("hours", ""),
        "command": f"`{story['command']}`" if "command" in story else "not kept",
    }


def write_index(root: Path = REPORTS) -> None:
    """Write `README.md` of the reports' folder, from what lies there."""
    table = that_matter(root)
    others = [f"- [{dataset}/{paper}]({dataset}/{paper}/README.md)" for dataset, paper in reports(root)]
    lines = [
        "# Reports",
        "",
        "Written by the notebooks with a profile that is meant for it. Each row is a claim that matters (marked so in",
        "`lib/report/claims.yaml`) and what was found; the report behind it holds all its verdicts, tables, figures,",
        "every run and its provenance. What `make reports` writes with profile `smoke` lies in `smoke/`: it shows that",
        "all of it works, and is not kept.",
        "",
        *VERDICTS,
        "",
        table.to_markdown(index=False) if len(table) else "No verdict yet.",
        "",
        "All reports:",
        "",
        *others,
    ]
    with replacing(root / "README.md") as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
