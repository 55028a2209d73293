"""Two levels in one vector are two similarities, weighed."""

import pytest
import torch

from lib.layers.levels import two_level
from lib.layers.order import order_similarity


@pytest.mark.parametrize("lam", (0.0, 0.3, 1.0))
def test_each_half_is_compared_with_its_own(lam):
    images, captions = torch.randn(3, 8), torch.randn(5, 8)
    expected = lam * order_similarity(images[:, :4], captions[:, :4])
    expected = expected + (1 - lam) * order_similarity(images[:, 4:], captions[:, 4:])
    torch.testing.assert_close(two_level(lam, order_similarity)(images, captions), expected)


def test_lam_is_a_share():
    with pytest.raises(ValueError, match="lam is 1.5, expected 0 to 1"):
        two_level(1.5, order_similarity)
