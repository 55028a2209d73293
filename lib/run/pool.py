"""Commands side by side, each worker a process of its own that is given one after the other.

The steps of a small model leave threads waiting for each other: on two cores, two runs of one thread each get 1.7
times as much done as one run of two threads after the other.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from threading import Thread

import torch
from accelerate import PartialState

from lib.precision import device
from lib.setup import ROOT

AT_ONCE = 4  # at most: each run has its model and its corpus in memory
WORKER = [sys.executable, "-P", "-m", "lib.run", "-"]  # -P: a folder lib/ where the user stands is not ours
DONE, FAILED = "\0done ", "\0failed "  # how a worker ends a job


@dataclass(frozen=True)
class Job:
    """A command of `lib.run`, by a name of its own, and the names of those that must be done before."""

    name: str
    arguments: list[str]
    after: tuple[str, ...] = ()


def processes() -> PartialState:
    """The processes that `accelerate launch` started, which wait for each other as long as anything takes."""
    return PartialState(cpu=device().type == "cpu", timeout=timedelta(days=365))


def at_once(jobs: int, threads: int) -> int:
    """How many of so many jobs of so many threads to do at a time. A GPU is not shared, and neither are the processes
    that `accelerate launch` started."""
    alone = device().type == "cpu" and processes().num_processes == 1
    return max(1, min(jobs, torch.get_num_threads() // threads, AT_ONCE)) if alone else 1


def work(jobs: Sequence[Job], at_once: int, log: Callable[[str], None]) -> None:
    """Do `jobs` in their order, so far as what they need is done, with `at_once` workers.

    What a worker could not finish is logged, its traceback too, and left to the caller, with all that needs it. The
    workers end when this ends, however it does.
    """
    todo, done, heard = list(jobs), set(), SimpleQueue()
    idle = [_start(heard) for _ in range(min(at_once, len(todo)))]
    workers, busy = list(idle), {}
    names = {job.name for job in jobs}
    try:
        while True:
            while idle and (job := _next(todo, done, names)):
                todo.remove(job)
                worker = idle.pop()
                busy[worker] = job
                _give(worker, job)
            if not busy:
                return
            worker, line = heard.get()
            if worker not in busy:
                continue
            if line is None:
                log(f"a worker ended in the middle of {' '.join(busy.pop(worker).arguments[:3])} ({worker.wait()})")
            elif line.startswith((DONE, FAILED)):
                ended = busy.pop(worker)
                done |= {ended.name} if line.startswith(DONE) else set()
                idle.append(worker)
            else:
                log(line)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _next(todo: Sequence[Job], done: set[str], names: set[str]) -> Job | None:
    """The first job all of whose needs are done; one that is no job here was done before."""
    return next((job for job in todo if not (set(job.after) & names) - done), None)


def _start(heard: SimpleQueue) -> subprocess.Popen:
    # The workers find our package wherever they stand, and relative paths stay those of the caller.
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}  # whatever the caller's locale
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    worker = subprocess.Popen(WORKER, env=environment, errors="replace", **pipes)
    Thread(target=_listen, args=(worker, heard), daemon=True).start()
    return worker


def _listen(worker: subprocess.Popen, heard: SimpleQueue) -> None:
    """Each line that a worker says, and None when it has ended."""
    for line in worker.stdout:
        heard.put((worker, line.removesuffix("\n")))
    heard.put((worker, None))


def _give(worker: subprocess.Popen, job: Job) -> None:
    try:
        print(json.dumps(job.arguments), file=worker.stdin, flush=True)
    except BrokenPipeError:
        pass  # it died, as `_listen` will say
