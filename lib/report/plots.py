"""Figures: one look for all papers."""

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.ticker import MaxNLocator
from PIL import Image

from lib.corpora.types import DataError, Picture, open_picture
from lib.metrics.entities import chunks
from lib.report.fonts import draw_any_text

RIGHT, TRUE, WRONG, NEUTRAL = "#2a9d5c", "#e0a526", "#c8553d", "#5b6472"


def style() -> None:
    """The project's look, once a notebook."""
    sns.set_theme(style="whitegrid", palette="deep", rc={"figure.dpi": 96, "axes.titleweight": "bold"})
    draw_any_text()
    pd.set_option("display.max_colwidth", None)  # a claim is read to its end
    if (shell := get_ipython()) is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, as_written)
        plt.switch_backend(plt.get_backend())  # the notebook's own, which brings a formatter of figures with it
        shell.display_formatter.formatters["image/png"].for_type(plt.Figure, as_png)


_drawn: WeakKeyDictionary[plt.Figure, bytes] = WeakKeyDictionary()


def as_png(figure: plt.Figure) -> bytes:
    """A figure as a PNG file. Drawing is slow, so it is drawn once for notebook and report, until it is changed."""
    if figure.stale or figure not in _drawn:
        file = BytesIO()
        figure.savefig(file, bbox_inches="tight", format="png")
        _drawn[figure], figure.stale = file.getvalue(), False
    return _drawn[figure]


def as_written(table: pd.DataFrame) -> str:
    """A table as a notebook shows it, in which what stands between two dollars is no formula."""
    shown = table._repr_html_()
    with pd.option_context("display.html.use_mathjax", False):
        return table._repr_html_() if "$" in shown else shown


def curves(history: pd.DataFrame, y: str, title: str, names: Mapping[str, str]) -> plt.Figure:
    """`y` against the epoch, a line a variant with its spread over seeds; `history` has variant, seed, epoch, y."""
    if history.empty:
        return _nothing()
    figure, axes = plt.subplots(figsize=(7.5, 4))
    shown = history.replace({"variant": names})
    sns.lineplot(
        shown, x="epoch", y=y, hue="variant", style="variant", dashes=False, markers=True, errorbar="sd", ax=axes
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=title)
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1.01, 1), title=None, frameon=False)
    return figure


def pictures(
    rows: Sequence[Sequence[tuple[Picture, str, str]]], row_titles: Sequence[str] = (), side: float = 1.9
) -> plt.Figure:
    """A grid of pictures: each a (picture, caption, colour of its frame)."""
    if not any(rows):
        return _nothing()
    columns = max(map(len, rows))
    lines = max(len(_wrapped(caption)) for row in rows for _, caption, _ in row)
    below = max(0.35, 0.2 + 0.14 * lines) + (0.2 if len(row_titles) > 1 else 0)  # inches for captions and titles
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
    """The picture in its frame; of one that is missing or broken, that it is."""
    axes.axis("on")
    if (image := _opened(picture)) is not None:
        axes.imshow(image)
    else:
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.text(0.5, 0.5, "no picture", ha="center", va="center", color=NEUTRAL, fontsize=9)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("\n".join(_wrapped(caption)), fontsize=8)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)


def _opened(picture: Picture) -> Image.Image | None:
    """The picture, None for one that is missing or broken."""
    try:
        return None if picture is None else open_picture(picture)
    except DataError:
        return None


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
        if (image := _opened(picture)) is None:
            _show(panels[0], None, "", NEUTRAL)
            continue
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


def _nothing() -> plt.Figure:
    """What is drawn where there is nothing to draw."""
    figure = plt.figure(figsize=(4, 0.6))
    figure.text(0, 0.5, "nothing to show", color=NEUTRAL, va="center")
    return figure


def matrices(panels: Mapping[str, np.ndarray], title: str, x: str, y: str) -> plt.Figure:
    """Heat maps of scores [N, M] side by side on one scale, such as before and after training."""
    low, high = (pick(float(pick(scores.flatten())) for scores in panels.values()) for pick in (min, max))
    figure, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels) + 0.6, 3.6), layout="constrained")
    for each, (name, scores) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        image = each.imshow(np.asarray(scores), cmap="mako", vmin=low, vmax=high)
        each.set(title=name, xlabel=x, ylabel=y, xticks=[], yticks=[])
        each.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.8)
    figure.suptitle(title, fontweight="bold")
    return figure


