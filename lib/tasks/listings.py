"""Listings of products as tensors: what a model reads of them, what is asked about them, what is hidden from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lib.corpora.iconworld.draw import Scene
from lib.corpora.iconworld.products import boxes
from lib.corpora.products import SEP
from lib.corpora.types import Pair, Picture, Product, Question
from lib.encoders.cache import Features
from lib.encoders.pieces import Pieces, Ragged
from lib.encoders.regions import RegionEncoder, overlap, region_encoder, regions_at_most, unpack

TASKS = ("classification", "alignment", "questions")
SPAN = 16  # pieces of a property or value that are read


@dataclass(frozen=True)
class View:
    """What is asked of a split in one condition: its items, pairs of them, and questions about them."""

    items: Sequence[Product]
    pairs: Sequence[Pair] = ()
    questions: Sequence[Question] = ()

    def listings(self) -> list[Product | Question]:
        """All that has to be read; what stands twice, twice."""
        return [*self.items, *(side for pair in self.pairs for side in (pair.left, pair.right)), *self.questions]


# ---- what a model reads ----


def encoder(settings) -> RegionEncoder:
    """What encodes the regions of pictures; where no boxes are known, the whole picture is one."""
    known = lambda picture: boxes(picture) if isinstance(picture, Scene) else ((0.0, 0.0, 1.0, 1.0),)  # noqa: E731
    given = known if settings.regions == "boxes" else None
    return region_encoder(settings.regions, settings.image_encoder, settings.image_size, given)


def features(listings: Iterable[Product | Question], settings) -> tuple[dict, Features]:
    """The rows by picture, -1 for none, and the regions of each, computed at most once in the life of the cache."""
    distinct, regions = list(dict.fromkeys(shown(listing) for listing in listings)), encoder(settings)
    found = regions.features(distinct)
    kept = regions_at_most(regions)  # a batch copies no places that nobody fills
    known = Features(found.rows[:, :kept], found.positions)
    return {picture: row for row, picture in enumerate(distinct)}, known


def product_of(listing: Product | Question) -> Product:
    """The listing, or the one that is asked about."""
    return listing.product if isinstance(listing, Question) else listing


def shown(listing: Product | Question) -> Picture:
    """Its picture."""
    return product_of(listing).image


def question(listing: Product | Question) -> str:
    """What is asked, without the title before it; nothing of a product."""
    return listing.text.rpartition(SEP)[2] if isinstance(listing, Question) else ""


class Listings:
    """Listings as the model reads them: words, regions, and triples as rows of distinct `spans`."""

    def __init__(self, listings: Sequence[Product | Question], pieces: Pieces, settings, values: Iterable[str] = ()):
        s, self.settings, self.pieces = settings, settings, pieces
        products = list(map(product_of, listings))
        triples = [product.properties[: s.triples] for product in products]
        pieces.learn([part for found in triples for triple in found for part in triple] + list(values))
        pieces.learn([product.title for product in products] + list(map(question, listings)))
        self.title_lengths = np.array([len(pieces[product.title]) for product in products])
        self.texts = Ragged([self._text(*one) for one in zip(listings, products, triples, strict=True)])
        sequences = [pieces.sequence(found, s.longest) if s.streams == "three" else ([], []) for found in triples]
        self.graphs, self.later_values = (Ragged(column) for column in zip(*sequences, strict=True))
        used = sorted({part for found in triples for triple in found for part in triple} | {"", *values})
        self.span = {text: i for i, text in enumerate(used)}
        self.spans = Ragged([pieces[text][:SPAN] or [pieces.unknown] for text in used])
        known = triples if s.graph == "attention" else [()] * len(triples)
        self.properties, self.values = (Ragged([[self.span[t[i]] for t in found] for found in known]) for i in (0, 1))
        rows, self.features = features(listings, s)
        self.pictures = np.array([rows[shown(listing)] for listing in listings])

    def _text(self, listing: Product | Question, product: Product, triples: Sequence[tuple[str, str]]) -> list[int]:
        """The title, behind it a question, and the triples where the graph is read as text; a title is cut first."""
        s, asked = self.settings, self.pieces[question(listing)]
        behind = [self.pieces.separator, *asked] if asked else []
        title = self.pieces[product.title][: max(0, s.longest - len(behind))] if s.title else []
        graph = self.pieces.sequence(triples, s.longest)[0] if s.graph == "text" else []
        return (title + behind + graph)[: s.longest]

    def batch(self, rows: np.ndarray, spans: Sequence[int] = ()) -> dict[str, np.ndarray]:
        """Some listings, and whatever other `spans` are asked for, which begin the batch's own; see `K3M`."""
        fixed = self.settings.longest if self.settings.pooling == "all" else None
        text, text_mask = self.texts.padded(rows, 8, self.settings.longest, fixed)
        properties, triple_mask = self.properties.padded(rows, 4)
        values, _ = self.values.padded(rows, 4)
        wanted = np.unique(np.concatenate([[0], properties[triple_mask], values[triple_mask]]))
        wanted = np.concatenate([spans, np.setdiff1d(wanted, spans)]).astype(int)
        local = np.zeros(len(self.spans), int)
        local[wanted] = np.arange(len(wanted))
        read, span_mask = self.spans.padded(np.pad(wanted, (0, -len(wanted) % 32)), 4)
        found = {"text": text, "text_mask": text_mask, "spans": read, "span_mask": span_mask}
        found |= {"properties": local[properties], "values": local[values], "triple_mask": triple_mask}
        if self.settings.streams == "three":
            found["graph"], found["graph_mask"] = self.graphs.padded(rows, 8, self.settings.longest, fixed)
        return found | self._regions(rows)

    def _regions(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        part = {name: value.numpy() for name, value in unpack(self.features[self.pictures[rows]]).items()}
        mask = part.pop("present") & self.settings.image
        width = max(1, int(np.flatnonzero(mask.any(0)).max(initial=-1)) + 1)
        kept = ("features", "boxes") if self.settings.stage == "tuning" else tuple(part)
        part = {name: part[name][:, :width] * mask[:, :width, None] for name in kept}
        return {"regions": part.pop("features"), "region_mask": mask[:, :width], **part}


class Asked:
    """A view as tensors: distinct listings, and which of these each item, pair and question is `about`."""

    def __init__(self, view: View, context: Mapping, settings):
        distinct = {}
        rows = np.array([distinct.setdefault(_identity(one), (len(distinct), one))[0] for one in view.listings()])
        pools = {id(asked.pool): asked.pool for asked in view.questions}
        values = sorted({value for pool in pools.values() for value in pool})
        self.listings = Listings([one for _, one in distinct.values()], Pieces(context["tokenizer"]), settings, values)
        self.items, both, self.asked = np.split(rows, [len(view.items), len(rows) - len(view.questions)])
        self.left, self.right = both[::2], both[1::2]
        self.about = dict(zip(TASKS, (self.items, self.left, self.asked), strict=True))
        index = {label: i for i, label in enumerate(context["labels"])}
        self.labels = np.array([index.get(product.category, -1) for product in view.items], int)
        self.same = np.array([pair.same for pair in view.pairs], int)
        span = self.listings.span
        self.candidates = np.array([span[value] for value in values], int)  # (V,) spans, all that any pool has
        self.answers = np.array([span[asked.answer] for asked in view.questions], int)  # (Q,) spans
        several = len(pools) > 1  # then each question has its own, (Q, P) spans
        self.pools = np.array([[span[value] for value in asked.pool] for asked in view.questions]) if several else None


def _identity(listing: Product | Question) -> tuple:
    return question(listing), product_of(listing).title, id(shown(listing)), product_of(listing).properties


class Split:
    """One split, in each of its conditions; it trains in the clean one."""

    dev: "Split | None" = None  # where a test split's threshold is chosen

    def __init__(self, views: Mapping[str, View], context: Mapping, settings):
        self.settings, self.views = settings, views
        self.asked = {name: Asked(view, context, settings) for name, view in views.items()}
        self.clean = self.asked["clean"]
        wanted = settings.tasks if settings.stage == "tuning" else TASKS[:1]
        about = [rows if task in wanted else rows[:0] for task, rows in self.clean.about.items()]
        self.starts = np.cumsum([0, *map(len, about)])
        self.lengths = self.clean.listings.title_lengths[np.concatenate(about)]

    def batch(self, indices: np.ndarray, random: np.random.Generator, part: str = "model") -> dict[str, torch.Tensor]:
        """Some of what is asked as a K3M batch: items, pairs and questions as they come, each listing once."""
        make = self._tuning_batch if self.settings.stage == "tuning" else self._pretraining_batch
        return tensors(make(np.asarray(indices), random))

    def _tuning_batch(self, indices: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        clean, ends = self.clean, zip(self.starts, self.starts[1:], strict=False)
        items, pairs, asked = (indices[(start <= indices) & (indices < stop)] - start for start, stop in ends)
        about = {"items": clean.items[items], "left": clean.left[pairs], "right": clean.right[pairs],
                 "asked": clean.asked[asked]}  # fmt: skip
        rows = np.unique(np.concatenate(list(about.values())))
        drawn = random.choice(clean.candidates, min(len(clean.candidates), self.settings.candidates), replace=False)
        spans = np.unique(np.concatenate([clean.answers[asked], drawn]))
        gold = {"labels": clean.labels[items], "same": clean.same[pairs]}
        gold |= {"candidates": np.arange(len(spans)), "answers": np.searchsorted(spans, clean.answers[asked])}
        places = {name: np.searchsorted(rows, of) for name, of in about.items()}
        return {**clean.listings.batch(rows, spans), **places, **gold}

    def _pretraining_batch(self, indices: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        s, listings, rows = self.settings, self.clean.listings, self.clean.items[indices]
        found, pieces = listings.batch(rows), listings.pieces
        words = found["text_mask"] & (found["text"] != pieces.separator)
        found |= mask_words(found["text"], words, s.mask_share, pieces, random)
        if s.masked_values:
            hidden, _ = listings.later_values.padded(rows, width=found["graph"].shape[1])
            found["masked_values"] = np.flatnonzero(hidden)
            found["value_words"] = found["graph"].flat[found["masked_values"]]
            found["graph"].flat[found["masked_values"]] = pieces.mask
        found |= mask_regions(found, s.mask_share, s.overlap, s.objects, random)
        shown = found["triple_mask"] & (random.random(found["triple_mask"].shape) >= s.hidden_triples)
        wrong = wrong_values(found["properties"], found["values"], found["triple_mask"], random)
        return {**found, "wrong": wrong, "triple_shown": shown}


def tensors(batch: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """A batch where the model is."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


# ---- what is hidden in pretraining ----


def wrong_values(properties: np.ndarray, values: np.ndarray, mask: np.ndarray, random) -> np.ndarray:
    """Of each triple another value that the batch's real triples [B, X] have of the same property, or else of any; its
    own where all are one. (A value of another property is told from the property alone, without a look at the item.)"""
    known = np.unique(np.stack([properties[mask], values[mask]], 1), axis=0)  # (K, 2), by property
    start, stop = (np.searchsorted(known[:, 0], properties, side) for side in ("left", "right"))  # (B, X)
    alone = stop - start < 2
    start, size = np.where(alone, 0, start), np.where(alone, len(known), stop - start)
    base = known.max(initial=0) + 1
    own = np.searchsorted(known @ [base, 1], properties * base + values) - start
    step = 1 + (random.random(values.shape) * (size - 1)).astype(int)
    return known[(start + (own + step) % np.maximum(size, 1)) % max(len(known), 1), 1] if len(known) else values


def mask_words(text: np.ndarray, maskable: np.ndarray, share: float, pieces: Pieces, random) -> dict[str, np.ndarray]:
    """Hide a share of the words of text [B, T], in place: of ten eight become the mask, one another word, one stays
    (Devlin et al. 2019, section 3.1). `masked_words` [M] are their places among B x T, `words` [M] what they were."""
    places = np.flatnonzero(maskable & (random.random(text.shape) < share))
    words, fate = text.flat[places], random.random(len(places))
    others = random.integers(0, pieces.count, len(places))
    text.flat[places] = np.where(fate < 0.8, pieces.mask, np.where(fate < 0.9, others, words))
    return {"masked_words": places, "words": words}


def mask_regions(found: Mapping, share: float, most: float, objects: str, random) -> dict[str, np.ndarray]:
    """Hide a share of the regions, with all that overlap with one of these by more than `most`: nine of ten become
    zeros. `masked_regions` [M] are their places among B x R; then what they were, see `K3M.object_loss`."""
    shown, target = found["region_mask"], "colours" if objects == "colours" else "regions"
    masked = shown & (random.random(shown.shape) < share)
    near = overlap(torch.from_numpy(found["boxes"])).numpy() > most  # (B, R, R)
    masked = shown & (masked | (near & masked[:, :, None]).any(1))
    places, kept = np.flatnonzero(masked), masked & (random.random(shown.shape) < 0.1)
    goals = {"targets": target, "target_classes": "classes", "target_probabilities": "probabilities"}
    goals = {goal: found[name].reshape(masked.size, -1)[places] for goal, name in goals.items()}
    regions = found["regions"] * (kept | ~masked)[..., None]
    return {"regions": regions, "masked_regions": places, **goals}
