"""What the training loop offers beyond one optimizer: parts, evaluations, accumulation, frozen modules, checkpoints."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from lib.run import checkpoints
from lib.run.settings import TrainingSettings
from lib.run.training import Part, fit, turns
from tests.disks import full_disk
from tests.run.test_training import Killed, Lines, Regression, score, train


def test_parts_take_turns_by_their_share_done():
    plans = {"a": [1, 2], "b": [10, 20, 30, 40]}
    assert turns(plans) == [("a", 1), ("b", 10), ("b", 20), ("a", 2), ("b", 30), ("b", 40)]
    assert turns({"only": [3, 1, 2]}) == [("only", 3), ("only", 1), ("only", 2)]


class Rivals(nn.Module):
    """Two numbers: "up" raises the first, "down" lowers the second, and each loss also touches the other's."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.seen = []

    def optimizers(self, settings):
        down = Part(torch.optim.SGD([self.second], lr=1.0), clip=0.5, schedule="linear")
        return {"up": torch.optim.SGD([self.first], lr=1.0), "down": down}

    def losses(self, part, batch, progress):
        self.seen.append((part, round(progress.share, 3), progress.epoch))
        total = 3 * (self.first + self.second).sum()
        return {"up loss": -total} if part == "up" else {"down loss": total}


class Both(Lines):
    def plan(self, seed, epoch, part):
        return np.array_split(np.arange(self.x.shape[0]), 2 if part == "up" else 1)


def test_each_part_has_its_own_weights_clipping_and_schedule(tmp_path):
    model = Rivals()
    settings = TrainingSettings(epochs=2, clip=0.25, precision="fp32")
    evaluate = lambda model: {"second": model.second.item()}  # noqa: E731
    history = fit(model, Both(), settings, 0, tmp_path, evaluate, "second", "min", log=lambda line: None)
    assert model.first.item() == pytest.approx(4 * 0.25)  # four steps, clipped by the settings
    assert model.second.item() == pytest.approx(-(0.5 + 0.25))  # two steps, clipped by the part, the second half as far
    assert [part for part, _, _ in model.seen] == ["up", "down", "up"] * 2
    assert [share for _, share, _ in model.seen] == [0, 0.167, 0.333, 0.5, 0.667, 0.833]
    assert {"up loss", "down loss", "examples/s"} <= set(history[1])


def test_the_least_is_best_where_less_is_better(tmp_path):
    values = iter([3.0, 1.0, 2.0])
    settings = TrainingSettings(epochs=3, batch_size=200)
    history = fit(Regression(), Lines(), settings, 0, tmp_path, lambda m: {"error": next(values)}, "error", "min",
                  log=lambda line: None)  # fmt: skip
    assert [record["error"] for record in history] == [3, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1  # metrics.jsonl


def test_dev_is_evaluated_every_so_many_steps_and_at_the_end(tmp_path):
    settings = TrainingSettings(epochs=2, batch_size=40, evaluate_every=3)  # five steps an epoch
    _, history = train(tmp_path, settings)
    assert [record["epoch"] for record in history] == [0.6, 1.2, 1.8, 2]
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == history


def test_patience_counts_evaluations(tmp_path):
    values = iter([5.0, 4.0, 3.0, 9.0])
    settings = TrainingSettings(epochs=2, batch_size=40, evaluate_every=2, patience=2)
    _, history = train(tmp_path, settings, evaluate=lambda model: {"negative error": next(values)})
    assert len(history) == 3


def test_the_rate_is_halved_where_dev_stands_still(tmp_path):
    rates, values = [], iter([1.0, 2.0, 1.5, 1.6, 3.0])

    class Watching(Regression):
        def optimizers(self, settings):
            self.optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
            return {"model": self.optimizer}

        def losses(self, part, batch, progress):
            rates.append(self.optimizer.param_groups[0]["lr"])
            return self(**batch)

    settings = TrainingSettings(epochs=5, batch_size=200, schedule="plateau")
    train(tmp_path, settings, evaluate=lambda model: {"negative error": next(values)}, model=Watching())
    assert rates == [0.01, 0.01, 0.01, 0.005, 0.0025]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(tmp_path):
    class Plain(Lines):
        def batch(self, indices, random, part):
            return {"x": self.x[indices], "y": self.y[indices]}

    class Still(Regression):
        def __init__(self):
            super().__init__()
            self.layers[2] = nn.Identity()  # dropout draws differently for parts

    ends = []
    for accumulate in (1, 4):
        model = Still()
        settings = TrainingSettings(epochs=2, batch_size=40, accumulate=accumulate, precision="fp32")
        fit(model, Plain(), settings, 0, tmp_path / str(accumulate), score, "negative error", log=lambda line: None)
        ends.append(model.state_dict())
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-5) for name in ends[0])