def dots(
    runs: pd.DataFrame,
    metrics: Sequence[str],
    title: str,
    names: Mapping[str, str],
    main: str,
    claimed: pd.DataFrame | None = None,
    limits: Mapping[str, float] | None = None,
    share: bool = False,
) -> plt.Figure:
    """One panel a metric: a dot a variant with its std over seeds, `main` in colour; published numbers as diamonds, a
    limit as a line; `share` gives all panels one scale."""
    rows = list(dict.fromkeys(runs["variant"]))[::-1]
    size = (min(3.6, 9 / len(metrics)) * len(metrics) + 3, 0.36 * len(rows) + 1.6)
    options = dict(figsize=size, sharex=share, sharey=True, squeeze=False, layout="constrained")
    figure, panels = plt.subplots(1, len(metrics), **options)
    for axes, metric in zip(panels[0], metrics, strict=True):
        found = runs.groupby("variant")[metric].agg(["mean", "std"]).reindex(rows).fillna({"std": 0})
        colours = [RIGHT if name == main else "#4c72b0" for name in rows]
        axes.hlines(range(len(rows)), found["mean"] - found["std"], found["mean"] + found["std"], colors=colours, lw=2)
        axes.scatter(found["mean"], range(len(rows)), c=colours, s=45, zorder=3)
        if claimed is not None and metric in claimed:
            known = claimed[claimed["variant"].isin(rows)].dropna(subset=[metric])
            style = dict(color="#1d3557", ms=6, label="published" if len(known) else None)
            axes.plot(known[metric], known["variant"].map(rows.index), "D", **style)
        if limits and metric in limits:
            axes.axvline(limits[metric], color=WRONG, ls="--", label="a perfect reader")
        axes.set(xlabel=metric, yticks=range(len(rows)), yticklabels=[names[name] for name in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
    if handles := panels[0][0].get_legend_handles_labels()[0]:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title, fontweight="bold")
    return figure


def changes(tables: Mapping[str, pd.DataFrame], title: str) -> plt.Figure:
    """What a score loses without each part, a dot a part and table; a table has the parts first, then the change, then
    the score as "mean ± std", whose std is drawn. The first row, the whole, is the line at zero."""
    tables = {name: table for name, table in tables.items() if len(table)}
    if not tables:
        return _nothing()
    figure, axes = plt.subplots(figsize=(8.5, 3.2), layout="constrained")
    parts = list(dict.fromkeys(part for table in tables.values() for part in table.iloc[1:, 0]))[::-1]
    for colour, (name, table) in zip(("#4c72b0", "#e0a526", RIGHT), tables.items(), strict=False):
        spread = [float(score.partition("±")[2] or 0) for score in table.iloc[:, 2].astype(str)]
        y = [parts.index(part) for part in table.iloc[1:, 0]]
        axes.errorbar(table.iloc[1:, 1], y, xerr=spread[1:], fmt="o", color=colour, label=name)
    axes.axvline(0, color=NEUTRAL, lw=1)
    axes.set(yticks=range(len(parts)), yticklabels=parts, xlabel=next(iter(tables.values())).columns[1])
    figure.legend(loc="outside right upper", frameon=False)
    figure.suptitle(title, fontweight="bold")
    return figure


def gaps(table: pd.DataFrame, columns: Sequence[str], title: str, x: str) -> plt.Figure:
    """Two columns of a table beside each other, a row a group (its first column) from the top: what lies between."""
    if table.empty:
        return _nothing()
    figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(table) + 1.3), layout="constrained")
    low, high = (table[name] for name in columns)
    rows = np.arange(len(table))[::-1]
    axes.hlines(rows, low, high, color="#c9d1d9", lw=3)
    for name, values, colour in zip(columns, (low, high), ("#4c72b0", NEUTRAL), strict=True):
        axes.scatter(values, rows, s=55, color=colour, zorder=3, label=name)
    axes.set(yticks=rows, yticklabels=table.iloc[:, 0], xlabel=x, ylim=(-0.6, len(table) - 0.4))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    figure.suptitle(title, fontweight="bold")
    return figure


def two_histograms(values: pd.DataFrame, x: str, hue: str, title: str) -> plt.Figure:
    """Two groups of values between 0 and 1, each as shares of its own number."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    options = dict(stat="probability", common_norm=False, multiple="dodge", shrink=0.85, palette=[RIGHT, WRONG])
    sns.histplot(values, x=x, hue=hue, bins=np.linspace(0, 1, 11), ax=axes, **options)
    axes.set(title=title, xlabel=x, ylabel="share of them", xlim=(0, 1))
    sns.move_legend(axes, "upper center", title=None, frameon=False)
    return figure


def stacked(axes: plt.Axes, shares: pd.DataFrame) -> None:
    """Shares of one, a bar a row from the top and a colour a column."""
    shares[::-1].plot.barh(stacked=True, ax=axes, legend=False, width=0.8, color=["#4c72b0", TRUE, WRONG, RIGHT])
    axes.set(ylabel="", xlim=(0, 1))


def counts(table: pd.DataFrame, title: str, x: str, y: str) -> plt.Figure:
    """A table of whole numbers as a shaded grid; the diagonal keeps its numbers and leaves the shade to the others."""
    figure, axes = plt.subplots(figsize=(0.8 * table.shape[1] + 1.6, 0.5 * table.shape[0] + 1.2))
    shade = table.where(~np.eye(*table.shape, dtype=bool), 0)
    options = dict(annot=table, fmt="d", cmap="Reds", cbar=False, linewidths=1, vmin=0, ax=axes)
    sns.heatmap(shade, vmax=2.5 * max(1, shade.to_numpy().max()), **options)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.tick_params(axis="y", rotation=0)
    return figure
