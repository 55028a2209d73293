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


def dots(
    scores: pd.DataFrame,
    title: str,
    names: Mapping[str, str],
    main: str | None = None,
    limits: Mapping[str, float] | None = None,
    published: pd.DataFrame | None = None,
) -> plt.Figure:
    """One panel a metric: a dot a variant, its mean, with a line of a standard deviation over seeds to either side.

    `scores` and `published` have variant, metric, value; the `main` variant stands out; `limits` are drawn as lines.
    """
    panels, rows = scores["metric"].unique(), scores["variant"].unique()
    size = (max(2.1, 6.4 / len(panels)) * len(panels) + 2.6, 0.36 * len(rows) + 1.6)
    options = dict(sharex=True, sharey=True, squeeze=False, layout="constrained")
    figure, grid = plt.subplots(1, len(panels), figsize=size, **options)
    for axes, metric in zip(grid[0], panels, strict=True):
        mine = scores[scores["metric"] == metric].groupby("variant")["value"]
        spread = mine.agg(["mean", "std"]).reindex(rows).fillna({"std": 0})
        for y, (variant, (mean, std)) in enumerate(spread.iterrows()):
            colour, bigger = (RIGHT, 9) if variant == main else (NEUTRAL, 7)
            axes.errorbar(mean, y, xerr=std, fmt="o", ms=bigger, color=colour, capsize=3)
        if limits and metric in limits:
            axes.axvline(limits[metric], color=WRONG, ls="--", lw=1.3, label="a perfect reader")
        _published_marks(axes, published, metric, rows)
        axes.set(xlabel=metric, yticks=range(len(rows)), yticklabels=[names[row] for row in rows])
        axes.margins(x=0.12)
        axes.set_ylim(len(rows) - 0.5, -0.5)
    handles = {label: line for axes in grid[0] for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles, loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontweight="bold", x=0.02, ha="left")
    return figure


def _published_marks(axes: plt.Axes, published: pd.DataFrame | None, metric: str, rows: Sequence[str]) -> None:
    if published is None:
        return
    known = published[(published["metric"] == metric) & published["variant"].isin(rows)]
    if len(known):
        axes.plot(known["value"], [list(rows).index(row) for row in known["variant"]], "D", color=TRUE, ms=7,
                  mec="white", label="published", zorder=3)  # fmt: skip


def two_histograms(values: pd.DataFrame, x: str, hue: str, title: str) -> plt.Figure:
    """Two groups of values between 0 and 1, each as shares of its own number."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    options = dict(stat="probability", common_norm=False, multiple="dodge", shrink=0.85, palette=[RIGHT, WRONG])
    sns.histplot(values, x=x, hue=hue, bins=np.linspace(0, 1, 11), ax=axes, **options)
    axes.set(title=title, xlabel=x, ylabel="share of them", xlim=(0, 1))
    sns.move_legend(axes, "upper center", title=None, frameon=False)
    return figure


def counts(table: pd.DataFrame, title: str, x: str, y: str) -> plt.Figure:
    """A table of whole numbers as a shaded grid; the diagonal keeps its numbers and leaves the shade to the others."""
    figure, axes = plt.subplots(figsize=(0.8 * table.shape[1] + 1.6, 0.5 * table.shape[0] + 1.2))
    shade = table.where(~np.eye(*table.shape, dtype=bool), 0)
    options = dict(annot=table, fmt="d", cmap="Reds", cbar=False, linewidths=1, vmin=0, ax=axes)
    sns.heatmap(shade, vmax=2.5 * max(1, shade.to_numpy().max()), **options)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.tick_params(axis="y", rotation=0)
    return figure
