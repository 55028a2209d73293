"""Counted ranks against an oracle that sorts exact fractions, an equal wrong candidate first."""

from fractions import Fraction
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.layers.order import order_similarity
from lib.metrics.retrieval import evaluate, folds, ranks


def dot(images, captions):
    return images @ captions.T


def exact_cosine(image, caption):
    """The cosine's sign times its square: a fraction that sorts as the cosine does."""
    inner = sum(v * t for v, t in zip(image, caption, strict=True))
    norms = sum(v * v for v in image) * sum(t * t for t in caption)
    return Fraction(inner * abs(inner), norms) if norms else Fraction(0)


def exact_order(image, caption):
    return -sum(max(0, v - t) ** 2 for v, t in zip(image, caption, strict=True))


def exact_dot(image, caption):
    return sum(v * t for v, t in zip(image, caption, strict=True))


def oracle(images, captions, owner, exact):
    """Both rank vectors by sorting (minus score, is own): wrong candidates stand before own ones that tie."""
    images, captions, owner = images.tolist(), captions.tolist(), owner.tolist()
    scores = [[exact(image, caption) for caption in captions] for image in images]
    image_ranks = [
        [own for _, own in sorted((-score, owner[j] == i) for j, score in enumerate(row))].index(True)
        for i, row in enumerate(scores)
    ]
    caption_ranks = [
        [own for _, own in sorted((-row[j], i == owner[j]) for i, row in enumerate(scores))].index(True)
        for j in range(len(captions))
    ]
    return image_ranks, caption_ranks


@st.composite
def collections(draw):
    """Small integer vectors, so that ties are frequent; 1 to 7 captions an image, in any order."""
    counts = draw(st.lists(st.integers(1, 7), min_size=1, max_size=8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    owner = owner[torch.randperm(len(owner), generator=generator)]
    images, captions = (torch.randint(-2, 3, (rows, 3), generator=generator) for rows in (len(counts), len(owner)))
    return images, captions, owner


SIMILARITIES = {"cosine": ("cosine", exact_cosine), "order": ("order", exact_order), "a function": (dot, exact_dot)}


@pytest.mark.parametrize("name", SIMILARITIES)
@given(collection=collections(), chunk=st.integers(1, 60))
@settings(deadline=None, max_examples=60)
def test_counting_is_sorting(name, collection, chunk):
    similarity, exact = SIMILARITIES[name]
    image_ranks, caption_ranks = ranks(*collection, similarity, chunk)
    assert (image_ranks.tolist(), caption_ranks.tolist()) == oracle(*collection, exact)


@given(collection=collections())
@settings(deadline=None, max_examples=30)
def test_options_of_order_come_as_a_partial(collection):
    images, captions, owner = collection
    similarity = partial(order_similarity, direction="vendrov", squared=False)
    expected = oracle(images, captions, owner, lambda image, caption: exact_order(caption, image))
    assert tuple(found.tolist() for found in ranks(images, captions, owner, similarity)) == expected


def random_collection(count=60, each=5, dimension=48):
    generator = torch.Generator().manual_seed(0)
    images, noise = (torch.randn(rows, dimension, generator=generator) for rows in (count, count * each))
    owner = torch.arange(count * each) % count
    return images, images[owner] + 4 * noise, owner


@pytest.mark.parametrize("similarity", ("cosine", "order"))
def test_chunk_changes_nothing(similarity):
    reference = evaluate(*random_collection(), similarity, chunk=10_000)
    assert 50 < reference["rsum"] < 550
    for chunk in (1, 7, 64, 299):
        assert evaluate(*random_collection(), similarity, chunk) == reference


@pytest.mark.parametrize("similarity", ("cosine", "order"))
def test_the_scale_of_the_vectors_changes_no_rank(similarity):
    images, captions, owner = random_collection()
    reference = evaluate(images, captions, owner, similarity)
    assert evaluate(images * 2**-12, captions * 2**-12, owner, similarity) == reference


@pytest.mark.parametrize("scale", (0.0, 1e-3, 1.0))
@pytest.mark.parametrize("similarity", ("cosine", "order", dot))
def test_a_collapsed_model_gets_the_worst_ranks(similarity, scale):
    vector = scale * torch.randn(300, generator=torch.Generator().manual_seed(1))
    owner = torch.arange(235) % 47
    image_ranks, caption_ranks = ranks(vector.expand(47, -1), vector.expand(235, -1), owner, similarity, 50)
    assert (image_ranks == 230).all() and (caption_ranks == 46).all()


def test_a_perfect_model_gets_everything():
    result = evaluate(torch.eye(20), torch.eye(20).repeat(3, 1), torch.arange(60) % 20)
    perfect = {"R@1": 100, "R@5": 100, "R@10": 100, "median": 1, "mean": 1}
    assert result == {"i2t": perfect, "t2i": perfect, "rsum": 600}


def test_numbers_of_a_known_matrix():
    scores = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.8, 0.7, 0.6, 0.5], [0.1, 0.3, 0.4, 0.4], [0.2, 0.4, 0.1, 0.0]])
    result = evaluate(scores, torch.eye(4), torch.arange(4), dot)  # ranks 0 1 1 3 and 0 0 1 3
    assert result["i2t"] == {"R@1": 25, "R@5": 100, "R@10": 100, "median": 2, "mean": 2.25}
    assert result["t2i"] == {"R@1": 50, "R@5": 100, "R@10": 100, "median": 1, "mean": 2}  # floor(0.5) + 1
    assert result["rsum"] == 475


