"""Scripts on two processes, as `accelerate launch` would start them."""

import os
import subprocess
import sys
from pathlib import Path

from lib.setup import ROOT


def on_two_processes(script: str, folder: Path, *arguments) -> subprocess.CompletedProcess:
    """Run the text of `script`, kept in `folder`, and wait for its end, good or bad."""
    path = folder / "script.py"
    path.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", path, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
