"""Products (K3M): listings as tensors for its pretraining and its three tasks, and scores under missing or noisy data.

Two protocols. "At test": one tuned model meets six passes, the clean test split and five in which all of it is
degraded; every ratio of every kind is a mixture of these. "Tuned at the ratio": the settings `degraded` and `ratio`
say what befalls training, dev and test alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from lib import corpora
from lib.corpora import products as experiments
from lib.corpora.iconworld.draw import Scene
from lib.corpora.iconworld.products import boxes, decided_by
from lib.corpora.products import KINDS, degrade, drawn, pairs, questions
from lib.corpora.types import Corpus, DataError, Pair, Product, Question
from lib.encoders.cache import Features
from lib.encoders.regions import SOURCES, overlap, region_encoder, unpack
from lib.encoders.text import encoder_key
from lib.metrics.products import accuracy_sums, alignment_sums, best_threshold, combine, rank_sums
from lib.names import require_known
from lib.progress import ticking
from lib.run.paper import Task
from lib.run.settings import TrainingSettings
from lib.sources import hash_of
from lib.tasks.pieces import Pieces, Ragged, train_tokenizer

TASKS = ("classification", "alignment", "questions")
PASSES = {"title missing": "TMR", "image missing": "IMR", "title noisy": "TNR", "image noisy": "INR", "both noisy": "TINR"}
CELLS = tuple(f"{kind}{percent}" for kind in KINDS for percent in (20, 50, 80, 100))  # and clean: 29 in all
SPAN = 16  # pieces of a property or value that are read


@dataclass(frozen=True)
class ProductSettings(TrainingSettings):
    """Which corpus, what the model reads of it, what is asked, and what is missing or noisy."""

    dataset: str = "iconworld-products"
    data_dir: str | None = None
    train_limit: int | None = None  # first listings of the training split, None for all
    test_limit: int | None = None  # and of dev and test
    regions: str = "grid"  # of a picture; or "boxes", IconWorld's true ones, or "detector"
    image_encoder: str = "lite0"
    image_size: int = 192  # 6x6 regions of a grid
    title: bool = True  # whether titles are read
    image: bool = True  # and pictures
    graph: str = "attention"  # over triples; or "text", behind the title; or "none"
    streams: str = "two"  # title and picture; or "three", also the triples as a sequence; or "one", or "lxmert"
    text_encoder: str = "wordpiece"  # learned from nothing; or "minilm", or another BERT's name or folder
    vocabulary: int = 4000  # pieces learned
    longest: int = 84  # pieces of a text; released: 36 of a title and 48 of its triples
    triples: int = 10  # of an item, the first ones; as released
    pooling: str = "real"  # positions; or "all", paddings too, as released
    mask_share: float = 0.15  # of words, of regions
    overlap: float = 0.4  # regions that overlap with a masked one by more are masked too; as released
    objects: str = "classes"  # what masked regions are told by; or "features", or "colours"
    masked_values: bool = False  # all but the first, in the sequence of triples, as released
    hidden_triples: float = 0.5  # the share of triples that c* has not seen in pretraining: what is told is missing
    stage: str = "tuning"  # or "pretraining"
    tasks: tuple[str, ...] = TASKS  # that one tuning is for
    negatives: int = 1  # pairs of different products for each pair of the same
    pool: int | None = None  # candidate answers of a question, None for the values of all properties
    candidates: int = 64  # wrong answers that a training batch compares with
    degraded: str | None = None  # one of TMR, IMR, MMR, TNR, INR, TINR, MNR: tuned at the `ratio`
    ratio: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name, known in CHOICES.items():
            require_known(name, getattr(self, name), known)
        for task in self.tasks:
            require_known("task", task, TASKS)
        for name in ("mask_share", "hidden_triples", "overlap", "ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share, 0 to 1")
        if self.masked_values and self.streams != "three":
            raise ValueError(f"masked_values with streams {self.streams!r}, expected 'three': they stand in a sequence")


CHOICES = {
    "graph": ("attention", "text", "none"),
    "streams": ("two", "three", "one", "lxmert"),
    "pooling": ("real", "all"),
    "objects": ("classes", "features", "colours"),
    "stage": ("pretraining", "tuning"),
    "regions": SOURCES,
    "degraded": (None, *KINDS),
}


# ---- the corpus ----


@dataclass(frozen=True)
class View:
    """What is asked of a split in one condition: its items, pairs of them, and questions about them."""

    items: Sequence[Product]
    pairs: Sequence[Pair] = ()
    questions: Sequence[Question] = ()

    def listings(self) -> list[Product | Question]:
        """All that has to be read; what stands twice, twice."""
        return [*self.items, *(side for pair in self.pairs for side in (pair.left, pair.right)), *self.questions]


@dataclass(frozen=True)
class ProductData:
    """A corpus, its `views` by split and condition, and, bound to a model's context, the splits as tensors.
    `fingerprint`: all a run could see."""

    corpus: Corpus
    settings: ProductSettings
    views: dict[str, dict[str, View]]
    fingerprint: str
    train: "Split | None" = None
    dev: "Split | None" = None
    test: "Split | None" = None


def load(settings: ProductSettings) -> ProductData:
    """The corpus that `settings` name; read and degraded once for all variants that share it."""
    names = ("dataset", "data_dir", "train_limit", "test_limit", "regions", "image_encoder", "image_size", "stage")
    asked = ("tasks", "negatives", "pool", "degraded", "ratio")
    data = _load(ProductSettings(**{name: getattr(settings, name) for name in names + asked}))
    published = settings.text_encoder != "wordpiece"
    read = f"{data.fingerprint}/{encoder_key(settings.text_encoder)}" if published else data.fingerprint
    return replace(data, settings=settings, fingerprint=read)


@lru_cache(maxsize=4)
def _load(settings: ProductSettings) -> ProductData:
    corpus = corpora.load(settings.dataset, settings.data_dir, limit=settings.train_limit)
    if not isinstance(corpus.train[0], Product):
        raise DataError(f"corpus {settings.dataset!r} has no products, expected one of K3M's format")
    limits = {"train": None, "dev": settings.test_limit, "test": settings.test_limit}
    listings = {split: list(getattr(corpus, split)[:limit]) for split, limit in limits.items()}
    views = {split: _views(split, products, settings) for split, products in listings.items()}
    parts = [corpus.fingerprint, encoder(settings).identity, hash_of(Path(experiments.__file__))]
    return ProductData(corpus, settings, views, "/".join(parts))


def _views(split: str, products: list[Product], s: ProductSettings) -> dict[str, View]:
    if s.stage == "pretraining":
        return {"clean": View(products)}
    asked = {"items": products}
    if "alignment" in s.tasks:
        asked["pairs"] = pairs(products, negatives=s.negatives)
    if "questions" in s.tasks:
        asked["questions"] = questions(products, pool=s.pool)
    conditions = {"clean": (s.degraded or "TMR", s.ratio if s.degraded else 0.0)}
    if split == "test" and not s.degraded:
        conditions |= {name: (kind, 1.0) for name, kind in PASSES.items()}
    return {name: View(**{what: degrade(examples, *how) for what, examples in asked.items()})
            for name, how in conditions.items()}  # fmt: skip


def encoder(settings: ProductSettings):
    """What encodes the regions of pictures; where no boxes are known, the whole picture is one."""
    known = lambda picture: boxes(picture) if isinstance(picture, Scene) else ((0.0, 0.0, 1.0, 1.0),)  # noqa: E731
    given = known if settings.regions == "boxes" else None
    return region_encoder(settings.regions, settings.image_encoder, settings.image_size, given)


def features(listings: Iterable[Product | Question], settings: ProductSettings) -> tuple[dict, Features]:
    """The rows by picture, -1 for none, and the regions of each, computed at most once in the life of the cache."""
    distinct = list(dict.fromkeys(shown(listing) for listing in listings))
    return {picture: row for row, picture in enumerate(distinct)}, encoder(settings).features(distinct)


def shown(listing: Product | Question):
    """The picture of a listing, or of what is asked about."""
    return (listing.product if isinstance(listing, Question) else listing).image


def prepare(data: ProductData) -> None:
    """Compute whatever features are not in the cache yet, so that a run's seconds are those of its training."""
    features((listing for views in data.views.values() for view in views.values() for listing in view.listings()),
             data.settings)  # fmt: skip


