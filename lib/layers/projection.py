"""Ways into a joint space."""

import torch
from torch import nn


class ResidualMLP(nn.Module):
    """A linear map plus a small network beside it: (B, inside) -> (B, outside)."""

    def __init__(self, inside: int, hidden: int, outside: int, dropout: float):
        super().__init__()
        self.linear = nn.Linear(inside, outside)  # torch's small start: Xavier's cost VSE 3.5 of rsum on Flickr8k dev
        self.network = nn.Sequential(
            nn.Linear(inside, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, outside)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.network(x)
