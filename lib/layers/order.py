"""Order similarity: a caption is more abstract than its image, and every coordinate that says otherwise costs."""

from collections.abc import Iterator
from math import isqrt

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lib.precision import one_thread


def order_similarity(
    images: Tensor, captions: Tensor, direction: str = "gxn", squared: bool = True, chunk: int = 2**20
) -> Tensor:
    """Minus the order violation of every pair, s(t, v) = -||max(0, v - t)||^2 with v an image and t a caption.

    images [N, D], captions [M, D] -> [N, M], in at least single precision. direction "gxn" penalises image > caption
    (Gu et al. 2018, matching loss); "vendrov" penalises caption > image (Vendrov et al. 2016, eq. 2). squared=False
    takes the root, as VSE++ does; its gradient where nothing is violated is zero. The differences of all pairs never
    exist at once: forward and backward walk over blocks of about `chunk` scalars (4 MB, on one CPU core).
    Raises ValueError for shapes that do not fit or an unknown direction.
    """
    if images.ndim != 2 or captions.ndim != 2 or images.shape[1] != captions.shape[1]:
        raise ValueError(f"expected images [N, D] and captions [M, D], got {[*images.shape]} and {[*captions.shape]}")
    if direction not in ("gxn", "vendrov"):
        raise ValueError(f"direction is 'gxn' or 'vendrov', got {direction!r}")
    dtype = torch.promote_types(torch.promote_types(images.dtype, captions.dtype), torch.float32)
    sign = 1 if direction == "gxn" else -1  # max(0, t - v) = max(0, (-v) - (-t))
    violation = _Violation.apply(sign * images.to(dtype), sign * captions.to(dtype), chunk)  # (N, M)
    return -(violation if squared else _root(violation))


class _Violation(torch.autograd.Function):
    """||max(0, v - t)||^2 of every pair; the backward computes the differences anew instead of keeping them."""

    @staticmethod
    @one_thread()
    def forward(ctx, images: Tensor, captions: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(images, captions)
        ctx.chunk = chunk
        violation = images.new_zeros(len(images), len(captions))  # (N, M)
        for rows, columns, excess in _blocks(images, captions, chunk):
            violation[rows, columns] = excess.square_().sum(-1)
        return violation

    @staticmethod
    @once_differentiable
    @one_thread()
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        images, captions = ctx.saved_tensors
        to_images, to_captions = torch.zeros_like(images), torch.zeros_like(captions)  # (N, D), (M, D)
        for rows, columns, excess in _blocks(images, captions, ctx.chunk):
            excess.mul_(2 * gradient[rows, columns, None])
            to_images[rows] += excess.sum(1)
            to_captions[columns] -= excess.sum(0)
        return to_images, to_captions, None


def _blocks(images: Tensor, captions: Tensor, chunk: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and max(0, v - t) (n, m, D) of each block of pairs, all in the same piece of memory."""
    pairs = max(1, chunk // max(1, images.shape[1]))
    height = max(1, min(len(images), isqrt(pairs)))
    width = max(1, min(len(captions), pairs // height))
    memory = images.new_empty(height * width * images.shape[1])
    for top in range(0, len(images), height):
        for left in range(0, len(captions), width):
            v, t = images[top : top + height, None], captions[None, left : left + width]  # (n, 1, D), (1, m, D)
            excess = memory[: v.shape[0] * t.shape[1] * v.shape[2]].view(v.shape[0], t.shape[1], v.shape[2])
            yield slice(top, top + height), slice(left, left + width), torch.sub(v, t, out=excess).relu_()


def _root(squares: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero; torch's is infinite, and infinity times zero is NaN."""
    zero = squares == 0
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
