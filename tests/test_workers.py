"""Runs side by side end as runs one after the other do, and whatever stops one of them."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lib import experiment, workers

TINY = {"profile": "smoke", "epochs": 1, "train_limit": 40, "joint_dim": 16, "image_size": 64}
ASKED = (("sum", 0), ("sum", 1), ("sum", 2))


def ablate(folder, log=lambda line: None, **settings):
    return experiment.ablate("vse", ["sum"], [0, 1, 2], {**TINY, **settings}, folder, log)


@pytest.fixture
def started(monkeypatch) -> list:
    """The workers of a test, two at a time on a machine of any size."""
    found, start = [], workers._start
    monkeypatch.setattr(workers, "_start", lambda *options: found.append(start(*options)) or found[-1])
    monkeypatch.setattr(workers, "shares", lambda runs: (2, 1))
    return found


def test_runs_side_by_side_are_those_of_one_thread_bit_by_bit(tmp_path, started):
    lines = []
    rows = ablate(tmp_path / "many", lines.append)
    assert len(started) == 2 and all(worker.poll() is not None for worker in started)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = experiment.run("vse", "sum", 2, TINY, tmp_path / "one", log=lambda line: None)
    torch.set_num_threads(threads)
    assert list(zip(rows["variant"], rows["seed"], strict=True)) == list(ASKED)
    first, second = (load_file(f"{folder}/model.safetensors") for folder in (rows["folder"][2], alone.folder))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert sorted(line.split(":")[0] for line in lines) == sorted(
        text for variant, seed in ASKED for text in (f"vse {variant} seed {seed}", f"{variant} seed {seed}")
    )
    said = json.loads((alone.folder / "result.json").read_text())["provenance"]
    assert said["hardware"].startswith("1 of ")
    assert ablate(tmp_path / "many")["rsum"].tolist() == rows["rsum"].tolist() and len(started) == 2


def test_what_a_killed_worker_left_is_done_here(tmp_path, started):
    rows = ablate(tmp_path, lambda line: [worker.kill() for worker in started])
    assert rows["seed"].tolist() == [0, 1, 2] and rows["rsum"].gt(0).all()


def test_a_run_that_cannot_be_finished_stops_the_caller_after_the_others(tmp_path, started):
    lines, bad = [], {**TINY, "learning_rate": 1e38, "clip": 0.0}
    with pytest.raises(ValueError, match="scores are NaN"):
        experiment.ablate("vse", ["sum", "random"], [0, 1], bad, tmp_path, lines.append)
    assert sum("did not finish: " in line and "scores are NaN" in line for line in lines) == 2
    assert len(list(tmp_path.glob("vse/random-seed[01]-*/result.json"))) == 2


def test_workers_end_when_the_caller_is_interrupted(tmp_path, started):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(tmp_path, interrupt)
    assert len(started) == 2 and all(worker.poll() is not None for worker in started)


@pytest.mark.parametrize(
    "runs, threads, shares",
    [(1, 2, (1, 2)), (8, 2, (2, 1)), (3, 16, (3, 5)), (8, 16, (4, 4)), (8, 1, (1, 1)), (0, 2, (1, 2))],
)
def test_runs_share_the_threads(monkeypatch, runs, threads, shares):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert workers.shares(runs) == shares


def test_a_gpu_is_not_shared(monkeypatch):
    monkeypatch.setattr(workers, "device", lambda: torch.device("cuda"))
    assert workers.shares(8)[0] == 1
