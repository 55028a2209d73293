"""Attention between sequences: what each query gets is a mixture of what it looks at."""

import torch

from lib.layers.attention import CrossAttention


def block(dim: int = 12) -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(dim, heads=3, dropout=0.5).eval()


def test_a_block_is_attention_and_a_network_each_added_and_normalised():
    cross, query, memory = block(), torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    weight, bias = cross.attend.in_proj_weight, cross.attend.in_proj_bias
    q, k, v = (x @ w.T + b for x, w, b in zip((query, memory, memory), weight.chunk(3), bias.chunk(3), strict=True))
    heads = [x.unflatten(-1, (3, 4)).transpose(1, 2) for x in (q, k, v)]  # (B, 3, ., 4)
    share = (heads[0] @ heads[1].transpose(2, 3) / 2).softmax(-1)  # 2 is the root of a head's width
    mixed = cross.attend.out_proj((share @ heads[2]).transpose(1, 2).flatten(2))
    x = cross.norm_attended(query + mixed)
    assert torch.allclose(cross(query, memory), cross.norm_out(x + cross.network(x)), atol=1e-5)
    assert torch.allclose(cross.weights(query, memory), share.mean(1), atol=1e-6)


def test_the_order_of_what_is_looked_at_does_not_matter():
    cross, query, memory = block(), torch.randn(1, 4, 12), torch.randn(1, 6, 12)
    assert torch.allclose(cross(query, memory), cross(query, memory.flip(1)), atol=1e-5)


def test_weights_sum_to_one():
    weights = block().weights(torch.randn(2, 4, 12), torch.randn(2, 6, 12))
    assert weights.shape == (2, 4, 6)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4))
