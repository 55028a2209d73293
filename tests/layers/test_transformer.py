"""Transformers over sequences of which some are empty, and attention over triples, against the plain equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.layers.graph import TripleAttention
from lib.layers.transformer import Attention, CoAttention, Transformer, masked_mean

B, T, S, D, H = 4, 5, 3, 12, 3


def mask(*lengths, width):
    return torch.arange(width) < torch.tensor(lengths)[:, None]


EMPTY = mask(3, 0, 2, 0, width=S)  # some of them


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_attention_is_torchs_own_where_there_is_something_to_see():
    mine, theirs = Attention(D, H, 0.0), nn.MultiheadAttention(D, H, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([mine.W_q.weight, mine.W_k.weight, mine.W_v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([mine.W_q.bias, mine.W_k.bias, mine.W_v.bias]))
        theirs.out_proj.load_state_dict(mine.W_o.state_dict())
    x, memory, shown = torch.randn(B, T, D), torch.randn(B, S, D), mask(3, 1, 2, 3, width=S)
    expected, _ = theirs(x, memory, memory, key_padding_mask=~shown)
    assert torch.allclose(mine(x, memory, shown), expected, atol=1e-6)


def test_padding_changes_nothing_and_nothing_is_seen_of_nothing():
    for net in (Transformer(2, D, H, 24, 0.1).eval(), CoAttention(2, D, H, 24, 0.1).eval()):
        x, y, x_mask, y_mask = torch.randn(B, T, D), torch.randn(B, S, D), mask(5, 3, 0, 1, width=T), EMPTY
        alone = isinstance(net, Transformer)

        def run(x, y, net=net, masks=(x_mask, y_mask), alone=alone):
            return net(x, masks[0]) if alone else net(x, y, *masks)[0]

        found = run(x, y)
        assert found.isfinite().all()
        other_x = torch.where(x_mask[..., None], x, torch.randn(B, T, D))
        other_y = torch.where(y_mask[..., None], y, torch.randn(B, S, D))
        assert torch.allclose(run(other_x, other_y)[x_mask], found[x_mask], atol=1e-6)
        if not alone:  # what has no other is untouched by it
            other = run(x, torch.randn(B, S, D))
            assert torch.allclose(other[1], found[1], atol=1e-6) and not torch.allclose(other[0], found[0], atol=1e-3)


def test_gradients_are_finite_where_all_is_empty():
    net = CoAttention(1, D, H, 24, 0.0)
    x = torch.randn(B, T, D, requires_grad=True)
    nothing = torch.zeros(B, T, dtype=torch.bool)
    net(x, x, nothing, nothing)[0].sum().backward()
    assert x.grad.isfinite().all()


def test_a_masked_mean_is_of_what_is_shown():
    x, shown = torch.randn(3, T, D), mask(2, 0, 5, width=T)
    found = masked_mean(x, shown)
    assert torch.allclose(found[0], x[0, :2].mean(0)) and (found[1] == 0).all()
    assert torch.allclose(found[2], x[2].mean(0))


@pytest.mark.parametrize("before", [False, True])
def test_triples_are_aggregated_as_the_equations_say(before):
    net, lengths = TripleAttention(D, H, before), (2, 0, 3, 1)
    c, p, v, shown = torch.randn(B, D), torch.randn(B, 3, D), torch.randn(B, 3, D), mask(*lengths, width=3)
    added, a = net(c, p, v, shown)
    for i, length in enumerate(lengths):
        parts = []
        for h in range(H):
            own = slice(h * D // H, (h + 1) * D // H)
            t = [net.W_1(torch.cat([c[i], p[i, x], v[i, x]]))[own] for x in range(length)]
            b = [net.W_2[h] @ F.leaky_relu(t_x) if before else F.leaky_relu(net.W_2[h] @ t_x) for t_x in t]
            weights = torch.stack(b).softmax(0) if b else []
            assert torch.allclose(a[i, :length, h], weights) if b else (a[i] == 0).all()
            parts.append(sum((w * t_x for w, t_x in zip(weights, t, strict=True)), torch.zeros(D // H)))
        assert torch.allclose(added[i], net.W_3(torch.cat(parts)), atol=1e-6)
    assert (added[1] == 0).all()


def test_the_gradient_of_triples_is_right():
    net = TripleAttention(6, 2).double()
    shapes, shown = ((2, 6), (2, 2, 6), (2, 2, 6)), mask(2, 0, width=2)
    inputs = [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda c, p, v: net(c, p, v, shown)[0], inputs)


def test_heads_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="heads is 5, expected a divisor of 12"):
        Attention(D, 5, 0.0)
    with pytest.raises(ValueError, match="graph_heads is 5, expected a divisor of 12"):
        TripleAttention(D, 5)
