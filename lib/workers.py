"""Runs side by side, each in a process of its own.

The steps of a small model leave threads waiting for each other: on two cores, two runs of one thread each get 1.7
times as much done as one run of two threads after the other.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from queue import SimpleQueue
from threading import Thread

import torch
from accelerate import PartialState

from lib.precision import device

AT_ONCE = 4  # at most: each run has its model and its corpus in memory
DONE = "\0"  # what a worker says after each run


def shares(runs: int) -> tuple[int, int]:
    """How many of so many runs to train at a time, and the threads of each. A GPU is not shared, and neither are the
    processes that `accelerate launch` started."""
    cpu, threads = device().type == "cpu", torch.get_num_threads()
    alone = cpu and PartialState(cpu=True).num_processes == 1
    at_once = max(1, min(runs, threads, AT_ONCE)) if alone else 1
    return at_once, threads // at_once


def train(jobs: Iterable[Mapping], at_once: int, threads: int, log: Callable[[str], None]) -> None:
    """Hand `jobs`, arguments of `experiment.run`, to `at_once` workers, to each its next when it is done with one.

    What a worker could not finish is logged and left to the caller. The workers end when this ends, however it does.
    """
    todo, said = deque(jobs), SimpleQueue()
    workers = [_start(threads, said) for _ in range(at_once)]
    try:
        for worker in workers:
            _give(worker, todo)
        working = len(workers)
        while working:
            worker, line = said.get()
            if line is None:
                working -= 1
            elif line == DONE:
                _give(worker, todo)
            else:
                log(line)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _start(threads: int, said: SimpleQueue) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    worker = subprocess.Popen([sys.executable, "-m", "lib.workers"], env=environment, **pipes)
    Thread(target=_listen, args=(worker, said), daemon=True).start()
    return worker


def _listen(worker: subprocess.Popen, said: SimpleQueue) -> None:
    """Each line that a worker says, and None when it has ended."""
    for line in worker.stdout:
        said.put((worker, line.removesuffix("\n")))
    said.put((worker, None))


def _give(worker: subprocess.Popen, todo: deque) -> None:
    """The next job, or the end of them."""
    try:
        if todo:
            print(json.dumps(todo.popleft(), default=str), file=worker.stdin, flush=True)
        else:
            worker.stdin.close()
    except BrokenPipeError:
        pass  # it died, as `_listen` will say


def main() -> None:
    """Do the jobs that come in, one a line as JSON, and say how it goes."""
    from lib import experiment  # which imports this module

    say = partial(print, file=os.fdopen(os.dup(1), "w", encoding="utf-8"), flush=True)
    os.dup2(2, 1)  # what else is printed is not for the log
    for line in sys.stdin:
        job = json.loads(line)
        try:
            experiment.run(**job, log=say)
        except Exception as error:
            say(f"{job['variant']} seed {job['seed']} did not finish: {error}")
        say(DONE)


if __name__ == "__main__":
    main()