def test_frozen_modules_stay_in_evaluation_mode(tmp_path):
    class Frozen(Regression):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(8).requires_grad_(False)
            self.frozen = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).requires_grad_(False)
            self.modes = set()

        def forward(self, x, y):
            self.modes.add((self.training, self.norm.training, self.frozen.training, self.frozen[1].training))
            return super().forward(self.norm(self.frozen(x)), y)

    model = Frozen()
    before = model.norm.running_mean.clone()
    train(tmp_path, TrainingSettings(epochs=1, batch_size=40), model=model, evaluate=lambda m: {"negative error": 0.0})
    assert model.modes == {(True, False, False, False)} and torch.equal(model.norm.running_mean, before)


class InOneBlock(Regression):
    """Weights that are parts of one block of memory, as cuDNN lays a recurrent network's."""

    def __init__(self):
        super().__init__()
        weights = list(self.layers.parameters())
        block = torch.cat([weight.detach().flatten() for weight in weights])
        for weight, part in zip(weights, block.split([weight.numel() for weight in weights]), strict=True):
            weight.data = part.view(weight.shape)


def test_weights_that_share_memory_are_saved_and_read_back(tmp_path, recwarn):
    whole, _ = train(tmp_path / "whole", model=InOneBlock())
    dying = lambda self, *arguments: killing(self, arguments)  # noqa: E731
    calls, batch = [], Lines.batch

    def killing(self, arguments):
        calls.append(1)
        if len(calls) == 20:
            raise Killed
        return batch(self, *arguments)

    Lines.batch = dying
    try:
        with pytest.raises(Killed):
            train(tmp_path / "broken", checkpoint_seconds=0, model=InOneBlock())
    finally:
        Lines.batch = batch
    again, _ = train(tmp_path / "broken", checkpoint_seconds=0, model=InOneBlock())
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in whole.state_dict().items())
    assert not [warning for warning in recwarn if "shared" in str(warning.message)]


@pytest.fixture
def broken(killed, tmp_path):
    """A training that was killed with two checkpoints kept, and the weights of an unbroken one."""
    folder, weights = killed
    return shutil.copytree(folder, tmp_path / "broken"), weights


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("killed")
    whole, _ = train(tmp_path / "whole")
    calls, batch = [], Lines.batch

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) == 30:
            raise Killed
        return batch(self, *arguments)

    Lines.batch = dying
    try:
        with pytest.raises(Killed):
            train(tmp_path / "broken", checkpoint_seconds=0)
    finally:
        Lines.batch = batch
    return tmp_path / "broken", whole.state_dict()


@pytest.mark.parametrize("name", ["random_states_0.pkl", "optimizer.bin", "pytorch_model.bin", "progress.json",
                                  "best.safetensors", "average.safetensors", "manifest.json"])  # fmt: skip
@pytest.mark.parametrize("damage", ["lost", "cut", "changed"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(broken, name, damage):
    folder, weights = broken
    before, newest = sorted(folder.glob("checkpoint-*"))
    content = (newest / name).read_bytes()
    if damage == "lost":
        (newest / name).unlink()
    else:
        changed = content[: len(content) // 2] if damage == "cut" else b"\0" + content[1:]
        (newest / name).write_bytes(changed)
    lines = []
    again, _ = train(folder, log=lines.append)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in weights.items())
    assert re.match(rf"{newest.name} was set aside as damaged-{newest.name}: found ", lines[0])
    assert "resumed at epoch" in lines[1]


def test_without_a_whole_checkpoint_it_starts_again(broken):
    folder, weights = broken
    for path in folder.glob("checkpoint-*/progress.json"):
        path.write_text("{")
    (folder / "checkpoint-of-somebody.txt").touch()
    lines = []
    again, _ = train(folder, log=lines.append)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in weights.items())
    assert sum("was set aside" in line for line in lines) == 2 and not any("resumed" in line for line in lines)
    checkpoints.remove_checkpoints(folder)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("after", [0, 200, 1000, 3000])
def test_a_checkpoint_for_which_the_disk_has_no_room_leaves_the_others_whole(broken, after):
    folder, weights = broken
    kept = {path: path.read_bytes() for path in folder.glob("checkpoint-*/*")}
    with full_disk(after), pytest.raises(OSError, match="could not be written, is the disk full") as error:
        train(folder, checkpoint_seconds=0)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in folder.glob("checkpoint-*/*")} == kept
    again, _ = train(folder)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in weights.items())
    assert not list(folder.glob(".*"))
