"""K3M as experiments: one pretraining under its tunings, what each part of it gives, and what it is compared to."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn.functional import normalize

from lib.asked import require_picture, require_properties, require_text
from lib.corpora.products import SEP, wording
from lib.corpora.types import Product, Question
from lib.encoders.pieces import Pieces
from lib.encoders.text import pretrained
from lib.models.k3m import K3M, MASKS
from lib.names import require_known
from lib.run.paper import Paper, Variant
from lib.run.settings import TrainingSettings
from lib.tasks import products
from lib.tasks.listings import TASKS, Asked, Listings, View, tensors
from lib.tasks.products import ProductSettings


@dataclass(frozen=True)
class Settings(ProductSettings):
    """The model and its losses. Sizes are chosen here; the paper's are 12 text layers, 6 of pictures and 6 between."""

    pretraining_epochs: int = 6
    pretraining_rate: float = 5e-4
    width: int = 128
    heads: int = 4
    text_layers: int = 2
    image_layers: int = 2
    co_layers: int = 1
    dropout: float = 0.1
    fusion: str = "hard"  # or "soft", "mean", "residual", "none"
    graph_heads: int = 8
    objectives: tuple[str, ...] = ("mlm", "mom", "lpm")  # of pretraining; lpm where there is attention over triples
    margin: float = 1.0  # of L_LPM, where distances are a mean over dimensions
    initial: str = "encoder"  # what fusion calls a modality by itself; or "embeddings"
    gates: str = "plain"  # or "squashed": sources above zero, scores between 0 and 1
    sampling: str = "training"  # when the hard choice is drawn; or "always"
    activation: str = "after"  # where the LeakyReLU stands; or "before" W_2
    structure: str = "margin"  # the loss of the triples; or "next", against the next item
    span_pooling: str = "mean"  # of a property's or value's pieces; or "ends"

    def __post_init__(self):
        super().__post_init__()
        for name, known in CHOICES.items():
            require_known(name, getattr(self, name), known)
        for name in self.objectives:
            require_known("objective", name, ("mlm", "mom", "lpm"))
        if self.stage == "pretraining":  # one profile for both stages
            object.__setattr__(self, "epochs", self.pretraining_epochs)
            object.__setattr__(self, "learning_rate", self.pretraining_rate)


CHOICES = {
    "fusion": ("mean", "soft", "hard", "residual", "none"),
    "initial": ("encoder", "embeddings"),
    "gates": ("plain", "squashed"),
    "sampling": ("training", "always"),
    "activation": ("after", "before"),
    "structure": ("margin", "next"),
    "span_pooling": ("mean", "ends"),
}
SCHEDULE = dict(schedule="linear", warmup=0.1, weight_decay=0.01, clip=1.0)
PROFILES = {  # of the small ones a step took less of a CPU in fp32 than in bf16
    "smoke": SCHEDULE
    | dict(epochs=3, pretraining_epochs=2, batch_size=32, learning_rate=2e-3, pretraining_rate=2e-3, width=64)
    | dict(text_layers=1, image_layers=1, dropout=0.0, precision="fp32", longest=48)
    | dict(image_size=96, train_limit=1500, test_limit=100),
    "small": SCHEDULE
    | dict(epochs=3, pretraining_epochs=6, batch_size=32, learning_rate=1e-3, pretraining_rate=1e-3, width=96)
    | dict(image_size=128, longest=64, dropout=0.0, precision="fp32"),
    "paper": SCHEDULE
    | dict(epochs=4, pretraining_epochs=6, batch_size=128, learning_rate=1e-4, pretraining_rate=1e-4, width=768)
    | dict(heads=12, text_layers=6, image_layers=6, co_layers=6, vocabulary=21128),
}

# What is trained on, and the model: all that pretraining shares with what is tuned from it.
_OWN = {field.name for field in fields(TrainingSettings)} - {"batch_size", "precision", "threads"}
_TUNING = {"stage", "tasks", "negatives", "pool", "candidates", "degraded", "ratio", "named"}
PASSED = tuple(field.name for field in fields(Settings) if field.name not in _OWN | _TUNING)

