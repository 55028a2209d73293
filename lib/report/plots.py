"""Figures: one look for all papers."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from lib.corpora.types import Picture, open_picture
from lib.metrics.entities import chunks
from lib.report.fonts import draw_any_text

RIGHT, TRUE, WRONG, NEUTRAL = "#2a9d5c", "#e0a526", "#c8553d", "#5b6472"


def style() -> None:
    """The project's look, once a notebook."""
    sns.set_theme(style="whitegrid", palette="deep", rc={"figure.dpi": 96, "axes.titleweight": "bold"})
    draw_any_text()


def curves(history: pd.DataFrame, y: str, title: str, names: Mapping[str, str]) -> plt.Figure:
    """`y` against the epoch, a line a variant with its spread over seeds; `history` has variant, seed, epoch, y."""
    figure, axes = plt.subplots(figsize=(7.5, 4))
    shown = history.replace({"variant": names})
    sns.lineplot(
        shown, x="epoch", y=y, hue="variant", style="variant", dashes=False, markers=True, errorbar="sd", ax=axes
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=title)
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1.01, 1), title=None, frameon=False)
    return figure


def bars(
    runs: pd.DataFrame,
    metrics: Sequence[str],
    title: str,
    names: Mapping[str, str],
    claimed: pd.DataFrame | None = None,
    limits: Mapping[str, float] | None = None,
) -> plt.Figure:
    """One panel a metric: a bar a variant with its std over seeds; published numbers as diamonds, a limit as a line."""
    size = (3.6 * len(metrics) + 3, 0.4 * runs["variant"].nunique() + 1.4)
    figure, panels = plt.subplots(1, len(metrics), figsize=size, sharex=True, sharey=True, squeeze=False)
    shown = runs.replace({"variant": names})
    for axes, metric in zip(panels[0], metrics, strict=True):
        sns.barplot(shown, x=metric, y="variant", errorbar="sd", color="#7aa6c2", err_kws={"linewidth": 1.2}, ax=axes)
        if claimed is not None and metric in claimed:
            known = claimed[claimed["variant"].isin(runs["variant"])]
            axes.plot(known[metric], known["variant"].map(names), "D", color="#1d3557", ms=6, label="published")
        if limits and metric in limits:
            axes.axvline(limits[metric], color=WRONG, ls="--", label="a perfect reader")
        axes.set(xlabel=metric, ylabel="")
    if handles := panels[0][0].get_legend_handles_labels()[0]:
        figure.legend(handles=handles, loc="lower center", ncols=2, bbox_to_anchor=(0.6, -0.06), frameon=False)
    figure.suptitle(title, fontweight="bold")
    figure.tight_layout()
    return figure


def pictures(
    rows: Sequence[Sequence[tuple[Picture, str, str]]], row_titles: Sequence[str] = (), side: float = 1.9
) -> plt.Figure:
    """A grid of pictures: each a (picture, caption, colour of its frame)."""
    columns = max(map(len, rows))
    lines = max(len(_wrapped(caption)) for row in rows for _, caption, _ in row)
    below = max(0.35, 0.2 + 0.14 * lines)  # inches for the captions
    size = (side * columns, (side + below) * len(rows))
    figure, grid = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, cells in enumerate(rows):
        for axes, (picture, caption, colour) in zip(grid[row], cells, strict=False):
            _show(axes, picture, caption, colour)
        if row < len(row_titles):
            grid[row][0].set_title(row_titles[row], fontsize=9, loc="left", fontweight="bold")
    figure.subplots_adjust(left=0.01, right=0.99, wspace=0.08, hspace=max(0.35, below / side))
    return figure


def _wrapped(caption: str) -> list[str]:
    return textwrap.wrap(caption, 26)


def _show(axes: plt.Axes, picture: Picture, caption: str, colour: str) -> None:
    if picture is not None:
        axes.imshow(open_picture(picture))
    axes.axis("on")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("\n".join(_wrapped(caption)), fontsize=8)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


def ranked_captions(picture: Picture, captions: Sequence[tuple[str, float, str]], title: str = "") -> plt.Figure:
    """A picture beside its best captions (text, score, colour)."""
    figure, (left, axes) = plt.subplots(1, 2, figsize=(9, 2.5), width_ratios=(1, 2.6))
    _show(left, picture, title, NEUTRAL)
    axes.axis("off")
    for line, (caption, score, colour) in enumerate(captions):
        axes.text(0, 0.92 - line / len(captions), f"{score:.2f}  {caption}", color=colour, fontsize=10, va="top")
    return figure


