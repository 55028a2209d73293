"""The ranking losses against plain loops over pairs."""

from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.layers.ranking import contrastive_loss, pairwise_ranking_loss


@st.composite
def batches(draw):
    """Scores [B, B] and positives [B, B]: the pairs and any others, which need not be symmetric."""
    size, share = draw(st.integers(1, 7)), draw(st.sampled_from((0.0, 0.3, 1.0)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    scores = torch.randn(size, size, dtype=torch.double, generator=generator)
    return scores, (torch.rand(size, size, generator=generator) < share).fill_diagonal_(True)


def plain_ranking(scores, positives, margin, hardest, both):
    total = 0.0
    for matrix, right in ((scores, positives), (scores.T, positives.T))[: 1 + both]:
        for pair in range(len(scores)):
            wrong = [other for other in range(len(scores)) if not right[pair, other]]
            hinges = [max(0.0, margin - matrix[pair, pair].item() + matrix[pair, other].item()) for other in wrong]
            total += max(hinges, default=0.0) if hardest else sum(hinges)
    return total


@given(batches(), st.floats(0, 2), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_ranking_is_the_double_loop(batch, margin, hardest, both):
    options = {"negatives": "hardest" if hardest else "all", "directions": "both" if both else "images"}
    expected = plain_ranking(*batch, margin, hardest, both)
    assert pairwise_ranking_loss(*batch, margin, **options, reduction="sum").item() == pytest.approx(expected)
    assert pairwise_ranking_loss(*batch, margin, **options).item() == pytest.approx(expected / len(batch[0]))


@given(batches(), st.integers(1, 8), st.integers(0, 9999))
@settings(deadline=None, max_examples=60)
def test_random_negatives_are_distinct_and_wrong(batch, count, seed):
    scores, positives = batch[0].requires_grad_(), batch[1]
    torch.manual_seed(seed)
    loss = pairwise_ranking_loss(scores, positives, 100.0, count, "images", "sum")  # every hinge is active
    chosen = torch.autograd.grad(loss, scores)[0].masked_fill(torch.eye(len(scores), dtype=torch.bool), 0)
    assert set(chosen.unique().tolist()) <= {0.0, 1.0} and not chosen[positives].any()
    assert chosen.sum(1).tolist() == (~positives).sum(1).clamp(max=count).tolist()


def test_random_negatives_change_and_cover_all():
    positives = torch.eye(5, dtype=torch.bool)
    scores = torch.zeros(5, 5, requires_grad=True)
    torch.manual_seed(0)
    draws = [torch.autograd.grad(pairwise_ranking_loss(scores, positives, 1.0, 1), scores)[0] for _ in range(60)]
    often = torch.stack(draws).gt(0).double().mean(0)[~positives]
    assert often.min() > 0.15 and often.max() < 0.75  # each is drawn by its row or its column: 1 - (3/4)^2 = 0.44


def test_the_global_seed_decides_the_draw():
    scores, positives = torch.randn(9, 9), torch.eye(9, dtype=torch.bool)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(pairwise_ranking_loss(scores, positives, 1.0, 2).item())
    assert losses[0] == losses[1] != losses[2]


def plain_contrastive(scores, positives, temperature):
    total, size = 0.0, len(scores)
    for matrix, right in ((scores, positives), (scores.T, positives.T)):
        for pair in range(size):
            rivals = [other for other in range(size) if other == pair or not right[pair, other]]
            partition = sum(exp(matrix[pair, rival].item() / temperature) for rival in rivals)
            total += log(partition) - matrix[pair, pair].item() / temperature
    return total / (2 * size)


@given(batches(), st.floats(0.1, 3))
@settings(deadline=None, max_examples=60)
def test_contrastive_is_the_double_loop(batch, temperature):
    assert contrastive_loss(*batch, temperature).item() == pytest.approx(plain_contrastive(*batch, temperature))


@pytest.mark.parametrize("directions", ("both", "images"))
@pytest.mark.parametrize("negatives", ("all", "hardest", 2))
def test_ranking_gradcheck(negatives, directions):
    scores, positives = gradcheck_batch()

    def loss(scores):
        torch.manual_seed(0)
        return pairwise_ranking_loss(scores, positives, 0.5, negatives, directions)

    assert loss(scores) > 0 and torch.autograd.gradcheck(loss, scores)


def test_contrastive_gradcheck():
    scores, positives = gradcheck_batch()
    temperature = torch.tensor(0.7, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, t: contrastive_loss(s, positives, t), (scores, temperature))


def gradcheck_batch():
    images = torch.tensor([0, 1, 1, 2, 3, 0])
    scores = torch.randn(6, 6, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    return scores.requires_grad_(), images[:, None] == images[None]


def test_the_pair_itself_is_no_negative_even_if_the_mask_forgets_it():
    scores, nothing = torch.randn(4, 4), torch.zeros(4, 4, dtype=torch.bool)
    pairs = torch.eye(4, dtype=torch.bool)
    assert pairwise_ranking_loss(scores, nothing, 1.0) == pairwise_ranking_loss(scores, pairs, 1.0)
    assert contrastive_loss(scores, nothing, 1.0) == contrastive_loss(scores, pairs, 1.0)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3), {}, r"expected square scores \[B, B\] .* got \[2, 3\]"),
        ((2, 2), {"negatives": "some"}, "'all', 'hardest' or a positive number, got 'some'"),
        ((2, 2), {"negatives": 0}, "positive number, got 0"),
        ((2, 2), {"directions": "texts"}, "'both' or 'images', got 'texts'"),
        ((2, 2), {"reduction": "none"}, "'mean' or 'sum', got 'none'"),
    ],
)
def test_bad_input_is_named(shape, options, message):
    with pytest.raises(ValueError, match=message):
        pairwise_ranking_loss(torch.zeros(shape), torch.zeros(shape, dtype=torch.bool), 0.2, **options)


def test_positives_must_be_a_mask_of_the_same_shape():
    with pytest.raises(ValueError, match=r"expected positives as bool \[2, 2\], got torch.float32 \[2, 2\]"):
        contrastive_loss(torch.zeros(2, 2), torch.zeros(2, 2), 1.0)
    with pytest.raises(ValueError, match=r"expected positives as bool \[2, 2\], got torch.bool \[3, 3\]"):
        contrastive_loss(torch.zeros(2, 2), torch.zeros(3, 3, dtype=torch.bool), 1.0)