# The released code's habits, each where it stands: https://github.com/YushanZhu/K3M/blob/3db30ac/vilbert_k3m/...
RELEASED = dict(
    streams="three",  # vilbert_k3m.py#L2418: pairs of title, picture and triples
    initial="embeddings",  # vilbert_k3m.py#L2049
    gates="squashed",  # vilbert_k3m.py#L2276
    sampling="always",  # vilbert_k3m.py#L2294
    pooling="all",  # vilbert_k3m.py#L2333
    span_pooling="ends",  # vilbert_k3m.py#L2357
    activation="before",  # vilbert_k3m.py#L2366
    graph_heads=1,
    structure="next",  # vilbert_k3m.py#L2377
    hidden_triples=0.0,
    masked_values=True,  # datasets/concept_cap_dataset_struc.py#L838
)


def row(title: str, /, **changes) -> Variant:
    """Tuned from a pretraining with the same model."""
    return Variant(title, changes, parent="pretraining", passes=PASSED, shared=True)


def twice(name: str, title: str, /, **changes) -> dict[str, tuple[str, dict]]:
    """A model without the graph, and with its text."""
    return {
        name: (title, changes | dict(fusion="none", graph="none")),
        f"{name}-graph": (f"{title} + graph's text", changes | dict(fusion="none", graph="text")),
    }


def of_each_task(name: str, title: str, changes: Mapping) -> dict[str, Variant]:
    """A model tuned for each task by itself, as in the paper; the row of classification has the model's own name."""
    return {name + end: row(title + end.replace("-", ", "), **changes, tasks=(task,), **LONGER.get(task, {}))
            for task, end in ENDINGS.items()}  # fmt: skip


def at_ratios(names: Sequence[str]) -> dict[str, Variant]:
    """Rows tuned on degraded data and tested on data that are degraded alike."""
    asked = [(name, kind, percent) for name in names for kind in ("TMR", "TNR", "TINR") for percent in (50, 100)]
    return {f"{name}-{kind}{percent}": row(f"{ROWS[name].title}, tuned at {kind} {percent} %", **ROWS[name].changes,
                                           degraded=kind, ratio=percent / 100)
            for name, kind, percent in asked}  # fmt: skip


def unnamed(names: Sequence[str]) -> dict[str, Variant]:
    """Rows whose titles do not hold the word of their category."""
    return {f"{name}-unnamed": row(f"{ROWS[name].title}, category not named", **ROWS[name].changes, named=False)
            for name in names}  # fmt: skip


ENDINGS = {"classification": "", "alignment": "-alignment", "questions": "-questions"}
LONGER = {"questions": dict(epochs=8)}  # after three, K3M's Rank@1 on IconWorld was a third of what it is after eight
MODELS = {
    "text-only": ("title only", dict(image=False, graph="none")),
    "image-only": ("picture only", dict(title=False, graph="none")),
    "properties-only": ("properties only", dict(title=False, image=False)),
    **twice("single-stream", "one stream (VL-BERT)", streams="one"),
    **twice("two-stream", "two streams (ViLBERT)"),
    **twice("lxmert", "LXMERT", streams="lxmert"),
    "no-graph": ("K3M without graph", dict(graph="none")),
    "graph-as-text": ("K3M, graph as text", dict(graph="text")),
    "no-fusion": ("K3M without fusion", dict(fusion="none")),
    "fusion-residual": ("K3M, residual", dict(fusion="residual")),
    "fusion-mean": ("K3M, mean", dict(fusion="mean")),
    "fusion-soft": ("K3M, soft-spl", dict(fusion="soft")),
    "no-mlm": ("K3M without MLM", dict(objectives=("mom", "lpm"))),
    "no-mom": ("K3M without MOM", dict(objectives=("mlm", "lpm"))),
    "no-lpm": ("K3M without LPM", dict(objectives=("mlm", "mom"))),
    "pretrained-1": ("K3M, pretrained for 1 epoch", dict(pretraining_epochs=1)),
    "pretrained-24": ("K3M, pretrained for 24 epochs", dict(pretraining_epochs=24)),
    "mom-features": ("K3M, MOM of features", dict(objects="features")),
    "mom-colours": ("K3M, MOM of colours", dict(objects="colours")),
    "published-text": ("K3M from a pretrained text encoder", dict(text_encoder="minilm")),
    "released": ("K3M, as released", RELEASED),
    "k3m": ("K3M (hard-spl)", {}),
}
TUNED = {name: variant for model, asked in MODELS.items() for name, variant in of_each_task(model, *asked).items()}
FROM_SCRATCH = {name: Variant(like.title, like.changes)  # without a pretraining
                for name, like in of_each_task("scratch", "K3M from scratch", {}).items()}  # fmt: skip
