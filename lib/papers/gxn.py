"""GXN as experiments: its settings. No value of the paper was found: these are documented defaults."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lib.layers.adversarial import GAMES
from lib.metrics.captions import CiderD, References, sentence_bleu
from lib.names import require_known
from lib.precision import device


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


def reward(name: str, references: Sequence[Sequence[Sequence[int]]]) -> Callable[[Tensor, Tensor], Tensor]:
    """r(sentences [B, L], owner [B]) -> [B], "cider" or "bleu", counted where training is.

    references: of each training picture its captions as word ids. End them with END, as sampled sentences do: where
    nothing rewards an end, the best captions learn to stop in the middle ("a man on a").
    """
    counted = References(references).to(device())
    if name == "cider":
        return CiderD(counted).score
    return lambda sentences, owner: sentence_bleu(sentences, counted, owner)
