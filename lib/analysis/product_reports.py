"""What the K3M notebook reports of its runs: tables, figures, and the words of the page."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lib.analysis import robustness
from lib.corpora.iconworld.products import answer_ceiling, ceiling
from lib.papers import k3m
from lib.report import plots, tables
from lib.report.tables import ablation_table
from lib.run import experiment, store
from lib.run.training import batch_plan
from lib.tasks import products
from lib.tasks.listings import Split, View
from lib.tasks.products import ProductData

TITLES = {name: variant.title for name, variant in k3m.VARIANTS.items()}
METRICS = ["accuracy", "F1", "Rank@1", "Rank@10", "MRR"]
COMPARED = ["two-stream", "two-stream-graph", "single-stream-graph", "lxmert-graph", "no-fusion", "graph-as-text",
            "text-only", "image-only", "properties-only", "k3m"]  # fmt: skip
KINDS = {"title": "title decides", "picture": "picture decides", "properties": "properties decide",
         "several": "several decide", "together": "two together", "nothing": "nothing decides"}  # fmt: skip


# ---- the data ----


def known_answers(data: ProductData) -> bool:
    """Whether this is IconWorld, of which everything is known."""
    return data.corpus.name.startswith("iconworld")


def ceilings(data: ProductData) -> pd.DataFrame:
    """Accuracy of perfect readers of the category, over all test listings and by what decides them; elsewhere than on
    IconWorld nobody knows it."""
    if not known_answers(data):
        return pd.DataFrame({"accuracy of a perfect reader": ["nobody knows"]})
    best = pd.DataFrame(ceiling(data.corpus.test)).T.rename(columns=KINDS)
    return best.rename_axis("accuracy of a perfect reader").round(1)


def answer_ceilings(data: ProductData) -> pd.DataFrame:
    """Ranks of perfect readers of the answers; elsewhere than on IconWorld nobody knows them."""
    if not known_answers(data) or not data.views["test"]["clean"].questions:
        return pd.DataFrame({"questions, a perfect reader": ["nobody knows"]})
    best = answer_ceiling(data.corpus.test, data.views["test"]["clean"].questions)
    return pd.DataFrame(best).T.rename_axis("questions, a perfect reader").round(1)


# ---- rows of the table ----


def what_changes(rows: Sequence[str]) -> pd.DataFrame:
    """Each variant and the settings that make it."""
    return tables.what_changes("k3m", rows)


def table_rows(rows: Sequence[str]) -> list[str]:
    """Those that are tuned on data as they are; where a model is tuned for categories, that one for all its tasks."""
    plain = list(filter(_is_plain, rows))
    return [name for name in plain if model_of(name) == name or model_of(name) not in plain]


def _is_plain(row: str) -> bool:
    return not (robustness.TUNED.fullmatch(row) or row.endswith("-unnamed"))


def model_of(row: str) -> str:
    """The model that is tuned: its rows have a task's ending each."""
    return next((row.removesuffix(ending) for ending in k3m.ENDINGS.values() if ending and row.endswith(ending)), row)


