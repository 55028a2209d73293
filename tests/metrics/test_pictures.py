"""Imagined pictures: a colour is read off their middle, and distances are the equation's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.metrics.pictures import frechet_distance, nearest_colour

PALETTE = torch.tensor([[255, 0, 0], [0, 0, 255], [250, 250, 250]])


def painted(middle, around, size=20) -> torch.Tensor:
    picture = torch.tensor(around).view(3, 1, 1).repeat(1, size, size)
    picture[:, 7:13, 7:13] = torch.tensor(middle).view(3, 1, 1)
    return picture.byte()


def test_the_middle_decides_and_shades_are_near_their_colour():
    drawn = torch.stack([painted([200, 20, 30], [0, 0, 255]), painted([10, 30, 190], [255, 0, 0])])
    assert nearest_colour(drawn, PALETTE).tolist() == [0, 1]


def test_the_majority_of_pixels_decides_not_their_mean():
    picture = painted([255, 0, 0], [255, 255, 255])
    picture[:, 9:11, 9:11] = 0  # a window; black is nearest to red or blue
    picture[:, 7, 7:13] = 250
    assert nearest_colour(picture[None], PALETTE).item() == 0


def plain_distance(ours, theirs):
    """By the eigenvalues of the product of the covariances."""
    product = torch.cov(ours.T) @ torch.cov(theirs.T)
    root = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()
    means = (ours.mean(0) - theirs.mean(0)).square().sum()
    return (means + torch.trace(torch.cov(ours.T)) + torch.trace(torch.cov(theirs.T)) - 2 * root).item()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(2, 6), st.integers(0, 1000))
def test_the_distance_is_the_equations(n, m, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (torch.randn(k, dim, generator=generator, dtype=torch.double) for k in (n, m))
    theirs = theirs * 2 + 1
    assert frechet_distance(ours, theirs) == pytest.approx(plain_distance(ours, theirs), rel=1e-4, abs=1e-4)


def test_the_same_set_is_at_no_distance_and_a_shift_at_its_square():
    x = torch.randn(40, 5)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 3) == pytest.approx(5 * 9, rel=1e-4)


def test_a_single_row_has_no_distance():
    with pytest.raises(ValueError, match="found 1 and 5 rows of features, expected at least 2 each"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
