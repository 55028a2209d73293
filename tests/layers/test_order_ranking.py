"""The ranking loss of order similarities: its gradient where nothing is violated."""

import pytest
import torch

from lib.layers.order import order_similarity
from lib.layers.ranking import pairwise_ranking_loss


@pytest.mark.parametrize("squared", (True, False))
@pytest.mark.parametrize("direction", ("gxn", "vendrov"))
@pytest.mark.parametrize("negatives", ("all", "hardest"))
def test_gradcheck_of_ranking_by_order(squared, direction, negatives):
    """Some pairs violate nothing: there the root, whose derivative is infinite at zero, is zero all around."""
    generator = torch.Generator().manual_seed(5)
    v, t = (torch.randn(4, 3, dtype=torch.double, generator=generator) for _ in range(2))
    sign = 1 if direction == "gxn" else -1
    v[0] = t.amin(0) - 1 if sign > 0 else t.amax(0) + 1  # below, or above, every caption
    same = torch.eye(4, dtype=torch.bool)

    def loss(v, t):
        return pairwise_ranking_loss(order_similarity(v, t, direction, squared), same, 0.7, negatives)

    assert (order_similarity(v, t, direction)[0] == 0).all() and loss(v, t) > 0
    assert torch.autograd.gradcheck(loss, (v.requires_grad_(), t.requires_grad_()))


def test_gradcheck_at_exactly_zero_violation():
    """The square is smooth there; the root is not, and its gradient is taken to be zero."""
    t = torch.randn(4, 3, dtype=torch.double)
    same = torch.eye(4, dtype=torch.bool)
    for squared in (True, False):
        v, u = t.clone().requires_grad_(), t.clone().requires_grad_()
        loss = pairwise_ranking_loss(order_similarity(v, u, squared=squared), same, 0.7)
        gradients = torch.autograd.grad(loss, (v, u))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert not squared or torch.autograd.gradcheck(
            lambda v, u: pairwise_ranking_loss(order_similarity(v, u), same, 0.7), (v, u)
        )
