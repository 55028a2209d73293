"""Embeddings of several levels, kept as one vector a side: [v_h ; v_l] and [t_h ; t_l]."""

from collections.abc import Callable

from torch import Tensor


def two_level(lam: float, similarity: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """s* = lam s(t_h, v_h) + (1 - lam) s(t_l, v_l) as one function of images [N, 2D] and captions [M, 2D] -> [N, M].

    The first half of a vector is the abstract level h, the second the grounded level l (Gu et al. 2018, L_R+).
    Raises ValueError for a lam that is no share.
    """
    if not 0 <= lam <= 1:
        raise ValueError(f"lam is {lam}, expected 0 to 1")

    def both(images: Tensor, captions: Tensor) -> Tensor:
        (v_h, v_l), (t_h, t_l) = images.chunk(2, dim=1), captions.chunk(2, dim=1)
        return lam * similarity(v_h, t_h) + (1 - lam) * similarity(v_l, t_l)

    return both
