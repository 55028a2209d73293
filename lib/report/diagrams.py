"""Papers in one picture: boxes and arrows around a real example."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from lib.corpora.types import Picture, Product, open_picture
from lib.report.plots import NEUTRAL, RIGHT

Place = tuple[float, float]
PLAIN, NEW = "#dbe7f1", "#d9efe2"  # what others had before, and what the paper adds
IMAGINED, RESULT = "#fdeccb", "#f3e3c3"


def canvas(size: Place) -> plt.Axes:
    """Axes without frame, in inches."""
    _, axes = plt.subplots(figsize=size)
    axes.axis("off")
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="equal")
    return axes


def box(axes: plt.Axes, name: str, place: Place, colour: str = PLAIN) -> plt.Text:
    """A name in a box of a colour; spaces around it tell boxes of the same name apart."""
    look = {"boxstyle": "round,pad=0.4", "facecolor": colour, "lw": 0}
    return axes.text(*place, name.strip(), ha="center", va="center", fontsize=9.5, bbox=look, zorder=3)


def arrow(axes: plt.Axes, start: Place, end: Place, **options) -> None:
    """An arrow from place to place; `options` of its style, such as the boxes that it keeps clear of."""
    style = dict(arrowstyle="->", color=NEUTRAL, lw=1.3) | options
    axes.annotate("", end, start, arrowprops=style)


def flow(
    size: Place, boxes: Mapping[str, Place], arrows: Sequence[tuple[str, str]], new: Sequence[str] = ()
) -> plt.Axes:
    """Boxes of text at their places, an arrow for each pair of them; those of `new` in another colour."""
    axes = canvas(size)
    drawn = {name: box(axes, name, place, NEW if name in new else PLAIN) for name, place in boxes.items()}
    for start, end in arrows:
        ends = dict(patchA=drawn[start].get_bbox_patch(), patchB=drawn[end].get_bbox_patch(), shrinkA=1, shrinkB=2)
        arrow(axes, boxes[start], boxes[end], **ends)
    return axes


def two_towers(picture: Picture, sentence: str) -> plt.Figure:
    """How VSE brings a picture and a sentence into one space, as in the paper."""
    axes, middle = canvas((11, 3)), 1.475
    axes.imshow(open_picture(picture), extent=(0.3, 1.7, 1.55, 2.95))
    axes.text(1.0, 0.7, textwrap.fill(sentence, 14), ha="center", va="center", fontsize=11, style="italic")
    towers = {2.25: ("frozen network", "feature q", "linear map W", "x"), 0.7: ("word vectors", "w₁ w₂ …", "LSTM", "v")}
    for y, names in towers.items():
        for i, name in enumerate(names):
            x = 2.9 + 1.95 * i
            box(axes, name, (x, y), PLAIN if i % 2 == 0 else "white")
            arrow(axes, (x - 1.15, y), (x - 0.8, y))
        arrow(axes, (9.0, y), (9.6, middle + (y - middle) * 0.3))
    box(axes, "s(x, v) = x · v", (10.1, middle), NEW)
    return axes.figure


MAF_BOXES = {  # name: place, colour
    "BERT": ((2.7, 2.6), PLAIN),
    "ResNet:\nregions U": ((2.7, 0.75), PLAIN),
    "attention:\ntext asks\npicture": ((4.7, 0.75), PLAIN),
    "CM: p, do\nthey match?": ((6.6, 0.75), NEW),
    "gate g,\nword by word": ((8.9, 0.75), NEW),
    "[H ; g · V′]": ((8.9, 2.6), PLAIN),
    "CRF": ((10.4, 2.6), PLAIN),
}
MAF_ARROWS = [  # from, to, what goes there
    ((1.65, 2.6), (2.25, 2.6), ""), ((1.65, 0.75), (2.1, 0.75), ""), ((3.15, 2.6), (8.2, 2.6), "H"),
    ((3.3, 0.75), (4.1, 0.75), "U"), ((3.1, 2.35), (4.4, 1.3), ""), ((5.3, 0.75), (5.9, 0.75), "V"),
    ((7.3, 0.75), (8.15, 0.75), "V′ = p V"), ((8.9, 1.2), (8.9, 2.3), ""), ((9.6, 2.6), (10.05, 2.6), ""),
    ((10.4, 2.3), (10.4, 1.5), ""),
]  # fmt: skip


def two_streams(picture: Picture, sentence: str, answer: str) -> plt.Figure:
    """How MAF reads a post, text and picture side by side, as in the paper."""
    axes = canvas((11, 3.4))
    axes.imshow(open_picture(picture), extent=(0.2, 1.5, 0.1, 1.4))
    axes.text(0.85, 2.6, textwrap.fill(sentence, 16), ha="center", va="center", fontsize=10, style="italic")
    for name, (place, colour) in MAF_BOXES.items():
        box(axes, name, place, colour)
    for start, end, name in MAF_ARROWS:
        arrow(axes, start, end)
        axes.text((start[0] + end[0]) / 2, start[1] + 0.12, name, ha="center", fontsize=9)
    axes.plot([2.7, 2.7], [1.25, 2.3], ls=":", color=RIGHT, lw=2)
    axes.text(2.62, 1.75, "CA: pull\ntogether", ha="right", va="center", fontsize=9, color=RIGHT)
    axes.text(10.4, 1.1, textwrap.fill(answer, 16), ha="center", va="center", fontsize=9, fontweight="bold")
    return axes.figure


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
    for start, end in (((1.75, 1.5), (2.7, 1.7)), ((1.75, 0.8), (2.6, 0.6)), ((1.0, 2.05), (2.4, 2.8))):
        arrow(axes, start, end, lw=1.0)
    axes.text(0.95, 2.45, "OCR", fontsize=9, color=NEUTRAL)
    axes.text(7.1, 2.95, "copy", fontsize=9, color=NEUTRAL)
    return axes.figure


def look_imagine_match(picture: Picture, sentence: str) -> plt.Figure:
    """The three paths of GXN, as in the paper: both sides are looked at twice, and the grounded look imagines."""
    axes = canvas((11, 3.7))
    axes.imshow(open_picture(picture), extent=(0.1, 1.3, 2.3, 3.5))
    axes.text(0.7, 0.75, textwrap.fill(sentence, 14), ha="center", va="center", fontsize=10, style="italic")
    boxes = {"frozen network,\nP_v": (2.5, 2.9), "two GRUs,\nP_t": (2.5, 0.75), "v_h": (4.3, 3.2), "v_l": (4.3, 2.5),
             "t_l": (4.3, 1.15), "t_h": (4.3, 0.45), "decoder (GRU)": (6.3, 2.5), "generator": (6.3, 1.15),
             "imagined sentence\n~ the real one?": (8.9, 2.5), "imagined picture\n~ the real one?": (8.9, 1.15),
             "s* = λ s(t_h, v_h) + (1 − λ) s(t_l, v_l)": (7.9, 3.3)}  # fmt: skip
    for name, (x, y) in boxes.items():
        box(axes, name, (x, y), NEW if name[:2] == "s*" else IMAGINED if "_l" in name or x > 5 else PLAIN)
    for y, upper, lower in ((2.9, 3.2, 2.5), (0.75, 1.15, 0.45)):
        for start, end in (((1.4, y), (1.75, y)), ((3.35, y), (4.0, upper)), ((3.35, y), (4.0, lower))):
            arrow(axes, start, end)
    for y in (2.5, 1.15):
        arrow(axes, (4.6, y), (5.4, y))
        arrow(axes, (7.15, y), (7.75, y))
    axes.plot([4.3, 4.3], [1.45, 2.2], ls=":", color=RIGHT, lw=2)
    axes.text(4.4, 1.82, "match", color=RIGHT, fontsize=9, va="center")
    axes.text(6.3, 1.82, "what imagining learns flows back to v_l and t_l", fontsize=9, va="center", color=NEUTRAL)
    return axes.figure


K3M_BOXES = {  # name: place, colour
    "Transformer\nof pictures": ((3.1, 3.0), PLAIN),
    "Transformer\nof text": ((3.1, 1.75), PLAIN),
    "Transformer\nof text ": ((3.1, 0.45), PLAIN),
    "each looks at\nthe other": ((5.3, 2.375), PLAIN),
    "fusion: its own,\nor what it saw?": ((7.5, 2.375), NEW),
    "mean c": ((9.2, 2.375), PLAIN),
    "attention over\ntriples": ((9.2, 0.45), NEW),
    "c*": ((10.7, 1.4), RESULT),
}
K3M_ARROWS = [((1.75, 3.0), (2.35, 3.0)), ((1.95, 1.75), (2.35, 1.75)), ((2.05, 0.45), (2.35, 0.45)),
              ((3.85, 2.9), (4.55, 2.55)), ((3.85, 1.85), (4.55, 2.2)), ((6.05, 2.375), (6.6, 2.375)),
              ((8.4, 2.375), (8.75, 2.375)), ((3.85, 0.45), (8.35, 0.45)), ((9.2, 2.1), (9.2, 0.85)),
              ((9.7, 2.2), (10.45, 1.6)), ((10.05, 0.6), (10.45, 1.2)), ((3.85, 3.15), (7.1, 2.8)),
              ((3.85, 1.6), (7.1, 1.95))]  # fmt: skip


def product(item: Product) -> plt.Figure:
    """How K3M reads a product: picture, title and triples, as in the paper."""
    axes = canvas((11.3, 3.6))
    axes.imshow(open_picture(item.image), extent=(0.6, 1.7, 2.45, 3.55))
    triples = "\n".join(f"⟨item, {name}, {value}⟩" for name, value in item.properties[:4])
    for y, said in ((1.75, textwrap.fill(f"“{item.title}”", 22)), (0.45, triples)):
        axes.text(1.0, y, said, ha="center", va="center", fontsize=9 if y > 1 else 8)
    for name, (place, colour) in K3M_BOXES.items():
        box(axes, name, place, colour)
    for start, end in K3M_ARROWS:
        arrow(axes, start, end)
    return axes.figure
