"""A trained K3M beside the test products: what it looks at, what it finds near, and what changes that."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from lib import corpora
from lib.analysis.trained import to_look_into
from lib.corpora.types import Picture, Product
from lib.papers import k3m
from lib.report import plots
from lib.report.pages import Report, keep_drawn
from lib.tasks.listings import encoder

Change = Mapping[str, Any]  # fields of a product that are others now: {"title": ""} takes its title away


# ---- the data, and one batch by hand ----


def gallery(items: Sequence[Product]) -> plt.Figure:
    """Some listings with their titles and triples."""
    return plots.pictures([[(item.image, caption(item), plots.NEUTRAL) for item in items]], side=2.4)


def caption(item: Product, most: int = 6) -> str:
    """Category, title and triples of a listing."""
    triples = ", ".join(f"{name} {value}" for name, value in item.properties[:most])
    more = ", …" if len(item.properties) > most else ""
    return f"{item.category.upper()}: “{item.title}” · {triples}{more}"


def told_apart(items: Sequence[Product], labels: Sequence[str], said: Mapping[str, torch.Tensor]) -> plt.Figure:
    """A row a model (its title -> its logits [N, labels]): what it takes the first listings for."""
    rows = []
    for logits in said.values():
        found = [(item, labels[i]) for item, i in zip(items[:6], logits.argmax(-1).tolist(), strict=False)]
        frame = lambda item, name: plots.RIGHT if name == item.category else plots.WRONG  # noqa: E731
        rows.append([(item.image, f"{item.title} → {name}", frame(item, name)) for item, name in found])
    return plots.pictures(rows, list(said))


# ---- a trained model ----


@dataclass(frozen=True)
class Shelf:
    """A trained model beside the test products, as it sees them."""

    title: str
    predictor: k3m.Predictor
    items: list[Product]

    @property
    def dataset(self) -> str:
        """Which one the model has learned from."""
        return self.predictor.settings.dataset

    @cached_property
    def example(self) -> int:
        """A listing worth looking into: with title, picture and several triples, another listing of the same product
        on the shelf, and taken for what it is, also without its title; as far as there is one."""
        count = Counter(item.product for item in self.items)
        full = [i for i, item in enumerate(self.items) if item.title and item.image and len(item.properties) > 3]
        found = ([i for i in full if count[self.items[i].product] > 1] or full or [0])[:50]
        right = self._right(found) or found
        return (self._right(right, {"title": ""}) or right)[0]

    def _right(self, rows: Sequence[int], change: Change | None = None) -> list[int]:
        """Those of some listings, perhaps changed, whose category is told."""
        said = zip(rows, self.look([self.items[i] for i in rows], change), strict=True)
        return [i for i, seen in said if self.category(seen) == self.items[i].category]

    @property
    def stranger(self) -> int:
        """The next listing of another category, with a title and a picture where there is one."""
        after = [*range(self.example + 1, len(self.items)), *range(self.example)]
        others = [i for i in after if self.items[i].category != self.items[self.example].category]
        return max(others or after, key=lambda i: bool(self.items[i].title) + bool(self.items[i].image))

    def look(self, items: Sequence[Product], change: Change | None = None) -> list[dict]:
        """How the model came to what it makes of some listings, perhaps changed: see `Predictor.inspect`."""
        return self.predictor.look([replace(item, **(change or {})) for item in items])

    def category(self, seen: Mapping) -> str | None:
        """The likeliest one; None of a model that knows none."""
        return None if seen["chances"] is None else self.predictor.context["labels"][int(seen["chances"].argmax())]

    # ---- what is near ----

    def near(self, seen: Mapping, but: int | None = None, k: int = 5) -> list[tuple[int, float]]:
        """The test products nearest to a listing, and their cosines; without the one that it is itself."""
        return [one for one in self.predictor.nearest(seen["c_star"], k + 1) if one[0] != but][:k]

    def cell(self, of: Product, i: int, score: float) -> tuple[Picture, str, str]:
        """A neighbour in a frame: green of the same product, yellow of the same category."""
        item = self.items[i]
        like = plots.TRUE if item.category == of.category else plots.WRONG
        frame = plots.RIGHT if item.product == of.product else like
        return item.image, textwrap.shorten(f"{score:.2f} {item.category}: {item.title}", 66, placeholder=" …"), frame

    def neighbours(self, i: int, changes: Mapping[str, Change]) -> plt.Figure:
        """A listing in each of some changed forms, a row each, before its nearest test products."""
        rows = []
        for change in changes.values():
            item = replace(self.items[i], **change)
            title = textwrap.shorten(item.title or "– no title –", 50, placeholder=" …")
            shown = (item.image, f"{title} · {len(item.properties)} triples", plots.NEUTRAL)
            (seen,) = self.look([item])
            rows.append([shown, *(self.cell(item, *found) for found in self.near(seen, i))])
        return plots.pictures(rows, list(changes), side=1.7)

    def moved(self, changes: Mapping[str, Change], count: int = 100, k: int = 5) -> pd.DataFrame:
        """Over the first test products, in per cent: how many of their nearest neighbours are of the same category,
        how often the nearest is the same product, and how many are neighbours of the listing as it is too."""
        some, rows = self.items[:count], []
        own = [{i for i, _ in self.near(seen, j, k)} for j, seen in enumerate(self.look(some))]
        for name, change in changes.items():
            near = [[i for i, _ in self.near(seen, j, k)] for j, seen in enumerate(self.look(some, change))]
            both = [(item, [self.items[i] for i in found]) for item, found in zip(some, near, strict=True)]
            shares = {
                "same category": [other.category == item.category for item, others in both for other in others],
                "nearest is the same product": [others[0].product == item.product for item, others in both if others],
                "neighbours kept": [i in mine for mine, found in zip(own, near, strict=True) for i in found],
            }
            rows.append({"listings": name} | {what: _percent(share) for what, share in shares.items()})
        return pd.DataFrame(rows)

    # ---- attention over triples ----

    def attention(self, i: int, change: Change | None = None) -> plt.Figure | None:
        """A listing, perhaps changed, what each head looks at among its triples, and how likely its category is without
        each of them; None of a model that does not look at triples, or knows no category."""
        item, known = replace(self.items[i], **(change or {})), self.predictor.context["labels"]
        (seen,) = self.look([item])
        weights = seen["attention"]
        if weights is None or not len(weights) or seen["chances"] is None or item.category not in known:
            return None
        gold, triples = known.index(item.category), item.properties[: len(weights)]
        fewer = [replace(item, properties=tuple(t for t in item.properties if t != left)) for left in triples]
        without = [each["chances"][gold].item() for each in self.look(fewer)]
        return _attention(item, triples, weights.numpy(), without, seen["chances"][gold].item())

    # ---- gates ----

    def gates(self, i: int, changes: Mapping[str, Change]) -> plt.Figure | None:
        """How much each word of a listing keeps of itself, as it is and changed; None of a model without gates."""
        found = [self.look([self.items[i]], change)[0] for change in changes.values()]
        rows = [(seen["pieces"], seen["gates"]["text"][:, 0].tolist(), ["O"] * len(seen["pieces"]))
                for seen in found if "text" in seen["gates"] and seen["pieces"]]  # fmt: skip
        return plots.shaded_tokens(rows, f"what words keep of themselves: {'; '.join(changes)}") if rows else None

    def region_gates(self, i: int, changes: Mapping[str, Change]) -> plt.Figure | None:
        """How much each region of the picture keeps of itself, as it is and changed; None of a model without gates, and
        where nobody knows the places of the regions."""
        found = [self.look([self.items[i]], change)[0]["gates"].get("image", ()) for change in changes.values()]
        if self.predictor.settings.regions == "detector" or not all(map(len, found)):
            return None
        boxes = list(encoder(self.predictor.settings).boxes(self.items[i].image))  # (R, 4)
        kept = np.stack([_over_picture(boxes, gate[:, 0].tolist()) for gate in found])  # (changes, cells)
        return plots.attention_maps([(self.items[i].image, list(changes), kept)])

    def kept(self, changes: Mapping[str, Change], count: int = 100) -> pd.DataFrame:
        """Over the first test products: how much words and regions keep of themselves, in per cent."""
        rows = []
        for name, change in changes.items():
            gates = [seen["gates"] for seen in self.look(self.items[:count], change)]
            shares = {title: [gate[part][:, 0].mean().item() for gate in gates if len(gate.get(part, ()))]
                      for part, title in PARTS.items()}  # fmt: skip
            rows.append({"listings": name} | {title: _percent(share) for title, share in shares.items()})
        return pd.DataFrame(rows)

    def keep(self, out: Report, name: str, title: str, figure: plt.Figure | None) -> None:
        """Put a figure of products into a report on the data that the model has learned from, if their pictures may be
        shown."""
        keep_drawn(out, self.dataset, name, f"{self.title}: {title}", figure)

    def tell(self, out: Report, name: str, title: str, table: pd.DataFrame) -> pd.DataFrame:
        """Put a table into a report on the data that the model has learned from. Returns it, rounded."""
        if self.dataset == out.dataset:
            out.table(name, f"{self.title}: {title}", table)
        return table.round(1)


PARTS = {"text": "words keep of themselves", "image": "regions keep of themselves"}


def looked_at(runs: pd.DataFrame, parameters: Mapping) -> Shelf:
    """K3M, if it is among the runs, of its seeds the best on dev, or what `to_look_into` finds."""
    mine = runs[runs["variant"] == k3m.PAPER.main]
    predictor, title = to_look_into("k3m", mine if len(mine) else runs, parameters)
    s = predictor.settings
    corpus = corpora.load(s.dataset, parameters["data_dir"] or s.data_dir, limit=s.train_limit)
    return Shelf(title, predictor, list(corpus.test[: s.test_limit]))


def _over_picture(boxes: Sequence[Sequence[float]], shares: Sequence[float], side: int = 24) -> np.ndarray:
    """Shares of regions over side x side cells of a picture [side * side]; zero where there is no region."""
    heat = np.zeros((side, side))
    for (left, top, right, bottom), share in zip(boxes, shares, strict=False):
        heat[round(side * top) : round(side * bottom), round(side * left) : round(side * right)] = share
    return heat.ravel()


def _percent(shares: Sequence[float]) -> float:
    return 100 * float(np.mean(shares)) if len(shares) else float("nan")


def _attention(item: Product, triples: Sequence[tuple[str, str]], weights: np.ndarray, without: Sequence[float],
               whole: float) -> plt.Figure:  # fmt: skip
    options = dict(figsize=(12, 0.42 * len(triples) + 1.8), width_ratios=(1.1, 2, 1.4), layout="constrained")
    figure, (left, middle, right) = plt.subplots(1, 3, **options)
    plots._show(left, item.image, caption(item, 0).rstrip(" ·…,"), plots.NEUTRAL)
    columns = [f"head {h + 1}" for h in range(weights.shape[1])]
    middle.imshow(weights, cmap="YlOrBr", vmin=0, aspect="auto")
    middle.set(title="what each head looks at", yticks=range(len(triples)), xticks=range(len(columns)))
    middle.set_yticklabels([f"{name}: {value}" for name, value in triples], fontsize=9)
    middle.set_xticklabels([name.removeprefix("head ") for name in columns])
    middle.grid(False)
    right.hlines(range(len(triples)), whole, without, color="#c9d1d9", lw=3)
    right.scatter(without, range(len(triples)), color=plots.RIGHT, zorder=3)
    right.axvline(whole, color=plots.NEUTRAL, lw=1, ls="--")
    right.set(title=f"chance of “{item.category}” without it", ylim=middle.get_ylim(), yticks=[], xlim=(-0.03, 1.03))
    return figure
