"""A conditional adversarial pair: a generator draws the picture that a text describes, a discriminator tells it from
real pictures, and real ones from those of another text."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lib.layers.ranking import contrastive_loss
from lib.names import require_known

SMALLEST = 4  # pixels a side: where drawing begins, and seeing ends


class Conditioning(nn.Module):
    """What of a text the generator is told: t_c, small and smooth (Gu et al. 2018, as StackGAN, Zhang et al. 2017).

    t_c ~ N(mu(phi(t)), sigma(phi(t))) in training, the mean at evaluation; without `augment` phi(t) itself, small only.
    forward(t [B, D]) -> t_c [B, dim], and the divergence of that distribution from N(0, 1) -> scalar.
    """

    def __init__(self, text_dim: int, dim: int, augment: bool = True):
        super().__init__()
        self.augment, self.phi = augment, nn.Linear(text_dim, 2 * dim if augment else dim)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        phi = self.phi(standardised(t)).float()
        if not self.augment:
            return phi, phi.new_zeros(())
        mu, log_sigma = phi.chunk(2, dim=-1)  # (B, dim)
        t_c = mu + log_sigma.exp() * torch.randn_like(mu) if self.training else mu
        return t_c, gaussian_kl(mu, log_sigma)


class Generator(nn.Module):
    """G(z, t_c): transposed convolutions that double the side from 4 pixels on, batch norm and ReLU between (DCGAN,
    Radford et al. 2016). `size`: the picture's side, 8, 16, 32, ...; `width`: the channels at half of it.

    forward(z [B, Z], t_c [B, C]) -> pictures [B, 3, size, size] from -1 to 1.
    """

    def __init__(self, noise_dim: int, text_dim: int, width: int, size: int = 64):
        super().__init__()
        channels = _channels(width, size)[::-1]
        self.first = nn.Linear(noise_dim + text_dim, channels[0] * SMALLEST**2, bias=False)
        self.norm, layers = nn.BatchNorm2d(channels[0]), []
        for narrower, wider in zip(channels[1:], channels, strict=False):
            doubled = _initial(nn.ConvTranspose2d(wider, narrower, 4, 2, 1, bias=False))  # the norm has its own
            layers += [doubled, nn.BatchNorm2d(narrower), nn.ReLU()]
        self.draw = nn.Sequential(*layers, _initial(nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1)), nn.Tanh())

    def forward(self, z: Tensor, t_c: Tensor) -> Tensor:
        seed = self.first(torch.cat([z, t_c], dim=-1)).unflatten(1, (-1, SMALLEST, SMALLEST))  # (B, C, 4, 4)
        return self.draw(F.relu(self.norm(seed)))


class Discriminator(nn.Module):
    """D(i, t) as a logit: strided convolutions make features f(i), and a text counts by its product with them (a
    projection discriminator, Miyato and Koyama 2018): D(i, t) = psi(f(i)) + f(i) . E t. So one pass over the pictures
    judges them with every text. `spectral` bounds each layer (Miyato et al. 2018) in place of batch norm.
    """

    def __init__(self, text_dim: int, width: int, size: int = 64, spectral: bool = False):
        super().__init__()
        bound: Callable[[nn.Module], nn.Module] = spectral_norm if spectral else lambda layer: layer
        channels, layers = _channels(width, size), []
        for before, after in zip([3, *channels], channels, strict=False):
            norm = bool(layers) and not spectral  # none before the first
            halved = bound(_initial(nn.Conv2d(before, after, 4, 2, 1, bias=not norm)))
            layers += [halved, nn.BatchNorm2d(after) if norm else nn.Identity(), nn.LeakyReLU(0.2)]
        self.see = nn.Sequential(*layers, nn.Flatten(), bound(nn.Linear(channels[-1] * SMALLEST**2, channels[-1])))
        self.psi, self.E = bound(nn.Linear(channels[-1], 1)), bound(nn.Linear(text_dim, channels[-1], bias=False))

    def features(self, pictures: Tensor) -> Tensor:
        """f(i): [B, 3, size, size] from -1 to 1 -> [B, F]."""
        return F.leaky_relu(self.see(pictures), 0.2).float()

    def texts(self, t: Tensor) -> Tensor:
        """E t: [B, D] -> [B, F]."""
        return self.E(standardised(t)).float()

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        """D(i, t) of each pair [B]."""
        return self.psi(features)[:, 0].float() + (features * texts).sum(-1)


def shifted(pictures: Tensor, most: int) -> Tensor:
    """Pictures [B, 3, S, S] moved up or down and sideways by `most` pixels at most, all by the same, edges repeated.

    A discriminator that sees few pictures soon knows them by heart; moved ones it does not (Zhao et al. 2020).
    """
    places = torch.arange(pictures.shape[-1], device=pictures.device)  # (S,)
    by = torch.randint(-most, most + 1, (2, 1), device=pictures.device)
    down, across = (places + by).clamp(0, pictures.shape[-1] - 1)  # (S,) each
    moved = pictures.index_select(2, down).index_select(3, across)
    return moved.contiguous(memory_format=torch.channels_last)


def standardised(t: Tensor) -> Tensor:
    """Each vector with mean 0 and deviation 1: how long a text's vector is tells what matched, not what to draw."""
    return F.layer_norm(t.float(), t.shape[-1:])


