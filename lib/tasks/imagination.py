"""Retrieval by a model that also imagines (GXN): batches of captions and pictures, and scores of what it imagines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from torch.nn.functional import normalize

from lib.encoders.cache import Features
from lib.encoders.images import PictureBytes
from lib.encoders.words import Vocabulary, pad
from lib.layers import beam
from lib.layers.decoder import END
from lib.metrics.captions import CiderD, References, bleu_of, bleu_statistics
from lib.metrics.pictures import frechet_distance
from lib.metrics.retrieval import Similarity
from lib.progress import ticking
from lib.run.paper import Task, ratio
from lib.run.settings import TrainingSettings
from lib.run.training import batch_plan
from lib.tasks import judging, retrieval
from lib.tasks.retrieval import RECALLS, RetrievalData, RetrievalSettings
from lib.words import words

QUICK = 500  # pictures at most where an epoch is chosen
JUDGED_QUICKLY = 100  # imagined pictures at most, there
BEAMS = 3
SLICE = 100  # captions among which an imagined picture looks for its own


@dataclass(frozen=True)
class ImaginationSettings(RetrievalSettings):
    """What is imagined, and from which examples."""

    captions: bool = True  # imagine a sentence
    pictures: bool = True  # imagine a picture
    picture_size: int = 64
    fine_tune: bool = False  # the image network learns too, from pixels
    adversarial_steps: float = 1.0  # of discriminator and of generator, for one step of matching
    adversarial_batch: int = 32
    alone: bool = False  # only pictures of one thing alone are imagined, where it is known which are
    probe_scenes: int = 400  # that the judge of imagined pictures learns from


class Split(retrieval.Split):
    """A split for a model that may imagine too; `train` is the one that it is trained on."""

    def __init__(self, known: retrieval.Split, vocabulary: Vocabulary, settings: ImaginationSettings):
        vars(self).update(vars(known))  # what was read once serves all variants
        self.known, self.vocabulary, self.settings, self.train = known, vocabulary, settings, self

    @cached_property
    def features(self) -> Features:
        """What the image network has seen of the pictures; their pixels, where it is yet to learn."""
        if not self.settings.fine_tune:
            return self.known.features
        return PictureBytes(self.settings.image_size).features(self.shown, self.views)

    @property
    def shown(self) -> list:
        return [example.image for example in self.examples]

    @cached_property
    def bytes(self) -> Features:
        """The pictures as they are to be imagined."""
        return PictureBytes(self.settings.picture_size).features(self.shown)

    @cached_property
    def spoken(self) -> list[list[int]]:
        """The captions as word indices that end with END."""
        return [self.vocabulary.encode(caption, end=True) for caption in self.captions]

    @cached_property
    def references(self) -> list[list[str]]:
        """Each picture's captions, in the words that count."""
        return [[" ".join(words(caption)) for caption in example.captions] for example in self.examples]

    @cached_property
    def few(self) -> "Split":
        """The first pictures, as many as are enough to choose an epoch by."""
        if len(self.examples) <= QUICK:
            return self
        known = retrieval.Split(self.examples[:QUICK], self.vocabulary, self.settings)
        first = Split(known, self.vocabulary, self.settings)
        first.train = self.train
        return first

    # ---- training ----

    @cached_property
    def drawable(self) -> np.ndarray:
        """The captions whose picture can be imagined: it is there, and it may be required to show one thing alone."""
        present = self.bytes.present.numpy()
        single = np.array([judging.alone(example) for example in self.examples])
        chosen = present & single if self.settings.alone and (present & single).any() else present
        return np.flatnonzero(chosen[self.owner])

    def plan(self, seed: int, epoch: int, part: str) -> list[np.ndarray]:
        """A part's batches in an epoch. Discriminator and generator see the same: the captions that can be imagined,
        each as often as any other, as many batches as were asked for a step of matching; none where there are fewer
        than two."""
        matching = batch_plan(self.lengths, self.settings.batch_size, seed, epoch)
        if part == "match":
            return matching
        steps, size = round(self.settings.adversarial_steps * len(matching)), self.settings.adversarial_batch
        if len(self.drawable) < 2 or not steps:
            return []
        random, rounds = np.random.default_rng((seed, epoch, 1)), -(-steps * size // len(self.drawable))
        order = np.concatenate([random.permutation(self.drawable) for _ in range(rounds)])
        return [order[i * size : (i + 1) * size] for i in range(steps)]

    def batch(self, indices: np.ndarray, random: np.random.Generator, part: str = "match") -> dict[str, torch.Tensor]:
        """Sentences with the features of their pictures, or with the pictures; and as a decoder is to say them."""
        if part != "match":
            owner = self.owner[indices]
            picture = self.bytes.gather(owner).byte()
            return {"picture": picture, "owner": torch.from_numpy(owner), **self.sentences.batch(indices)}
        found = super().batch(indices, random, part)
        if self.settings.captions:
            found["caption"], _ = pad([self.spoken[i] for i in indices])
        return found

    # ---- judging ----

    def looked_at(self, drawn: torch.Tensor) -> torch.Tensor:
        """Imagined pictures [N, 3, S, S], bytes, as this split's pictures come to the model."""
        if self.settings.fine_tune:
            return judging.blurred(drawn, self.settings.image_size).float()
        return judging.encoded(self.encoder, drawn)

    @cached_property
    def nearest(self) -> list[str]:
        """A caption of the training picture that is nearest to each picture, by the cosine of frozen features."""
        ours, theirs = (normalize(judging.features(self.encoder, split.shown), dim=-1) for split in (self, self.train))
        return [self.train.references[i][0] for i in (ours @ theirs.T).argmax(1).tolist()]


def load(settings: ImaginationSettings) -> RetrievalData:
    """The corpus that `settings` name, as tensors; read once for all variants that share it."""
    ignored = {field.name for field in fields(TrainingSettings)} - {"batch_size"}
    shared = {field.name for field in fields(ImaginationSettings)} - ignored
    return _load(ImaginationSettings(**{name: getattr(settings, name) for name in shared}))


@lru_cache(maxsize=32)
def _load(settings: ImaginationSettings) -> RetrievalData:
    known = retrieval.load(settings)
    parts = {name: Split(getattr(known, name), known.vocabulary, settings) for name in ("train", "dev", "test")}
    parts["dev"].train = parts["test"].train = parts["train"]
    return replace(known, **parts)


def prepare(data: RetrievalData) -> None:
    """Compute whatever is not in the cache yet: features, pictures as bytes, what the judge learns from."""
    retrieval.prepare(data)
    settings = data.train.settings
    if settings.pictures:
        _ = data.train.bytes, _probe(data.test)


def _probe(split: Split) -> judging.Probe | None:
    s = split.settings
    if not s.dataset.startswith("iconworld"):
        return None
    return judging.probe(s.image_encoder, s.image_layer, s.image_size, s.picture_size, s.probe_scenes)


# ---- what the model imagines of a split ----


@torch.no_grad()
def predict(model: torch.nn.Module, split: Split, quick: bool = False) -> dict:
    """A split in the joint space, and what the model imagines of it: sentences, and of pictures what judges say.

    `quick`: the first pictures alone, no beam search, a few imagined pictures.
    """
    split = split.few if quick else split
    batch = 64 if split.settings.fine_tune else 512  # pixels are large
    found = retrieval.predict(model, split, batch=batch, unit=False)
    if split.settings.captions:
        found |= {"references": split.references, "said": captions(model, split)}
        found |= {} if quick else {"beam": captions(model, split, BEAMS), "nearest": split.nearest}
    if split.settings.pictures:
        found |= judged(model, split, found["sentences"], quick)
    return found


def captions(model: torch.nn.Module, split: Split, beams: int = 0, batch: int = 64) -> list[str]:
    """A sentence for each picture: the likeliest word each time, or the best of a beam search."""
    starts, device = range(0, len(split.examples), batch), next(model.parameters()).device
    said = []
    for start in ticking(starts, "imagining captions", len(starts)):
        image = split.features.gather(slice(start, start + batch)).to(device)
        said += sentences(said_of(model, image, beams), split.vocabulary)
    return said


def said_of(model: torch.nn.Module, image: torch.Tensor, beams: int = 0) -> torch.Tensor:
    """Word indices [B, T] of a sentence for each picture."""
    if not beams:
        return model.caption(image)
    options = dict(start=END, end=END, n_best=1, longest=model.settings.longest, length_power=1.0)
    return beam.search(model.RNN_Dec.step, model.start_caption(image), beams=beams, **options).tokens[:, 0]


def sentences(said: torch.Tensor, vocabulary: Vocabulary) -> list[str]:
    """Word indices [B, T] up to END as sentences."""
    rows = (row[: row.index(END)] if END in row else row for row in said.tolist())
    return [" ".join(vocabulary.words[i] for i in row) for row in rows]


def imagined(model: torch.nn.Module, split: Split, chosen: Sequence[int], batch: int = 64) -> torch.Tensor:
    """Bytes [n, 3, S, S] of a picture for each chosen caption, the same ones at each call."""
    device, drawn = next(model.parameters()).device, []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for part in np.array_split(chosen, -(-len(chosen) // batch)):
            read = {name: value.to(device) for name, value in split.sentences.batch(part).items()}
            drawn.append(model.imagine(model.look_at_text(**read, levels=("l",))["l"]).cpu())
    return as_bytes(torch.cat(drawn))


def as_bytes(drawn: torch.Tensor) -> torch.Tensor:
    """Pictures from -1 to 1 as bytes."""
    return ((drawn + 1) * 127.5).round().byte()


def asked(split: Split, quick: bool = False) -> np.ndarray:
    """The captions whose pictures are judged, in an order of their own; a few of them where an epoch is chosen."""
    first = np.searchsorted(split.owner, np.arange(len(split.examples)))
    chosen = np.array([first[i] + j for i, j in judging.asked(split.examples)], int)
    return np.random.default_rng(0).permutation(chosen)[: JUDGED_QUICKLY if quick else None]


def judged(model: torch.nn.Module, split: Split, texts: torch.Tensor, quick: bool) -> dict[str, torch.Tensor]:
    """Of each imagined caption, `asked` [Q]: whether its picture has the right colour, the rank of the right kind, and
    whether its nearest caption is one of its own; `texts` are all captions in the joint space.

    Where an epoch is chosen the model remembers some, so that a trained one can show how it came there.
    """
    if not len(chosen := asked(split, quick)):
        return {}
    drawn = imagined(model, split, chosen)
    seen, shown = split.looked_at(drawn), [split.examples[i].image for i in split.owner[chosen]]
    found = {"asked": torch.from_numpy(chosen), "own": own_first(model, split, seen, chosen, texts)}
    features = judging.encoded(split.encoder, drawn) if split.settings.fine_tune else seen
    if (probe := _probe(split)) is not None:
        found |= {"colour": judging.colours_right(drawn, shown), "kind": probe.ranks(features, shown)}
    if quick:
        model.remember(drawn)
        return found
    return found | {"Fréchet": _frechet(split, features, shown)}


def _frechet(split: Split, features: torch.Tensor, shown: Sequence) -> torch.Tensor:
    """From the real pictures of the same captions, blurred in the same way."""
    real = judging.features(split.encoder, [judging.Treated(picture, split.settings.picture_size) for picture in shown])
    return torch.tensor(frechet_distance(features.mean(1) if features.ndim == 3 else features, real))


def own_first(model: torch.nn.Module, split: Split, seen: torch.Tensor, asked: np.ndarray, texts: torch.Tensor):
    """Whether the nearest caption of each imagined picture, among SLICE of them, is of its own picture or the same in
    its words: pictures as the model takes them [Q, ...] -> [Q] bool."""
    device, own = next(model.parameters()).device, []
    for part in torch.arange(len(asked)).split(SLICE):
        rows = asked[part.numpy()]
        scores = model.similarity(model.encode_images(seen[part].to(device)).cpu(), texts[rows])  # (n, n)
        for row, best in zip(rows, rows[scores.argmax(1).numpy()], strict=True):
            own.append(split.owner[row] == split.owner[best] or split.captions[row] == split.captions[best])
    return torch.tensor(own)


# ---- scores ----

SAYING = {"": "said", "beam/": "beam", "nearest/": "nearest"}  # how captions were found -> under which name
BLEU = tuple(f"BLEU-{n}" for n in range(1, 5))
CAPTION_METRICS = (*(f"{way}{name}" for way in SAYING for name in (*BLEU, "CIDEr-D")), "reference/CIDEr-D", "words")
PICTURE_METRICS = ("colour", "kind@1", "kind@5", "own@1")


def score(predictions: Mapping, similarity: Similarity) -> dict[str, float]:
    """Recalls of both searches, and the metrics of what was imagined; `all` is the sum of what an epoch is chosen by,
    in per cent: the six recalls, CIDEr-D, and of pictures colour, kind and own caption."""
    flat = retrieval.score(predictions, similarity)
    for metric in (*CAPTION_METRICS, *PICTURE_METRICS):
        if _has(predictions, metric):
            flat[metric] = float(combine(metric, statistics(predictions, metric, similarity).sum(0)))
    if "Fréchet" in predictions:
        flat["Fréchet"] = float(predictions["Fréchet"])
    judges = sum(flat.get(name, 0.0) for name in ("colour", "kind@5", "own@1"))
    return {**flat, "all": flat["rsum"] + 100 * flat.get("CIDEr-D", 0.0) + judges}


def _has(predictions: Mapping, metric: str) -> bool:
    way, name = _way(metric)
    if metric in PICTURE_METRICS:
        return name.partition("@")[0] in predictions
    return (SAYING["" if metric == "words" else way] if way != "reference/" else "beam") in predictions


def _way(metric: str) -> tuple[str, str]:
    """Of "beam/BLEU-4" the way, "beam/", and the name."""
    way, slash, name = metric.rpartition("/")
    return way + slash, name


def statistics(predictions: Mapping, metric: str, similarity: Similarity) -> np.ndarray:
    """The summands of each test picture [N, k] of a metric; zeros for one that this run does not have."""
    if metric in RECALLS:
        return retrieval.statistics(predictions, metric, similarity)
    if not _has(predictions, metric):
        return np.zeros((len(predictions["images"]), 10 if metric.rpartition("/")[2] in BLEU else 2))
    way, name = _way(metric)
    if metric in PICTURE_METRICS:
        return _picture_statistics(predictions, name)
    if way == "reference/":
        values = reference_cider(predictions["references"])
    else:
        said = predictions[SAYING[way]]
        if name in BLEU:
            return bleu_statistics(said, predictions["references"])
        values = _lengths(said) if name == "words" else CiderD(predictions["references"]).score(said).numpy()
    return np.stack([values, np.ones(len(values))], 1)


def _lengths(said: Sequence[str]) -> np.ndarray:
    return np.array([len(sentence.split()) for sentence in said])


def reference_cider(references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of a picture's own captions, each against the others, their mean [N]; nothing for a single caption."""
    counted = References(references)
    several = [i for i, own in enumerate(references) if len(own) > 1]
    pairs = [(i, j) for i in several for j in range(len(references[i]))]
    if not pairs:
        return np.zeros(len(references))
    others = [[*references[i][:j], *references[i][j + 1 :]] for i, j in pairs]
    judge = CiderD(References(others, words=counted.words), counted)
    values = judge.score([references[i][j] for i, j in pairs]).numpy()
    picture = [i for i, _ in pairs]
    total = np.bincount(picture, values, len(references))
    return total / np.maximum(np.bincount(picture, minlength=len(references)), 1)


def _picture_statistics(predictions: Mapping, name: str) -> np.ndarray:
    kind, _, k = name.partition("@")
    right = predictions[kind] < int(k) if kind == "kind" else predictions[kind]
    picture, count = predictions["owner"][predictions["asked"]].numpy(), len(predictions["images"])
    sums = np.bincount(picture, right.double().numpy(), count), np.bincount(picture, minlength=count)
    return np.stack(sums, 1)


def combine(metric: str, sums: np.ndarray) -> np.ndarray:
    """A metric from sums of `statistics`: BLEU and shares in per cent, CIDEr-D on coco-caption's scale, words a
    caption."""
    name = metric.rpartition("/")[2]
    if name in BLEU:
        return 100 * bleu_of(sums)[..., BLEU.index(name)]
    return ratio(name, sums) / (100 if name in ("CIDEr-D", "words") else 1)


def groups(data: RetrievalData) -> dict[str, np.ndarray]:
    """Masks [N] of the test pictures of one thing alone: whether training shows that thing in that colour."""
    if not data.corpus.name.startswith("iconworld"):
        return {}
    never, single = judging.held_out(data.test.examples), np.array([judging.alone(e) for e in data.test.examples])
    return {"held out": never, "seen": single & ~never}


def task(settings: ImaginationSettings, similarity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Task:
    """Searching by `similarity` in both directions, and imagining."""
    metrics = (*RECALLS, *CAPTION_METRICS * settings.captions, *PICTURE_METRICS * settings.pictures)
    return Task(
        load=load,
        prepare=prepare,
        context=retrieval.context,
        predict=predict,
        score=partial(score, similarity=similarity),
        monitor="all" if settings.captions or settings.pictures else "rsum",
        unit="picture",
        metrics=metrics,
        statistics=partial(statistics, similarity=similarity),
        combine=combine,
        groups=groups,
    )