def context(data: ProductData, parent_context: Mapping | None = None) -> dict:
    """What a trained model needs of its corpus: the tokenizer, the parent's if there is one, categories, each
    property's values, and how wide regions are."""
    products, values = data.views["train"]["clean"].items, {}
    for name, value in (triple for product in products for triple in product.properties):
        values.setdefault(name, set()).add(value)
    read = [text for product in products for text in (product.title, *(part for p in product.properties for part in p))]
    regions = encoder(data.settings)
    return {
        "tokenizer": (parent_context or {}).get("tokenizer") or train_tokenizer(read, data.settings),
        "labels": sorted({product.category for product in products}),
        "values": {name: sorted(found) for name, found in sorted(values.items())},
        "region": regions.dim,
        "classes": 91 if data.settings.regions == "detector" else 1000,
    }


def bind(data: ProductData, context: Mapping) -> ProductData:
    """The splits as a model with this context reads them."""
    splits = {split: Split(views, context, data.settings) for split, views in data.views.items()}
    splits["test"].dev = splits["dev"]
    return replace(data, **splits)


# ---- as tensors ----


class Listings:
    """Listings as the model reads them: words, regions, and triples as rows of distinct `spans`."""

    def __init__(self, listings: Sequence[Product | Question], pieces: Pieces, settings, values: Iterable[str] = ()):
        s, self.settings, self.pieces = settings, settings, pieces
        products = [listing.product if isinstance(listing, Question) else listing for listing in listings]
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
        self.rows, self.features = features(listings, s)
        self.pictures = np.array([self.rows[shown(listing)] for listing in listings])

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