def matrix(scores: np.ndarray, title: str, x: str, y: str) -> plt.Figure:
    """A heat map of scores [N, M]."""
    figure, axes = plt.subplots(figsize=(4.8, 4))
    sns.heatmap(scores, cmap="mako", ax=axes, xticklabels=False, yticklabels=False, cbar_kws={"shrink": 0.8})
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure


TYPE_COLOURS = {"PER": "#4c72b0", "LOC": "#2a9d5c", "ORG": "#c8553d", "MISC": "#8a5fa8", "OTHER": "#8a5fa8"}


def tagged(tokens: Sequence[str], tags: Sequence[str]) -> str:
    """A post as plain text, its entities as [name TYPE]."""
    found = {start: (kind, end) for kind, start, end in chunks(tags)}
    words, i = [], 0
    while i < len(tokens):
        kind, end = found.get(i, (None, i + 1))
        words.append(" ".join(tokens[i:end]) if kind is None else f"[{' '.join(tokens[i:end])} {kind}]")
        i = end
    return " ".join(words)


def shaded_tokens(rows: Sequence[tuple[Sequence[str], Sequence[float], Sequence[str]]], title: str) -> plt.Figure:
    """Sentences whose tokens are shaded by a value each, from the sentence's least to its greatest; the value stands
    below, and a tag other than O above. A row: (tokens, values, tags); a long sentence takes several lines."""
    lines = [line for row in rows for line in _token_lines(*row)]
    figure, panels = plt.subplots(len(lines), 1, figsize=(11, 0.95 * len(lines) + 0.4), squeeze=False)
    for axes, line in zip(panels[:, 0], lines, strict=True):
        axes.axis("off")
        for x, token, shade, value, tag in line:
            box = {"boxstyle": "round,pad=0.25", "facecolor": plt.cm.YlOrBr(0.75 * shade), "linewidth": 0}
            mono = {"family": ["DejaVu Sans Mono", *draw_any_text()], "fontsize": 8}
            axes.text(x, 0.5, token, ha="center", va="center", bbox=box, **mono)
            axes.text(x, 0.12, f"{value:.2f}", ha="center", va="center", fontsize=6, color=NEUTRAL)
            if tag != "O":
                colour = TYPE_COLOURS.get(tag[2:], NEUTRAL)
                axes.text(x, 0.88, tag, ha="center", va="center", fontsize=7, color=colour, fontweight="bold")
    figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def _token_lines(tokens: Sequence[str], values: Sequence[float], tags: Sequence[str], width: int = 90) -> list[list]:
    """Lines of (x, token, shade, value, tag): `width` letters fill a line, x and the shade go from 0 to 1."""
    shades = (np.asarray(values) - min(values)) / max(1e-9, max(values) - min(values))
    lines, begin = [[]], 0.0
    for token, *rest in zip(tokens, shades, values, tags, strict=True):
        if lines[-1] and begin + len(token) > width:
            lines, begin = [*lines, []], 0.0
        lines[-1].append(((begin + len(token) / 2 + 0.8) / width, token, *rest))
        begin += len(token) + 1.6
    return lines


def attention_maps(rows: Sequence[tuple[Picture, Sequence[str], np.ndarray]], side: float = 2.0) -> plt.Figure:
    """Pictures under what some tokens look at in them. A row: (picture, n tokens, attention [n, regions])."""
    columns = 1 + max(len(tokens) for _, tokens, _ in rows)
    size = (side * columns, (side + 0.25) * len(rows))
    figure, grid = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for panels, (picture, tokens, attention) in zip(grid, rows, strict=True):
        image = open_picture(picture)
        for axes, token, weights in zip(panels, ("", *tokens), (None, *attention), strict=False):
            axes.imshow(image)
            axes.set_title(token, fontsize=9)
            if weights is not None:
                cells = int(round(len(weights) ** 0.5))
                extent = (0, image.width, image.height, 0)
                heat = np.asarray(weights).reshape(cells, cells)
                axes.imshow(heat, cmap="inferno", alpha=0.6, extent=extent, interpolation="bilinear")
    figure.subplots_adjust(left=0.01, right=0.99, wspace=0.05, hspace=0.2)
    return figure
