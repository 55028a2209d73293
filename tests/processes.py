"""Scripts on two processes, as `accelerate launch` would start them; copies of a test's own process, and their end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from lib.run import training
from lib.setup import ROOT


def on_two_processes(script: str, folder: Path, *arguments) -> subprocess.CompletedProcess:
    """Run the text of `script`, kept in `folder`, and wait for its end, good or bad."""
    path = folder / "script.py"
    path.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", path, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


def forked(work: Callable[[], object]) -> BaseProcess:
    """A copy of this process that does `work` and ends; nothing has to be imported again. Of a copy only one thread
    is left, and whoever waited for the others would wait for ever."""

    def alone() -> None:
        torch.set_num_threads(1)
        work()

    process = get_context("fork").Process(target=alone)
    process.start()
    return process


def two_forked(work: Callable[[], object]) -> list[BaseProcess]:
    """Two copies of this process that do `work` together, as two that `accelerate launch` started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}

    def ranked(rank: int) -> Callable[[], None]:
        def together() -> None:
            os.environ.update(where, RANK=str(rank), LOCAL_RANK=str(rank))
            AcceleratorState._reset_state(reset_partial_state=True)  # what this process knows of itself: it is alone
            work()

        return together

    return [forked(ranked(rank)) for rank in range(2)]


def ended(process: BaseProcess) -> int:
    """Wait for it -> its exit status, or minus the signal that ended it."""
    process.join(timeout=300)
    return process.exitcode


def dying_at(stop: int, work: Callable[[], object]) -> Callable[[], None]:
    """`work` that kills itself without warning before training step `stop`, counted over all runs and their parts."""
    step, count = training._Trainer._train_step, [0]

    def counted(self, *arguments) -> None:
        if count[0] == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1
        return step(self, *arguments)

    def dying() -> None:
        training._Trainer._train_step = counted
        work()

    return dying
