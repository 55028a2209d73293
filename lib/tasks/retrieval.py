"""Image-sentence retrieval (VSE, GXN): pictures and captions as tensors, batches of pairs, scores of both searches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from torch.nn.functional import normalize

from lib import corpora
from lib.corpora.types import CaptionedImage, Corpus
from lib.encoders.cache import Features
from lib.encoders.images import VIEWS, ImageEncoder
from lib.encoders.text import SentenceEncoder
from lib.encoders.words import Vocabulary, pad, word_vectors_key
from lib.metrics import retrieval
from lib.names import require_known
from lib.progress import ticking
from lib.run.paper import Task
from lib.run.settings import TrainingSettings


@dataclass(frozen=True)
class RetrievalSettings(TrainingSettings):
    """Which corpus and which picture features; a picture has `views`, of which training draws one at a time."""

    dataset: str = "iconworld-captions"
    data_dir: str | None = None
    train_limit: int | None = None  # first pictures of the training split, None for all
    image_encoder: str = "lite0"
    image_layer: str = "pooled"
    image_size: int = 224
    views: tuple[str, ...] = ("full",)
    text_encoder: str | None = None  # a frozen one, such as "minilm", in place of word indices
    word_vectors: str | None = None  # published ones to start from: a GloVe file, or "glove-6b-50d"
    min_count: int = 1  # of a word in the training captions, to be in the vocabulary

    def __post_init__(self):
        super().__post_init__()
        corpora.require_captioned(self.dataset)
        for view in self.views:
            require_known("views", view, VIEWS)
        if not self.views:
            raise ValueError("views is empty, expected at least one")


class WordReader:
    """Sentences as word indices."""

    features, identity = None, "words"  # nothing to compute

    def __init__(self, sentences: Sequence[str], vocabulary: Vocabulary):
        self.dim = len(vocabulary)
        self.indices = [vocabulary.encode(sentence) for sentence in sentences]
        self.lengths = np.array([len(indices) for indices in self.indices])

    def batch(self, chosen: Iterable[int]) -> dict[str, torch.Tensor]:
        words, lengths = pad([self.indices[i] for i in chosen])
        return {"words": words, "lengths": lengths}


class VectorReader:
    """Sentences as the vectors of a frozen text encoder; computed when first asked for."""

    def __init__(self, sentences: Sequence[str], encoder: SentenceEncoder):
        self.sentences, self.encoder = sentences, encoder
        self.dim, self.identity = encoder.width, encoder.identity
        self.lengths = np.array([len(sentence.split()) for sentence in sentences])

    @cached_property
    def features(self) -> Features:
        return self.encoder.features(self.sentences)

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        return {"words": self.features[chosen], "lengths": torch.from_numpy(self.lengths[chosen])}


def reader(sentences: Sequence[str], vocabulary: Vocabulary, text_encoder: str | None) -> WordReader | VectorReader:
    """How a model sees sentences: as word indices, or as vectors of `text_encoder`."""
    return VectorReader(sentences, SentenceEncoder(text_encoder)) if text_encoder else WordReader(sentences, vocabulary)


class Split:
    """One split, flat: sentence j describes picture `owner[j]`."""

    def __init__(self, examples: Sequence[CaptionedImage], vocabulary: Vocabulary, settings: "RetrievalSettings"):
        self.examples, self.views = list(examples), settings.views
        self.encoder = ImageEncoder(settings.image_encoder, settings.image_layer, settings.image_size)
        self.captions = [caption for example in self.examples for caption in example.captions]
        self.owner = np.repeat(np.arange(len(self.examples)), [len(example.captions) for example in self.examples])
        self.sentences = reader(self.captions, vocabulary, settings.text_encoder)
        # The literature's COCO numbers are means over five slices of its 5,000 test pictures.
        self.folds = 5 if settings.dataset == "coco" and len(self.examples) == 5000 else 1

    @property
    def lengths(self) -> np.ndarray:
        return self.sentences.lengths

    @cached_property
    def features(self) -> Features:
        """The pictures' features, computed at most once in the life of the cache."""
        return self.encoder.features([example.image for example in self.examples], self.views)

    def batch(self, indices: np.ndarray, random: np.random.Generator, part: str = "model") -> dict[str, torch.Tensor]:
        """Sentences with their pictures, each in a random view."""
        owner = self.owner[indices]
        image = self.features.gather(owner, random.integers(self.features.views, size=len(owner)))
        return {"image": image, "owner": torch.from_numpy(owner), **self.sentences.batch(indices)}


@dataclass(frozen=True)
class RetrievalData:
    """A corpus as tensors; the vocabulary knows training captions only. `fingerprint`: all that a run could see."""

    corpus: Corpus
    vocabulary: Vocabulary
    train: Split
    dev: Split
    test: Split
    fingerprint: str


def load(settings: RetrievalSettings) -> RetrievalData:
    """The corpus that `settings` name, as tensors; read once for all variants that share it."""
    shared = {field.name: getattr(settings, field.name) for field in fields(RetrievalSettings)}
    trained = {field.name for field in fields(TrainingSettings)}
    return _load(RetrievalSettings(**{name: value for name, value in shared.items() if name not in trained}))


