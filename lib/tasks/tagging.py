"""Tagging the tokens of posts (MAF): posts and pictures as tensors for a tagger, and the scores of its tags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np
import torch

from lib import corpora
from lib.corpora.iconworld.entities import decided_by, matched
from lib.corpora.types import Corpus, DataError, TaggedPost
from lib.encoders.cache import Features
from lib.encoders.images import ImageEncoder
from lib.encoders.tokens import CHARACTERS, TokenReader, characters_of
from lib.encoders.words import pad
from lib.metrics import entities
from lib.names import require_known
from lib.progress import ticking
from lib.run.paper import Task
from lib.run.settings import TrainingSettings


@dataclass(frozen=True)
class TaggingSettings(TrainingSettings):
    """Which corpus, and what reads its texts and pictures; `longest` counts word pieces, special ones included."""

    dataset: str = "iconworld-entities"
    data_dir: str | None = None
    train_limit: int | None = None  # first posts of the training split, None for all
    text_encoder: str = "minilm"  # or another BERT's name or folder, or "characters"
    longest: int = 128
    pad_pairs: bool = False  # every batch as long as `longest`, and paddings read, as the released code does
    image_encoder: str = "lite0"
    image_size: int = 224  # 7x7 regions
    batch_norm: str = "eval"  # "train": the frozen network takes a batch's statistics, as the released code does
    swap_share: float = 0.5  # of a training batch's posts, the 2k whose pictures are swapped (CM)
    swap: str = "pictures"  # or "representations": what a swapped post has seen, as the released code does

    def __post_init__(self):
        super().__post_init__()
        require_known("swap", self.swap, ("pictures", "representations"))
        if not 0 <= self.swap_share <= 1:
            raise ValueError(f"swap_share is {self.swap_share}, expected a share, 0 to 1")


class Split:
    """One split, as windows of its posts."""

    def __init__(self, examples: Sequence[TaggedPost], reader: TokenReader, labels: Sequence[str], settings):
        self.examples, self.reader = list(examples), reader
        self.encoder = ImageEncoder(settings.image_encoder, "grid", settings.image_size, settings.batch_norm)
        self.windows = reader.windows([post.tokens for post in self.examples])
        self.pad_to = settings.longest if settings.pad_pairs else None
        self.labels, self.settings = labels, settings
        index = {label: i for i, label in enumerate(labels)}
        self.tags = [[index.get(tag, 0) for tag in post.tags] for post in self.examples]  # unseen in training: as O

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(window.pieces) for window in self.windows])

    @cached_property
    def features(self) -> Features:
        """The pictures' regions, computed at most once in the life of the cache."""
        return self.encoder.features([post.image for post in self.examples])

    def batch(
        self, indices: Sequence[int], random: np.random.Generator | None = None, part: str = "model"
    ) -> dict[str, torch.Tensor]:
        """Some windows as a MAF batch; with `random`, for training, also which of them get another's picture."""
        windows = [self.windows[i] for i in indices]
        posts = [window.post for window in windows]
        tags, _ = pad([self.tags[w.post][w.start : w.stop] for w in windows])
        picture = self.features.positions[posts, 0]
        swapped = swap(picture, self.settings.swap_share, self.settings.swap, random) if random else {}
        shown = {"picture": torch.from_numpy(picture), "present": torch.from_numpy(picture >= 0)}
        texts = self.reader.batch(windows, self.pad_to)
        return {"tags": tags, "image": self.features[posts], **shown, **swapped, **texts}


