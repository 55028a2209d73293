"""Verdicts on simulated experiments: how often they are wrong, and how often they see what is there.

A test unit is right with a variant and a seed if what makes it easy for every model, what makes it easy for this
variant, the seed's quality and chance add up to more than nothing. All four are drawn anew for each of 10,000
experiments of two variants, which are equally good on average: every "holds" and every "higher" is false.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm

from lib.report.claims import comparison_word, number_word
from lib.report.intervals import LEVEL, Estimate, difference, predicted, score, standard_error

EXPERIMENTS, CHUNK, SEEDS = 10_000, 100, (3, 5, 10)
NOMINAL, TOLERATED = 100 * LEVEL / 2, 1.0  # per cent on each side, and points above it

# On a common scale of whole numbers, which are quick to draw.
STEP = 4096 / np.sqrt(3)  # standard deviation of a uniform one between -4096 and 4096
UNIT, VARIANT, CHANCE = 2 * STEP, STEP, STEP
TOTAL = np.sqrt(UNIT**2 + VARIANT**2 + CHANCE**2)


@dataclass(frozen=True)
class Task:
    """So many units, of which this share is right; the margin of equivalence in points."""

    units: int
    rate: float
    margin: float

    def draw(self, random, sides: Sequence[tuple[float, float]], seeds: int) -> list[np.ndarray]:
        """Right or not [CHUNK, seeds, units] for each side: (points above the rate, std over seeds in points)."""
        easy = 2 * _near_normal(random, (CHUNK, 1, self.units))
        found = []
        for points, spread in sides:
            own = _near_normal(random, easy.shape)
            quality = self._level(points + spread * random.standard_normal((CHUNK, seeds, 1)))
            chance = _uniform(random, (CHUNK, seeds, self.units))
            found.append(easy + own + quality > chance)
        return found

    def _level(self, points: np.ndarray) -> np.ndarray:
        """Where seeds stand on the common scale if this many points better, so that points are normal, not levels."""
        share = np.clip(self.rate + points / 100, 0.005, 0.995)
        return np.round(TOTAL * norm.ppf(share)).astype(np.int16)


def _uniform(random, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers of standard deviation STEP."""
    return random.bit_generator.random_raw(math.prod(shape) // 4).view(np.int16).reshape(shape) >> 3


def _near_normal(random, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers of standard deviation STEP, but for rounding: means of four, twice as wide."""
    return _uniform(random, (4, *shape)).sum(0, dtype=np.int16) >> 1


TASKS = {"F1 90, 800 posts": Task(800, 0.90, 1.0), "R@1 25, 1,000 pictures": Task(1000, 0.25, 2.0)}
SPREADS = {"no": (0, 0), "1 point": (1, 1), "3 points": (3, 3), "3 and no": (3, 0)}  # std over seeds of both sides


def estimate(a: np.ndarray, b: np.ndarray) -> Estimate:
    """`difference` of many experiments at once, in whole numbers: right or not [E, S, N], the same S on both sides."""
    (_, seeds, units), sides = a.shape, (a, b)
    by_seed = [side.sum(-1, dtype=np.int32) for side in sides]
    by_unit = [side.sum(1, dtype=np.int8).astype(np.float32) for side in sides]
    values = [100 / units * right for right in by_seed]
    noise = [
        right.sum(-1) - (right**2).sum(-1) / units - (unit**2).sum(-1) / seeds + right.sum(-1) ** 2 / (seeds * units)
        for right, unit in zip(by_seed, by_unit, strict=True)
    ]
    examples = (by_unit[0] - by_unit[1]).var(-1, ddof=1) / seeds**2 - sum(noise) / ((seeds - 1) * (units - 1) * seeds)
    varies = [value.var(-1, ddof=1) / seeds for value in values]
    error, df = standard_error(varies, [seeds] * 2, np.maximum(0, 100**2 * examples / units), units)
    return Estimate(values[0].mean(-1) - values[1].mean(-1), error, df, seeds, True)


def test_the_quick_estimate_is_the_real_one():
    a, b = TASKS["F1 90, 800 posts"].draw(np.random.Generator(np.random.SFC64(0)), [(0, 1), (0, 1)], 5)
    quick = estimate(a, b)
    for i in range(CHUNK):
        sums = (np.stack([side[i], np.ones(side[i].shape)], -1) for side in (a, b))
        real = difference(*(score(side, lambda s: 100 * s[..., 0] / s[..., 1]) for side in sums))
        assert [quick.value[i], quick.error[i], quick.df[i]] == pytest.approx([real.value, real.error, real.df])


def simulate(task: Task, spreads: tuple[float, float], above: float = 0.0, experiments: int = EXPERIMENTS) -> dict:
    """How often, in per cent, a comparison of two variants is said to hold and not to, for each number of seeds."""
    random = np.random.Generator(np.random.SFC64(7))
    words = {seeds: [] for seeds in SEEDS}
    for _ in range(experiments // CHUNK):
        a, b = task.draw(random, [(above, spreads[0]), (0, spreads[1])], max(SEEDS))
        for seeds in SEEDS:
            found = estimate(a[:, :seeds], b[:, :seeds])
            words[seeds].append(comparison_word(found.value, 0.0, found.p()))
    return {seeds: _shares(said, "holds", "does not hold") for seeds, said in words.items()}


def simulate_numbers(task: Task, spread: float) -> dict:
    """How often our runs are said to be higher and lower than a published run of the same model on the same test set,
    and, by how many margins that run is moved, how often to agree."""
    random = np.random.Generator(np.random.SFC64(8))
    words = {(seeds, moved): [] for seeds in SEEDS for moved in (0, 1, 2)}
    for _ in range(EXPERIMENTS // CHUNK):
        runs = 100 * task.draw(random, [(0, spread)], max(SEEDS) + 1)[0].mean(-1)  # the last one is the published one
        for seeds, moved in words:
            value = np.round(runs[:, -1] + moved * task.margin, 1)
            words[seeds, moved].append(number_word(predicted(runs[:, :seeds]), value, task.margin, within=0.05))
    return {seeds: _shares(words[seeds, 0], "higher", "lower") for seeds in SEEDS} | {
        key: _shares(said, "agrees")[0] for key, said in words.items()
    }


def _shares(words: list[np.ndarray], *wanted: str) -> list[float]:
    said = np.concatenate(words)
    return [100 * float((said == word).mean()) for word in wanted]


@pytest.mark.parametrize("name", TASKS)
def test_comparisons_are_wrong_no_more_often_than_they_say(name, capsys):
    lines = [f"\n{name}: two equal variants, of {EXPERIMENTS:,} comparisons per cent that hold / do not hold"]
    for spread, spreads in SPREADS.items():
        wrong = simulate(TASKS[name], spreads)
        lines.append(f"  std over seeds {spread}: " + _row(wrong))
        assert max(max(shares) for shares in wrong.values()) <= NOMINAL + TOLERATED
    seen = simulate(TASKS[name], (1, 1), above=2, experiments=2000)
    lines.append("  the first is 2 points better, std over seeds 1 point: " + _row(seen))
    with capsys.disabled():
        print("\n".join(lines))
    assert seen[10][0] > seen[3][0] > 3 * NOMINAL


@pytest.mark.parametrize("name", TASKS)
def test_numbers_are_wrong_no_more_often_than_they_say(name, capsys):
    lines = [
        f"\n{name}: a published run of the same model, of {EXPERIMENTS:,} per cent higher / lower; and agrees where"
    ]
    lines.append(f"  the published run is 0, 1 or 2 margins of {TASKS[name].margin:g} points better")
    for spread in (0, 1, 3):
        found = simulate_numbers(TASKS[name], spread)
        agrees = {seeds: [found[seeds, moved] for moved in (0, 1, 2)] for seeds in SEEDS}
        lines.append(f"  std over seeds {spread}: {_row({s: found[s] for s in SEEDS})}; agrees {_row(agrees)}")
        assert max(max(found[seeds]) for seeds in SEEDS) <= NOMINAL + TOLERATED
        assert all(found[seeds, 0] > found[seeds, 1] > found[seeds, 2] for seeds in SEEDS)
    with capsys.disabled():
        print("\n".join(lines))


def _row(shares: dict[int, list[float]]) -> str:
    return ", ".join(f"{seeds} seeds {' / '.join(f'{share:.1f}' for share in row)}" for seeds, row in shares.items())
