"""Image-sentence retrieval: recall at k and ranks in both directions, counted chunk by chunk, never sorted."""

from collections.abc import Callable, Iterator
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.layers.order import order_similarity

Similarity = str | Callable[[Tensor, Tensor], Tensor]

TIE = 1e-6  # two scores this close, relative to their size, are equal: rounding must not decide a rank


def evaluate(
    images: Tensor, captions: Tensor, owner: Tensor, similarity: Similarity = "cosine", chunk: int = 512
) -> dict:
    """Retrieval scores {"i2t": {"R@1", "R@5", "R@10", "median", "mean"}, "t2i": {...}, "rsum"}.

    Arguments and errors are those of `ranks`. R@k is the percentage of queries whose rank is among the first k,
    "median" is floor(median) and "mean" the mean of the ranks, both counted from 1; rsum is the sum of the six
    recalls (Kiros et al. 2014 and Faghri et al. 2018, released evaluation.py).
    """
    image_ranks, caption_ranks = ranks(images, captions, owner, similarity, chunk)
    i2t, t2i = _summary(image_ranks), _summary(caption_ranks)
    rsum = sum(direction[f"R@{k}"] for direction in (i2t, t2i) for k in (1, 5, 10))
    return {"i2t": i2t, "t2i": t2i, "rsum": rsum}


def folds(
    images: Tensor,
    captions: Tensor,
    owner: Tensor,
    folds: int = 5,
    similarity: Similarity = "cosine",
    chunk: int = 512,
) -> dict:
    """The mean of `evaluate` over consecutive slices of the images: five of 5,000 are COCO's "1k" protocol.

    Slices are as equal as N allows. Arguments and errors as in `ranks`; ValueError too for more folds than images.
    """
    return _mean([evaluate(*part, similarity, chunk) for part in slices(images, captions, owner, folds)])


