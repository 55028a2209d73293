"""Keyphrases of posts (CMKP): a training pair of each post and keyphrase, a list of predicted phrases of each post."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache

import numpy as np
import torch

from lib import corpora
from lib.corpora.iconworld.posts import EVIDENCE, decided_by
from lib.corpora.types import Corpus, DataError, Post
from lib.encoders import ocr
from lib.encoders.cache import Features
from lib.encoders.images import ImageEncoder
from lib.encoders.regions import region_encoder, unpack
from lib.encoders.words import END, PAD, UNKNOWN, Vocabulary, pad, word_vectors_key
from lib.layers.pointer import extended_ids
from lib.metrics import keyphrases
from lib.models.cmkp import ROOM
from lib.names import require_known
from lib.progress import ticking
from lib.run.paper import Task
from lib.run.settings import TrainingSettings
from lib.tasks import attributes

START, SEPARATOR = "<start>", "<sep>"
SPECIAL = (PAD, UNKNOWN, END, START, SEPARATOR)  # ids 0 to 4, as lib.models.cmkp has them
OUTPUTS = ("classifier", "generator")
QUICK = 500  # posts of dev by which an epoch is chosen
METRICS = tuple(part + name for part in keyphrases.PARTS for name in keyphrases.METRICS)


@dataclass(frozen=True)
class KeyphraseSettings(TrainingSettings):
    """Which corpus, and what is seen of a post: its text always, `image` its picture's regions, and of `wordings` the
    words on it ("ocr") and words for what it shows ("attributes"), each from its source, "none" where left out."""

    dataset: str = "iconworld-posts"
    data_dir: str | None = None
    train_limit: int | None = None  # first posts of the training split, None for all
    image: bool = True
    image_encoder: str = "lite0"
    image_size: int = 224  # 7x7 regions
    regions: str = "grid"  # of a picture, the network's cells; or "detector", the objects that Faster R-CNN finds
    wordings: tuple[str, ...] = ("attributes", "ocr")
    ocr: str = "file"  # what the posts came with; or "tesseract" reads the pictures
    attributes: str = "run:cmkp/attributes"  # a predictor trained on captions; or "classes" of the encoder; or "file"
    captions: str = "iconworld-captions"  # the corpus that such a predictor is trained on
    captions_dir: str | None = None
    word_vectors: str | None = None  # published ones to start from: a GloVe file, or "glove-6b-50d"
    vocabulary_size: int = 45_000  # words, the commonest of training, those of its keyphrases first
    longest: int = 128  # words of a text that are read, and of what stands on its picture
    longest_phrase: int = 6  # words, the end counted
    beams: int = 10

    def __post_init__(self):
        super().__post_init__()
        corpora.require_captioned(self.captions)
        for wording in self.wordings:
            require_known("wordings", wording, ("attributes", "ocr"))
        require_known("ocr", self.ocr, ("file", "tesseract", "none"))
        require_known("regions", self.regions, ("grid", "detector"))
        if not self.attributes.startswith("run:"):
            require_known("attributes", self.attributes, ("run:cmkp/attributes", "classes", "file", "none"))
        for wording in {"attributes", "ocr"} - {*self.wordings}:
            object.__setattr__(self, wording, "none")


class Posts:
    """One split as its corpus has it, and what is read of its pictures: each once in the life of the caches."""

    def __init__(self, examples: Sequence[Post], settings: KeyphraseSettings, known: frozenset[str]):
        self.examples, self.settings, self.known = examples, settings, known

    @cached_property
    def features(self) -> Features | None:
        """The pictures' regions."""
        return encoder(self.settings).features([post.image for post in self.examples]) if self.settings.image else None

    @cached_property
    def ocr(self) -> list[str]:
        """The words on each picture; tesseract's only if training has them in its texts or keyphrases (`known`)."""
        if self.settings.ocr == "tesseract":
            return ocr.wordings([post.image for post in self.examples], self.known)
        return [post.ocr if self.settings.ocr == "file" else "" for post in self.examples]

    @cached_property
    def attributes(self) -> list[tuple[str, ...]]:
        """The words for what each picture shows."""
        if self.settings.attributes == "none":
            return [()] * len(self.examples)
        return attributes.source(self.settings)(self.examples)

    @cached_property
    def sources(self) -> list[list[str]]:
        """What a model reads of each post: its text and, behind a mark, the words on its picture; never nothing."""
        both = zip(self.examples, self.ocr, strict=True)
        return [self._source(_tokens(post.text), _tokens(drawn)) for post, drawn in both]

    def _source(self, text: list[str], drawn: list[str]) -> list[str]:
        longest = self.settings.longest
        return text[:longest] + ([SEPARATOR] + drawn[:longest] if drawn else []) or [UNKNOWN]


