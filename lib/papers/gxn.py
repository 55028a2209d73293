"""GXN as experiments: its settings and rows. No value of the paper was found: these are documented defaults.

A row is trained in three stages of as many epochs each: two-level matching; more of it, or captions by cross-entropy
beside it; and what the row is about. So all rows have taken as many matching steps, and those of a seed start from the
same matching run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from lib.asked import require_picture, require_text
from lib.encoders.images import ImageEncoder, TrainableNetwork, pixels
from lib.encoders.words import Vocabulary, start_from_published
from lib.layers.adversarial import GAMES
from lib.metrics.captions import CiderD, References, sentence_bleu
from lib.models.gxn import GXN, similarity
from lib.names import require_known
from lib.run.paper import Paper, Variant
from lib.tasks import imagination
from lib.tasks.imagination import ImaginationSettings, said_of, sentences
from lib.tasks.retrieval import RetrievalSettings, reader


@dataclass(frozen=True)
class ModelSettings:
    """The model and its losses. The paper's form where it is known, else what is said beside a value."""

    # matching: L_R+
    matching: bool = True
    levels: str = "both"  # or "abstract": t_h and v_h alone
    sentence: str = "gru"  # RNN_Enc; or "frozen", a text encoder's vector and a small network for each level
    image_head: str = "linear"  # P_v, as in the paper; or "mlp"
    word_dim: int = 300
    joint_dim: int = 1024  # of each level; also the width of RNN_Enc
    dropout: float = 0.0  # of picture features, of word vectors, inside the heads
    direction: str = "gxn"  # image > caption is punished; or "vendrov", the other way round
    squared: bool = True  # ||.||^2; False takes the root, as VSE++ does
    absolute: bool = False  # |v| and |t| are compared, as in order embeddings (Vendrov et al. 2016)
    unit_norm: bool = True  # as there; without it the square's violations may all vanish, and its gradient with them
    margin: float = 0.2  # alpha; 0.05 in order embeddings
    lam: float = 0.5  # lambda, the abstract level's share of s*
    negatives: str | int = "all"  # or "hardest", or a number of random ones
    hardest_after: int = 2  # epochs of all negatives before the hardest alone

    # image to text: L_xe+rl
    captions: bool = False
    caption_gradient: bool = True  # of L_xe and L_rl into P_v^l
    caption_weight: float = 1.0
    decoder_dim: int = 1024
    decoder_word_dim: int = 300
    decoder_dropout: float = 0.4
    attention: bool = False  # the decoder looks at a grid of regions: an extension
    longest: int = 24  # words of a sampled caption, the end mark counted
    gamma: float = 0.0  # the reward's share; the paper takes cross-entropy alone first
    reward: str = "cider"  # r: CIDEr-D, document frequencies those of the training references; or "bleu", BLEU-4
    baseline: str = "greedy"  # r_b: the greedy caption's reward (self-critical); or "mean", a running one; or "none"

    # text to image: L_D and L_G
    pictures: bool = False
    text_gradient: str = "both"  # which of "discriminator" and "generator" teaches RNN_Enc^l and P_t^l; or "none"
    text_rate: float = 1e-4  # the learning rate of RNN_Enc^l and P_t^l there
    picture_size: int = 64
    width: int = 16  # channels of generator and discriminator at half of the picture's side
    condition_dim: int = 64  # of t_c
    noise_dim: int = 64  # of z
    noise: str = "gaussian"  # or "uniform", from -1 to 1
    augment: bool = True  # t_c is drawn from a Gaussian; False: phi(t_l) beside z
    game: str = "hinge"  # "saturating" is the paper's, "non-saturating" the usual one
    spectral: bool = True  # norm, in the discriminator; False: batch norm
    beta_f: float = 1.0
    beta_w: float = 1.0
    beta_s: float = 0.2  # of the KL divergence, a mean over dimensions
    contrastive: float = 1.0  # weight of every wrong caption of the batch; 0 in the paper, which takes one
    l1: float = 5.0  # weight of the distance to the real picture; 0 in the paper
    shift: int = 6  # pixels at most that D sees pictures moved by, or it knows few by heart; 0 in the paper
    generator_average: float = 0.99  # G's weights are averaged over steps to draw with; 0 in the paper: G as it is
    adversarial_rate: float = 5e-4  # Adam's, for generator and discriminator
    adversarial_beta1: float = 0.0

    image_rate: float = 1e-5  # of the image network, where it is not frozen

    def __post_init__(self):
        for name, known in CHOICES.items():
            require_known(name, getattr(self, name), known)
        for name in ("lam", "gamma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        if (self.captions or self.pictures) and self.levels != "both":
            raise ValueError(
                f"levels is {self.levels!r}, expected 'both': captions and pictures come from the grounded"
            )
        if self.gamma and not self.captions:
            raise ValueError(f"gamma is {self.gamma} without captions, expected captions or gamma 0")


CHOICES = {
    "levels": ("both", "abstract"),
    "sentence": ("gru", "frozen"),
    "image_head": ("linear", "mlp"),
    "direction": ("gxn", "vendrov"),
    "reward": ("cider", "bleu"),
    "baseline": ("greedy", "mean", "none"),
    "text_gradient": ("both", "discriminator", "generator", "none"),
    "noise": ("gaussian", "uniform"),
    "game": tuple(GAMES),
}


class Reward(torch.nn.Module):
    """r(sentences [B, L], owner [B]) -> [B], "cider" or "bleu", counted where the model is.

    references: of each training picture its captions as word ids. End them with END, as sampled sentences do: where
    nothing rewards an end, the best captions learn to stop in the middle ("a man on a").
    """

    def __init__(self, name: str, references: Sequence[Sequence[Sequence[int]]]):
        super().__init__()
        self.references = References(references)
        self.cider = CiderD(self.references) if name == "cider" else None

    def forward(self, said: Tensor, owner: Tensor) -> Tensor:
        return self.cider.score(said, owner) if self.cider else sentence_bleu(said, self.references, owner)


@dataclass(frozen=True)
class Settings(ImaginationSettings, ModelSettings):
    """The model, its losses, and what it is trained on. By default it imagines both ways, from pixels or features."""

    def __post_init__(self):
        ImaginationSettings.__post_init__(self)
        ModelSettings.__post_init__(self)
        if (self.sentence == "frozen") != (self.text_encoder is not None):
            found = f"sentence {self.sentence!r} with text_encoder {self.text_encoder!r}"
            raise ValueError(f"{found}, expected both a text encoder and sentence 'frozen', or neither")
        if self.attention and self.image_layer != "grid":
            raise ValueError(f"attention looks at image_layer {self.image_layer!r}, expected 'grid'")


# The paper's own adversarial game, with the habits of its time (DCGAN, StackGAN).
PAPER_GAME = dict(
    game="saturating", spectral=False, contrastive=0.0, l1=0.0, shift=0, generator_average=0.0, adversarial_rate=2e-4,
    adversarial_beta1=0.5,
)  # fmt: skip
PROFILES = {
    "smoke": dict(epochs=2, batch_size=64, learning_rate=3e-3, joint_dim=96, word_dim=64, train_limit=500)
    | dict(image_size=64, decoder_dim=96, decoder_word_dim=64, alone=True, probe_scenes=150)
    | dict(picture_size=32, width=8, shift=3, generator_average=0.95),
    "small": dict(epochs=6, learning_rate=2e-3, schedule="late", joint_dim=192, word_dim=192, image_size=128)
    | dict(decoder_dim=192, decoder_word_dim=128, alone=True, adversarial_steps=5.0),
    "paper": dict(epochs=5, learning_rate=1e-3, schedule="linear", joint_dim=512, min_count=5, dropout=0.3)
    | dict(decoder_dim=512, views=("full", "full-flip")),
    # The paper's forms and sizes where they are known, else those of order embeddings, StackGAN and VSE++.
    "original": dict(epochs=10, learning_rate=1e-3, schedule="linear", min_count=5, image_encoder="vgg19")
    | dict(image_layer="fc", width=64, condition_dim=128, noise_dim=100, adversarial_batch=64)
    | PAPER_GAME,
}

ONWARDS = dict(hardest_after=0)  # what starts from a trained model
MATCHING = dict(captions=False, pictures=False)
CAPTIONS = ONWARDS | dict(pictures=False)
MIX = dict(gamma=0.5)
PICTURES = ONWARDS | dict(captions=False)
CUT = dict(caption_gradient=False, text_gradient="none")

_names = [field.name for field in fields(ModelSettings)]
_first, _decoder, _reward = map(_names.index, ("hardest_after", "caption_gradient", "gamma"))
# What a stage has from its child: all of matching, and where captions are imagined already, all of the decoder. An
# image network is only fine-tuned when the rest has learned.
OF_MATCHING = (*(field.name for field in fields(RetrievalSettings)), *_names[:_first])
OF_CAPTIONS = (*OF_MATCHING, *_names[_decoder:_reward])


def _row(title: str, parent: str, *changes: dict) -> Variant:
    merged = {name: value for part in changes for name, value in part.items()}
    return Variant(title, merged, parent, OF_CAPTIONS if parent == "captions" else OF_MATCHING)


BEST = dict(
    sentence="frozen", text_encoder="minilm", image_head="mlp", joint_dim=512, dropout=0.5, batch_size=256,
    learning_rate=5e-4, weight_decay=1e-4, schedule="cosine", warmup=0.1, epochs=12,
)  # fmt: skip
VARIANTS = {
    "match": Variant("first stage: two-level matching", MATCHING),
    "match-on": _row("second stage: two-level matching", "match", MATCHING, ONWARDS),
    "captions": _row("second stage: captions by cross-entropy too", "match", CAPTIONS),
    "abstract": _row("matching, abstract level only", "match-on", MATCHING, ONWARDS, dict(levels="abstract")),
    "two-level": _row("matching, both levels", "match-on", MATCHING, ONWARDS),
    "xe": _row("+ captions, cross-entropy", "captions", CAPTIONS),
    "mix-cider": _row("+ captions, reinforced by CIDEr-D", "captions", CAPTIONS, MIX),
    "mix-bleu": _row("+ captions, reinforced by BLEU", "captions", CAPTIONS, MIX, dict(reward="bleu")),
    "t2i": _row("+ pictures", "match-on", PICTURES),
    "t2i-paper": _row("+ pictures, the paper's own game", "match-on", PICTURES, PAPER_GAME),
    "full": _row("GXN: captions and pictures", "captions", ONWARDS, MIX),
    "long": _row("GXN, drawing for longer", "captions", ONWARDS, MIX, dict(adversarial_steps=17.5)),
    "cut": _row("GXN, imagining teaches no encoder", "captions", ONWARDS, MIX, CUT),
    "grid": _row("+ captions, attention to a grid", "captions", CAPTIONS, dict(attention=True, image_layer="grid")),
    "two-level-best": Variant("matching on the encoders of VSE's best recipe", MATCHING | BEST),
}
FOR_A_GPU = {  # rows that nobody's laptop trains unasked
    "fine-tuned": _row("+ captions, the image network fine-tuned", "captions", CAPTIONS, dict(fine_tune=True)),
}

# What a minute has time for: the same number of matching steps with and without imagining.
QUICK = ["two-level", "full"]


def rows(profile: str) -> list[str]:
    """The rows that a profile trains where nobody asks for others: all but the first stages, and the long run where a
    laptop draws small pictures; the captions' stage is there as where the curve of reinforcement begins."""
    left_out = ("match", "match-on") if profile == "small" else ("match", "match-on", "long")
    return QUICK if profile == "smoke" else [name for name in VARIANTS if name not in left_out]


def deviations(full: Settings) -> list[str]:
    """Where the rows differ from the paper, a sentence each; `full` is the settings of the main row."""
    tuned = "is fine-tuned" if full.fine_tune else "is frozen: of the encoders image to text teaches P_v^l alone"
    return [
        "no official code and hardly a number of the paper was at hand: margin, lambda, gamma, the betas, all sizes "
        "and rates are this project's own",
        f"picture features: {full.image_encoder}, {full.image_layer}, at {full.image_size} px (the paper: VGG-19 or "
        f"ResNet-152); the image network {tuned} (its best row is fine-tuned)",
        f"joint space of {full.joint_dim} a level and a decoder of {full.decoder_dim} (1024 each), word vectors from "
        f"{full.word_vectors or 'random numbers'} (random, or word2vec)",
        "vectors of unit norm before they are compared, as in order embeddings: without it the squared violations may "
        "all vanish, and their gradient with them (the paper does not say)",
        f"reinforcement against the reward of the {full.baseline} caption (the paper: a baseline, which one is not "
        "known), by a share that jumps to gamma after as many epochs of cross-entropy",
        f"pictures of {full.picture_size} px by a network of width {full.width}; game {full.game} in place of the "
        f"paper's logarithms, {'spectral norm, ' * full.spectral}a contrastive term over every wrong caption of the "
        f"batch (weight {full.contrastive}) beside the paper's one, the distance to the real picture (weight "
        f"{full.l1}), a discriminator that sees pictures moved by up to {full.shift} px, and a mean of the generator's "
        "weights that draws; the row 'the paper's own game' has none of these",
        f"{full.adversarial_steps:g} steps of discriminator and of generator for one of matching (not known)",
        "only pictures of one thing alone are imagined" if full.alone else "all pictures are imagined",
    ]


def task(settings: Settings):
    """Retrieval by s*, and what is imagined."""
    return imagination.task(settings, similarity(settings))


def build(context: dict, settings: Settings) -> GXN:
    """The model that `settings` describe, with random weights, but for an image network that is to be fine-tuned."""
    cnn = TrainableNetwork(settings.image_encoder, settings.image_layer) if settings.fine_tune else None
    return GXN(context["picture_dim"], context["sentence_dim"], len(context["words"]), settings, cnn)


def initialise(model: GXN, context: dict, settings: Settings, parent=None) -> None:
    """Start from the stage before, or its words from published vectors, and say what a good caption is.

    Raises ValueError for a parent with weights that this model lacks.
    """
    if parent is not None:
        _, unexpected = model.load_state_dict(parent.weights(), strict=False)  # what is new stays random
        if unexpected:
            raise ValueError(f"the parent has weights {unexpected[0]!r}, expected those of a stage before this one")
    elif settings.word_vectors is not None and settings.sentence == "gru":
        start_from_published(model.W_e, context["words"], settings.word_vectors)
    if settings.gamma:
        model.reward = Reward(settings.reward, _by_picture(imagination.load(settings).train))


def _by_picture(split: imagination.Split) -> list[list[list[int]]]:
    """Of each picture its captions as word indices, ended."""
    ends = split.owner.searchsorted(range(len(split.examples) + 1))
    return [split.spoken[start:end] for start, end in pairwise(ends)]


class Predictor:
    """A trained model with the test split as its gallery.

    `Predictor(image=...)` (a path or a PIL image) says what it imagines of a picture and which captions are nearest,
    `Predictor(text=...)` which pictures are, and draws some; with both the answer is their similarity s*.
    """

    def __init__(self, model: GXN, context: dict, settings: Settings, predictions: dict):
        self.model, self.settings, self.predictions = model.eval(), settings, predictions
        self.vocabulary = Vocabulary(tuple(context["words"]))
        self.encoder = ImageEncoder(settings.image_encoder, settings.image_layer, settings.image_size)

    @torch.no_grad()
    def __call__(self, text: str | None = None, image=None, k: int = 5) -> dict | float:
        """Of a picture its `caption` and the `nearest` captions, of a sentence the `found` pictures, tables (index,
        score) of the gallery's `k` nearest, and `imagined` ones; what the run did not learn is not there."""
        require_text(text)
        require_picture(image)
        if text is None and image is None:
            raise ValueError("found neither text nor image, expected at least one of them")
        if text is not None and image is not None:
            return self.model.similarity(self.embed_image(image), self.embed_sentences([text])).item()
        if image is not None:
            said = {"caption": self.caption(image)} if self.settings.captions else {}
            return said | {"nearest": _best(self.model.similarity(self.embed_image(image), self.sentences)[0], k)}
        drawn = {"imagined": self.imagine(text)} if self.settings.pictures else {}
        return {"found": _best(self.model.similarity(self.images, self.embed_sentences([text]))[:, 0], k)} | drawn

    @property
    def images(self) -> Tensor:
        return self.predictions["images"]

    @property
    def sentences(self) -> Tensor:
        return self.predictions["sentences"]

    @torch.no_grad()
    def caption(self, image, beams: int = imagination.BEAMS) -> str:
        """What the model says of a picture: the best of a beam search, or with 0 beams the likeliest word each time."""
        return sentences(said_of(self.model, self._seen(image)[:1], beams), self.vocabulary)[0]

    def imagine(self, text: str, count: int = 4, seed: int = 0) -> list[Image.Image]:
        """Pictures that a sentence describes."""
        return self.draw(self.grounded([text]).expand(count, -1), seed)

    @torch.no_grad()
    def grounded(self, texts: Sequence[str]) -> Tensor:
        """t_l of sentences [n, D]: what a picture is imagined from."""
        return self.model.look_at_text(**self._read(texts), levels=("l",))["l"]

    @torch.no_grad()
    def draw(self, t_l: Tensor, seed: int = 0, same_noise: bool = False) -> list[Image.Image]:
        """A picture of each grounded text [n, D], each with noise z of its own, or all with the same."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            z = self.model.noise(1 if same_noise else len(t_l), t_l.device)
        drawn = self.model.imagine(t_l, z.expand(len(t_l), -1))
        return [Image.fromarray(picture) for picture in imagination.as_bytes(drawn).permute(0, 2, 3, 1).numpy()]

    @torch.no_grad()
    def embed_sentences(self, texts: Sequence[str]) -> Tensor:
        """Sentences in the joint space [n, 2D]."""
        return self.model.encode_sentences(**self._read(texts))

    @torch.no_grad()
    def embed_image(self, image) -> Tensor:
        """A picture in the joint space [1, 2D], averaged over its views."""
        return self.model.encode_images(self._seen(image)).mean(0, keepdim=True)

    def _read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return reader(texts, self.vocabulary, self.settings.text_encoder).batch(range(len(texts)))

    def _seen(self, image) -> Tensor:
        """The views of a picture as the model takes them [V, ...]."""
        shown = torch.stack([pixels(image, view, self.settings.image_size) for view in self.settings.views])
        return shown.float() if self.settings.fine_tune else self.encoder.encode(shown)


def _best(scores: Tensor, k: int) -> pd.DataFrame:
    score, index = scores.topk(min(k, len(scores)))
    return pd.DataFrame({"index": index.tolist(), "score": score.tolist()})


PAPER = Paper(
    "gxn", Settings, PROFILES, VARIANTS | FOR_A_GPU, task, build, initialise, Predictor, main="full", on_show="long"
)