def gaussian_kl(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma) || N(0, 1)), the mean over dimensions and rows: [B, dim] twice -> scalar."""
    return 0.5 * (mu**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).mean()


# ---- the game: what a pair's logit D costs where it should be high, and where it should be low ----

GAMES = {
    "saturating": (lambda d: F.softplus(-d), F.softplus, lambda d: -F.softplus(d)),  # -log D, -log(1-D), log(1-D)
    "non-saturating": (lambda d: F.softplus(-d), F.softplus, lambda d: F.softplus(-d)),  # the last: -log D
    "hinge": (lambda d: F.relu(1 - d), lambda d: F.relu(1 + d), lambda d: -d),
}


def discriminator_loss(
    game: str, real: Tensor, fake: Tensor, wrong: Tensor, counted: Tensor, beta_f: float, beta_w: float
) -> Tensor:
    """-L_D of Gu et al. 2018: logits [B] of <real picture, own text>, <drawn picture, own text>, <real picture, another
    text>; `counted` [B] says which of the last are wrong indeed -> scalar. "hinge" replaces the logarithms.

    -L_D = E[-log D(i, t)] + beta_f E[-log(1 - D(i^, t))] + beta_w E[-log(1 - D(i, t'))]
    Raises ValueError for an unknown game.
    """
    require_known("game", game, GAMES)
    high, low, _ = GAMES[game]
    wrong_mean = (low(wrong) * counted).sum() / counted.sum().clamp(min=1)
    return high(real).mean() + beta_f * low(fake).mean() + beta_w * wrong_mean


def generator_loss(game: str, fake: Tensor) -> Tensor:
    """L_G without its KL term: "saturating" is the paper's E[log(1 - D(i^, t))]; [B] logits -> scalar."""
    require_known("game", game, GAMES)
    return GAMES[game][2](fake).mean()


def every_wrong_text_loss(features: Tensor, texts: Tensor, same: Tensor, temperature: float = 0.1) -> Tensor:
    """Each picture's own text among those of the whole batch, by cosine: f(i) [B, F], E t [B, F] -> scalar.

    `same` [B, B] marks texts that are right too. As in XMC-GAN (Zhang et al. 2021, eq. 4), from pictures to texts.
    """
    scores = F.normalize(features, dim=-1) @ F.normalize(texts, dim=-1).T  # (B, B)
    return contrastive_loss(scores, same, temperature, row_weight=1.0)


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """A context in which gradients pass through a module without being computed for its weights."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _channels(width: int, size: int) -> list[int]:
    """From half of the picture's side to a side of 4."""
    doublings = round(log2(size / SMALLEST)) if size > 0 else 0
    if doublings < 1 or SMALLEST * 2**doublings != size:
        raise ValueError(f"a picture's side is {size}, expected 8, 16, 32, 64, ...")
    return [width * 2**i for i in range(doublings)]


def _initial(layer: nn.Module) -> nn.Module:
    nn.init.normal_(layer.weight, 0.0, 0.02)  # as in DCGAN
    return layer
