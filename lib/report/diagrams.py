"""Papers in one picture: boxes and arrows around a real example."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from lib.corpora.types import Picture, open_picture
from lib.report.plots import NEUTRAL

Place = tuple[float, float]
PLAIN, NEW = "#dbe7f1", "#d9efe2"  # what others had before, and what the paper adds


def flow(
    size: Place, boxes: Mapping[str, Place], arrows: Sequence[tuple[str, str]], new: Sequence[str] = ()
) -> plt.Axes:
    """Boxes of text at their places, an arrow for each pair of them; those of `new` in another colour."""
    figure, axes = plt.subplots(figsize=size)
    axes.axis("off")
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="equal")
    drawn = {}
    for name, (x, y) in boxes.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": NEW if name in new else PLAIN, "lw": 0}
        drawn[name] = axes.text(x, y, name, ha="center", va="center", fontsize=9.5, bbox=box, zorder=3)
    for start, end in arrows:
        ends = dict(patchA=drawn[start].get_bbox_patch(), patchB=drawn[end].get_bbox_patch())
        style = dict(arrowstyle="->", color=NEUTRAL, lw=1.3, shrinkA=1, shrinkB=2)
        axes.annotate("", boxes[end], boxes[start], arrowprops=style | ends)
    return axes


def keyphrases(picture: Picture, text: str, drawn: str, phrases: Sequence[str]) -> plt.Figure:
    """How CMKP reads a post and names its keyphrases, as in the paper."""
    boxes = {
        f"text\n{textwrap.fill(text, 22)}\n<sep> {textwrap.fill(drawn, 20)}": (3.2, 3.3), "regions": (3.2, 1.7),
        "attributes": (3.2, 0.6), "BiGRU": (5.2, 3.3), "linear": (5.2, 1.7), "linear ": (5.2, 0.6),
        "M3H attention:\neach asks\nthe others": (7.0, 1.7), "classifier": (9.0, 0.8), "GRU generates": (9.0, 3.3),
        "words of its\nbest phrases": (9.0, 2.05), "P(next word)": (11.1, 2.7),
        textwrap.fill(" · ".join(phrases), 18): (12.8, 2.7),
    }  # fmt: skip
    words, answer = list(boxes)[0], list(boxes)[-1]
    fused = "M3H attention:\neach asks\nthe others"
    arrows = [(words, "BiGRU"), ("regions", "linear"), ("attributes", "linear "), ("BiGRU", fused), ("linear", fused),
              ("linear ", fused), (fused, "classifier"), (fused, "GRU generates"), ("BiGRU", "GRU generates"),
              ("classifier", "words of its\nbest phrases"), ("words of its\nbest phrases", "P(next word)"),
              ("GRU generates", "P(next word)"), ("P(next word)", answer)]  # fmt: skip
    axes = flow((13.8, 4.2), boxes, arrows, new=["attributes", fused, "words of its\nbest phrases"])
    axes.imshow(open_picture(picture), extent=(0.1, 1.7, 0.4, 2.0))
    axes.annotate("", (2.7, 1.7), (1.75, 1.5), arrowprops={"arrowstyle": "->", "color": NEUTRAL})
    axes.annotate("", (2.6, 0.6), (1.75, 0.8), arrowprops={"arrowstyle": "->", "color": NEUTRAL})
    axes.annotate("", (2.4, 2.8), (1.0, 2.05), arrowprops={"arrowstyle": "->", "color": NEUTRAL})
    axes.text(0.95, 2.45, "OCR", fontsize=9, color=NEUTRAL)
    axes.text(7.1, 2.95, "copy", fontsize=9, color=NEUTRAL)
    return axes.figure