def question(listing: Product | Question) -> str:
    """What is asked, without the title before it; nothing of a product."""
    return listing.text.rpartition(experiments.SEP)[2] if isinstance(listing, Question) else ""


class Asked:
    """A view as tensors: distinct listings, and which of them each item, pair and question is about."""

    def __init__(self, view: View, context: Mapping, settings):
        pools = [asked.pool for asked in view.questions]
        distinct = {}
        rows = [distinct.setdefault(_identity(one), (len(distinct), one))[0] for one in view.listings()]
        values = sorted({value for pool in {id(pool): pool for pool in pools}.values() for value in pool})
        self.listings = Listings([one for _, one in distinct.values()], Pieces(context["tokenizer"]), settings, values)
        self.items, both, self.asked = np.split(np.array(rows), [len(view.items), len(rows) - len(view.questions)])
        self.left, self.right = both[::2], both[1::2]
        self.same = np.array([pair.same for pair in view.pairs], int)
        index = {label: i for i, label in enumerate(context["labels"])}
        self.labels = np.array([index.get(product.category, -1) for product in view.items])
        span = self.listings.span
        self.candidates = np.array([span[value] for value in values], int)  # (V,) spans
        self.answers = np.array([span[asked.answer] for asked in view.questions], int)  # (Q,) spans
        self.pools = None if len({id(pool) for pool in pools}) < 2 else np.array(
            [[span[value] for value in pool] for pool in pools])  # fmt: skip


def _identity(listing: Product | Question) -> tuple:
    product = listing.product if isinstance(listing, Question) else listing
    return question(listing), product.title, id(product.image), product.properties