ROWS = {
    "pretraining": Variant("pretraining", dict(stage="pretraining")),
    **FROM_SCRATCH,
    "together": row("K3M, one tuning for all tasks", tasks=TASKS, **LONGER["questions"]),
    **TUNED,
}
BASELINES = ["two-stream", "two-stream-graph", "k3m"]  # of which more is asked than one number
ON_REAL_PRODUCTS = ["text-only", "image-only", "properties-only", *BASELINES]
EACH_TASK = [f"{name}{ending}" for ending in ENDINGS.values() for name in ON_REAL_PRODUCTS]
VARIANTS = {**at_ratios(BASELINES), **unnamed(ON_REAL_PRODUCTS), **ROWS}
QUICK = ["text-only", "k3m"]  # what a minute has time for


def rows(profile: str, dataset: str) -> list[str]:
    """The rows that a profile trains on a corpus where nobody asks for others."""
    if profile == "smoke":
        return QUICK
    if not dataset.startswith("iconworld"):
        return [*unnamed(ON_REAL_PRODUCTS), *EACH_TASK]
    return [*at_ratios(BASELINES), *(name for name in ROWS if name != "pretraining")]


def task(settings: Settings):
    """Pretraining, or the tasks that a model is tuned for."""
    return products.task(settings)


def build(context: dict, settings: Settings) -> K3M:
    """The model that `settings` describe, with random weights; every one has about as many as K3M of its width."""
    sizes = {name: context[name] for name in ("region", "classes")}
    sizes |= {"pieces": Pieces(context["tokenizer"]).count, "labels": len(context["labels"])}
    return K3M(sizes, settings, inner_width(sizes, settings))


REFERENCE = dict(streams="two", fusion="hard", graph="attention", stage="tuning", masked_values=False,
                 text_encoder="wordpiece")  # fmt: skip


def inner_width(sizes: dict, settings: Settings) -> int:
    """How wide a Transformer's small network is: 4 d in K3M, and in other rows what makes their size K3M's. The sizes
    grow linearly with it; a pretrained text encoder keeps its own."""
    if settings.text_encoder != "wordpiece":
        return 4 * settings.width
    wanted = _size(sizes, replace(settings, **REFERENCE), 4 * settings.width)
    low, high = (_size(sizes, replace(settings, stage="tuning", masked_values=False), width) for width in (8, 16))
    return max(8, round(8 + 8 * (wanted - low) / (high - low)))


def _size(sizes: dict, settings: Settings, inner: int) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in K3M(sizes, settings, inner).parameters())


def initialise(model: K3M, context: dict, settings: Settings, parent=None) -> None:
    """Start from the parent's weights, but for its heads; a pretrained text encoder, without a parent, from its own."""
    if parent is not None:
        known = model.state_dict()
        shared = {name: w for name, w in parent.weights().items() if not name.startswith("heads.")}
        model.load_state_dict({**known, **shared})
    elif settings.text_encoder != "wordpiece":
        published, known = pretrained(settings.text_encoder)[1].state_dict(), model.backbone.text.published
        known.load_state_dict({name: w for name, w in published.items() if name in known.state_dict()})


@dataclass(frozen=True, eq=False)
class Shown:
    """Somebody's own picture as a drawing."""

    image: Image.Image

    @property
    def key(self) -> str:
        """Decides every pixel."""
        return hashlib.sha256(f"{self.image.mode} {self.image.size}".encode() + self.image.tobytes()).hexdigest()

    def draw(self) -> Image.Image:
        return self.image


