"""Runs side by side end as runs one after the other do, and whatever stops one of them."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from lib.run import experiment, pool
from lib.setup import ROOT

TINY = {"profile": "smoke", "epochs": 1, "train_limit": 40, "joint_dim": 16, "image_size": 64}
ASKED = (("sum", 0), ("sum", 1), ("sum", 2))


def ablate(folder, log=lambda line: None, **settings):
    return experiment.ablate("vse", ["sum"], [0, 1, 2], {**TINY, **settings}, folder, log)


@pytest.fixture
def started(monkeypatch) -> list:
    """The workers of a test, two at a time on a machine of any size."""
    found, start = [], pool._start
    monkeypatch.setattr(pool, "_start", lambda heard: found.append(start(heard)) or found[-1])
    monkeypatch.setattr(pool, "at_once", lambda jobs, threads: min(jobs, 2))
    return found


def test_runs_side_by_side_are_those_of_one_thread_bit_by_bit(tmp_path, started):
    lines = []
    rows = ablate(tmp_path / "many", lines.append)
    assert len(started) == 2 and all(worker.poll() is not None for worker in started)
    alone = experiment.run("vse", "sum", 2, TINY, tmp_path / "one", log=lambda line: None)
    assert list(zip(rows["variant"], rows["seed"], strict=True)) == list(ASKED)
    first, second = (load_file(f"{folder}/model.safetensors") for folder in (rows["folder"][2], alone.folder))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {f"vse sum seed {seed}" for seed in range(3)} <= set(lines)
    assert sum(": epoch 1/1" in line for line in lines) == 3
    assert ablate(tmp_path / "many")["rsum"].tolist() == rows["rsum"].tolist() and len(started) == 2


def test_what_a_killed_worker_left_is_done_here_with_the_same_numbers(tmp_path, started, monkeypatch):
    lines = []

    def kill(line):
        lines.append(line)
        for worker in started:
            worker.kill()

    rows = ablate(tmp_path, kill)
    assert rows["seed"].tolist() == [0, 1, 2] and rows["rsum"].gt(0).all()
    assert any("a worker ended in the middle of vse sum" in line for line in lines)
    monkeypatch.setattr(pool, "at_once", lambda jobs, threads: 1)
    assert rows["rsum"].tolist() == ablate(tmp_path / "again")["rsum"].tolist()


def test_a_run_that_cannot_be_finished_is_logged_and_stops_the_caller_after_the_others(tmp_path, started):
    lines, bad = [], {**TINY, "learning_rate": 1e38, "clip": 0.0}
    with pytest.raises(ValueError, match="scores are NaN"):
        experiment.ablate("vse", ["sum", "random"], [0, 1], bad, tmp_path, lines.append)
    assert "Traceback (most recent call last):" in lines
    assert sum(line.startswith("ValueError: ") and "scores are NaN" in line for line in lines) == 2
    assert len(list(tmp_path.glob("vse/random-seed[01]-*/result.json"))) == 2


def test_workers_end_when_the_caller_is_interrupted(tmp_path, started):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(tmp_path, interrupt)
    assert len(started) == 2 and all(worker.poll() is not None for worker in started)


CALLER = """
from lib.run import pool
import sys, time
worker = pool._start(pool.SimpleQueue())
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_workers_end_within_seconds_when_the_caller_is_killed():
    caller = subprocess.Popen([sys.executable, "-c", CALLER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(caller.stdout.readline())
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    deadline = time.monotonic() + 30  # the worker may not have finished its imports
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_folder_called_lib_is_not_taken_for_ours(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("raise ImportError('not ours')")
    monkeypatch.chdir(tmp_path)
    lines = []
    arguments = ["vse", "random", "0", "--folder", str(tmp_path / "runs"), "--train_limit", "20"]
    pool.work([pool.Job("one", arguments)], 1, lines.append)
    assert list(tmp_path.glob("runs/vse/random-*/result.json")), lines


def test_what_needs_a_job_waits_for_it_and_what_needs_a_failed_one_is_left():
    jobs = [pool.Job("child", [], ("parent",)), pool.Job("parent", []), pool.Job("other", [], ("elsewhere",))]
    names = {job.name for job in jobs}
    assert pool._next(jobs, set(), names).name == "parent"
    assert pool._next([jobs[0], jobs[2]], set(), names).name == "other"  # what is no job here was done before
    assert pool._next([jobs[0]], set(), names) is None
    assert pool._next([jobs[0]], {"parent"}, names).name == "child"


@pytest.mark.parametrize(
    "runs, cores, threads, expected",
    [(1, 2, 1, 1), (8, 2, 1, 2), (8, 2, 2, 1), (3, 16, 4, 3), (8, 16, 1, 4), (0, 2, 1, 1)],
)
def test_runs_share_the_threads(monkeypatch, runs, cores, threads, expected):
    monkeypatch.setattr(pool, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert pool.at_once(runs, threads) == expected


def test_a_gpu_is_not_shared(monkeypatch):
    monkeypatch.setattr(pool, "device", lambda: torch.device("cuda"))
    assert pool.at_once(8, 1) == 1
