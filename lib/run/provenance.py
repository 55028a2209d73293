"""Where a number comes from: the commit, the packages, the machine and the day."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from lib.setup import ROOT

PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "timm", "numpy", "pandas", "fontawesomefree")


def provenance() -> dict:
    """Git commit (with "+changes" where files differ from it), package versions, hardware, and the time in UTC."""
    return {
        "commit": _commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": _hardware(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD") or "no commit"
    return commit + "+changes" * bool(_git("status", "--porcelain", "--", "lib"))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores"
    return f"{threads}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
