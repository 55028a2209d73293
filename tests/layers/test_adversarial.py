"""The adversarial pair: its losses are the paper's sums, and gradients go where they should."""

from math import exp, log

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lib.layers.adversarial import (
    GAMES,
    Conditioning,
    Discriminator,
    Generator,
    discriminator_loss,
    every_wrong_text_loss,
    gaussian_kl,
    generator_loss,
    held,
    shifted,
    standardised,
)

each_game = pytest.mark.parametrize("game", [*GAMES])


def logits(count=5):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(count, dtype=torch.double, generator=generator, requires_grad=True) for _ in range(3)]


def plain_terms(game, d):
    """What a logit costs as real, as fake, and as the generator's, one number after the other."""
    probability = 1 / (1 + exp(-d))
    if game == "hinge":
        return max(0, 1 - d), max(0, 1 + d), -d
    return -log(probability), -log(1 - probability), log(1 - probability) if game == "saturating" else -log(probability)


@each_game
def test_losses_are_the_sums_of_the_paper(game):
    real, fake, wrong = logits()
    counted = torch.tensor([True, False, True, True, False])

    def mean(values, term):
        terms = [plain_terms(game, d)[term] for d in values.tolist()]
        return sum(terms) / len(terms)

    expected = mean(real, 0) + 0.3 * mean(fake, 1) + 0.7 * mean(wrong[counted], 1)
    assert discriminator_loss(game, real, fake, wrong, counted, 0.3, 0.7).item() == pytest.approx(expected)
    assert generator_loss(game, fake).item() == pytest.approx(mean(fake, 2))


@each_game
def test_gradcheck(game):
    counted = torch.tensor([True, False, True, True, True])
    assert torch.autograd.gradcheck(lambda *d: discriminator_loss(game, *d, counted, 0.3, 0.7), logits())
    assert torch.autograd.gradcheck(lambda d: generator_loss(game, d), logits()[:1])


