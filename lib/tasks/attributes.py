"""Predicting attributes (CMKP): which nouns and adjectives the captions of a picture have, learned from captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch

from lib import corpora, predict
from lib.corpora.types import CaptionedImage, Corpus, Post
from lib.encoders.attributes import COUNT, ClassNames, FromFile, attributes_in, commonest
from lib.encoders.cache import Features
from lib.encoders.images import ImageEncoder
from lib.run import store
from lib.run.paper import Task, ratio

LABELS = 500  # the paper has 1,000 of COCO's, whose captions are fourteen times Flickr8k's


class Split:
    """One split: pictures, and which of the `labels` their captions have, `targets` [N, C]."""

    def __init__(self, examples: Sequence[CaptionedImage], encoder: ImageEncoder, labels: Sequence[str] = ()):
        self.examples, self.encoder = list(examples), encoder
        place = {label: i for i, label in enumerate(labels)}
        self.targets = torch.zeros(len(self.examples), len(labels))
        for row, example in zip(self.targets, self.examples if labels else (), strict=False):
            row[[place[label] for label in attributes_in(example.captions) if label in place]] = 1

    @property
    def lengths(self) -> np.ndarray:
        return np.ones(len(self.examples), int)

    @cached_property
    def features(self) -> Features:
        """The pictures' pooled features, computed at most once in the life of the cache."""
        return self.encoder.features([example.image for example in self.examples])

    def batch(self, indices: Sequence[int], random=None, part: str = "model") -> dict[str, torch.Tensor]:
        return {"image": self.features[indices], "labels": self.targets[indices]}


@dataclass(frozen=True)
class AttributeData:
    """Captioned pictures as tensors. `fingerprint`: all a run could see."""

    corpus: Corpus
    train: Split
    dev: Split
    test: Split
    fingerprint: str


def load(settings) -> AttributeData:
    """The captions that `settings` name."""
    return _load(settings.captions, settings.captions_dir, settings.train_limit, *_eyes(settings))


def _eyes(settings) -> tuple[str, int]:
    return settings.image_encoder, settings.image_size


@lru_cache(maxsize=2)
def _load(name: str, folder: str | None, limit: int | None, network: str, size: int) -> AttributeData:
    corpus = corpora.load(name, folder, limit=limit)
    encoder = ImageEncoder(network, "pooled", size)
    splits = {part: Split(getattr(corpus, part), encoder) for part in ("train", "dev", "test")}
    return AttributeData(corpus, **splits, fingerprint=f"{corpus.fingerprint}/{encoder.identity}")


def prepare(data: AttributeData) -> None:
    for split in (data.train, data.dev, data.test):
        _ = split.features


def context(data: AttributeData, parent_context: Mapping | None = None) -> dict:
    """The labels: the commonest nouns and adjectives of the training captions."""
    captions = [caption for example in data.train.examples for caption in example.captions]
    return {"labels": commonest(captions, LABELS), "picture_dim": data.train.encoder.row_shape[-1]}


def bind(data: AttributeData, context: Mapping) -> AttributeData:
    """The data with the labels of a model."""
    parts = {name: getattr(data, name) for name in ("train", "dev", "test")}
    return replace(data, **{n: Split(part.examples, part.encoder, context["labels"]) for n, part in parts.items()})


@torch.no_grad()
def predict_attributes(model: torch.nn.Module, split: Split, quick: bool = False) -> dict[str, torch.Tensor]:
    """The five likeliest labels of each picture, which of them are `right` [N, 5], and how many it has, `true` [N]."""
    model.eval()
    device = next(model.parameters()).device
    top = torch.cat([
        model.W(split.features[slice(i, i + 512)].to(device)).topk(min(COUNT, split.targets.shape[1])).indices.cpu()
        for i in range(0, len(split.examples), 512)
    ])  # fmt: skip
    return {"predicted": top, "right": split.targets.gather(1, top), "true": split.targets.sum(1)}


# right, predicted and true labels -> the two sums of which a score is the ratio
RATIOS = {"P@5": ((1, 0, 0), (0, 1, 0)), "R@5": ((1, 0, 0), (0, 0, 1)), "F1@5": ((2, 0, 0), (0, 1, 1))}


def statistics(predictions: Mapping[str, torch.Tensor], metric: str) -> np.ndarray:
    """The two summands of each picture [N, 2]: of the five likeliest labels, over all pictures together."""
    right = predictions["right"]
    counts = torch.stack([right.sum(1), torch.full((len(right),), right.shape[1]), predictions["true"]], 1)
    return counts.numpy() @ np.array(RATIOS[metric]).T


def score(predictions: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Precision, recall and F1 in per cent."""
    return {name: float(ratio(name, statistics(predictions, name).sum(0))) for name in RATIOS}


TASK = Task(
    load=load,
    prepare=prepare,
    context=context,
    predict=predict_attributes,
    score=score,
    monitor="F1@5",
    unit="picture",
    metrics=tuple(RATIOS),
    statistics=statistics,
    bind=bind,
)


# ---- the sources of attributes ----


class Predicted:
    """The five likeliest labels of a predictor trained on captions, a run of `lib.papers.cmkp`."""

    def __init__(self, run: str, network: str, size: int):
        self.run, self.encoder, self.identity = run, ImageEncoder(network, "grid", size), run  # which the model has too

    @cached_property
    def predictor(self):
        """The trained run; raises FileNotFoundError where it is not kept."""
        return predict.load(store.locate(self.run))

    def __call__(self, posts: Sequence[Post]) -> list[tuple[str, ...]]:
        found = self.encoder.features([post.image for post in posts])
        parts = (slice(i, i + 1024) for i in range(0, len(posts), 1024))
        named = [names for part in parts for names in self.predictor.named(found[part].mean(1))]
        return [tuple(row) if shown else () for row, shown in zip(named, found.present.tolist(), strict=True)]


def source(settings) -> FromFile | ClassNames | Predicted:
    """Where the setting `attributes` says that they come from."""
    if settings.attributes == "file":
        return FromFile()
    if settings.attributes == "classes":
        return ClassNames(*_eyes(settings))
    return Predicted(settings.attributes, *_eyes(settings))
