"""The pages of the reports: what held and what did not, tables, figures, all runs and where they come from."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lib.files import replacing, write_json
from lib.report.claims import tested
from lib.report.evidence import made_on, write_index
from lib.report.plots import as_png
from lib.report.shipping import ship
from lib.report.tables import comparisons_table, judged_comparisons, judged_numbers, numbers_table, results_of
from lib.run.paper import find_paper
from lib.run.planning import FOLDERS, NOT_DECIDING
from lib.run.provenance import provenance
from lib.run.store import REPORTS, Result, keep_records, on_dev, read

OWN = ("captions", "conll-images")  # names for anybody's own data
KEPT_PROFILES = ("small", "paper", "original")  # those that are meant for a report
ONE_PARENT = """Where a row goes on from a parent, all its seeds go on from the same one: what another parent would have
changed is not in the intervals, which are too narrow by that."""
MARKS = re.compile(r"[|$<]")  # which Markdown, or what shows it, would take for its own
SAID = {"holds": "Held", "no worse": "No worse, as claimed", "agrees": "Agrees with what is published",
        "higher": "Higher than published", "lower": "Lower than published", "does not hold": "Did not hold",
        "not told apart": "Not told apart", "no verdict": "No verdict"}  # fmt: skip


class Report:
    """A folder `reports/<corpus>/<paper>/` of tables, figures, verdicts, records of runs, and the provenance of all.

    `runs` are rows of `experiment.ablate`, `parameters` the notebook's. Only a profile that is meant for a report
    writes one, and only if it is not limited to a part of the data; any other writes to `reports/smoke/`, which is not
    kept.
    """

    def __init__(self, paper: str, runs: pd.DataFrame, parameters: Mapping, root: Path = REPORTS):
        self.paper, self.runs, self.parameters, self.root = paper, runs, dict(parameters), root
        self.dataset, self.profile = parameters["dataset"], parameters["profile"]
        self.keeps = self.profile in KEPT_PROFILES and parameters.get("train_limit") is None
        self.folder = root / ("" if self.keeps else "smoke") / self._corpus() / paper
        self.folder.mkdir(parents=True, exist_ok=True)
        self.numbers = judged_numbers(runs, paper, self.dataset)
        self.comparisons = judged_comparisons(runs, paper, self.dataset)
        self.page = []  # Markdown, in the order of the notebook

    def _corpus(self) -> str:
        """The data set's name; of anybody's own data, under whatever name they were read, one that is only theirs."""
        result = read(Path(self.runs["folder"].iloc[0]))
        known = tested(self.paper, self.dataset)
        own = self.dataset in OWN or (known and known != {"test examples": result.units})
        if not (own and self.parameters.get("data_dir")):
            return self.dataset
        return f"{self.dataset}-{result.identity['data'][:6]}"

    def table(self, name: str, title: str, table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
        """Write `name`.csv, and the table on the report's page; an empty one is left out. Returns it."""
        if not table.empty:
            with self._file(f"{name}.csv") as path:
                table.to_csv(path, index=False, float_format=f"%.{digits + 2}f")
            self.page += [f"## {title}", markdown(table, f".{digits}f")]
        return table

    def figure(self, name: str, title: str, figure: plt.Figure) -> None:
        """Write `name`.png, and show it on the report's page."""
        with self._file(f"{name}.png") as path:
            path.write_bytes(as_png(figure))
        self.page += [f"## {title}", f"![{title}]({name}.png)"]

    def judged(self) -> pd.DataFrame:
        """The published numbers and the comparisons, each beside what was found and with its verdict."""
        tables = [table for table in (numbers_table(self.numbers), comparisons_table(self.comparisons)) if len(table)]
        nothing = pd.DataFrame({"claim": ["none of these rows is compared with another, or with what was published"]})
        return pd.concat(tables or [nothing], ignore_index=True).fillna("")

    def _file(self, name: str) -> AbstractContextManager[Path]:
        return replacing(self.folder / name)

    def finish(self, deviations: Sequence[str], why: Sequence[str] = ()) -> None:
        """Write the verdicts, the page, the provenance and, of a report that is kept, the records of its runs, the
        trained model and its lines in the index. `deviations` says where this differs from the paper, `why` what the
        verdicts come from, a sentence each."""
        for name, judged in {"numbers": self.numbers, "comparisons": self.comparisons}.items():
            if not judged.empty:
                with self._file(f"{name}.csv") as path:
                    judged.to_csv(path, index=False)
        results = [read(Path(folder)) for folder in self.runs["folder"].unique()]
        story = self._provenance(results, deviations)
        write_json(self.folder / "provenance.json", story)
        if self.keeps:
            for result in results:  # another paper's run stands among that paper's records
                keep_records([result], self.folder.parent / result.paper / "records")
            self._ship()
        sections = [*self._opening(why), *self.page, *self._folded(story)]
        with replacing(self.folder / "README.md") as path:
            path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
        if self.keeps:
            write_index(self.root)

    def _ship(self) -> None:
        """On IconWorld the seed that is best on dev of the variant to be shown, if its weights are here."""
        shown, mine = find_paper(self.paper).shown, []
        if self.dataset.startswith("iconworld") and self.profile == "small":
            mine = [result for result in results_of(self.runs, self.paper, shown) if result.has_weights]
        if mine:
            ship(max(mine, key=on_dev), self.folder / "model")

    def _provenance(self, results: Sequence[Result], deviations: Sequence[str]) -> dict:
        return {
            **{"paper": self.paper, "dataset": self.dataset, "profile": self.profile, "command": self.command()},
            "parameters": {name: value for name, value in self.parameters.items() if name not in NOT_DECIDING},
            "deviations": list(deviations),
            "runs": {result.folder.name: result.provenance | {"identity": result.identity} for result in results},
            "hours": round(sum(result.seconds for result in results) / 3600, 2),
            "report": provenance(),
        }

    def command(self) -> str:
        """What makes this report again."""
        said = {name: value for name, value in self.parameters.items() if value is not None}
        said |= {name: "…" for name in FOLDERS if name in said}
        lists = {name: value for name, value in said.items() if isinstance(value, list)}
        plain = [f"-p {name} {shlex.quote(str(value))}" for name, value in said.items() if name not in lists]
        return " ".join([f"papermill notebooks/{self.paper}.ipynb out.ipynb", *plain,
                         *([f"-y {shlex.quote(json.dumps(lists))}"] if lists else [])])  # fmt: skip

    def _opening(self, why: Sequence[str]) -> list[str]:
        judged = pd.concat([self.numbers.assign(claim=self.numbers.get("row")), self.comparisons])
        words = [word for word in SAID if len(judged) and (judged["word"] == word).any()]
        lines = [f"- **{SAID[word]}**: {_told(judged[judged['word'] == word])}." for word in words]
        tables = {"Published beside ours": numbers_table(self.numbers)}
        tables["What should beat what"] = comparisons_table(self.comparisons)
        shown = [f"## {title}\n\n{markdown(table)}" for title, table in tables.items() if len(table)]
        if self.comparisons.get("shared_parent", pd.Series(dtype=bool)).any():
            shown.append(ONE_PARENT)
        title = f"# {self.paper.upper()} on {self.dataset}, profile {self.profile}"
        index = os.path.relpath(self.root / "README.md", self.folder)
        read = f"What the words of a verdict mean stands in [the list of all reports]({index})."
        return [title, "\n".join(lines), read, *why, *shown]

    def _folded(self, story: Mapping) -> list[str]:
        known = self.runs.dropna(axis=1, how="all")
        plain = [name for name in known if name != "folder" and "/" not in name]  # parts of scores have tables
        runs = markdown(self.runs[plain].astype(object).where(self.runs[plain].notna(), ""), ".2f")
        differs = "\n".join(f"- {line}" for line in story["deviations"])
        where = f"{self.provenance_line()}\n\n```sh\n{self.command()}\n```\n\n"
        where += f"{made_on(story['runs'])}. Settings, code and packages of each: [provenance.json](provenance.json)."
        parts = {"Where this differs from the paper": differs, "Every run": runs, "Provenance": where}
        return [f"<details><summary>{title}</summary>\n\n{text}\n\n</details>" for title, text in parts.items()]

    def provenance_line(self) -> str:
        """One line for the foot of a table in a notebook."""
        now = provenance()
        packages = ", ".join(f"{name} {now['packages'][name]}" for name in ("torch", "transformers", "timm"))
        return f"commit {now['commit']} · {packages} · {now['hardware']} · {now['time']}"