def slices(images: Tensor, captions: Tensor, owner: Tensor, folds: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(images, captions, owner) of each of `folds` consecutive slices of the images; errors as in `folds`."""
    images, captions, owner = _checked(images, captions, owner)
    if not 1 <= folds <= len(images):
        raise ValueError(f"{len(images)} images cannot be cut into {folds} folds")
    for members in torch.arange(len(images)).tensor_split(folds):
        start, stop = members[0].item(), members[-1].item() + 1
        inside = (owner >= start) & (owner < stop)  # (M,)
        yield images[start:stop], captions[inside], owner[inside] - start


@torch.no_grad()
def ranks(
    images: Tensor, captions: Tensor, owner: Tensor, similarity: Similarity = "cosine", chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """The rank, from 0, of each image's best own caption among all captions [N], of each caption's image [M].

    images [N, D]; captions [M, D]; owner [M], the image that each caption belongs to, any number of captions an image.
    similarity: "cosine" (a zero vector scores 0 with everything), "order" (`order_similarity` as GXN has it), or a
    function of (images [N, D], some captions [m, D]) -> scores [N, m] that scores each pair by itself, such as
    partial(order_similarity, direction="vendrov"). A wrong candidate with an equal score ranks first, so a collapsed
    model gets the worst ranks; an image's own captions do not compete with each other. Memory grows with
    N x `chunk`, the captions scored at a time.
    Raises ValueError for shapes that do not fit, an owner that is no image, an image without caption, a NaN score.
    """
    images, captions, owner = _checked(images, captions, owner)
    own = _own_scores(images, captions, owner, similarity)  # (M,)
    best = own.new_full((len(images),), -torch.inf).scatter_reduce(0, owner, own, "amax")  # (N,)
    own, best = _tied_from(own, similarity), _tied_from(best, similarity)
    image_ranks, caption_ranks = torch.zeros_like(best, dtype=torch.long), torch.zeros_like(owner)
    for part in torch.arange(len(captions), device=owner.device).split(chunk):
        scores = _score(similarity, images, captions[part])  # (N, m)
        _refuse_nan(scores, part)
        image_ranks += _count(scores >= best[:, None], owner[part], dim=1)
        caption_ranks[part] = _count(scores >= own[part], owner[part], dim=0)
    return image_ranks, caption_ranks


def cosine_similarity(images: Tensor, captions: Tensor) -> Tensor:
    """Cosine of every pair, images [N, D], captions [M, D] -> [N, M]; a zero vector scores 0."""
    return F.normalize(images, dim=1) @ F.normalize(captions, dim=1).T


SIMILARITIES = {"cosine": cosine_similarity, "order": order_similarity}


def _score(similarity: Similarity, images: Tensor, captions: Tensor) -> Tensor:
    if callable(similarity):
        return similarity(images, captions)
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity is 'cosine', 'order' or a function, got {similarity!r}")
    return SIMILARITIES[similarity](images, captions)


def _own_scores(images: Tensor, captions: Tensor, owner: Tensor, similarity: Similarity) -> Tensor:
    """The score of each caption with its own image (M,), from small blocks along the diagonal."""
    own = []
    by_image = owner.argsort()  # (M,)
    for part in by_image.split(64):
        first, last = owner[part[0]], owner[part[-1]]
        block = _score(similarity, images[first : last + 1], captions[part])  # (few, 64)
        own.append(block.gather(0, (owner[part] - first)[None])[0])  # (64,)
    own = torch.cat(own)
    return torch.empty_like(own).scatter_(0, by_image, own)


def _tied_from(scores: Tensor, similarity: Similarity) -> Tensor:
    """The lowest score that counts as equal. A cosine is a sum that cancels: its rounding is that of 1, not its own."""
    return scores - TIE if similarity == "cosine" else scores * (1 - TIE * scores.sign())


def _count(ahead: Tensor, owner: Tensor, dim: int) -> Tensor:
    """How many are ahead (N, m), not counting a caption and its own image."""
    ahead[owner, torch.arange(len(owner), device=owner.device)] = False
    return ahead.count_nonzero(dim)


def _checked(images: Tensor, captions: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments in at least single precision and on one device, or a ValueError that says what does not fit."""
    images, captions, owner = map(torch.as_tensor, (images, captions, owner))
    if images.ndim != 2 or captions.ndim != 2 or images.shape[1] != captions.shape[1]:
        raise ValueError(f"expected images [N, D] and captions [M, D], got {[*images.shape]} and {[*captions.shape]}")
    if len(images) == 0:
        raise ValueError("there are no images to rank")
    if owner.shape != captions.shape[:1] or owner.is_floating_point():
        raise ValueError(f"expected owner as {len(captions)} integers, got {owner.dtype} {[*owner.shape]}")
    owner = owner.to(images.device, torch.long)
    _check_owner(owner, len(images))
    dtype = torch.promote_types(torch.promote_types(images.dtype, captions.dtype), torch.float32)
    return images.to(dtype), captions.to(images.device, dtype), owner


def _check_owner(owner: Tensor, count: int) -> None:
    strays = ((owner < 0) | (owner >= count)).nonzero()[:, 0]
    if len(strays):
        caption = strays[0].item()
        raise ValueError(f"caption {caption} belongs to image {owner[caption].item()}, but there are {count} images")
    bare = (owner.bincount(minlength=count) == 0).nonzero()[:, 0]
    if len(bare):
        raise ValueError(f"{len(bare)} of {count} images have no caption, the first is image {bare[0].item()}")


def _refuse_nan(scores: Tensor, part: Tensor) -> None:
    nan = scores.isnan()  # (N, m)
    if nan.any():
        image, caption = nan.nonzero()[0].tolist()
        raise ValueError(
            f"{nan.sum().item()} of {nan.numel()} scores are NaN in captions {part[0].item()} to {part[-1].item()},"
            f" the first between image {image} and caption {part[caption].item()}"
        )


def _summary(ranks: Tensor) -> dict[str, float]:
    recalls = {f"R@{k}": 100 * (ranks < k).double().mean().item() for k in (1, 5, 10)}
    median = ranks.double().quantile(0.5).floor().item() + 1
    return {**recalls, "median": median, "mean": ranks.double().mean().item() + 1}


def _mean(results: list) -> dict | float:
    """The mean of nested dictionaries of numbers, entry by entry."""
    if isinstance(results[0], dict):
        return {name: _mean([result[name] for result in results]) for name in results[0]}
    return fmean(results)
