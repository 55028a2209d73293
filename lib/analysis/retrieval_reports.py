"""The report of a retrieval paper from a notebook's runs: its tables, its figures, and the page that keeps them."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from lib.analysis.ceilings import perfect_reader
from lib.report import plots
from lib.report.claims import published
from lib.report.pages import Report
from lib.report.tables import ablation_table, ingredients_table
from lib.run.paper import find_paper, find_variant
from lib.tasks.retrieval import RetrievalData

METRICS = [f"{way} {name}" for way in ("i2t", "t2i") for name in ("R@1", "R@5", "R@10", "median")] + ["rsum"]
TABLES = {
    "ablation": "Ablation, test split",
    "ingredients": "What the best recipe owes to what (dev split)",
    "regularities": "Picture − word + word, sum of words",
    "details": "Picture found first, by the hardest detail that the sentence needs",
    "captions": "Captions imagined for test pictures",
    "pictures": "Pictures imagined for test captions, %",
    "cosine": "The same vectors, read as they were trained and as a cosine",
    "levels": "Who finds what: the abstract level, the grounded one, both",
    "moves": "Test pictures by the place of their right caption, before (rows) and after (columns) imagining",
}
FIGURES = {
    "recall": "First answer right",
    "search": "Pictures found for a sentence: green its own, yellow true of it too",
    "regularities": "Picture − word + word: green shows the thing in its new colour",
    "reinforcement": "What reinforcement does, epoch by epoch, on dev",
    "captions": "Imagined captions: the best and the worst",
    "strip": "A picture imagined as training goes on",
    "samples": "Imagined pictures, judged: green colour and kind right, yellow the colour, red neither",
    "grid": "Imagined pictures: kinds in all colours",
    "between": "Imagined on the way from one sentence to another",
}
WITHOUT_PICTURES = ("recall", "reinforcement")


def ablation(runs: pd.DataFrame, paper: str, dataset: str) -> pd.DataFrame:
    """The paper's rows among the runs (rows of `experiment.ablate`), mean ± std over seeds."""
    return ablation_table(_rows(runs, paper), paper, METRICS, dataset)


def recalls(runs: pd.DataFrame, paper: str, data: RetrievalData, title: str) -> plt.Figure:
    """How often the first answer is right, both ways, beside what is published and a perfect reader."""
    rows, main = _rows(runs, paper), find_paper(paper).main
    names = {name: find_variant(paper, name).title for name in rows["variant"].unique()}
    known, perfect = published(paper, data.corpus.name), perfect_reader(data)
    return plots.dots(rows, ["i2t R@1", "t2i R@1"], title, names, main, known, perfect)


def ingredients(runs: pd.DataFrame, paper: str) -> pd.DataFrame:
    """What the main variant owes to each part, by its relatives ("best-…" of "best") among the runs; empty where there
    is nothing to compare."""
    main = find_paper(paper).main
    mine = runs[(runs["variant"] == main) | _relatives(runs, main)]
    both = (mine["variant"] == main).any() and mine["variant"].nunique() > 1
    return ingredients_table(mine, paper, main, ["rsum", "i2t R@1", "t2i R@1"]) if both else pd.DataFrame()


def write(
    paper: str,
    runs: pd.DataFrame,
    parameters: Mapping,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, plt.Figure],
    deviations: Sequence[str],
    why: Sequence[str],
) -> None:
    """Write the report, with the `tables` of TABLES and the `figures` of FIGURES.

    Photographs belong to their photographers: only IconWorld's pictures are shown. What is empty is left out.
    """
    out = Report(paper, runs, parameters)
    drawn = parameters["dataset"].startswith("iconworld")
    for name, table in tables.items():
        out.table(name, TABLES[name], table)
    for name, figure in figures.items():
        if figure.axes and (drawn or name in WITHOUT_PICTURES):
            out.figure(name, FIGURES[name], figure)
    out.finish(deviations, why)


def _rows(runs: pd.DataFrame, paper: str) -> pd.DataFrame:
    """The runs without the main variant's relatives."""
    return runs[~_relatives(runs, find_paper(paper).main)]


def _relatives(runs: pd.DataFrame, main: str) -> pd.Series:
    return runs["variant"].str.startswith(f"{main}-")
