"""CMKP as experiments: the paper's table 2, its two stages, and the released code's habits.

Rows of the table that are left out: CLS-BUTD-MAX, CLS-BUTD-AVG and the variants with its 36 objects (its detector, of
Visual Genome, is not at hand, and the grid was better in the paper's full model; any row here reads the objects of
another detector with `regions="detector"`), CLS-TMN and GEN-TOPIC (a neural topic model beside the classifier or the
generator, papers of their own), CLS-BAN (bilinear attention, from question answering). The files named below are those
of github.com/yuewang-cuhk/CMKP/tree/4e83482/unified_model.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import torch
from PIL import Image

from lib.asked import require_picture, require_text, require_texts
from lib.corpora.types import DataError, Post
from lib.encoders.words import Vocabulary, word_vectors
from lib.models.cmkp import BRANCHES, CMKP, FUSIONS, AttributePredictor, Extractor
from lib.names import require_known
from lib.run.paper import Paper, Variant
from lib.tasks import attributes, keyphrases
from lib.tasks.keyphrases import KeyphraseSettings, Posts, Split
from lib.words import tokens


@dataclass(frozen=True)
class Settings(KeyphraseSettings):
    """The model and its losses, as in the paper; what it leaves open is as in the released code, or chosen here."""

    predicts: str = "keyphrases"  # or "attributes" of pictures; "extraction" knows the truth
    classifier: bool = True
    generator: bool = True
    word_dim: int = 200
    dim: int = 300  # d, of all states
    text_layers: int = 2
    dropout: float = 0.1
    fusion: str = "m3h"  # how c_fuse comes about; "none" leaves it out
    branches: tuple[str, ...] = BRANCHES  # of M3H, those whose modalities are there
    blocks: int = 1  # of a branch, one on the other
    heads: int = 4
    head_dim: int = 128
    pool: str = "mean"  # queries; or "max"
    fuse_linear: bool = True  # W_f; False: the sum as it is
    classifier_layers: int = 2  # of the MLP; 1: a linear map
    word_in_output: bool = True  # u_t in P_gen
    merge_context: bool = False  # a linear map of [c_t ; s_t] in place of c_t
    copy: bool = True
    a: float = 1.0  # the share of the source's words in what is copied
    b: float = 0.0  # and of the classifier's; with a + b = 1 P_unf sums to one
    top_k: int = 5  # the classifier's phrases that have words there
    beta: str = "words"  # each word of the phrases by itself; or "distinct": a word that occurs in several, once
    gamma: float = 1.0
    reduction: str = "mean"  # of the losses over a batch's pairs; or "sum"
    stage: int = 1
    frozen: str = "classifier"  # in stage 2; or "encoder": with it all that reads the post

    def __post_init__(self):
        super().__post_init__()
        for name, known in CHOICES.items():
            require_known(name, getattr(self, name), known)
        for branch in self.branches:
            require_known("branches", branch, BRANCHES)
        if self.predicts == "keyphrases":
            self._check_parts()

    @property
    def heard(self) -> list[str]:
        """The branches whose modalities are there."""
        there = {"text": True, "vision": self.image, "attributes": self.attributes != "none"}
        return [branch for branch in self.branches if all(there[side] for side in branch.split("-"))]

    def _check_parts(self) -> None:
        needs_picture = self.fusion in ("image", "image-attention", "co-attention")
        wrong = {
            "neither classifier nor generator": not (self.classifier or self.generator),
            f"fusion {self.fusion!r} without image": needs_picture and not self.image,
            "fusion 'm3h' with nothing to ask": self.fusion == "m3h" and not self.heard,
            "fusion 'none' with a classifier": self.fusion == "none" and self.classifier,
            "fusion 'image' with a generator": self.fusion == "image" and self.generator,
            "b without a classifier": self.b > 0 and not self.classifier,
            f"stage {self.stage} with a {self.a}, b {self.b}": self.stage not in (1, 2) or self.a <= 0 or self.b < 0,
            f"dim {self.dim}": self.dim < 2 or self.dim % 2 > 0,
        }
        if found := [what for what, is_so in wrong.items() if is_so]:
            raise ValueError(f"found {found[0]}, expected parts that can work together (dim even, stage 1 or 2, a > 0)")


CHOICES = {
    "predicts": ("keyphrases", "attributes", "extraction"),
    "fusion": (*FUSIONS, "none"),
    "pool": ("mean", "max"),
    "beta": ("words", "distinct"),
    "reduction": ("mean", "sum"),
    "frozen": ("classifier", "encoder"),
}
PROFILES = {
    "smoke": dict(epochs=6, batch_size=32, learning_rate=4e-3, clip=5.0, train_limit=800, image_size=128)
    | dict(word_dim=64, dim=64, text_layers=1, head_dim=32, beams=5, precision="fp32"),
    "small": dict(epochs=12, batch_size=64, learning_rate=2e-3, clip=5.0, image_size=128)
    | dict(word_dim=128, dim=128, text_layers=1, head_dim=64, precision="fp32"),
    "paper": dict(epochs=15, batch_size=64, learning_rate=1e-3, clip=5.0),
}
TEXT, PLAIN = dict(image=False, wordings=()), dict(wordings=())
CLS, GEN = dict(generator=False), dict(classifier=False)
SECOND = dict(stage=2, epochs=5, learning_rate=1e-4, a=0.5, b=0.5)
# What a second stage decides for itself; all else is its parent's too.
OWN = {*SECOND, "top_k", "beta", "frozen", "gamma", "schedule", "warmup", "patience", "evaluate_every"}
PASSED = tuple(field.name for field in fields(Settings) if field.name not in OWN)
# Each habit with the lines where the released code has it:
RELEASED = dict(
    wordings=("ocr",),  # model.py#L408-L414: attributes become a memory, and no attention is called with them
    branches=("vision-text",),  # model.py#L409-L414: of the branches that are built only the image's question is asked
    fuse_linear=False,  # model.py#L414: the block's output as it is
    classifier_layers=1,  # model.py#L469: one linear layer
    word_in_output=False,  # model.py#L110-L113: the vocabulary sees [context ; state]; p_gen has u_t too, L120
    merge_context=True,  # modules.py#L118: linear of [context ; state], to which c_fuse is added, model.py#L108
    reduction="sum",  # run_batches.py#L94-L95, L107: both losses are summed over the batch
    schedule="plateau",  # run_batches.py#L169-L182: half the rate where validation stands still (there: its loss)
)  # fmt: skip
# Habits left out: <eos> in place of <unk> where a copied word is fed back (a slip, model.py, unk_idx), LayerNorm with
# the unbiased standard deviation (multi_head_att/submodules.py), OCR words filtered by the test posts' too
# (ext_feats/infer_OCR), epochs chosen on test (README).


def stage_two(title: str, parent: str, **changes) -> Variant:
    return Variant(title, SECOND | changes, parent=parent, passes=PASSED)


VARIANTS = {
    "ext-oracle": Variant("extraction oracle", TEXT | dict(predicts="extraction")),
    "image-max": Variant("image only, max", PLAIN | CLS | dict(fusion="image", pool="max")),
    "image-avg": Variant("image only, mean", PLAIN | CLS | dict(fusion="image")),
    "cls-avg": Variant("text only, CLS-AVG", TEXT | CLS | dict(fusion="text")),
    "cls-max": Variant("text only, CLS-MAX", TEXT | CLS | dict(fusion="text", pool="max")),
    "gen-att": Variant("text only, GEN-ATT", TEXT | GEN | dict(fusion="none", copy=False)),
    "gen-copy": Variant("text only, GEN-COPY", TEXT | GEN | dict(fusion="none")),
    "cls-img-att": Variant("CLS-IMG-ATT", PLAIN | CLS | dict(fusion="image-attention")),
    "cls-co-att": Variant("CLS-CO-ATT", PLAIN | CLS | dict(fusion="co-attention")),
    "cls-m3h": Variant("CLS-M3H-ATT", PLAIN | CLS),
    "cls-m3h-wordings": Variant("CLS-M3H-ATT + image wordings", CLS),
    "cls-no-attributes": Variant("CLS-M3H-ATT + image wordings, no attributes", CLS | dict(wordings=("ocr",))),
    "joint-cls": Variant("CLS-M3H-ATT + joint training", output="classifier"),
    "gen-m3h": Variant("GEN-M3H-ATT", PLAIN | GEN),
    "gen-m3h-wordings": Variant("GEN-M3H-ATT + image wordings", GEN),
    "gen-no-attributes": Variant("GEN-M3H-ATT + image wordings, no attributes", GEN | dict(wordings=("ocr",))),
    "joint-gen": Variant("GEN-M3H-ATT + joint training", output="generator"),
    "full": stage_two("GEN-CLS-M3H-ATT", "joint-gen"),
    "no-attributes": stage_two("GEN-CLS-M3H-ATT without attributes", "joint-gen", wordings=("ocr",)),
    "no-ocr": stage_two("GEN-CLS-M3H-ATT without OCR", "joint-gen", wordings=("attributes",)),
    "distinct": stage_two("GEN-CLS-M3H-ATT, beta over distinct words", "joint-gen", beta="distinct"),
    "released-stage-1": Variant("as released, stage 1, generator", RELEASED, output="generator"),
    # model.py#L124-L125: both ways to copy have the whole weight; train.py#L74-L78: the encoder is fixed as well
    "released": stage_two("as released", "released-stage-1", **RELEASED | dict(a=1.0, b=1.0, frozen="encoder")),
    "attributes": Variant(
        "attributes, trained on captions", dict(predicts="attributes", wordings=()),
        hands=("captions", "captions_dir", "image_encoder", "image_size"),
    ),
}  # fmt: skip


def task(settings: Settings):
    """Predicting keyphrases of posts, as one list or as two; or what serves that."""
    if settings.predicts == "attributes":
        return attributes.TASK
    if settings.predicts == "extraction":
        return keyphrases.ORACLE
    return keyphrases.TWO if settings.classifier and settings.generator and settings.stage == 1 else keyphrases.ONE


def build(context: dict, settings: Settings) -> torch.nn.Module:
    """The model that `settings` describe, with random weights."""
    if settings.predicts == "attributes":
        return AttributePredictor(context["picture_dim"], len(context["labels"]))
    if settings.predicts == "extraction":
        return Extractor()
    number = {word: i for i, word in enumerate(context["words"])}
    rows = [[number[word] for word in phrase.split()] for phrase in context["phrases"]]
    longest = max(map(len, rows))
    phrases = torch.tensor([row + [0] * (longest - len(row)) for row in rows])  # (C, L)
    return CMKP(len(number), phrases, context["picture_dim"], settings)


def initialise(model: torch.nn.Module, context: dict, settings: Settings, parent=None) -> None:
    """Start a second stage from the first one's weights, the words of a first one from published vectors.

    Raises DataError if the vectors are not as wide as the model's.
    """
    if parent is not None:
        model.load_state_dict(parent.weights())
    elif settings.word_vectors and settings.predicts == "keyphrases":
        vectors, found = word_vectors(Vocabulary(tuple(context["words"])), settings.word_vectors)
        if vectors.shape[1] != settings.word_dim:
            wide = f"{settings.word_vectors}: found vectors of {vectors.shape[1]} numbers"
            raise DataError(f"{wide}, expected {settings.word_dim} (set word_dim)")
        model.W_e.weight.data[found] = vectors[found]


@dataclass(frozen=True)
class Shown:
    """Anybody's picture, as encoders and caches know one."""

    image: Image.Image

    @property
    def key(self) -> str:
        return f"{self.image.mode} {self.image.size} {hashlib.sha256(self.image.tobytes()).hexdigest()}"

    def draw(self) -> Image.Image:
        return self.image


