"""Imagined pictures: the colour in their middle, and how far their features are from those of real ones."""

import torch
from torch import Tensor

MIDDLE = 0.3  # of the picture's side, where its one thing is


def nearest_colour(pictures: Tensor, palette: Tensor) -> Tensor:
    """Which colour of a palette [K, 3] most pixels in the middle of each picture are nearest to.

    Bytes [N, 3, S, S] -> [N]; of equally many the first.
    """
    side = pictures.shape[-1]
    edge = round(side * (1 - MIDDLE) / 2)
    middle = pictures[:, :, edge : side - edge, edge : side - edge].float().flatten(2).transpose(1, 2)  # (N, P, 3)
    nearest = torch.cdist(middle, palette.float()[None]).argmin(-1)  # (N, P)
    votes = torch.nn.functional.one_hot(nearest, len(palette)).sum(1)  # (N, K)
    return votes.argmax(-1)


def frechet_distance(ours: Tensor, theirs: Tensor) -> float:
    """||m - m'||^2 + tr(C + C' - 2 (C C')^1/2) of the means and covariances of two sets of features [N, D], [M, D].

    The FID where features are Inception's (Heusel et al. 2017); with few rows it is too large, so only distances over
    as many rows can be compared. Raises ValueError for fewer than two rows.
    """
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"found {len(ours)} and {len(theirs)} rows of features, expected at least 2 each")
    ours, theirs = ours.double(), theirs.double()
    a, b = (x - x.mean(0) for x in (ours, theirs))
    a, b = a / (len(a) - 1) ** 0.5, b / (len(b) - 1) ** 0.5  # C = a'a, C' = b'b
    # tr (C C')^1/2 is the sum of the singular values of a b', which is as small as the sets are
    spread = a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    return ((ours.mean(0) - theirs.mean(0)).square().sum() + spread).item()
