"""Robustness of products' models (K3M): what befalls a listing, scores in all 29 cells, and their curves."""

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lib.corpora.products import KINDS, degrade
from lib.corpora.types import Product
from lib.report import plots
from lib.report.tables import over_seeds

PERCENT = (0, 20, 50, 80, 100)
NAMED = {"TMR": "title missing", "IMR": "picture missing", "MMR": "one of the two missing", "TNR": "title foreign",
         "INR": "picture foreign", "TINR": "both foreign", "MNR": "title, picture or both foreign"}  # fmt: skip
# A row that is tuned on degraded data: of which row it is, of which kind, at how many per cent
TUNED = re.compile(r"(.*)-(TMR|TNR|TINR)(\d+)")


def fates(products: Sequence[Product], which: int) -> plt.Figure:
    """One listing as it is, and all that can befall it; donors are among the others."""
    shown = {"as it is": products[which]}
    shown |= {NAMED[kind]: degrade(products, kind, 1.0)[which] for kind in ("TMR", "IMR", "TNR", "INR", "TINR")}
    cells = [(one.image, f"{name}: {one.title or '–'}", plots.NEUTRAL) for name, one in shown.items()]
    return plots.pictures([cells], side=1.9)


# ---- at test: one model in all cells ----


def cells(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of each run (rows of `experiment.ablate`) in each cell: variant, seed, kind, percent, value. Rows that
    know no cells are left out."""
    found = []
    for run in runs.to_dict("records"):
        for kind in KINDS:
            values = [run.get(metric if percent == 0 else f"{metric}/{kind}{percent}", np.nan) for percent in PERCENT]
            found += [(run["variant"], run["seed"], kind, *one) for one in zip(PERCENT, values, strict=True)]
    table = pd.DataFrame(found, columns=["variant", "seed", "kind", "percent", "value"])
    known = table[table["percent"] > 0].dropna()["variant"].unique()
    return table[table["variant"].isin(known)].dropna()


def cells_table(runs: pd.DataFrame, metric: str, names: Mapping[str, str]) -> pd.DataFrame:
    """A metric, mean ± std over seeds, a row a variant and a column a cell; empty where no row knows cells."""
    found = cells(runs, metric)
    if found.empty:
        return found
    column = np.where(found["percent"] == 0, metric, found["kind"] + found["percent"].astype(str))
    once = found.assign(column=column).drop_duplicates(["variant", "seed", "column"])  # what is clean is of no kind
    wide = once.pivot_table("value", "variant", "column", over_seeds, sort=False)
    order = [metric, *(f"{kind}{percent}" for kind in KINDS for percent in PERCENT[1:])]
    rows = [name for name in runs["variant"].unique() if name in wide.index]
    return wide.loc[rows, order].rename(index=names).rename_axis(columns=None).reset_index()


# ---- tuned at the ratio ----


def is_tuned(runs: pd.DataFrame) -> pd.Series:
    """Which runs were tuned on degraded data."""
    return runs["variant"].map(lambda name: bool(TUNED.fullmatch(name))).astype(bool)


def tuned(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of the runs that were tuned at a ratio, as `cells` has it; `variant` is the row that they are of."""
    rows = runs[is_tuned(runs)]
    parts = [TUNED.fullmatch(name).groups() for name in rows["variant"]]
    where = pd.DataFrame(parts, columns=["variant", "kind", "percent"]).astype({"percent": int})
    return where.assign(seed=rows["seed"].to_numpy(), value=rows[metric].to_numpy()).dropna()


def tuned_table(runs: pd.DataFrame, metrics: Sequence[str], names: Mapping[str, str]) -> pd.DataFrame:
    """What tuning at the ratio gives: each metric of a row in a cell, mean ± std over seeds, tuned on clean data and
    tuned on data that are degraded alike; empty where no row was tuned so."""
    where, table = ["variant", "kind", "percent"], {}
    if not is_tuned(runs).any():
        return pd.DataFrame()
    for metric in metrics:
        at_test = cells(runs[~is_tuned(runs)], metric).groupby(where, sort=False)["value"].agg(over_seeds)
        at_ratio = tuned(runs, metric).groupby(where, sort=False)["value"]
        table |= {"seeds": at_ratio.size(), f"{metric}, tuned at the ratio": at_ratio.agg(over_seeds)}
        table[f"{metric}, tuned clean"] = at_test.reindex(table["seeds"].index)
    found = pd.DataFrame(table).reset_index()
    found["cell"] = found["kind"] + found["percent"].astype(str)
    return found.replace({"variant": names})[["variant", "cell", *table]]


# ---- curves ----


def curves(runs: pd.DataFrame, metric: str, names: Mapping[str, str], main: str, title: str) -> plt.Figure:
    """A panel a kind: a metric against the ratio, a line a variant, `main` in colour, its spread over seeds shaded.
    Diamonds were tuned at their ratio, the lines on clean data: an accuracy at test is a mixture of two numbers, so
    its line is straight by construction."""
    found, at_ratio = cells(runs[~is_tuned(runs)], metric), tuned(runs, metric)
    shown = list(dict.fromkeys(found["variant"]))
    colours = [colour for place, colour in enumerate(plt.get_cmap("tab10").colors) if place != 2]  # green is the main's
    options = dict(figsize=(13, 5.4), sharex=True, sharey=True, layout="constrained")
    figure, panels = plt.subplots(2, 4, **options)
    for axes, kind in zip(panels.flat, KINDS, strict=False):
        for number, name in enumerate(shown):
            colour = plots.RIGHT if name == main else colours[number % len(colours)]
            style = dict(color=colour, lw=2.4 if name == main else 1.2, zorder=3 if name == main else 2)
            _line(axes, found[(found["variant"] == name) & (found["kind"] == kind)], names[name], style)
            dots = at_ratio[(at_ratio["variant"] == name) & (at_ratio["kind"] == kind)].groupby("percent")["value"]
            axes.plot(dots.mean(), "D", color=colour, ms=6, mec="white", zorder=4)
        axes.set(title=f"{kind}: {NAMED[kind]}", xticks=PERCENT)
        axes.title.set_fontsize(9)
    _legend(panels, len(at_ratio) > 0)
    figure.supxlabel("% of the test examples", fontsize=10)
    figure.supylabel(metric, fontsize=10)
    figure.suptitle(title, fontweight="bold")
    return figure


def _line(axes: plt.Axes, rows: pd.DataFrame, name: str, style: Mapping) -> None:
    found = rows.groupby("percent")["value"].agg(["mean", "std"]).fillna(0)
    axes.plot(found.index, found["mean"], "-", label=name, **style)
    low, high = (found["mean"] - found["std"]).clip(lower=0), (found["mean"] + found["std"]).clip(upper=100)
    axes.fill_between(found.index, low, high, color=style["color"], alpha=0.12, lw=0)


def _legend(panels: np.ndarray, with_dots: bool) -> None:
    """In the place of the eighth panel."""
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if with_dots:
        handles.append(plt.Line2D([], [], ls="", marker="D", color=plots.NEUTRAL))
        labels.append("tuned at the ratio")
    panels.flat[-1].axis("off")
    panels.flat[-1].legend(handles, labels, loc="center", frameon=False, fontsize=9)
