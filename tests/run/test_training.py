"""The training loop: every example once an epoch, choice on dev, and nothing lost to a kill."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib.precision import fast_precision, mixed_precision
from lib.run.settings import TrainingSettings
from lib.run.training import batch_plan, fit, schedule
from tests.processes import on_two_processes

HERE = Path(__file__).parent


class Lines:
    """y = 3x + noise, with a random mask drawn per batch as augmentations are."""

    def __init__(self, count: int = 200):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(count, 8, generator=generator)
        self.y = 3 * self.x.sum(1) + 0.1 * torch.randn(count, generator=generator)
        self.lengths = np.arange(count) % 7 + 1

    def batch(self, indices, random, part):
        return {"x": self.x[indices] * torch.from_numpy(random.random((len(indices), 8)) > 0.1), "y": self.y[indices]}


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def forward(self, x, y):
        return {
            "square": (self.layers(x)[:, 0] - y).square().mean(),
            "size": 1e-4 * self.layers[0].weight.square().sum(),
        }


def score(model) -> dict[str, float]:
    data = Lines()
    return {"negative error": -(model.layers(data.x)[:, 0] - data.y).square().mean().item()}


def train(folder, settings=None, checkpoint_seconds=60.0, evaluate=score, model=None, log=lambda line: None):
    model = model or Regression()
    torch.manual_seed(5)
    settings = settings or TrainingSettings(epochs=4, batch_size=16, learning_rate=0.01, schedule="cosine", average=0.9)
    history = fit(model, Lines(), settings, 0, folder, evaluate, "negative error", "max", checkpoint_seconds, log)
    return model, history


def test_it_learns_and_names_its_losses(tmp_path):
    _, history = train(tmp_path, TrainingSettings(epochs=15, batch_size=16, learning_rate=0.02))
    assert history[-1]["square"] < history[0]["square"] / 4
    assert {"epoch", "square", "size", "negative error", "seconds"} <= set(history[0])


def test_the_weights_of_the_best_dev_epoch_are_kept(tmp_path):
    seen, values = [], iter([1.0, 5.0, 3.0, 2.0])

    def evaluate(model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"negative error": next(values)}

    model, _ = train(tmp_path, evaluate=evaluate)
    for name, value in model.state_dict().items():
        assert torch.equal(value, seen[1][name])


def test_patience_stops_early(tmp_path):
    values = iter([1.0, 5.0, 3.0, 2.0, 9.0])
    settings = TrainingSettings(epochs=5, patience=2)
    _, history = train(tmp_path, settings, evaluate=lambda model: {"negative error": next(values)})
    assert len(history) == 4


def test_a_loss_that_explodes_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"epoch \d+: .* expected a finite number"):
        train(tmp_path, TrainingSettings(epochs=9, learning_rate=1e30, clip=0.0))


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 13, 14, 27, 51])
def test_resume_ends_with_bitwise_the_same_weights(tmp_path, at):
    whole, history = train(tmp_path / "whole")
    data_batch, calls = Lines.batch, []

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return data_batch(self, *arguments)

    Lines.batch = dying
    try:
        with pytest.raises(Killed):
            train(tmp_path / "broken", checkpoint_seconds=0)
    finally:
        Lines.batch = data_batch
    torch.manual_seed(99)  # a new process has other random numbers
    resumed, again = train(tmp_path / "broken", checkpoint_seconds=0)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    strip = lambda records: [{k: v for k, v in r.items() if k not in ("seconds", "examples/s")} for r in records]  # noqa: E731
    assert strip(again) == strip(history)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=300),
    batch_size=st.integers(1, 64),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)
def test_a_plan_holds_every_example_once(lengths, batch_size, seed, epoch):
    plan = batch_plan(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(plan)) == list(range(len(lengths)))
    assert max(map(len, plan)) <= batch_size
    again = batch_plan(lengths, batch_size, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(plan, again, strict=True))


def test_a_plan_pads_little_and_changes_with_the_epoch():
    lengths = np.random.default_rng(0).integers(5, 40, 6000)
    padded = lambda plan: sum(len(b) * lengths[b].max() for b in plan)  # noqa: E731
    plan = batch_plan(lengths, 64, 0, 0)
    shuffled = np.array_split(np.random.default_rng(0).permutation(6000), 94)
    assert padded(plan) < 1.05 * lengths.sum() < 0.7 * padded(shuffled)
    assert not np.array_equal(plan[0], batch_plan(lengths, 64, 0, 1)[0])
    means = [lengths[b].mean() for b in plan]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3  # short and long batches come mixed


def test_schedules_warm_up_and_come_down():
    for name, end in (("constant", 1.0), ("linear", 0.0), ("late", 0.0), ("cosine", 0.0)):
        factor = schedule(name, 0.1, 100)
        assert [round(factor(s), 3) for s in (0, 4, 9)] == [0.1, 0.5, 1.0]
        assert factor(100) == pytest.approx(end, abs=1e-9)
        assert max(schedule(name, 0.1, 5)(s) for s in range(5)) == 1.0
    with pytest.raises(ValueError, match="schedule 'cosin' is unknown, did you mean 'cosine'?"):
        TrainingSettings(schedule="cosin")


def test_precision_names():
    assert mixed_precision("fp32") == "no" and mixed_precision("bf16") == "bf16"
    assert mixed_precision("auto") == mixed_precision(fast_precision())
    with pytest.raises(ValueError, match="precision 'fp16' is unknown, did you mean 'bf16'?"):
        mixed_precision("fp16")


def test_one_process_trains_in_one_precision_after_the_other(tmp_path):
    for precision in ("fp32", "bf16", "fp32"):
        train(tmp_path / precision, TrainingSettings(epochs=1, precision=precision))


DISTRIBUTED = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import numpy as np, torch, torch.distributed as dist
from torch.nn.functional import normalize
from lib.layers.distributed import gather
from lib.layers.ranking import pairwise_ranking_loss
from lib.run.settings import TrainingSettings
from lib.run.training import fit
class Pairs:
    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.a = torch.randn(64, 6, generator=g); self.b = self.a @ torch.randn(6, 5, generator=g)
        self.lengths = np.ones(64)
    def batch(self, i, random, part): return dict(a=self.a[i], b=self.b[i])
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0)
        self.A, self.B = torch.nn.Linear(6, 4), torch.nn.Linear(5, 4)
    def forward(self, a, b):
        x, v = gather(normalize(self.A(a), dim=1)), gather(normalize(self.B(b), dim=1))
        return dict(ranking=pairwise_ranking_loss(x @ v.T, torch.eye(len(x), dtype=torch.bool), 0.2))
torch.set_num_threads(1)
model = Model()
settings = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.05, precision="fp32")
fit(model, Pairs(), settings, 0, sys.argv[1] + "/run",
    lambda m: dict(score=float(m.A.weight.sum())), "score")
torch.save(model.state_dict(), sys.argv[1] + f"/end-{{dist.get_rank() if dist.is_initialized() else 'alone'}}.pt")
"""


def test_two_processes_with_half_the_batch_equal_one(tmp_path):
    subprocess.run([sys.executable, "-c", DISTRIBUTED, tmp_path], check=True, stdout=subprocess.DEVNULL)
    done = on_two_processes(DISTRIBUTED, tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    alone, first, second = (torch.load(tmp_path / f"end-{who}.pt") for who in ("alone", 0, 1))
    for name in alone:
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], alone[name], atol=1e-5), name
