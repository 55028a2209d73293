"""K3M as experiments: one pretraining under its tunings, what each part of it gives, and what it is compared to."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn.functional import normalize

from lib.corpora.products import SEP, wording
from lib.corpora.types import Product, Question
from lib.encoders.pieces import Pieces
from lib.encoders.text import pretrained
from lib.models.k3m import K3M, MASKS
from lib.names import require_known
from lib.run.paper import Paper, Variant
from lib.run.settings import TrainingSettings
from lib.tasks import products
from lib.tasks.listings import Asked, View
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
    | dict(epochs=2, pretraining_epochs=2, batch_size=64, learning_rate=2e-3, pretraining_rate=2e-3, width=64)
    | dict(text_layers=1, image_layers=1, dropout=0.0, precision="fp32", longest=48)
    | dict(image_size=96, train_limit=600, test_limit=100),
    "small": SCHEDULE
    | dict(epochs=2, pretraining_epochs=3, batch_size=64, learning_rate=1e-3, pretraining_rate=1e-3, width=96)
    | dict(image_size=128, longest=64, dropout=0.0, precision="fp32"),
    "paper": SCHEDULE
    | dict(epochs=4, pretraining_epochs=6, batch_size=128, learning_rate=1e-4, pretraining_rate=1e-4, width=768)
    | dict(heads=12, text_layers=6, image_layers=6, co_layers=6, vocabulary=21128),
}

# What is trained on, and the model: all that pretraining shares with what is tuned from it.
_OWN = {field.name for field in fields(TrainingSettings)} - {"batch_size", "precision", "threads"}
_TUNING = {"stage", "tasks", "negatives", "pool", "candidates", "degraded", "ratio"}
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


def rows(name: str, title: str, /, **changes) -> dict[str, Variant]:
    """A model without the graph, and with its text."""
    return {
        name: row(title, **changes, fusion="none", graph="none"),
        f"{name}-graph": row(f"{title} + graph's text", **changes, fusion="none", graph="text"),
    }


VARIANTS = {
    "pretraining": Variant("pretraining", dict(stage="pretraining")),
    "text-only": row("title only", image=False, graph="none"),
    "image-only": row("picture only", title=False, graph="none"),
    "properties-only": row("properties only", title=False, image=False),
    **rows("single-stream", "one stream (VL-BERT)", streams="one"),
    **rows("two-stream", "two streams (ViLBERT)"),
    **rows("lxmert", "LXMERT", streams="lxmert"),
    "scratch": Variant("K3M from scratch"),
    "no-graph": row("K3M without graph", graph="none"),
    "graph-as-text": row("K3M, graph as text", graph="text"),
    "no-fusion": row("K3M without fusion", fusion="none"),
    "fusion-residual": row("K3M, residual", fusion="residual"),
    "fusion-mean": row("K3M, mean", fusion="mean"),
    "fusion-soft": row("K3M, soft-spl", fusion="soft"),
    "no-mlm": row("K3M without MLM", objectives=("mom", "lpm")),
    "no-mom": row("K3M without MOM", objectives=("mlm", "lpm")),
    "no-lpm": row("K3M without LPM", objectives=("mlm", "mom")),
    "mom-features": row("K3M, MOM of features", objects="features"),
    "mom-colours": row("K3M, MOM of colours", objects="colours"),
    "classification-only": row("K3M, tuned for classification alone", tasks=("classification",)),
    "alignment-only": row("K3M, tuned for alignment alone", tasks=("alignment",)),
    "questions-only": row("K3M, tuned for questions alone", tasks=("questions",)),
    "published-text": row("K3M from a pretrained text encoder", text_encoder="minilm"),
    "released": row("K3M, as released", **RELEASED),
    "k3m": row("K3M (hard-spl)"),
}


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
        asked = self._asked(text, image, properties)
        c, found = products.read(self.model, asked).cpu(), []
        if "classification" in self.model.heads:
            chances = self.model.classify(c[:1]).softmax(-1)[0]
            found += [("category", self.context["labels"][i], p) for i, p in _best(chances, k)]
        if "questions" in self.model.heads:
            found += self._missing(asked, c, properties or {})[:k]
        near = normalize(self.predictions["embedding"], dim=-1) @ normalize(c[0], dim=0)
        found += [("near", self.predictions["titles"][i], p) for i, p in _best(near, k)]
        return pd.DataFrame(found, columns=["what", "found", "score"])

    def inspect(self, text: str | None = None, image=None, properties: Mapping[str, str] | None = None) -> dict:
        """How the model came to it: `c` and `c_star` [d], `attention` [X, heads] over the triples that were read, and
        of each modality the `gates` [T, sources]; what a model does not have is None or left out."""
        listings = self._asked(text, image, properties).listings
        batch = {name: torch.from_numpy(array) for name, array in listings.batch(np.array([0])).items()}
        with torch.no_grad():
            found = self.model.encode(**batch)
        gates = {name: gate[0][batch[MASKS[name]][0]] for name, gate in found["gates"].items()}
        looks = found["attention"] is not None
        attention = found["attention"][0][batch["triple_mask"][0]] if looks else None
        return {"c": found["c"][0], "c_star": found["c_star"][0], "attention": attention, "gates": gates}

    def _asked(self, text: str | None, image, properties: Mapping[str, str] | None) -> Asked:
        """The product, and a question for each property that it lacks, over all values known."""
        if not (text or properties) and image is None:
            raise ValueError("found no text, no image and no properties, expected at least one of them")
        image = Shown(image) if isinstance(image, Image.Image) else Path(image) if image is not None else None
        product = Product("yours", image, text or "", tuple((properties or {}).items()), "")
        pool = tuple(sorted({value for values in self.context["values"].values() for value in values}))
        names = [name for name in self.context["values"] if name not in (properties or {})]
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


def _best(scores: torch.Tensor, k: int) -> list[tuple[int, float]]:
    """The places of the `k` highest, and how high they are."""
    return [(i, scores[i].item()) for i in scores.topk(min(k, len(scores))).indices.tolist()]


PAPER = Paper("k3m", Settings, PROFILES, VARIANTS, task, build, initialise, Predictor, main="k3m")