def swap(picture: np.ndarray, share: float, kind: str, random: np.random.Generator) -> dict[str, torch.Tensor]:
    """2k posts, `swapped` (2k,), and of each the one whose picture it gets, `givers` (2k,): the first k and the last k
    exchange theirs, but for those that have the same. `picture` [B] holds their numbers, -1 for none.

    Each of several processes swaps among its own share of the batch. Here and not in the model, because which posts
    have pictures decides how many are swapped, and a GPU would have to be asked and waited for.
    """
    count = len(picture)
    k = int(share * count / 2)
    if kind == "representations":  # as released: always the last ones, with a picture or without
        rows = np.arange(count - 2 * k, count)
    else:
        having = np.flatnonzero(picture >= 0)
        rows = random.permutation(having)[: 2 * min(k, len(having) // 2)]
    givers = np.roll(rows, len(rows) // 2)
    other = picture[rows] != picture[givers]
    return {"swapped": torch.from_numpy(rows[other]), "givers": torch.from_numpy(givers[other])}


@dataclass(frozen=True)
class TaggingData:
    """A corpus as tensors, its labels and characters from training alone. `fingerprint`: all a run could see."""

    corpus: Corpus
    labels: tuple[str, ...]
    characters: tuple[str, ...]
    train: Split
    dev: Split
    test: Split
    fingerprint: str


def load(settings: TaggingSettings) -> TaggingData:
    """The corpus that `settings` name, as tensors; read once for all variants that share it."""
    trained = {field.name for field in fields(TrainingSettings)}
    shared = {field.name for field in fields(TaggingSettings)} - trained
    return _load(TaggingSettings(**{name: getattr(settings, name) for name in shared}))


@lru_cache(maxsize=8)
def _load(settings: TaggingSettings) -> TaggingData:
    corpus = corpora.load(settings.dataset, settings.data_dir, limit=settings.train_limit)
    if not isinstance(corpus.train[0], TaggedPost):
        raise DataError(f"corpus {settings.dataset!r} has no tags, expected one of posts whose tokens have some")
    spelled = settings.text_encoder == CHARACTERS
    characters = characters_of(post.tokens for post in corpus.train) if spelled else ()
    reader = TokenReader(settings.text_encoder, settings.longest, characters)
    labels = labels_of(post.tags for post in corpus.train)
    splits = {name: Split(getattr(corpus, name), reader, labels, settings) for name in ("train", "dev", "test")}
    seen = "/".join([corpus.fingerprint, splits["train"].encoder.identity, reader.identity])
    return TaggingData(corpus, labels, characters, **splits, fingerprint=seen)


def labels_of(posts) -> tuple[str, ...]:
    """O, then B- and I- of each type in the posts' tags."""
    types = sorted({tag[2:] for tags in posts for tag in tags if tag != "O"})
    return ("O", *(f"{position}-{kind}" for kind in types for position in "BI"))


def prepare(data: TaggingData) -> None:
    """Compute whatever features are not in the cache yet, so that a run's seconds are those of its training."""
    for split in (data.train, data.dev, data.test):
        _ = split.features


def context(data: TaggingData, parent_context: Mapping | None = None) -> dict:
    """What a trained model needs of its corpus, as JSON: enough to use it where the corpus is not."""
    picture_dim = data.train.encoder.row_shape[-1]
    return {"labels": list(data.labels), "characters": list(data.characters), "picture_dim": picture_dim}


@torch.no_grad()
def predict(model: torch.nn.Module, split: Split, quick: bool = False, batch: int = 64) -> dict:
    """What a tagger says of a split: the `gold` and the `predicted` tags of each post, and as `matching` [N] how likely
    it finds each post's picture to be its own, one where it does not judge."""
    model.eval()
    device = next(model.parameters()).device
    order = np.argsort(split.lengths, kind="stable")  # like lengths together: little padding
    tags, matching = [None] * len(order), torch.ones(len(order))
    for chunk in ticking(np.array_split(order, max(1, round(len(order) / batch))), "tagging posts", len(order), len):
        tagged = model.tag(**{name: value.to(device) for name, value in split.batch(chunk).items()})
        matching[chunk] = tagged.get("p", matching[chunk]).cpu()
        for i, row in zip(chunk, tagged["tags"], strict=True):
            tags[i] = row
    return {"gold": [list(post.tags) for post in split.examples], **_joined(split, tags, matching)}


def _joined(split: Split, tags: list[list[int]], matching: torch.Tensor) -> dict:
    """Windows put together to posts again; a post of several has their mean matching."""
    predicted = [[] for _ in split.examples]
    for window, row in zip(split.windows, tags, strict=True):  # windows stand in the order of their text
        predicted[window.post] += [split.labels[tag] for tag in row]
    post = torch.tensor([window.post for window in split.windows])
    return {"predicted": predicted, "matching": (post.bincount(matching) / post.bincount()).float()}


SCHEMES = {"": "lenient", "strict ": "strict"}
# correct, predicted and gold entities -> the two sums of which a score is the ratio
RATIOS = {"P": ((1, 0, 0), (0, 1, 0)), "R": ((1, 0, 0), (0, 0, 1)), "F1": ((2, 0, 0), (0, 1, 1))}
TYPES = ("PER", "LOC", "ORG", "MISC", "OTHER")  # those of the papers' data, for which intervals are asked
METRICS = (*(f"{prefix}{name}" for prefix in SCHEMES for name in RATIOS), *(f"F1 {kind}" for kind in TYPES))


def score(predictions: Mapping) -> dict[str, float]:
    """Precision, recall and F1 in percent, lenient and strict, and each type's lenient F1, under flat names."""
    flat = {}
    for prefix, scheme in SCHEMES.items():
        found = entities.evaluate(predictions["gold"], predictions["predicted"], scheme)
        flat |= {f"{prefix}P": found["precision"], f"{prefix}R": found["recall"], f"{prefix}F1": found["f1"]}
        flat |= {f"{prefix}F1 {kind}": of["f1"] for kind, of in found["per_type"].items()}
    return flat


def statistics(predictions: Mapping, metric: str) -> np.ndarray:
    """The two summands of each test post [N, 2]: `metric`, such as "F1", "strict P" or "F1 PER", is the ratio of
    their sums."""
    gold, predicted, words = predictions["gold"], predictions["predicted"], metric.split()
    scheme = "strict" if words[0] == "strict" else "lenient"
    name, *kind = [word for word in words if word != "strict"]
    counts = entities.counts_by_type(gold, predicted, scheme)
    nothing = np.zeros((len(gold), 3), int)
    chosen = counts.get(kind[0], nothing) if kind else sum(counts.values(), nothing)  # [N, 3]
    return chosen @ np.array(RATIOS[name]).T


def groups(data: TaggingData) -> dict[str, np.ndarray]:
    """Masks [N] of the test posts by what decides their types, and by whose picture they show; empty where nobody
    knows, that is everywhere but on IconWorld."""
    if not data.corpus.name.startswith("iconworld"):
        return {}
    decided, own = np.array(decided_by(data.corpus.test)), np.array(matched(data.corpus.test))
    masks = {kind: decided == kind for kind in ("picture", "text", "neither")}
    return {**masks, "own picture": own, "another's picture": ~own}


TASK = Task(
    load=load,
    prepare=prepare,
    context=context,
    predict=predict,
    score=score,
    monitor="F1",  # lenient and over all types, chosen on dev as MAF's authors do
    unit="post",
    metrics=METRICS,
    statistics=statistics,
    groups=groups,
)