def test_random_vectors_give_the_random_ranking():
    generator = torch.Generator().manual_seed(0)
    images, captions = (torch.randn(rows, 64, generator=generator) for rows in (1000, 5000))
    result = evaluate(images, captions, torch.arange(1000).repeat_interleave(5))
    for direction in ("i2t", "t2i"):
        for k in (1, 5, 10):
            assert result[direction][f"R@{k}"] == pytest.approx(k / 10, abs=0.7)
    assert result["t2i"]["median"] == pytest.approx(500, abs=30)
    assert result["t2i"]["mean"] == pytest.approx(500.5, abs=20)
    assert result["i2t"]["median"] == pytest.approx(5000 * (1 - 0.5**0.2), abs=70)  # the best of five of 5,000


def test_half_precision_is_scored_in_single():
    images, captions, owner = random_collection()
    half = images.bfloat16(), captions.bfloat16()
    assert evaluate(*half, owner) == evaluate(*(tensor.float() for tensor in half), owner)


@pytest.mark.parametrize("similarity", ("cosine", "order"))
def test_nan_vectors_raise(similarity):
    images, captions, owner = random_collection()
    captions[150, 3] = torch.nan
    message = "60 of 6000 scores are NaN in captions 100 to 199, the first between image 0 and caption 150"
    with pytest.raises(ValueError, match=message):
        evaluate(images, captions, owner, similarity, chunk=100)


def lookup(scores):
    """Images and captions that are their own numbers, and the function that looks their scores up."""
    images, captions = (torch.arange(size)[:, None] for size in scores.shape)
    return images, captions, lambda v, t: scores[v[:, 0].long()][:, t[:, 0].long()]


def test_a_single_nan_score_raises():
    scores = torch.zeros(3, 5)
    scores[2, 4] = torch.nan
    images, captions, similarity = lookup(scores)
    with pytest.raises(ValueError, match="1 of 15 scores are NaN .* between image 2 and caption 4"):
        evaluate(images, captions, torch.tensor([0, 1, 2, 0, 1]), similarity)


@pytest.mark.parametrize(("own", "rank"), [(-torch.inf, 1), (torch.inf, 0)])
def test_infinite_scores_are_scores(own, rank):
    images, captions, similarity = lookup(torch.zeros(2, 2).fill_diagonal_(own))
    for found in ranks(images, captions, torch.arange(2), similarity):
        assert found.tolist() == [rank, rank]


def test_folds_are_means_of_consecutive_slices():
    images, captions, owner = random_collection(count=20)
    found = folds(images, captions, owner, folds=4, similarity="order")
    slices = [
        evaluate(images[5 * part :][:5], captions[owner // 5 == part], owner[owner // 5 == part] - 5 * part, "order")
        for part in range(4)
    ]
    for direction in ("i2t", "t2i"):
        for name, value in found[direction].items():
            assert value == pytest.approx(sum(part[direction][name] for part in slices) / 4)
    assert found["rsum"] == pytest.approx(sum(part["rsum"] for part in slices) / 4)
    assert folds(images, captions, owner, folds=1) == evaluate(images, captions, owner)


@pytest.mark.parametrize("count", (0, 21))
def test_folds_that_cannot_be_cut_are_refused(count):
    with pytest.raises(ValueError, match=f"20 images cannot be cut into {count} folds"):
        folds(*random_collection(count=20), folds=count)


@pytest.mark.parametrize(
    ("images", "captions", "owner", "message"),
    [
        ((2, 3), (2, 4), [0, 1], r"expected images \[N, D\] and captions \[M, D\], got \[2, 3\] and \[2, 4\]"),
        ((2,), (2, 2), [0, 1], r"got \[2\] and \[2, 2\]"),
        ((2, 3), (3, 3), [0, 1], r"expected owner as 3 integers, got torch.int64 \[2\]"),
        ((2, 3), (2, 3), [0.0, 1.0], r"expected owner as 2 integers, got torch.float32 \[2\]"),
        ((2, 3), (3, 3), [0, 1, 2], "caption 2 belongs to image 2, but there are 2 images"),
        ((2, 3), (3, 3), [0, -1, 1], "caption 1 belongs to image -1, but there are 2 images"),
        ((4, 3), (3, 3), [0, 2, 0], r"2 of 4 images have no caption, the first is image 1"),
        ((0, 3), (0, 3), torch.zeros(0, dtype=torch.long), "there are no images"),
    ],
)
def test_bad_input_is_named(images, captions, owner, message):
    with pytest.raises(ValueError, match=message):
        evaluate(torch.ones(images), torch.ones(captions), torch.as_tensor(owner))


def test_an_unknown_similarity_is_named():
    with pytest.raises(ValueError, match="similarity is 'cosine', 'order' or a function, got 'euclid'"):
        evaluate(*random_collection(count=5), "euclid")