class Split:
    """One split, in each of its conditions."""

    dev: "Split | None" = None  # where a test split's threshold is chosen

    def __init__(self, views: Mapping[str, View], context: Mapping, settings):
        self.settings, self.views = settings, views
        self.asked = {name: Asked(view, context, settings) for name, view in views.items()}
        clean = self.clean = self.asked["clean"]
        firsts = {"classification": clean.items, "alignment": clean.left, "questions": clean.asked}
        wanted = settings.tasks if settings.stage == "tuning" else ("classification",)
        self.counts = [len(firsts[task]) * (task in wanted) for task in TASKS]
        self.lengths = clean.listings.title_lengths[np.concatenate([rows[: n] for rows, n in
                                                    zip(firsts.values(), self.counts, strict=True)])]  # fmt: skip

    def batch(self, indices: np.ndarray, random: np.random.Generator, part: str = "model") -> dict[str, torch.Tensor]:
        """Some of what is asked as a K3M batch: items, pairs and questions as they come, each listing once."""
        make = self._tuning_batch if self.settings.stage == "tuning" else self._pretraining_batch
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in make(indices, random).items()}

    def _tuning_batch(self, indices: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        starts, clean = np.cumsum([0, *self.counts]), self.clean
        items, pairs, asked = (indices[(a <= indices) & (indices < b)] - a for a, b in zip(starts, starts[1:], strict=False))
        rows = [clean.items[items], clean.left[pairs], clean.right[pairs], clean.asked[asked]]
        distinct, where = np.unique(np.concatenate(rows), return_inverse=True)
        places = dict(zip(("items", "left", "right", "asked"), np.split(where, np.cumsum(list(map(len, rows)))[:-1]),
                          strict=True))  # fmt: skip
        drawn = random.choice(clean.candidates, min(len(clean.candidates), self.settings.candidates), replace=False)
        spans = np.unique(np.concatenate([clean.answers[asked], drawn]))
        answers = {"candidates": np.arange(len(spans)), "answers": np.searchsorted(spans, clean.answers[asked])}
        gold = {"labels": clean.labels[items], "same": clean.same[pairs]}
        return {**clean.listings.batch(distinct, spans), **places, **gold, **answers}

    def _pretraining_batch(self, indices: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        found, s = self.clean.listings.batch(self.clean.items[indices]), self.settings
        pieces = self.clean.listings.pieces
        maskable = found["text_mask"] & (found["text"] != pieces.separator)
        found |= mask_words(found["text"], maskable, s.mask_share, pieces, random)
        if s.masked_values:
            later, _ = self.clean.listings.later_values.padded(self.clean.items[indices], width=found["graph"].shape[1])
            found["masked_values"] = np.flatnonzero(later)
            found["value_words"] = found["graph"].flat[found["masked_values"]]
            found["graph"].flat[found["masked_values"]] = pieces.mask
        found |= mask_regions(found, s.mask_share, s.overlap, s.objects, random)
        values = np.unique(found["values"][found["triple_mask"]])
        if len(values):
            step = random.integers(1, max(2, len(values)), found["values"].shape)
            found["wrong"] = values[(np.searchsorted(values, found["values"]) + step) % len(values)]
        else:
            found["wrong"] = found["values"]
        hidden = random.random(found["triple_mask"].shape) < s.hidden_triples
        return {**found, "triple_shown": found["triple_mask"] & ~hidden}


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
    shown = found["region_mask"]
    masked = shown & (random.random(shown.shape) < share)
    if most < 1:
        near = overlap(torch.from_numpy(found["boxes"])).numpy() > most  # (B, R, R)
        masked = shown & (masked | (near & masked[:, :, None]).any(1))
    places = np.flatnonzero(masked)
    flat = {name: found[name].reshape(-1, found[name].shape[-1]) for name in ("classes", "probabilities", "regions", "colours")}
    target = flat["colours" if objects == "colours" else "regions"][places]
    regions = found["regions"].copy()
    regions.reshape(flat["regions"].shape)[places[random.random(len(places)) < 0.9]] = 0
    targets = {"target_classes": flat["classes"][places], "target_probabilities": flat["probabilities"][places]}
    return {"regions": regions, "masked_regions": places, "targets": target, **targets}


# ---- what a model says, and its scores ----


def _chunks(asked: Asked, rows: np.ndarray, size: int = 256) -> Iterable[np.ndarray]:
    """Like lengths together: little padding."""
    order = rows[np.argsort(asked.listings.texts.lengths[rows], kind="stable")]
    return ticking(np.array_split(order, max(1, -(-len(order) // size))), "reading listings", len(order), len)


def _to(batch: Mapping[str, np.ndarray], device) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


@torch.no_grad()
def read(model: torch.nn.Module, asked: Asked) -> torch.Tensor:
    """c* [N, d] of all listings of a view, where the model is."""
    device, rows = next(model.parameters()).device, np.arange(len(asked.listings.pictures))
    found = torch.zeros(len(rows), model.settings.width, device=device)
    for chunk in _chunks(asked, rows):
        found[torch.from_numpy(chunk).to(device)] = model.encode(**_to(asked.listings.batch(chunk), device))["c_star"].float()
    return found


@torch.no_grad()
def answer_scores(model: torch.nn.Module, asked: Asked, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [Q, P] of each question's candidates, and which is right [Q]."""
    spans, mask = asked.listings.spans.padded(asked.candidates, 4)
    vectors = model.read_spans(*_to({"spans": spans, "mask": mask}, c.device).values())
    scores = model.answer(c[torch.from_numpy(asked.asked).to(c.device)], vectors).cpu()  # (Q, V)
    if asked.pools is None:
        return scores, torch.from_numpy(np.searchsorted(asked.candidates, asked.answers))
    pools = torch.from_numpy(np.searchsorted(asked.candidates, asked.pools))  # (Q, P)
    return scores.gather(1, pools), torch.from_numpy((asked.pools == asked.answers[:, None]).argmax(1))


def pair_scores(model: torch.nn.Module, asked: Asked, c: torch.Tensor) -> torch.Tensor:
    """How likely each pair [M] is one product."""
    left, right = (c[torch.from_numpy(side).to(c.device)] for side in (asked.left, asked.right))
    with torch.no_grad():
        return model.compare(left, right).sigmoid().cpu()


def predict(model: torch.nn.Module, split: Split, quick: bool = False) -> dict:
    """Of each condition and metric the sums of the metric's examples, "title noisy/accuracy" [N, 2] and so on; the
    `category` [N] found of each clean item and its `embedding` [N, d]; the `threshold` of alignment, from dev."""
    model.eval()
    dev, said = split.dev or split, {"threshold": 0.5}
    if "alignment" in model.heads:
        scores = pair_scores(model, dev.clean, read(model, dev.clean))
        said["threshold"] = best_threshold(scores, torch.from_numpy(dev.clean.same))
    for name in ["clean"] if quick else split.asked:
        asked = split.asked[name]
        c = read(model, asked)
        sums, items = {}, c[torch.from_numpy(asked.items).to(c.device)]
        if "classification" in model.heads:
            with torch.no_grad():
                category = model.classify(items).argmax(-1).cpu()
            sums |= accuracy_sums(category, torch.from_numpy(asked.labels))
            said.setdefault("category", category)
        if "alignment" in model.heads:
            scores, same = pair_scores(model, asked, c), torch.from_numpy(asked.same)
            sums["F1"] = alignment_sums(scores, same, said["threshold"])["F1"]
        if "questions" in model.heads:
            sums |= rank_sums(*answer_scores(model, asked, c))
        said.setdefault("embedding", items.cpu())
        said |= {f"{name}/{metric}": torch.from_numpy(rows).float() for metric, rows in sums.items()}
    return said | {"titles": [product.title for product in split.views["clean"].items]}


BASES = {"classification": ("accuracy",), "alignment": ("F1",), "questions": ("Rank@1", "Rank@5", "Rank@10", "MRR")}
MEAN = ("accuracy", "F1", "MRR")  # what an epoch is chosen by: the mean of those that are asked for


def statistics(said: Mapping, metric: str) -> np.ndarray:
    """The two summands of each item, pair or question [N, 2] under a metric: "accuracy", "Rank@10/TNR50", or
    "drop/TNR50", the accuracy that is lost there."""
    base, _, cell = metric.partition("/")
    if base == "drop":
        clean, left = (statistics(said, name) for name in ("accuracy", f"accuracy/{cell}"))
        return np.stack([clean[:, 0] - left[:, 0], clean[:, 1]], axis=1)
    rows = said[f"clean/{base}"].numpy().astype(float)
    if cell:
        kind = cell.rstrip("0123456789")
        for row, fate in enumerate(_drawn(len(rows), kind, int(cell.removeprefix(kind)))):
            if fate:
                rows[row] = said[f"{fate}/{base}"][row].numpy()
    return rows


@lru_cache(maxsize=128)
def _drawn(count: int, kind: str, percent: int) -> tuple[str | None, ...]:
    return tuple(drawn(count, kind, percent / 100))


def metrics(tasks: Sequence[str], cells: Sequence[str]) -> tuple[str, ...]:
    """The names of all scores that are sums over examples."""
    bases = [base for task in TASKS if task in tasks for base in BASES[task]]
    in_cells = bases + ["drop"] * ("accuracy" in bases)
    return (*bases, *(f"{base}/{cell}" for base in in_cells for cell in cells))


def score(said: Mapping) -> dict[str, float]:
    """All metrics in per cent, in all cells where the passes were made, and the `mean` of the clean tasks."""
    tasks = [task for task, bases in BASES.items() if f"clean/{bases[0]}" in said]
    passed = all(f"{name}/{BASES[tasks[0]][0]}" in said for name in PASSES)
    flat = {name: float(combine(statistics(said, name).sum(0))) for name in metrics(tasks, CELLS if passed else ())}
    return flat | {"mean": float(np.mean([flat[name] for name in MEAN if name in flat]))}


def pretraining_losses(model: torch.nn.Module, split: Split, quick: bool = False) -> dict:
    """The mean of each loss over a split, always with the same words, regions and triples hidden."""
    model.eval()
    device, sums, count = next(model.parameters()).device, {}, len(split.lengths)
    for i, chunk in enumerate(_chunks(split.clean, np.arange(count))):
        batch = split.batch(chunk, np.random.default_rng(i))
        with torch.no_grad():
            losses = model(**{name: value.to(device) for name, value in batch.items()})
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item() * len(chunk) / count
    return sums


def groups(data: ProductData) -> dict[str, np.ndarray]:
    """Masks [N] of the test items by what decides their category; empty where nobody knows, but on IconWorld."""
    if not data.corpus.name.startswith("iconworld"):
        return {}
    decided = np.array(decided_by(data.corpus.test))[: len(data.views["test"]["clean"].items)]
    return {kind: decided == kind for kind in sorted(set(decided))}


def task(settings: ProductSettings) -> Task:
    """Pretraining, judged by its losses on dev, or the tasks that a model is tuned for."""
    make = partial(Task, load=load, prepare=prepare, context=context, bind=bind, unit="example")
    if settings.stage == "pretraining":
        whole = lambda said: {**said, "loss": sum(said.values())}  # noqa: E731
        return make(predict=pretraining_losses, score=whole, monitor="loss", mode="min")
    sums = dict(metrics=metrics(settings.tasks, () if settings.degraded else CELLS), statistics=statistics)
    known = groups if "classification" in settings.tasks else lambda data: {}
    return make(predict=predict, score=score, monitor="mean", groups=known, **sums)
