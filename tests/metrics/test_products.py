"""K3M's scores: ranks with ties against the model, the alignment decision and its threshold, and sums that add up."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.metrics.products import (
    accuracy,
    accuracy_sums,
    alignment,
    alignment_sums,
    best_threshold,
    combine,
    rank_at,
    rank_sums,
    ranks,
)

few = settings(max_examples=60, deadline=None)
levels = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0])  # few, so that ties are common
pairs = st.lists(st.tuples(levels, st.booleans()), min_size=1, max_size=12)


@st.composite
def pools(draw):
    """Scores of some questions over a pool, and the right answers."""
    questions, size = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    scores = draw(st.lists(st.lists(levels, min_size=size, max_size=size), min_size=questions, max_size=questions))
    answers = draw(st.lists(st.integers(0, size - 1), min_size=questions, max_size=questions))
    return torch.tensor(scores), torch.tensor(answers)


def columns(found: list[tuple[float, bool]]) -> tuple[torch.Tensor, torch.Tensor]:
    scores, same = zip(*found, strict=True)
    return torch.tensor(scores), torch.tensor(same)


# ---- ranks ----


@given(pools())
@few
def test_ranks_as_by_sorting_with_the_right_answer_last_of_equals(pool):
    for row, answer, rank in zip(*pool, ranks(*pool), strict=True):
        order = sorted(range(len(row)), key=lambda i: (-row[i].item(), i == answer))  # noqa: B023
        assert order.index(answer) == rank


def test_a_known_case():
    scores = [[0.1, 0.9, 0.5], [0.3, 0.3, 0.1], [0.2, 0.1, 0.0]]
    found = rank_at(torch.tensor(scores), torch.tensor([1, 0, 2]), ks=(1, 2, 3))
    recalls = {"Rank@1": 100 / 3, "Rank@2": 200 / 3, "Rank@3": 100}
    assert found == pytest.approx(recalls | {"MRR": 100 * (1 + 1 / 2 + 1 / 3) / 3})


def test_a_collapsed_model_ranks_last_whatever_the_rounding():
    scores = 3 + 1e-7 * torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    assert set(ranks(scores, torch.arange(50) % 20).tolist()) == {19}


def test_candidates_of_smaller_pools_are_masked_by_minus_infinity():
    scores = torch.tensor([[0.5, 0.4, -torch.inf], [-torch.inf, -torch.inf, 0.0]])
    assert ranks(scores, torch.tensor([1, 2])).tolist() == [1, 0]


def test_half_precision_and_no_questions():
    assert ranks(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), torch.tensor([1])).tolist() == [0]
    assert rank_at(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), (1,)) == {"Rank@1": 0, "MRR": 0}


@pytest.mark.parametrize(
    "scores, answer, ks, message",
    [
        ([[0.1, torch.nan]], [0], (1,), r"1 of 2 scores are NaN, the first at \[0, 1\]"),
        ([[0.1, 0.2]], [2], (1,), "an answer is from 0 to 1, got 2 to 2"),
        ([[0.1, 0.2]], [-1], (1,), "an answer is from 0 to 1, got -1 to -1"),
        ([[0.1, 0.2]], [0, 1], (1,), r"expected scores \[Q, P\] and answer \[Q\] of integers, got \[1, 2\], \[2\]"),
        ([[0.1, 0.2]], [0.0], (1,), "of integers"),
        ([0.1, 0.2], [0], (1,), r"expected scores \[Q, P\]"),
        ([[0.1, 0.2]], [0], (1, 0), r"each k is at least 1, got \[1, 0\]"),
    ],
)
def test_bad_ranks_are_refused(scores, answer, ks, message):
    with pytest.raises(ValueError, match=message):
        rank_at(torch.tensor(scores), torch.tensor(answer), ks)


# ---- alignment ----


def f1_by_hand(found: list[tuple[float, bool]], threshold: float) -> dict[str, float]:
    said = [(score >= threshold, same) for score, same in found]
    right = sum(positive and same for positive, same in said)
    positives, same = sum(positive for positive, _ in said), sum(same for _, same in said)
    precision, recall = right / positives if positives else 0, right / same if same else 0
    f1 = 2 * precision * recall / (precision + recall) if right else 0
    return {"precision": 100 * precision, "recall": 100 * recall, "F1": 100 * f1}


@given(pairs, levels)
@few
def test_alignment_as_by_hand(found, threshold):
    assert alignment(*columns(found), threshold) == pytest.approx(f1_by_hand(found, threshold))


@given(pairs.filter(lambda found: any(same for _, same in found)))
@few
def test_no_threshold_is_better_than_the_best(found):
    best = best_threshold(*columns(found))
    scores = {score: f1_by_hand(found, score)["F1"] for score, _ in found}  # a cut below each score
    assert f1_by_hand(found, best)["F1"] == pytest.approx(max(scores.values()))
    equals = [cut for cut, f1 in scores.items() if f1 > max(scores.values()) - 1e-9]
    assert {score for score, _ in found if score >= best} == {score for score, _ in found if score >= max(equals)}


def test_the_threshold_lies_half_way_between_two_scores():
    assert best_threshold(torch.tensor([0.9, 0.7, 0.3, 0.1]), torch.tensor([1, 1, 0, 0])) == pytest.approx(0.5)
    assert best_threshold(torch.tensor([0.9, 0.2]), torch.tensor([True, True])) == pytest.approx(0.2)
    close = torch.tensor([1.0, torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))])
    assert alignment(close, torch.tensor([1, 0]), best_threshold(close, torch.tensor([1, 0])))["F1"] == 100


def test_bad_pairs_are_refused():
    with pytest.raises(ValueError, match="none of 2 pairs is of the same product"):
        best_threshold(torch.tensor([0.1, 0.2]), torch.tensor([False, False]))
    with pytest.raises(ValueError, match=r"expected scores \[M\] and same \[M\], got \[2\] and \[1\]"):
        alignment(torch.tensor([0.1, 0.2]), torch.tensor([True]), 0.5)
    with pytest.raises(ValueError, match="1 of 1 scores are NaN"):
        best_threshold(torch.tensor([torch.nan]), torch.tensor([True]))


# ---- accuracy ----


def test_accuracy():
    assert accuracy(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 0])) == pytest.approx(200 / 3)
    assert accuracy(torch.tensor([]), torch.tensor([])) == 0
    with pytest.raises(ValueError, match=r"expected predicted \[N\] and gold \[N\], got \[1\] and \[2\]"):
        accuracy(torch.tensor([1]), torch.tensor([1, 2]))


# ---- sums ----


@given(pools(), st.randoms(use_true_random=False))
@few
def test_sums_of_drawn_questions_score_as_these_questions_do(pool, random):
    drawn = random.choices(range(len(pool[0])), k=7)
    scores = rank_at(pool[0][drawn], pool[1][drawn], (1, 5))
    for name, rows in rank_sums(*pool, (1, 5)).items():
        assert rows.shape == (len(pool[0]), 2)
        assert combine(rows[drawn].sum(0)) == pytest.approx(scores[name])


@given(pairs, st.randoms(use_true_random=False))
@few
def test_sums_of_drawn_pairs_score_as_these_pairs_do(found, random):
    drawn = random.choices(range(len(found)), k=9)
    scores, same = columns(found)
    expected = alignment(scores[drawn], same[drawn], 0.3)
    for name, rows in alignment_sums(scores, same, 0.3).items():
        assert combine(rows[drawn].sum(0)) == pytest.approx(expected[name])


def test_many_sums_are_combined_at_once():
    rows = accuracy_sums(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 0]))["accuracy"]
    assert combine(np.stack([rows[:2].sum(0), rows.sum(0), [0, 0]])) == pytest.approx([100, 200 / 3, 0])