@lru_cache(maxsize=8)
def _load(settings: RetrievalSettings) -> RetrievalData:
    corpus = corpora.load(settings.dataset, settings.data_dir, limit=settings.train_limit)
    vocabulary = Vocabulary.of((c for example in corpus.train for c in example.captions), settings.min_count)
    parts = {name: Split(getattr(corpus, name), vocabulary, settings) for name in ("train", "dev", "test")}
    seen = [corpus.fingerprint, parts["train"].encoder.identity, parts["train"].sentences.identity]
    seen += [word_vectors_key(settings.word_vectors)] if settings.word_vectors else []
    return RetrievalData(corpus, vocabulary, **parts, fingerprint="/".join(seen))


def prepare(data: RetrievalData) -> None:
    """Compute whatever features are not in the cache yet, so that a run's seconds are those of its training."""
    for split in (data.train, data.dev, data.test):
        _ = split.features, split.sentences.features


def context(data: RetrievalData, parent_context: Mapping | None = None) -> dict:
    """What a trained model needs of its corpus, as JSON: enough to use it where the corpus is not."""
    dims = {"picture_dim": data.train.encoder.row_shape[-1], "sentence_dim": data.train.sentences.dim}
    return {"words": list(data.vocabulary.words), **dims}


@torch.no_grad()
def embed(
    model: torch.nn.Module, split: Split, batch: int = 512, unit: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """All pictures [N, D], averaged over their views, and all sentences [M, D] of a split in the joint space.

    `unit` scales a picture's average to unit norm: for a cosine, not where a vector holds several embeddings.
    """
    model.eval()
    device = next(model.parameters()).device
    images = torch.stack([_embed_images(model, split, view, batch, device) for view in range(split.features.views)])
    order = np.argsort(split.lengths, kind="stable")  # sentences of like length together: little padding
    chunks = np.array_split(order, max(1, round(len(order) / batch)))
    sentences = torch.cat([
        model.encode_sentences(**{k: v.to(device) for k, v in split.sentences.batch(chunk).items()}).cpu()
        for chunk in ticking(chunks, "embedding sentences", len(order), len)
    ])  # fmt: skip
    restored = torch.empty_like(sentences)
    restored[torch.from_numpy(order)] = sentences
    return normalize(images.mean(0), dim=-1) if unit else images.mean(0), restored


def _embed_images(model, split: Split, view: int, batch: int, device) -> torch.Tensor:
    chunks = [slice(i, i + batch) for i in range(0, len(split.examples), batch)]
    return torch.cat([model.encode_images(split.features.gather(c, view).to(device)).cpu() for c in chunks])


def predict(
    model: torch.nn.Module, split: Split, quick: bool = False, batch: int = 512, unit: bool = True
) -> dict[str, torch.Tensor]:
    """A split in the joint space: what scores, and every later look at a run, start from."""
    images, sentences = embed(model, split, batch, unit)
    owner, folds = torch.from_numpy(split.owner), torch.tensor(split.folds)
    return {"images": images, "sentences": sentences, "owner": owner, "folds": folds}


def _parts(predictions: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    return *(predictions[name] for name in ("images", "sentences", "owner")), predictions["folds"].item()


def score(predictions: Mapping[str, torch.Tensor], similarity: retrieval.Similarity = "cosine") -> dict[str, float]:
    """Retrieval scores under flat names such as "i2t R@1", and "rsum"."""
    nested = retrieval.folds(*_parts(predictions), similarity)
    flat = {f"{way} {name}": value for way in ("i2t", "t2i") for name, value in nested[way].items()}
    return {**flat, "rsum": nested["rsum"]}


RECALLS = tuple(f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))


def statistics(
    predictions: Mapping[str, torch.Tensor], metric: str, similarity: retrieval.Similarity = "cosine"
) -> np.ndarray:
    """Of each test picture how many of its queries were answered, and how many there are [N, 2].

    `metric` is of RECALLS. A picture is one "i2t" query, its captions are its "t2i" queries: they stand or fall
    together, so pictures are what a bootstrap resamples.
    """
    way, k = metric.split(" R@")
    parts = retrieval.slices(*_parts(predictions))
    return np.concatenate([_answered(*retrieval.ranks(*part, similarity), part[2], way, int(k)) for part in parts])


def _answered(image_ranks, caption_ranks, owner, way: str, k: int) -> np.ndarray:
    if way == "i2t":
        return np.stack([image_ranks < k, np.ones(len(image_ranks))], axis=1)
    right = owner.bincount(weights=(caption_ranks < k).double(), minlength=len(image_ranks))
    return np.stack([right, owner.bincount(minlength=len(image_ranks))], axis=1)


def task(similarity: retrieval.Similarity = "cosine") -> Task:
    """Searching pictures for a sentence and sentences for a picture; the sum of the six recalls chooses on dev."""
    return Task(
        load=load,
        prepare=prepare,
        context=context,
        predict=predict,
        score=partial(score, similarity=similarity),
        monitor="rsum",
        unit="picture",
        metrics=RECALLS,
        statistics=partial(statistics, similarity=similarity),
    )