def by_model(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are tuned on data as they are, those of a model and seed in one row: each of its scores is that of
    the tuning for its task."""
    models = runs[runs["variant"].map(_is_plain).astype(bool)]
    tunings = models.assign(variant=models["variant"].map(model_of)).groupby(["variant", "seed"], sort=False)
    return tunings.first().assign(seconds=tunings["seconds"].sum()).reset_index()


def ablation(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The table of all rows, what is published beside it for questions alone, as the paper's table has it."""
    return ablation_table(by_model(runs), "k3m", _known(runs, METRICS), dataset)


def costs(rows: Sequence[str], settings: Mapping) -> pd.DataFrame:
    """What each row costs: weights, steps of both stages, pieces read a listing (of title and triples)."""
    found = []
    for name in rows:
        asked = experiment.resolve("k3m", name, settings)
        data = products.load(asked)
        view, context = data.views["train"]["clean"], products.context(data)
        count = len(view.items) * ("classification" in asked.tasks) + len(view.pairs) + len(view.questions)
        steps = [len(batch_plan(np.zeros(n), asked.batch_size, 0, 0)) for n in (len(view.items), count)]
        split = Split({"clean": View(view.items[:1000])}, context, asked)
        weights = sum(weight.numel() for weight in k3m.build(context, asked).parameters())
        found.append({"variant": TITLES[name], "weights, thousands": round(weights / 1000),
                      "pretraining steps": steps[0] * asked.pretraining_epochs * bool(k3m.VARIANTS[name].parent),
                      "tuning steps": steps[1] * asked.epochs, "pieces a listing": _pieces(split)})  # fmt: skip
    return pd.DataFrame(found)


def _pieces(split: Split) -> float:
    """How many pieces of text are read of an item, each triple's included."""
    listings, rows = split.clean.listings, split.clean.items
    properties, mask = listings.properties.padded(rows)
    values, _ = listings.values.padded(rows)
    triples = (listings.spans.lengths[properties] + listings.spans.lengths[values]) * mask
    return round(float(listings.texts.lengths[rows].mean() + triples.sum(1).mean()), 1)


def kinds_table(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Accuracy by what decides a listing's category, mean ± std over seeds; empty where nobody knows it."""
    rows = []
    for run in runs[runs["variant"].isin(table_rows(runs["variant"]))].to_dict("records"):
        result = store.read(run["folder"])
        found = {title: _accuracy(result, f"{kind}/accuracy") for kind, title in KINDS.items()}
        rows.append({"variant": run["variant"], "seed": run["seed"], "seconds": run["seconds"], **found})
    wide = pd.DataFrame(rows)
    if wide.empty or wide[[*KINDS.values()]].isna().all(axis=None):
        return pd.DataFrame()
    wide = wide.dropna(subset=[*KINDS.values()], how="all")
    table = ablation_table(wide, "k3m", [*KINDS.values()], dataset)
    return table.drop(columns="seconds").rename(columns={"variant": "accuracy on test listings"})


def _accuracy(result: store.Result, metric: str) -> float:
    try:
        right, all_of_them = result.statistics(metric).sum(0)
    except KeyError:
        return float("nan")
    return 100 * right / all_of_them if all_of_them else float("nan")


def unnamed_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with the word of the category in titles and without it, mean ± std over seeds; empty where no row was
    trained without."""
    found = runs.groupby("variant", sort=False)["accuracy"].agg(tables.over_seeds)
    names = [name.removesuffix("-unnamed") for name in found.index if name.endswith("-unnamed")]
    with_word = {"accuracy, titles as they are": found.reindex(names, fill_value="–").to_numpy()}
    without = {"accuracy, category not named": found.reindex([f"{name}-unnamed" for name in names]).to_numpy()}
    return pd.DataFrame({"variant": [TITLES[name] for name in names], **with_word, **without})


def scores_figure(runs: pd.DataFrame, data: ProductData) -> plt.Figure:
    """The three tasks' scores of all rows, beside a perfect reader's where there is one."""
    shown, limits = by_model(runs), None
    if known_answers(data):
        answers = answer_ceiling(data.corpus.test, data.views["test"]["clean"].questions)
        limits = {"accuracy": ceiling(data.corpus.test)["all"]["all"], "Rank@10": answers["both"]["Rank@10"]}
    return plots.dots(shown, cells_kept(runs), "The tasks' scores on test", TITLES, k3m.PAPER.main, limits=limits)


def cells_kept(runs: pd.DataFrame) -> list[str]:
    """The metrics of which a report has a table of all cells."""
    return _known(runs, ["accuracy", "F1", "Rank@10"])


def _known(runs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    return [metric for metric in metrics if metric in runs and runs[metric].notna().any()]


def robustness_figure(runs: pd.DataFrame, metric: str) -> plt.Figure:
    """The curves of K3M, of the rows that the paper compares it to, and of each modality alone."""
    models = by_model(runs)
    compared = models[models["variant"].isin(COMPARED)]
    drawn = models if robustness.cells(compared, metric).empty else compared
    shown = pd.concat([drawn, runs[robustness.is_tuned(runs)]], ignore_index=True)
    title = f"{metric} where titles and pictures go missing, or are those of other products"
    return robustness.curves(shown, metric, TITLES, k3m.PAPER.main, title)


# ---- the report's words ----


def deviations(settings: k3m.Settings, data: ProductData, rows: Sequence[str]) -> list[str]:
    """Where runs of these rows with these settings differ from the paper, a line each."""
    s = settings
    released = any(model_of(row) == "released" for row in rows)
    absent = sum(listing.image is None for listing in data.views["test"]["clean"].items)
    return [
        "data: the paper's 40 million products of Taobao are not public, nor its fine-tuning sets; here "
        f"{data.corpus.name}, {len(data.views['train']['clean'].items)} training listings",
        f"size: {s.text_layers} text layers, {s.image_layers} of pictures and {s.co_layers} between them, {s.width} "
        "wide (the released code: 12 x 768, 6 x 1024 and 6 x 1024)",
        f"text encoder: {s.text_encoder}, learned from the corpus (the paper trains from scratch; the released code "
        "starts from bert-base-chinese)",
        f"regions: {s.regions} of {s.image_encoder} at {s.image_size} px (the paper: 36 objects of a Faster R-CNN); "
        f"{absent} test pictures are missing",
        "L_LPM is a margin on |c* + p - v|, its mean over dimensions, with a wrong value drawn from the batch; the "
        f"paper's exact form is not known. {s.hidden_triples:.0%} of an item's triples are hidden from c*, or the "
        "answer would be among what it has read",
        f"pretraining {s.pretraining_epochs} epochs at {s.pretraining_rate:g}, tuning {s.epochs} epochs "
        f"({k3m.LONGER['questions']['epochs']} where questions are asked) at {s.learning_rate:g}, batches of "
        f"{s.batch_size} (the released code pretrains 6 epochs at 1e-4, batches of 8; "
        "of tuning nothing is known); one pretraining, of seed 0, serves all seeds and tasks",
        "the mixtures MMR and MNR, and that TMR x % means x % of the items, are readings of the axes' names; noise "
        "comes from the same split; the pool of candidate answers holds the values of all properties (the paper's is "
        "not known)",
    ] + released * [
        "'as released' takes over that code's model, masking and losses, each with its line, not its sizes and rates"
    ]  # fmt: skip


def why(data: ProductData, rows: Sequence[str]) -> list[str]:
    """What the verdicts on these rows come from, a sentence each."""
    diamonds = any(robustness.TUNED.fullmatch(row) for row in rows)
    told = ["Scores at test are mixtures of a clean and a wholly degraded pass, so their curves are straight by "
            f"construction{'; models tuned at the ratio are the diamonds' * diamonds}."]  # fmt: skip
    if known_answers(data):
        told.append("What a triple says is never wrong here, so every row that reads triples, as a graph or as text, "
                    "is far more robust than one that does not: compare the rows *with the graph's text*.")  # fmt: skip
    return told


def headline(runs: pd.DataFrame, data: ProductData) -> str:
    """The last row, in one sentence."""
    last = runs[runs["variant"] == runs["variant"].iloc[-1]]
    return tables.headline(last, "k3m", cells_kept(last), data.corpus.name)