class Predictor:
    """A tuned model, for a title, a picture (a path or a PIL image) and properties {name: value}, any of them left
    out."""

    def __init__(self, model: K3M, context: dict, settings: Settings, predictions: dict):
        self.model, self.context, self.settings, self.predictions = model.eval(), context, settings, predictions

    def __call__(
        self, text: str | None = None, image=None, properties: Mapping[str, str] | None = None, k: int = 5
    ) -> pd.DataFrame:
        """What it is, as a table (what, found, score): the likeliest categories, values of properties that it does not
        have, and the test products nearest to it, at most `k` each. Raises ValueError where all three are left out."""
        item = _product(text, image, properties)
        asked = self._asked(item)
        c, found = products.read(self.model, asked).cpu(), []
        if "classification" in self.model.heads:
            chances = self.model.classify(c[:1]).softmax(-1)[0]
            found += [("category", self.context["labels"][i], p) for i, p in _best(chances, k)]
        if "questions" in self.model.heads:
            found += self._missing(asked, c, properties or {})[:k]
        found += [("near", self.predictions["titles"][i], p) for i, p in self.nearest(c[0], k)]
        return pd.DataFrame(found, columns=["what", "found", "score"])

    def nearest(self, c_star: torch.Tensor, k: int = 5) -> list[tuple[int, float]]:
        """The test products nearest to an item's c* [d], and their cosines."""
        return _best(normalize(self.predictions["embedding"], dim=-1) @ normalize(c_star, dim=0), k)

    def inspect(self, text: str | None = None, image=None, properties: Mapping[str, str] | None = None) -> dict:
        """How the model came to it: `c` and `c_star` [d], the `chances` of all categories, `attention` [X, heads] over
        the triples that were read, the `pieces` of the title, and of each modality the `gates` [T, sources]; what a
        model does not have is None or left out."""
        return self.look([_product(text, image, properties)])[0]

    @torch.no_grad()
    def look(self, items: Sequence[Product]) -> list[dict]:
        """What `inspect` says, of several products read together."""
        listings = Listings(items, Pieces(self.context["tokenizer"]), self.settings)
        batch = tensors(listings.batch(np.arange(len(items))), next(self.model.parameters()).device)
        found = self.model.encode(**batch)
        known, looks = "classification" in self.model.heads, found["attention"] is not None
        chances = self.model.classify(found["c_star"]).softmax(-1) if known else None
        name, said = listings.pieces.tokenizer.id_to_token, []
        for i in range(len(items)):
            shown = {part: batch[mask][i] for part, mask in MASKS.items() if mask in batch}
            seen = {part: found[part][i].cpu() for part in ("c", "c_star")}
            seen["chances"] = chances[i].cpu() if known else None
            seen["attention"] = found["attention"][i][batch["triple_mask"][i]].cpu() if looks else None
            seen["pieces"] = [name(piece) for piece in batch["text"][i][shown["text"]].tolist()]
            said.append(seen | {"gates": {part: gate[i][shown[part]].cpu() for part, gate in found["gates"].items()}})
        return said

    def _asked(self, product: Product) -> Asked:
        """The product, and a question for each property that it lacks, over all values known."""
        pool = tuple(sorted({value for values in self.context["values"].values() for value in values}))
        names = [name for name in self.context["values"] if name not in dict(product.properties)]
        texts = [f"{product.title} {SEP}{wording(name)}".lstrip() for name in names]
        questions = [Question(name, product, said, pool[0], pool) for name, said in zip(names, texts, strict=True)]
        return Asked(View([product], questions=questions), self.context, self.settings)

    def _missing(self, asked: Asked, c: torch.Tensor, properties: Mapping[str, str]) -> list[tuple]:
        """Of each property that is not given its likeliest value among all values of all, the surest first."""
        known = self.context["values"]
        pool = sorted({value for values in known.values() for value in values})
        place, found = {value: i for i, value in enumerate(pool)}, []
        chances = products.answer_scores(self.model, asked, c)[0].softmax(-1)  # (Q, P)
        for row, name in zip(chances, [name for name in known if name not in properties], strict=True):
            best = max(known[name], key=lambda value: row[place[value]].item())
            found.append((name, best, row[place[best]].item()))
        return sorted(found, key=lambda one: -one[2])


def _product(text: str | None, image, properties: Mapping[str, str] | None) -> Product:
    """Anybody's own product; ValueError where there is nothing of it."""
    require_text(text)
    require_picture(image)
    require_properties(properties)
    if not (text or properties) and image is None:
        raise ValueError("found no text, no image and no properties, expected at least one of them")
    image = Shown(image) if isinstance(image, Image.Image) else Path(image) if isinstance(image, str) else image
    return Product("yours", image, text or "", tuple((properties or {}).items()), "")


def _best(scores: torch.Tensor, k: int) -> list[tuple[int, float]]:
    """The places of the `k` highest, and how high they are."""
    return [(i, scores[i].item()) for i in scores.topk(min(k, len(scores))).indices.tolist()]


PAPER = Paper("k3m", Settings, PROFILES, VARIANTS, task, build, initialise, Predictor, main="k3m", on_show="together")