def test_gradcheck_of_every_wrong_text_and_of_the_divergence():
    f, t = (torch.randn(4, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    same = torch.eye(4, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda f, t: every_wrong_text_loss(f, t, same, 0.5), (f, t))
    assert torch.autograd.gradcheck(gaussian_kl, (f, t))


@each_game
def test_losses_of_large_logits_are_finite(game):
    for size in (-200.0, 200.0):
        d = torch.full((3,), size, requires_grad=True)
        loss = discriminator_loss(game, d, d, d, torch.ones(3, dtype=torch.bool), 1, 1) + generator_loss(game, d)
        assert loss.isfinite() and torch.autograd.grad(loss, d)[0].isfinite().all()


def test_a_batch_without_wrong_captions_has_no_such_term():
    real, fake, wrong = logits()
    nothing = torch.zeros(5, dtype=torch.bool)
    with_, without = (discriminator_loss("hinge", real, fake, wrong, nothing, 1, beta) for beta in (1, 0))
    assert with_ == without


def test_an_unknown_game_is_named():
    with pytest.raises(ValueError, match="game 'hing' is unknown, did you mean 'hinge'"):
        generator_loss("hing", torch.zeros(2))
    with pytest.raises(ValueError, match="game 'wgan' is unknown"):
        discriminator_loss("wgan", *logits(), torch.ones(5, dtype=torch.bool), 1, 1)


def test_every_wrong_text_leaves_out_those_that_are_right():
    f, t = torch.randn(4, 6), torch.randn(4, 6)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = True
    cosine = torch.nn.functional.cosine_similarity(f[:, None], t[None], dim=-1) / 0.1
    total = 0.0
    for i in range(4):
        rivals = [j for j in range(4) if i == j or not same[i, j]]
        total += torch.logsumexp(cosine[i, rivals], 0) - cosine[i, i]
    assert every_wrong_text_loss(f, t, same).item() == pytest.approx(total.item() / 4, rel=1e-5)


# ---- conditioning ----


def test_the_divergence_is_that_of_gaussians():
    mu, log_sigma = torch.randn(3, 4), torch.randn(3, 4)
    expected = kl_divergence(Normal(mu, log_sigma.exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(gaussian_kl(mu, log_sigma), expected)


def test_conditions_are_drawn_in_training_and_their_mean_at_evaluation():
    torch.manual_seed(0)
    conditioning, t = Conditioning(6, 4), torch.randn(1, 6)
    mu, log_sigma = conditioning.phi(standardised(t)).chunk(2, -1)
    draws, _ = conditioning(t.expand(4000, -1))
    torch.testing.assert_close(draws.mean(0), mu[0], atol=0.1, rtol=0)
    torch.testing.assert_close(draws.std(0), log_sigma.exp()[0], atol=0.1, rtol=0)
    mean, kl = conditioning.eval()(t)
    torch.testing.assert_close(mean, mu)
    torch.testing.assert_close(kl, gaussian_kl(mu, log_sigma))


def test_without_augmentation_a_condition_is_a_small_text():
    conditioning, t = Conditioning(6, 4, augment=False), torch.randn(3, 6)
    small, kl = conditioning(t)
    assert small.shape == (3, 4) and kl == 0 and small.equal(conditioning(t)[0])


# ---- the networks ----


@pytest.mark.parametrize("size", (8, 16, 64))
@pytest.mark.parametrize("spectral", (False, True))
def test_pictures_of_every_size(size, spectral):
    generator, discriminator = Generator(3, 4, 2, size), Discriminator(6, 2, size, spectral)
    drawn = generator(torch.randn(5, 3), torch.randn(5, 4))
    assert drawn.shape == (5, 3, size, size) and drawn.abs().max() <= 1
    features, texts = discriminator.features(drawn), discriminator.texts(torch.randn(5, 6))
    assert features.shape == texts.shape and discriminator(features, texts).shape == (5,)


@pytest.mark.parametrize("size", (0, 4, 12, 63))
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"a picture's side is {size}, expected 8, 16, 32, 64"):
        Generator(3, 4, 2, size)


def test_the_text_decides_the_logit_and_the_picture():
    torch.manual_seed(0)
    generator, discriminator = Generator(3, 4, 2, 8).eval(), Discriminator(6, 2, 8).eval()
    z = torch.randn(1, 3).expand(2, -1)
    one, other = generator(z, torch.randn(2, 4))
    assert (one - other).abs().max() > 0
    f = discriminator.features(one[None]).expand(2, -1)
    here, there = discriminator(f, discriminator.texts(torch.randn(2, 6))).tolist()
    assert here != there


def test_every_layer_is_bounded_by_its_spectral_norm():
    torch.manual_seed(0)
    discriminator = Discriminator(6, 2, 16, spectral=True)
    for _ in range(30):
        features = discriminator.features(torch.randn(2, 3, 16, 16))
        discriminator(features, discriminator.texts(torch.randn(2, 6)))
    weights = [module.weight for module in discriminator.modules() if hasattr(module, "parametrizations")]
    largest = [torch.linalg.matrix_norm(weight.flatten(1), 2).item() for weight in weights]
    assert len(largest) == 5 and largest == pytest.approx([1] * 5, rel=0.1)


def test_what_is_held_passes_gradients_and_gets_none():
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    x = torch.randn(4, 3, requires_grad=True)
    with held(layer):
        y = layer(x).sum()
    y.backward()
    assert layer.weight.grad is None and x.grad.abs().sum() > 0
    assert layer.weight.requires_grad and not layer.bias.requires_grad


def test_moved_pictures_are_crops_of_what_their_repeated_edges_make_larger():
    torch.manual_seed(0)
    pictures, most, seen = torch.randn(2, 3, 8, 8), 2, set()
    larger = torch.nn.functional.pad(pictures, (most,) * 4, mode="replicate")
    crops = {(y, x): larger[:, :, y : y + 8, x : x + 8] for y in range(5) for x in range(5)}
    for _ in range(200):
        moved = shifted(pictures, most)
        (place,) = [place for place, crop in crops.items() if crop.equal(moved)]
        seen.add(place)
    assert seen == set(crops)  # all of them, one at a time


def test_gradients_go_through_moved_pictures():
    pictures = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)

    def moved(x):
        torch.manual_seed(3)
        return shifted(x, 2)

    assert torch.autograd.gradcheck(moved, pictures)
