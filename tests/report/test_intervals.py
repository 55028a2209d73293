"""Intervals: against formulas written out, against a bootstrap, and Holm against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f_oneway, ttest_ind

from lib.report.intervals import (
    LEVEL,
    Estimate,
    Score,
    contrast,
    difference,
    holm,
    holm_levels,
    predicted,
    score,
)

few = settings(deadline=None, max_examples=60)


def mean(sums):
    return 100 * sums[..., 0] / sums[..., 1]


def f1(sums):
    return 200 * sums[..., 0] / np.maximum(1, sums[..., 1] + sums[..., 2])


def answers(seeds=4, units=300, rate=0.6, seed=0):
    """Right answers and questions [S, N, 2], some units harder than others."""
    random = np.random.default_rng(seed)
    easy = random.normal(size=units) + 3 * rate - 1.5
    right = random.normal(size=(seeds, units)) < easy
    return np.stack([right, np.ones((seeds, units))], -1)


# ---- scores ----


def test_a_mean_and_its_units_are_deviations_from_it():
    right = answers()
    found = score(right, mean)
    assert found.values == pytest.approx(100 * right[..., 0].mean(1))
    assert found.units == pytest.approx(100 * (right[..., 0] - right[..., 0].mean(1, keepdims=True)))


def test_units_tell_the_error_of_a_ratio_as_a_bootstrap_does():
    random = np.random.default_rng(1)
    gold = random.integers(1, 4, (1, 400))
    correct = random.binomial(gold, 0.8)
    sums = np.stack([correct, correct + random.poisson(0.3, gold.shape), gold], -1)
    found = score(sums, f1)
    draws = f1(sums[0][random.integers(0, 400, (4000, 400))].sum(1))
    assert found.units.std(ddof=1) / 20 == pytest.approx(draws.std(), rel=0.05)


def test_units_outside_a_group_weigh_nothing():
    right = answers(units=200)
    outside = np.concatenate([right, np.zeros((4, 300, 2))], axis=1)
    inside, wide = score(right, mean), score(outside, mean)
    assert wide.values == pytest.approx(inside.values)
    errors = [part.units.std(1, ddof=1) / np.sqrt(part.units.shape[1]) for part in (inside, wide)]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)


def test_a_contrast_is_the_score_of_the_difference():
    clean, noisy = answers(seed=1), answers(rate=0.4, seed=2)
    both = score(np.concatenate([clean, noisy], -1), lambda s: mean(s[..., 2:]) - mean(s[..., :2]))
    parts = contrast([1, -1], [score(noisy, mean), score(clean, mean)])
    assert parts.values == pytest.approx(both.values) and parts.units == pytest.approx(both.units)
    assert contrast([1, -1], [score(noisy, mean), Score(np.zeros(4))]).units is None


# ---- a published number ----


def test_the_prediction_interval_by_hand():
    low, high = predicted([70.0, 71.0, 72.0]).interval()  # s = 1, t(2) = 4.3027
    assert (low, high) == pytest.approx((71 - 4.3027 * np.sqrt(1 / 3 + 1), 71 + 4.3027 * np.sqrt(1 / 3 + 1)), abs=1e-3)
    low, high = predicted([70.0, 71.0, 72.0], runs=5).interval()
    assert high - 71 == pytest.approx(4.3027 * np.sqrt(1 / 3 + 1 / 5), abs=1e-3)


def test_one_run_has_no_interval():
    assert np.isnan(predicted([70.0]).interval()).all()
    assert np.isnan(difference(Score(np.array([70.0])), Score(np.array([60.0, 61.0]))).interval()).all()


# ---- differences ----


def test_over_seeds_alone_it_is_welchs_test():
    a, b = np.array([70.0, 71, 73]), np.array([68.0, 68.5, 71, 70])
    ours, theirs = difference(Score(a), Score(b)), ttest_ind(a, b, equal_var=False)
    assert ours.p() == pytest.approx(theirs.pvalue)
    assert ours.interval() == pytest.approx(tuple(theirs.confidence_interval()))
    assert not ours.over_units and ours.seeds == 3


def test_without_seed_effects_it_is_the_paired_interval_over_examples():
    a, b = answers(seed=3)[:1], answers(rate=0.5, seed=4)[:1]
    sides = [score(np.repeat(side, 3, axis=0), mean) for side in (a, b)]  # three equal seeds
    found = difference(*sides)
    paired = 100 * (a - b)[0, :, 0]
    assert found.error == pytest.approx(paired.std(ddof=1) / np.sqrt(300)) and found.df == pytest.approx(299)


def test_one_variant_is_a_two_way_table():
    """Seeds and examples crossed: the variance of the mean is (MS seeds + MS examples - MS rest) / (S N)."""
    right = answers(seeds=5, units=200)[..., 0] * 100
    by_seed, by_unit = right.mean(1, keepdims=True), right.mean(0, keepdims=True)
    seeds = 200 * by_seed.var(ddof=1)
    units = 5 * by_unit.var(ddof=1)
    rest = ((right - by_seed - by_unit + right.mean()) ** 2).sum() / (4 * 199)
    found = difference(score(answers(seeds=5, units=200), mean), 60.0)
    assert found.error**2 == pytest.approx((seeds + units - rest) / 1000)
    assert found.value == pytest.approx(right.mean() - 60)
    assert f_oneway(*right.T).statistic > 1  # units do differ, or nothing was tested


def test_shared_examples_cancel():
    hard = np.random.default_rng(5).random(500) < 0.5
    a = np.stack([np.stack([hard, np.ones(500)], -1)] * 3)
    b = a.copy()
    b[:, :20, 0] = 0
    other = score(np.random.default_rng(6).permutation(b, axis=1), mean)
    assert difference(score(a, mean), score(b, mean)).error < 0.5 * difference(score(a, mean), other).error


def test_sides_of_other_units_are_refused():
    with pytest.raises(ValueError, match="200 and 300|300 and 200"):
        difference(score(answers(), mean), score(answers(units=200), mean))


def test_equal_sides_are_not_told_apart():
    same = score(answers(), mean)
    assert difference(same, same).p() > 0.99
    flat = score(np.ones((3, 10, 2)), mean)
    assert difference(flat, flat).p() == 1 and difference(flat, flat).p(-1.0) == 0


@few
@given(st.floats(-5, 5), st.floats(0.01, 3), st.floats(1, 100), st.floats(-5, 5), st.floats(0.001, 0.2))
def test_an_interval_leaves_out_what_its_p_value_rejects(value, error, df, null, level):
    estimate = Estimate(value, error, df, 3, True)
    low, high = estimate.interval(level)
    assert (low <= null <= high) == (estimate.p(null) >= level)


# ---- Holm ----


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1, 1] and holm([]).tolist() == []


@few
@given(st.lists(st.sampled_from([0.0, 1e-4, 0.004, 0.006, 0.01, 0.02, 0.03, 0.049, 0.2, 1.0]), min_size=1, max_size=8))
def test_holm_rejects_what_lies_below_its_level(p):
    stepwise, ranked = set(), sorted(range(len(p)), key=lambda i: p[i])
    for step, i in enumerate(ranked):
        if p[i] > LEVEL / (len(p) - step):
            break
        stepwise.add(i)
    assert set(np.flatnonzero(holm(p) <= LEVEL)) == stepwise
    assert set(np.flatnonzero(np.array(p) <= holm_levels(p))) == stepwise