def markdown(table: pd.DataFrame, floats: str = "g") -> str:
    """A table in Markdown, its texts as they are written: a "|" ends no cell and two "$" make no formula."""
    plain = lambda value: MARKS.sub(r"\\\g<0>", value) if isinstance(value, str) else value  # noqa: E731
    texts = [i for i, column in enumerate(table) if table[column].map(lambda cell: isinstance(cell, str)).all()]
    return table.map(plain).rename(columns=plain).to_markdown(index=False, floatfmt=floats, disable_numparse=texts)


def keep_drawn(out: Report, dataset: str, name: str, title: str, figure: plt.Figure | None) -> None:
    """Put a figure of a data set's pictures into a report on these data, if they may be shown: others belong to
    photographers."""
    if figure is not None and dataset.startswith("iconworld") and dataset == out.dataset:
        out.figure(name, title, figure)


def _told(judged: pd.DataFrame) -> str:
    """The claims of one verdict on one line, each once with its metrics."""
    grouped = judged.groupby("claim", sort=False)["metric"].agg(list)
    told = {claim: ", ".join(metrics) if len(metrics) < 4 else f"{len(metrics)} metrics"
            for claim, metrics in grouped.items()}  # fmt: skip
    return "; ".join(f"{claim} ({metrics})" for claim, metrics in told.items())
