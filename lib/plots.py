"""Figures: one look for all papers."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lib.corpora.types import Picture, open_picture

RIGHT, WRONG, NEUTRAL = "#2a9d5c", "#c8553d", "#5b6472"


def style() -> None:
    """The project's look, once a notebook."""
    sns.set_theme(
        style="whitegrid", palette="deep", font="DejaVu Sans", rc={"figure.dpi": 96, "axes.titleweight": "bold"}
    )


def curves(history: pd.DataFrame, y: str, title: str) -> plt.Figure:
    """`y` against the epoch, a line a variant with its spread over seeds; `history` has variant, seed, epoch, y."""
    figure, axes = plt.subplots(figsize=(7.5, 4))
    sns.lineplot(history, x="epoch", y=y, hue="variant", errorbar="sd", ax=axes)
    axes.set(title=title)
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1.01, 1), title=None, frameon=False)
    return figure


def bars(runs: pd.DataFrame, metrics: Sequence[str], title: str, claimed: pd.DataFrame | None = None) -> plt.Figure:
    """One panel a metric: a bar a variant with its std over seeds; the paper's number as a diamond."""
    figure, panels = plt.subplots(
        1, len(metrics), figsize=(4.6 * len(metrics) + 2, 0.42 * runs["variant"].nunique() + 1.2), sharey=True
    )
    for axes, metric in zip(np.atleast_1d(panels), metrics, strict=True):
        sns.barplot(runs, x=metric, y="variant", errorbar="sd", color="#7aa6c2", err_kws={"linewidth": 1.2}, ax=axes)
        if claimed is not None and metric in claimed:
            axes.plot(claimed[metric], claimed["variant"], "D", color="#1d3557", ms=6, label="the paper")
            axes.legend(loc="lower right")
        axes.set(ylabel="", title=metric)
    figure.suptitle(title, fontweight="bold")
    figure.tight_layout()
    return figure


def pictures(
    rows: Sequence[Sequence[tuple[Picture, str, str]]], row_titles: Sequence[str] = (), side: float = 1.9
) -> plt.Figure:
    """A grid of pictures: each a (picture, caption, colour of its frame)."""
    columns = max(map(len, rows))
    figure, grid = plt.subplots(len(rows), columns, figsize=(side * columns, (side + 0.5) * len(rows)), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, cells in enumerate(rows):
        for axes, (picture, caption, colour) in zip(grid[row], cells, strict=False):
            _show(axes, picture, caption, colour)
        if row < len(row_titles):
            grid[row][0].set_title(row_titles[row], fontsize=9, loc="left", fontweight="bold")
    figure.tight_layout()
    return figure


def _show(axes: plt.Axes, picture: Picture, caption: str, colour: str) -> None:
    if picture is not None:
        axes.imshow(open_picture(picture))
    axes.axis("on")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("\n".join(textwrap.wrap(caption, 26)), fontsize=8)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


def ranked_captions(picture: Picture, captions: Sequence[tuple[str, float, bool]], title: str = "") -> plt.Figure:
    """A picture beside its best captions (text, score, right?), right ones green."""
    figure, (left, axes) = plt.subplots(1, 2, figsize=(9, 2.5), width_ratios=(1, 2.6))
    _show(left, picture, title, NEUTRAL)
    axes.axis("off")
    for line, (caption, score, right) in enumerate(captions):
        text = f"{score:.2f}  {caption}"
        axes.text(0, 0.92 - line / len(captions), text, color=RIGHT if right else WRONG, fontsize=10, va="top")
    return figure


def matrix(scores: np.ndarray, title: str, x: str, y: str) -> plt.Figure:
    """A heat map of scores [N, M]."""
    figure, axes = plt.subplots(figsize=(4.8, 4))
    sns.heatmap(scores, cmap="mako", ax=axes, xticklabels=False, yticklabels=False, cbar_kws={"shrink": 0.8})
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure
