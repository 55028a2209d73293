"""Attention over an item's triples in a knowledge graph."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TripleAttention(nn.Module):
    """What an item's triples add to it (Zhu et al. 2021, section 3.2, structure aggregation):

    t_x = W_1 [c ; p_x ; v_x],   b_x = LeakyReLU(W_2 t_x),   a = softmax(b),   c* = c + W_3 sum_x a_x t_x

    in `heads`, each with its own part of t_x and its own a. `before`: the LeakyReLU comes before W_2 (as in Brody et
    al. 2022). An item without triples stays as it is.

    forward(c [B, D], p [B, X, D], v [B, X, D], mask [B, X] of the real triples) -> (c* - c [B, D], a [B, X, H]).
    Raises ValueError for a number of heads that D cannot be shared among.
    """

    def __init__(self, dim: int, heads: int, before: bool = False):
        super().__init__()
        if dim % heads:
            raise ValueError(f"graph_heads is {heads}, expected a divisor of {dim}, the width")
        self.before = before
        self.W_1, self.W_3 = nn.Linear(3 * dim, dim), nn.Linear(dim, dim, bias=False)
        self.W_2 = nn.Parameter(nn.init.xavier_uniform_(nn.Linear(dim // heads, heads).weight.data))  # (H, D / H)

    def forward(self, c: Tensor, p: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        W_c, W_p, W_v = self.W_1.weight.chunk(3, dim=1)  # W_1 of three parts side by side, without laying c out
        t = (F.linear(p, W_p) + F.linear(v, W_v) + F.linear(c, W_c, self.W_1.bias)[:, None]).unflatten(
            -1, self.W_2.shape
        )  # (B, X, H, D / H)
        b = (F.leaky_relu(t) * self.W_2).sum(-1) if self.before else F.leaky_relu((t * self.W_2).sum(-1))  # (B, X, H)
        b = b.to(torch.promote_types(b.dtype, torch.float32))
        a = b.masked_fill(~mask[..., None], -1e4).softmax(1) * mask[..., None]  # (B, X, H)
        return self.W_3((a.to(t.dtype)[..., None] * t).sum(1).flatten(1)), a
