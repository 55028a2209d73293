"""What a report of GXN shows beside retrieval: captions, pictures, reinforcement, what moved in ranking."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from lib.analysis.imagining import real_judged
from lib.metrics.retrieval import evaluate
from lib.papers import gxn
from lib.report import plots
from lib.report.tables import ablation_table, results_of
from lib.run import experiment
from lib.run.paper import find_variant
from lib.run.store import read
from lib.tasks import imagination
from lib.tasks.retrieval import RetrievalData

NEIGHBOURS = ("vse/lstm", "vse/best-all-negatives")  # on the same features: VSE's own row, and its recipe with L_R
TITLES = {name: find_variant("gxn", name).title for name in (*gxn.PAPER.VARIANTS, *NEIGHBOURS)}
CAPTIONS = {"BLEU-4": "BLEU-4", "CIDEr-D": "CIDEr-D", "beam/BLEU-4": "BLEU-4, beam", "beam/CIDEr-D": "CIDEr-D, beam",
            "nearest/CIDEr-D": "CIDEr-D, nearest", "reference/CIDEr-D": "CIDEr-D, a reference",
            "words": "words"}  # fmt: skip
PICTURES = ("colour", "kind@1", "kind@5", "own@1")
CURVES = {"CIDEr-D": "CIDEr-D", "BLEU-4": "BLEU-4", "words": "words a caption", "rsum": "rsum"}
FALLS = ("BLEU-4", "words", "rsum")  # what a reward that is not theirs may cost
PLACES = ("first", "2 to 5", "6 to 10", "later")


def rows(settings: Mapping) -> list[str]:
    """The rows of a notebook's settings where nobody asks for others: GXN's, and its neighbours in the profiles that
    give both papers the same features."""
    mine = experiment.distinct("gxn", gxn.rows(settings["profile"]), settings)
    return [*mine, *NEIGHBOURS] if settings["profile"] in ("small", "paper") else mine


def by_cosine(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """GXN's rows read otherwise: R@1 by s*, and by the cosine of the same vectors, of all runs that are whole.

    The squared distance of two unit vectors is by how much the one sticks out of the other, plus by how much the other
    sticks out of it. s* counts the first alone, a cosine both.
    """
    results = [read(Path(folder)) for folder in runs["folder"]]
    whole = [result.paper == "gxn" and result.has_weights for result in results]
    if not any(whole):
        return runs[:0]
    said = (result.predictions() for result, is_whole in zip(results, whole, strict=True) if is_whole)
    found = [evaluate(each["images"], each["sentences"], each["owner"], "cosine") for each in said]
    by_way = {f"{way} R@1, cosine": [each[way]["R@1"] for each in found] for way in ("i2t", "t2i")}
    columns = [f"{way} R@1{reading}" for way in ("i2t", "t2i") for reading in ("", ", cosine")]
    return ablation_table(runs[whole].assign(**by_way), "gxn", columns, dataset).drop(columns="seconds")


def captions_table(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """How well the rows say what test pictures show; CIDEr-D a hundred times coco-caption's scale, as it is printed."""
    mine = _that_have(runs, "CIDEr-D")
    if mine.empty:
        return mine
    shown = {new: mine[old] * (100 if "CIDEr-D" in old else 1) for old, new in CAPTIONS.items()}
    table = mine[["variant", "seed", "seconds"]].assign(**shown)
    return ablation_table(table, "gxn", [*CAPTIONS.values()], dataset).drop(columns="seconds")