def encoder(settings: KeyphraseSettings) -> ImageEncoder:
    """What encodes the regions of pictures."""
    if settings.regions == "detector":
        return region_encoder("detector", size=settings.image_size)
    return ImageEncoder(settings.image_encoder, "grid", settings.image_size)


def _tokens(text: str) -> list[str]:
    return text.lower().split()


class Split:
    """One split as a model with a context sees it: `pairs` of a post's number and the class of one of its keyphrases,
    -1 for one that training has not, and the keyphrase's words."""

    def __init__(self, posts: Posts, context: Mapping):
        self.posts, self.labels = posts, context["phrases"]
        self.vocabulary = Vocabulary(tuple(context["words"]))
        self.number = dict(self.vocabulary.index)  # words beyond the vocabulary have numbers beyond its size
        self.sources = [self._numbers(source) for source in posts.sources]
        place = {label: i for i, label in enumerate(self.labels)}
        phrases = [(i, phrase.lower()) for i, post in enumerate(posts.examples) for phrase in post.keyphrases]
        self.pairs = [(i, place.get(phrase, -1), self._numbers(phrase.split())) for i, phrase in phrases]

    def _numbers(self, words: Iterable[str]) -> list[int]:
        return [self.number.setdefault(word, len(self.number)) for word in words]

    @property
    def lengths(self) -> np.ndarray:
        """Words of each pair's source."""
        return np.array([len(self.sources[post]) for post, _, _ in self.pairs])

    def batch(self, indices: Sequence[int], random=None, part: str = "model") -> dict[str, torch.Tensor]:
        """Some pairs as a CMKP batch."""
        chosen, end = [self.pairs[i] for i in indices], SPECIAL.index(END)
        posts, classes, phrases = zip(*chosen, strict=True)
        numbers, lengths = pad([phrase + [end] for phrase in phrases], max(map(len, phrases)) + 1)  # (B, T)
        before = torch.cat([torch.full((len(chosen), 1), SPECIAL.index(START)), numbers[:, :-1]], 1)  # (B, T)
        rows = torch.from_numpy(np.flatnonzero(numbers.numpy()))  # (N,)
        target = self._extended(numbers, pad([self.sources[post] for post in posts])[0]).flatten()[rows]
        pairs = {"phrase": torch.tensor(classes), "inputs": self._inside(before), "target": target, "rows": rows}
        return pairs | self.read(posts)

    def read(self, posts: Sequence[int]) -> dict[str, torch.Tensor]:
        """Some posts as CMKP reads them."""
        numbers, _ = pad([self.sources[post] for post in posts])  # (B, S)
        found = {"source": self._inside(numbers), "copy": self._extended(numbers, numbers)}
        if (features := self.posts.features) is not None:
            found |= _pictures(features[list(posts)], features.present[list(posts)], self.posts.settings.regions)
        if self.posts.settings.attributes != "none":
            words = [[self._id(word) for word in self.posts.attributes[post]] for post in posts]
            found["attributes"] = pad([row or [SPECIAL.index(UNKNOWN)] for row in words])[0]
        return found

    def _id(self, word: str) -> int:
        return self.vocabulary.index.get(word.lower(), SPECIAL.index(UNKNOWN))

    def _inside(self, numbers: torch.Tensor) -> torch.Tensor:
        """Ids of the vocabulary."""
        return numbers.masked_fill(numbers >= len(self.vocabulary), SPECIAL.index(UNKNOWN))

    def _extended(self, numbers: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Ids in the vocabulary that each source extends."""
        return extended_ids(numbers, source, len(self.vocabulary), SPECIAL.index(UNKNOWN), ROOM)

    def phrase(self, post: int, tokens: Sequence[int], looks: Sequence[int]) -> str:
        """A generated phrase in words: what the vocabulary has not comes from the source, and an unknown word is the
        one that was looked at."""
        source, size, unknown = self.posts.sources[post], len(self.vocabulary), SPECIAL.index(UNKNOWN)
        own = list(dict.fromkeys(word for word in source if word not in self.vocabulary))
        named = [self.vocabulary.words[i] if i < size else own[i - size] for i in tokens]
        looked_at = [source[look] for look in looks]
        return " ".join(a if i == unknown else b for i, a, b in zip(tokens, looked_at, named, strict=True))


def _pictures(rows: torch.Tensor, present: torch.Tensor, regions: str) -> dict[str, torch.Tensor]:
    """Regions as CMKP reads them; a picture without an object, as one that is missing, is the learned one."""
    if regions == "grid":
        return {"image": rows, "present": present}
    found = unpack(rows)
    some = present & found["present"].any(1)  # (B,)
    return {"image": found["features"], "present": some, "objects": found["present"] | ~some[:, None]}


@dataclass(frozen=True)
class KeyphraseData:
    """A corpus of posts; its splits are `Posts`, and `Split`s once a model's context is known."""

    corpus: Corpus
    train: Posts | Split
    dev: Posts | Split
    test: Posts | Split
    fingerprint: str


def load(settings: KeyphraseSettings) -> KeyphraseData:
    """The corpus that `settings` name; read once for all variants that see the same."""
    shared = {field.name for field in fields(KeyphraseSettings)} - {field.name for field in fields(TrainingSettings)}
    return _load(KeyphraseSettings(**{name: getattr(settings, name) for name in shared}))


@lru_cache(maxsize=8)
def _load(settings: KeyphraseSettings) -> KeyphraseData:
    corpus, examples, known = _corpus(settings.dataset, settings.data_dir, settings.train_limit)
    splits = {name: Posts(posts, settings, known) for name, posts in examples.items()}
    seen = [corpus.fingerprint, settings.attributes, settings.ocr]
    seen += [encoder(settings).identity] if settings.image else []
    seen += [attributes.source(settings).identity] if settings.attributes == "classes" else []
    seen += [ocr.identity()] if settings.ocr == "tesseract" else []
    seen += [word_vectors_key(settings.word_vectors)] if settings.word_vectors else []
    return KeyphraseData(corpus, **splits, fingerprint="/".join(seen))


@lru_cache(maxsize=2)
def _corpus(name: str, folder: str | None, limit: int | None) -> tuple[Corpus, dict[str, list[Post]], frozenset[str]]:
    """The corpus, its posts, which may have been made on demand, and the words of training."""
    corpus = corpora.load(name, folder, limit=limit)
    if not isinstance(corpus.train[0], Post):
        raise DataError(f"corpus {name!r} has no keyphrases, expected one of posts that have some")
    examples = {part: list(getattr(corpus, part)) for part in ("train", "dev", "test")}
    return corpus, examples, ocr.words_of(examples["train"])


def prepare(data: KeyphraseData) -> None:
    """Read whatever is not in the caches yet, so that a run's seconds are those of its training."""
    for split in (data.train, data.dev, data.test):
        _ = split.features, split.ocr, split.attributes


def context(data: KeyphraseData, parent_context: Mapping | None = None) -> dict:
    """What a trained model needs of its corpus, as JSON: its words and its keyphrases, from training alone. A stage has
    those of its parent."""
    if parent_context:
        return dict(parent_context)
    posts, size = data.train, data.train.settings.vocabulary_size
    phrases = Counter(phrase.lower() for post in posts.examples for phrase in post.keyphrases)
    labels = sorted(phrases, key=lambda phrase: (-phrases[phrase], phrase))
    needed = dict.fromkeys((*SPECIAL, *(word for label in labels for word in label.split())))
    counts = Counter(word for words in (*posts.sources, *posts.attributes) for word in words if word not in needed)
    others = sorted(counts, key=lambda word: (-counts[word], word))[: max(0, size - len(needed))]
    eyes = encoder(posts.settings) if posts.settings.image else None
    picture_dim = (eyes.dim if posts.settings.regions == "detector" else eyes.row_shape[-1]) if eyes else 0
    return {"words": [*needed, *others], "phrases": labels, "picture_dim": picture_dim}


def bind(data: KeyphraseData, context: Mapping) -> KeyphraseData:
    """The splits as a model with this context sees them."""
    return replace(data, **{name: Split(getattr(data, name), context) for name in ("train", "dev", "test")})


# ---- predictions and scores ----


@torch.no_grad()
def predict(model: torch.nn.Module, split: Split, quick: bool = False, batch: int = 64) -> dict:
    """The posts' `targets` and `sources` and, of each output that the model has, the five best phrases of each post;
    `quick`: of the first 500 posts, with half the beams."""
    model.eval()
    device, settings = next(model.parameters()).device, split.posts.settings
    count = min(len(split.sources), QUICK) if quick else len(split.sources)
    beams = max(5, settings.beams // 2) if quick else settings.beams
    order = np.argsort([len(source) for source in split.sources[:count]], kind="stable")  # little padding
    said = {}
    for chunk in ticking(np.array_split(order, max(1, round(count / batch))), "predicting posts", count, len):
        memory = model.read(**{name: value.to(device) for name, value in split.read(chunk).items()})
        for output, rows in _phrases(model, memory, split, chunk, beams).items():
            for post, row in zip(chunk, rows, strict=True):
                said.setdefault(output, [None] * count)[post] = row
    return _asked(split.posts, count) | said


def _asked(posts: Posts, count: int) -> dict:
    sources = [" ".join(source) for source in posts.sources[:count]]
    return {"targets": [list(post.keyphrases) for post in posts.examples[:count]], "sources": sources}


def _phrases(model, memory, split: Split, posts: Sequence[int], beams: int) -> dict[str, list[list[str]]]:
    found = {}
    if model.settings.classifier and model.settings.stage == 1:
        best = memory.scores.topk(min(5, len(split.labels))).indices.tolist()  # (B, 5)
        found["classifier"] = [[split.labels[i] for i in row] for row in best]
    if model.settings.generator:
        written = model.generate(memory, beams, 5, split.posts.settings.longest_phrase)
        found["generator"] = [
            list(dict.fromkeys(phrase for phrase, _ in spelled(split, post, *rows)))
            for post, *rows in zip(posts, written.tokens, written.lengths, written.kept["looks"], strict=True)
        ]
    return found


def spelled(
    split: Split, post: int, tokens: torch.Tensor, lengths: torch.Tensor, looks: torch.Tensor
) -> list[tuple[str, int]]:
    """A post's hypotheses (n, T) in words, those that have words, each with its place among the n."""
    end, found = SPECIAL.index(END), []
    for place, (row, length, look) in enumerate(zip(*(x.tolist() for x in (tokens, lengths, looks)), strict=True)):
        last = look[len(look) - length :] if length else []
        kept = [(i, at) for i, at in zip(row[:length], last, strict=True) if i != end]
        if kept:
            found.append((split.phrase(post, *zip(*kept, strict=True)), place))
    return found


@torch.no_grad()
def extract(model: torch.nn.Module, split: Split, quick: bool = False) -> dict:
    """What a perfect extractor says: of the targets those that the text contains."""
    asked = _asked(split.posts, len(split.sources))
    both = zip(asked["targets"], asked["sources"], strict=True)
    found = [[phrase for phrase in targets if keyphrases.is_present(phrase, source)] for targets, source in both]
    return asked | {"generator": found}


def score(predictions: Mapping) -> dict[str, float]:
    """The scores of each output under names such as "generator:F1@1", or "F1@1" where there is one output; of two also
    "both:MAP@5", their mean, by which an epoch is chosen."""
    outputs = [name for name in OUTPUTS if name in predictions]
    found = {name: keyphrases.evaluate(*_judged(predictions, name)) for name in outputs}
    if len(outputs) == 1:
        return found[outputs[0]]
    flat = {f"{name}:{metric}": value for name, of in found.items() for metric, value in of.items()}
    return flat | {"both:MAP@5": float(np.mean([of["MAP@5"] for of in found.values()]))}


def _judged(predictions: Mapping, output: str) -> tuple:
    return tuple(predictions[name] for name in (output, "targets", "sources"))


def statistics(predictions: Mapping, metric: str) -> np.ndarray:
    """The summands of each post [N, k]."""
    output, _, name = metric.rpartition(":")
    output = output or next(name for name in OUTPUTS if name in predictions)
    return keyphrases.statistics(*_judged(predictions, output), name)


def combine(metric: str, sums: np.ndarray) -> np.ndarray:
    return keyphrases.combine(metric.rpartition(":")[2], sums)


def groups(data: KeyphraseData) -> dict[str, np.ndarray]:
    """Masks [N] of the test posts: on IconWorld by where the evidence of their keyphrases is, elsewhere by whether
    training has "seen" one of them."""
    if data.corpus.name.startswith("iconworld"):
        decided = np.array(decided_by(data.corpus.test))
        return {kind: decided == kind for kind in EVIDENCE}
    known = {phrase.lower() for post in data.corpus.train for phrase in post.keyphrases}
    seen = np.array([any(phrase.lower() in known for phrase in post.keyphrases) for post in data.corpus.test])
    return {"seen": seen, "unseen": ~seen}


ONE = Task(
    load=load,
    prepare=prepare,
    context=context,
    predict=predict,
    score=score,
    monitor="MAP@5",  # over the first five phrases: steadier on dev than the first alone
    unit="post",
    metrics=METRICS,
    statistics=statistics,
    combine=combine,
    groups=groups,
    bind=bind,
)
TWO = replace(ONE, monitor="both:MAP@5", metrics=tuple(f"{output}:{name}" for output in OUTPUTS for name in METRICS))
ORACLE = replace(ONE, predict=extract)