class Predictor:
    """A trained model, for a text and a picture (a path or a PIL image) if there is one."""

    def __init__(self, model: CMKP, context: dict, settings: Settings, predictions: dict):
        if settings.predicts == "extraction":
            raise ValueError("found the extraction oracle, expected a trained run: it only knows its corpus's posts")
        self.model, self.settings, self.context = model.eval(), settings, context
        self.predictions, self.known = predictions, frozenset(context["words"])

    def __call__(self, text: str = "", image=None, ocr: str | None = None, attributes=()) -> pd.DataFrame:
        """The ranked keyphrases as a table (phrase, score, generated, text, ocr, classifier). The score is a
        probability, a phrase's own of a classifier's, else the geometric mean of its words'; the last four, which sum
        to one, are the shares in which its words were generated, and copied from the text, from the picture's words
        and from the classifier's phrases, on average. `ocr`: the words on the picture, if not tesseract shall read
        it; `attributes`: words for what it shows, where the model had them from its corpus's file.
        Raises ValueError for neither words nor a picture.
        """
        split = self.split(text, image, ocr, attributes)
        memory = self.model.read(**split.read([0]))
        return self._written(memory, split) if self.settings.generator else self._chosen(memory)

    def split(self, text: str = "", image=None, ocr: str | None = None, attributes=()) -> Split:
        """A split of this one post; arguments and errors as in a call."""
        require_text(text)
        require_text(ocr, "ocr")
        require_texts(attributes, "attributes")
        require_picture(image)
        words = " ".join(tokens(text or "")).lower()
        if not words and image is None:
            raise ValueError(f"found no word in {text!r} and no picture, expected at least one of them")
        picture = Shown(image) if isinstance(image, Image.Image) else Path(image) if image is not None else None
        posts = Posts([Post("", picture, words, (), ocr or "", tuple(attributes))], self.settings, self.known)
        if self.settings.ocr != "none":
            read = ocr is None and picture is not None
            posts.ocr = keyphrases.ocr.wordings([picture], self.known) if read else [ocr or ""]
        return Split(posts, self.context)

    def _chosen(self, memory) -> pd.DataFrame:
        score, best = memory.scores[0].softmax(0).topk(min(5, len(self.context["phrases"])))
        phrases = [self.context["phrases"][i] for i in best.tolist()]
        shares = dict.fromkeys(SHARES, 0.0) | {"classifier": 1.0}
        return pd.DataFrame({"phrase": phrases, "score": score.tolist(), **shares})

    @torch.no_grad()
    def _written(self, memory, split: Split) -> pd.DataFrame:
        found = self.model.generate(memory, self.settings.beams, 5, self.settings.longest_phrase)
        spelled = keyphrases.spelled(split, 0, found.tokens[0], found.lengths[0], found.kept["looks"][0])
        rows = {}
        for phrase, i in spelled:
            shares = self.inspect(memory, split, found.tokens[0, i])[SHARES].mean()
            rows.setdefault(phrase, {"phrase": phrase, "score": found.scores[0, i].exp().item(), **shares})
        return pd.DataFrame(list(rows.values()), columns=["phrase", "score", *SHARES])

    @torch.no_grad()
    def inspect(self, memory, split: Split, words: torch.Tensor) -> pd.DataFrame:
        """How each word of a phrase, given as extended ids (T,), came about: `lambda`, its log-probability, SHARES."""
        words = words[words != keyphrases.SPECIAL.index(keyphrases.END)]
        shares, switch, log_p = (x[0] for x in self.model.trace(memory, words[None]))  # (T, 1 + S + J), (T,), (T,)
        source = split.read([0])["source"][0]
        drawn = (source == keyphrases.SPECIAL.index(keyphrases.SEPARATOR)).cumsum(0) > 0  # (S,)
        copied, of_class = shares[:, 1:].split([len(source), shares.shape[1] - 1 - len(source)], 1)
        of_text = (copied * ~drawn).sum(1)
        parts = [shares[:, 0], of_text, copied.sum(1) - of_text, of_class.sum(1)]
        table = dict(zip(SHARES, (part.tolist() for part in parts), strict=True))
        return pd.DataFrame({"word": words.tolist(), "lambda": switch.tolist(), "log_p": log_p.tolist(), **table})


SHARES = ["generated", "text", "ocr", "classifier"]


class AttributeReader:
    """A trained predictor of attributes."""

    def __init__(self, model: AttributePredictor, context: dict, settings: Settings, predictions: dict):
        self.model, self.labels, self.predictions = model.eval(), context["labels"], predictions

    @torch.no_grad()
    def named(self, features: torch.Tensor) -> list[list[str]]:
        """The five likeliest labels of pictures, the likeliest first, by their pooled features [B, Q]."""
        top = self.model.W(features).topk(min(attributes.COUNT, len(self.labels))).indices.tolist()
        return [[self.labels[i] for i in row] for row in top]


def predictor(model: torch.nn.Module, context: dict, settings: Settings, predictions: dict):
    """What answers anybody's own input."""
    kind = AttributeReader if settings.predicts == "attributes" else Predictor
    return kind(model, context, settings, predictions)


PAPER = Paper("cmkp", Settings, PROFILES, VARIANTS, task, build, initialise, predictor, main="full")
