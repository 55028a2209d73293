"""Attention blocks that models share."""

import torch
from torch import nn


class CrossAttention(nn.Module):
    """One block in which a sequence asks another (Vaswani et al. 2017, section 3, without the self-attention):
    multi-head attention and a small network, each added to what it started from and normalised.

    forward(query [B, T, D], memory [B, R, D]) -> [B, T, D].
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.attend = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.norm_attended, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        attended, _ = self.attend(query, memory, memory, need_weights=False)  # (B, T, D)
        x = self.norm_attended(query + self.drop(attended))
        return self.norm_out(x + self.drop(self.network(x)))

    def weights(self, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Where each query looks: [B, T, R], the mean over the heads, each row sums to one."""
        return self.attend(query, memory, memory)[1]