def pictures_table(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """How well the rows draw what test captions say, in per cent, and on IconWorld apart for pairs of colour and kind
    that training shows and that it does not; `Fréchet` is a distance: less is better."""
    mine = _that_have(runs, "own@1")
    if mine.empty:
        return mine
    names = [name for name in PICTURES if name in mine]
    results = [read(Path(folder)) for folder in mine["folder"]]
    apart = [_apart(result, names) for result in results]
    table = mine[["variant", "seed", "seconds", *names, "Fréchet"]].assign(**pd.DataFrame(apart, index=mine.index))
    order = [column for name in names for column in (name, *(c for c in apart[0] if c.startswith(f"{name}, ")))]
    return ablation_table(table, "gxn", [*order, "Fréchet"], dataset).drop(columns="seconds")


def with_real(table: pd.DataFrame, data: RetrievalData) -> pd.DataFrame:
    """The table of drawn pictures, and below it what the judges find right in real ones."""
    real = {name: f"{value:.1f}" for name, value in real_judged(data).items() if name in table}
    row = pd.DataFrame([{"variant": "real pictures, as small", **real}])
    return pd.concat([table.astype(object), row], ignore_index=True).fillna("–") if real else table


def _apart(result, names: Sequence[str]) -> dict[str, float]:
    """A run's picture metrics on the groups of test pictures that its statistics know."""
    found = {}
    for name in names:
        for group in ("seen", "held out"):
            try:
                sums = result.statistics(f"{group}/{name}").sum(0)
            except KeyError:  # nobody knows
                continue
            found[f"{name}, {group}"] = float(imagination.combine(name, sums))
    return found


def _that_have(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    return runs[runs[metric].notna()] if metric in runs else runs[:0]


def reinforcement(runs: pd.DataFrame) -> plt.Figure:
    """What reinforcement does on dev, epoch by epoch, beside cross-entropy alone: the reward, BLEU-4, the length of
    captions, and retrieval, a panel each. The stage before both stands left of the line, if it is among the runs."""
    history = experiment.histories(runs)
    history = history[history["CIDEr-D"].notna()] if "CIDEr-D" in history else history[:0]
    if history.empty:
        return plots.pictures([])
    figure, all_axes = plt.subplots(1, len(CURVES), figsize=(13.5, 3.3), layout="constrained")
    for axes, (metric, title) in zip(all_axes, CURVES.items(), strict=True):
        for variant, mine in history.groupby("variant", sort=False):
            by_epoch = mine.groupby("epoch")[metric].agg(["mean", "std"]).fillna(0)
            epochs = by_epoch.index - (by_epoch.index.max() if variant == "captions" else 0)
            (line,) = axes.plot(epochs, by_epoch["mean"], "o-", ms=4, label=TITLES[variant])
            low, high = by_epoch["mean"] - by_epoch["std"], by_epoch["mean"] + by_epoch["std"]
            axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.15, lw=0)
        axes.axvline(0, color=plots.NEUTRAL, lw=1, ls="--")
        axes.set(title=title, xlabel="epoch of the last stage")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    return figure


def told(runs: pd.DataFrame) -> list[str]:
    """What the last stage did to each row that tells, on dev, a sentence a row: the change of its reward (of CIDEr-D,
    where it has none) since the stage before, where that is among the runs, else since the first epoch; and every fall
    of more than a point. A row without a reward says what is not due to one."""
    before, lines = {result.seed: _chosen(result) for result in results_of(runs, "gxn", "captions")}, []
    for variant in dict.fromkeys(runs["variant"]):
        results = results_of(runs, "gxn", variant)
        settings = results[0].settings
        if not settings.get("captions") or variant == "captions":
            continue
        since = before or {result.seed: result.history[0] for result in results}
        pairs = [(since[result.seed], _chosen(result)) for result in results if result.seed in since]
        reward = {"cider": "CIDEr-D", "bleu": "BLEU-4"}[settings["reward"]]
        change = {name: np.mean([new[name] - old[name] for old, new in pairs]) for name in (reward, *FALLS)}
        fell = [f"{name} by {-by:.1f}" for name, by in change.items() if name in FALLS and by < -1]
        paid = f"its reward, {reward}," if settings["gamma"] else f"{reward}, which is no reward there,"
        said = f"In the last stage of *{TITLES[variant]}* {paid} changed by {change[reward]:+.2f} on dev"
        lines.append(f"{said}; what fell by more than a point: {', '.join(fell) or 'nothing'}.")
    return lines


def _chosen(result) -> dict:
    """The evaluation whose weights a run ended with."""
    return max(result.history, key=lambda record: record["all"])


def moves(runs: pd.DataFrame, before: str, after: str) -> pd.DataFrame:
    """Where the right caption of a picture stands in the rankings of two rows, same test pictures and seeds: how many
    moved from which place (a row) to which (a column). Empty where one of the rows is not among the runs."""
    pairs = list(zip(results_of(runs, "gxn", before), results_of(runs, "gxn", after), strict=False))
    if not pairs:
        return pd.DataFrame()
    counts = np.zeros((len(PLACES), len(PLACES)), int)
    for one, other in pairs:
        np.add.at(counts, (_places(one), _places(other)), 1)
    return pd.DataFrame(counts, index=pd.Index(PLACES, name=TITLES[before]), columns=PLACES)


def _places(result) -> np.ndarray:
    """For each test picture which of PLACES its best caption has [N]."""
    found = [result.statistics(f"i2t R@{k}")[:, 0] > 0 for k in (1, 5, 10)]
    return len(PLACES) - 1 - np.sum(found, axis=0)
