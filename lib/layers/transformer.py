"""Transformers that are trained from scratch, over sequences of which some may be empty."""

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2) of a sequence to another one, or to itself.

    forward(query [B, T, D], memory [B, S, D], mask [B, S] of what there is to see) -> [B, T, D]; zeros where there is
    nothing to see. Raises ValueError for a number of heads that D cannot be shared among.
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of {dim}, the width")
        self.heads, self.dropout = heads, dropout
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self._split(x) for x in (self.W_q(query), self.W_k(memory), self.W_v(memory)))  # (B, H, T or S, d)
        # A large number, not infinity: a row of nothing would be NaN.
        hidden = (-1e4 * ~mask).to(q.dtype)[:, None, None]  # (B, 1, 1, S)
        seen = F.scaled_dot_product_attention(q, k, v, hidden, self.dropout if self.training else 0.0)  # (B, H, T, d)
        return self.W_o(seen.transpose(1, 2).flatten(2)) * mask.any(1)[:, None, None]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and a small network, each added to what it started from; normalised before, not after (Xiong et al.
    2020), so that it trains from scratch in few steps.

    forward(x [B, T, D], mask [B, T]) looks at itself; forward(x, mask, memory) [B, S, D] at another sequence, whose
    mask is [B, S].
    """

    def __init__(self, dim: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.attend = Attention(dim, heads, dropout)
        self.norm_asked, self.norm_seen = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.network = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        query = self.norm_asked(x)
        x = x + self.drop(self.attend(query, query if memory is None else self.norm_asked(memory), mask))
        return x + self.drop(self.network(self.norm_seen(x)))


class Transformer(nn.Module):
    """Blocks one after the other, and a norm: forward(x [B, T, D], mask [B, T]) -> [B, T, D]."""

    def __init__(self, layers: int, dim: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class CoAttention(nn.Module):
    """Two sequences that look at each other in each layer (Lu et al. 2019, section 3.1).

    forward(x [B, T, D], y [B, S, D], their masks [B, T], [B, S]) -> ([B, T, D], [B, S, D]).
    """

    def __init__(self, layers: int, dim: int, heads: int, inner: int, dropout: float):
        super().__init__()
        make = lambda: nn.ModuleList(Block(dim, heads, inner, dropout) for _ in range(layers))  # noqa: E731
        self.of_x, self.of_y = make(), make()
        self.norm_x, self.norm_y = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> tuple[Tensor, Tensor]:
        for of_x, of_y in zip(self.of_x, self.of_y, strict=True):
            x, y = of_x(x, y_mask, y), of_y(y, x_mask, x)
        return self.norm_x(x), self.norm_y(y)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x [B, T, D] over what mask [B, T] shows -> [B, D]; zeros where it shows nothing."""
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
