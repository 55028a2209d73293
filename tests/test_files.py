"""Locks: one at a time, and who waits says for whom."""

import subprocess
import sys
import time

from lib import files
from lib.files import locked
from lib.progress import told_to

HOLDING = "import sys, time; from pathlib import Path; from lib.files import locked\n"
HOLDING += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(float(sys.argv[2]))"


def hold(path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLDING, path, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_who_waits_says_for_whom(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "EVERY", 0.1)
    path, lines = tmp_path / "lock", []
    process, begun = hold(path, 3), time.monotonic()
    with told_to(lines.append), locked(path):
        assert time.monotonic() - begun > 0.5 and process.wait() == 0
    assert lines[0].startswith(f"waiting for {path}, held by process {process.pid} on ") and len(lines) <= 6
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


def test_a_lock_of_a_killed_process_is_free(tmp_path):
    process = hold(tmp_path / "lock", 100)
    process.kill()
    process.wait()
    with told_to(lambda line: (_ for _ in ()).throw(AssertionError(line))), locked(tmp_path / "lock"):
        pass
