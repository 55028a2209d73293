"""Products (K3M): listings as tensors for its pretraining and its three tasks, and scores under missing or noisy data.

Two protocols. "At test": one tuned model meets six passes, the clean test split and five in which all of it is
degraded; every ratio of every kind is a mixture of these. "Tuned at the ratio": the settings `degraded` and `ratio`
say what befalls training, dev and test alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from lib import corpora
from lib.corpora import products as experiments
from lib.corpora.iconworld.products import decided_by
from lib.corpora.products import KINDS, degrade, drawn, pairs, questions, unnamed, wording
from lib.corpora.types import Corpus, DataError, Product
from lib.encoders.pieces import train_tokenizer
from lib.encoders.regions import SOURCES
from lib.encoders.text import encoder_key
from lib.metrics.products import accuracy_sums, alignment_sums, best_threshold, combine, rank_sums
from lib.names import require_known
from lib.progress import ticking
from lib.run.paper import Task
from lib.run.settings import TrainingSettings
from lib.sources import hash_of
from lib.tasks.listings import TASKS, Asked, Split, View, encoder, features, tensors

PASSES = {"title missing": "TMR", "image missing": "IMR", "title noisy": "TNR", "image noisy": "INR",
          "both noisy": "TINR"}  # fmt: skip
CELLS = tuple(f"{kind}{percent}" for kind in KINDS for percent in (20, 50, 80, 100))  # and clean: 29 in all


@dataclass(frozen=True)
class ProductSettings(TrainingSettings):
    """Which corpus, what the model reads of it, what is asked, and what is missing or noisy."""

    dataset: str = "iconworld-products"
    data_dir: str | None = None
    train_limit: int | None = None  # first listings of the training split, None for all
    test_limit: int | None = None  # and of dev and test
    regions: str | None = None  # of a picture: "boxes", IconWorld's true ones, which is None there; "grid", which is
    # None elsewhere; or "detector"
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
    named: bool = True  # whether titles may hold the word of their category

    def __post_init__(self):
        super().__post_init__()
        if self.regions is None:
            object.__setattr__(self, "regions", "boxes" if self.dataset.startswith("iconworld") else "grid")
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
class ProductData:
    """A corpus, its `views` by split and condition, and, bound to a model's context, the splits as tensors.
    `fingerprint`: all a run could see."""

    corpus: Corpus
    settings: ProductSettings
    views: dict[str, dict[str, View]]
    fingerprint: str
    train: Split | None = None
    dev: Split | None = None
    test: Split | None = None


def load(settings: ProductSettings) -> ProductData:
    """The corpus that `settings` name; read and degraded once for all variants that share it."""
    names = ("dataset", "data_dir", "train_limit", "test_limit", "regions", "image_encoder", "image_size", "stage")
    asked = ("tasks", "negatives", "pool", "degraded", "ratio", "named")
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
    if not settings.named:
        listings = {split: list(map(unnamed, products)) for split, products in listings.items()}
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
    read += [wording(name) for name in sorted(values)]
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


# ---- what a model says, and its scores ----


def _chunks(rows: np.ndarray, lengths: np.ndarray, size: int = 256) -> Iterable[np.ndarray]:
    """Like lengths together: little padding."""
    order = rows[np.argsort(lengths[rows], kind="stable")]
    return ticking(np.array_split(order, max(1, -(-len(order) // size))), "reading listings", len(order), len)


@torch.no_grad()
def read(model: torch.nn.Module, asked: Asked) -> torch.Tensor:
    """c* [N, d] of all listings of a view, where the model is."""
    device, lengths = next(model.parameters()).device, asked.listings.texts.lengths
    chunks = list(_chunks(np.arange(len(lengths)), lengths))
    found = [model.encode(**tensors(asked.listings.batch(chunk), device))["c_star"].float() for chunk in chunks]
    return torch.cat(found)[torch.from_numpy(np.argsort(np.concatenate(chunks))).to(device)]


@torch.no_grad()
def answer_scores(model: torch.nn.Module, asked: Asked, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [Q, P] of each question's candidates, and which is right [Q]."""
    spans, mask = asked.listings.spans.padded(asked.candidates, 4)
    vectors = model.read_spans(*tensors({"spans": spans, "mask": mask}, c.device).values())
    scores = model.answer(c[torch.from_numpy(asked.asked).to(c.device)], vectors).cpu()  # (Q, V)
    if asked.pools is None:
        return scores, torch.from_numpy(np.searchsorted(asked.candidates, asked.answers))
    pools = torch.from_numpy(np.searchsorted(asked.candidates, asked.pools))  # (Q, P)
    return scores.gather(1, pools), torch.from_numpy((asked.pools == asked.answers[:, None]).argmax(1))


@torch.no_grad()
def categories(model: torch.nn.Module, asked: Asked, c: torch.Tensor) -> torch.Tensor:
    """The likeliest category of each item [N], -1 of a model that knows none."""
    if "classification" not in model.heads:
        return torch.full((len(asked.items),), -1)
    return model.classify(c[torch.from_numpy(asked.items).to(c.device)]).argmax(-1).cpu()


@torch.no_grad()
def pair_scores(model: torch.nn.Module, asked: Asked, c: torch.Tensor) -> torch.Tensor:
    """How likely each pair [M] is one product."""
    left, right = (c[torch.from_numpy(side).to(c.device)] for side in (asked.left, asked.right))
    return model.compare(left, right).sigmoid().cpu()


def predict(model: torch.nn.Module, split: Split, quick: bool = False) -> dict:
    """Of each condition and metric the sums of the metric's examples, "title noisy/accuracy" [N, 2] and so on; the
    `category` [N] found of each clean item and its `embedding` [N, d]; the `threshold` of alignment, from dev."""
    model.eval()
    said = {"titles": [product.title for product in split.views["clean"].items], "threshold": 0.5}
    if "alignment" in model.heads:
        dev = (split.dev or split).clean
        said["threshold"] = best_threshold(pair_scores(model, dev, read(model, dev)), torch.from_numpy(dev.same))
    for name in ["clean"] if quick else split.asked:
        asked, sums = split.asked[name], {}
        c = read(model, asked)
        category = categories(model, asked, c)
        if "classification" in model.heads:
            sums |= accuracy_sums(category, torch.from_numpy(asked.labels))
        if "alignment" in model.heads:
            scores = pair_scores(model, asked, c)
            sums["F1"] = alignment_sums(scores, torch.from_numpy(asked.same), said["threshold"])["F1"]
        if "questions" in model.heads:
            sums |= rank_sums(*answer_scores(model, asked, c))
        if name == "clean":
            said |= {"category": category, "embedding": c[torch.from_numpy(asked.items).to(c.device)].cpu()}
        said |= {f"{name}/{metric}": torch.from_numpy(rows).float() for metric, rows in sums.items()}
    return said


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


@torch.no_grad()
def pretraining_losses(model: torch.nn.Module, split: Split, quick: bool = False) -> dict:
    """The mean of each loss over a split, always with the same words, regions and triples hidden."""
    model.eval()
    device, sums, count = next(model.parameters()).device, {}, len(split.lengths)
    for i, chunk in enumerate(_chunks(np.arange(count), split.lengths)):
        batch = split.batch(chunk, np.random.default_rng(i))
        for name, loss in model(**{name: value.to(device) for name, value in batch.items()}).items():
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
