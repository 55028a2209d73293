"""What VSE and GXN share: pictures and their captions as tensors, batches of pairs, retrieval scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from lib import corpora
from lib.corpora.types import CaptionedImage, Corpus
from lib.encoders.cache import Features
from lib.encoders.images import ImageEncoder
from lib.encoders.words import Vocabulary, pad
from lib.metrics import retrieval
from lib.training import TrainingSettings


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
    min_count: int = 1  # of a word in the training captions, to be in the vocabulary


class Split:
    """One split, flat: sentence j, in word indices, describes picture `owner[j]`."""

    def __init__(self, examples: Sequence[CaptionedImage], vocabulary: Vocabulary, encoder: ImageEncoder, views):
        self.examples, self.encoder, self.views = list(examples), encoder, tuple(views)
        self.captions = [caption for example in self.examples for caption in example.captions]
        self.sentences = [vocabulary.encode(caption) for caption in self.captions]
        self.owner = np.repeat(np.arange(len(self.examples)), [len(example.captions) for example in self.examples])
        self.lengths = np.array([len(sentence) for sentence in self.sentences])

    @cached_property
    def features(self) -> Features:
        """The pictures' features, computed at most once in the life of the cache."""
        return self.encoder.features([example.image for example in self.examples], self.views)

    def words(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        words, lengths = pad([self.sentences[i] for i in indices])
        return {"words": words, "lengths": lengths}

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Sentences with their pictures, each in a random view."""
        owner = self.owner[indices]
        view = torch.randint(self.features.views, (len(owner),)).numpy()
        image = self.features.gather(owner, view)
        return {"image": image, "owner": torch.from_numpy(owner), **self.words(indices)}


@dataclass(frozen=True)
class RetrievalData:
    """A corpus as tensors; the vocabulary knows training captions only."""

    corpus: Corpus
    encoder: ImageEncoder
    vocabulary: Vocabulary
    train: Split
    dev: Split
    test: Split

    @property
    def fingerprint(self) -> str:
        return f"{self.corpus.fingerprint}/{self.encoder.identity}"


def load(settings: RetrievalSettings) -> RetrievalData:
    """The corpus, vocabulary and encoder that `settings` name; read once for all variants that share them."""
    names = ("dataset", "data_dir", "train_limit", "image_encoder", "image_layer", "image_size", "views", "min_count")
    return _load(**{name: getattr(settings, name) for name in names})


@lru_cache(maxsize=4)
def _load(dataset, data_dir, train_limit, image_encoder, image_layer, image_size, views, min_count) -> RetrievalData:
    if dataset.startswith("iconworld"):
        corpus = corpora.load(dataset, **({"train": train_limit} if train_limit else {}))
    else:
        corpus = corpora.load(dataset, data_dir, limit=train_limit)
    vocabulary = Vocabulary.of((c for example in corpus.train for c in example.captions), min_count)
    encoder = ImageEncoder(image_encoder, image_layer, image_size)
    splits = {name: Split(getattr(corpus, name), vocabulary, encoder, views) for name in ("train", "dev", "test")}
    return RetrievalData(corpus, encoder, vocabulary, **splits)


@torch.no_grad()
def embed(model: torch.nn.Module, split: Split, batch: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
    """All pictures [N, D], averaged over their views, and all sentences [M, D] of a split in the joint space."""
    model.eval()
    device = next(model.parameters()).device
    images = torch.stack([_embed_images(model, split, view, batch, device) for view in range(split.features.views)])
    order = np.argsort(split.lengths, kind="stable")  # sentences of like length together: little padding
    chunks = np.array_split(order, max(1, round(len(order) / batch)))
    sentences = [
        model.encode_sentences(**{k: v.to(device) for k, v in split.words(chunk).items()}).cpu() for chunk in chunks
    ]
    restored = torch.empty_like(torch.cat(sentences))
    restored[torch.from_numpy(order)] = torch.cat(sentences)
    return torch.nn.functional.normalize(images.mean(0), dim=-1), restored


def _embed_images(model, split: Split, view: int, batch: int, device) -> torch.Tensor:
    chunks = [slice(i, i + batch) for i in range(0, len(split.examples), batch)]
    return torch.cat([model.encode_images(split.features.gather(c, view).to(device)).cpu() for c in chunks])


def scores(images: torch.Tensor, sentences: torch.Tensor, owner: np.ndarray) -> dict[str, float]:
    """Retrieval scores under flat names such as "i2t R@1", and "rsum"."""
    nested = retrieval.evaluate(images, sentences, torch.from_numpy(owner))
    flat = {f"{way} {name}": value for way in ("i2t", "t2i") for name, value in nested[way].items()}
    return {**flat, "rsum": nested["rsum"]}
