"""What was corrected while a kernel runs is read again; what was not is remembered."""

import os
import shutil
import subprocess
import sys
import warnings

import pytest

from lib.run import experiment
from lib.setup import ROOT
from lib.tasks import retrieval
from tests.album import write_album

ASKED = {"dataset": "captions", "image_size": 32, "epochs": 1, "joint_dim": 8, "word_dim": 8}


def key(root, **changes) -> str:
    settings = ASKED | {"data_dir": str(root)} | changes
    experiment.resolve("vse", "sum", settings)
    return experiment.plan("vse", "sum", 0, settings).key


def test_corrected_files_are_read_again(tmp_path):
    root = write_album(tmp_path)
    known = [key(root)]
    shutil.copy(root / "images" / "train0.png", root / "images" / "train1.png")  # another picture
    known.append(key(root))
    lists = root / "Flickr_8k.testImages.txt"
    lists.write_text("\n".join(lists.read_text().split("\n")[:-1]))
    known.append(key(root))
    tokens = root / "Flickr8k.token.txt"
    tokens.write_text(tokens.read_text().replace("a red", "a bed"))
    known.append(key(root))
    assert len(set(known)) == 4


def test_pictures_that_come_later_are_seen_by_a_table(tmp_path, monkeypatch):
    """As one does in a notebook: all are missing, one puts them there, and runs the same cell again."""
    root = write_album(tmp_path / "data")
    away = root.parent / "away"
    shutil.move(root / "images" / "train3.png", away)
    settings = ASKED | {"data_dir": str(root)}
    with pytest.warns(UserWarning, match="1 of 28 pictures are missing"):
        first = experiment.ablate("vse", ["sum"], [0], settings, tmp_path / "runs", lambda line: None)
    shutil.move(away, root / "images" / "train3.png")
    with warnings.catch_warnings(action="error"):
        again = experiment.ablate("vse", ["sum"], [0], settings, tmp_path / "runs", lambda line: None)
    assert first["folder"].tolist() != again["folder"].tolist()


ASCII = """
import sys
from lib.run.experiment import run
settings = {"dataset": "captions", "data_dir": sys.argv[1], "image_size": 32, "epochs": 1}
result = run("vse", "sum", 0, settings, sys.argv[2])
print("words", chr(0x72D7) in result.context["words"])
"""


def test_a_run_under_another_locale_reads_and_writes_the_same(tmp_path):
    root = write_album(tmp_path / "data")
    tokens = root / "Flickr8k.token.txt"
    tokens.write_text(tokens.read_text(encoding="utf-8").replace("picture", chr(0x72D7)), encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-W", "error::EncodingWarning", "-c", ASCII, root, tmp_path / "runs"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | plain, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "words True", done.stderr[-2000:]


def test_what_was_not_changed_is_read_once(tmp_path):
    settings = experiment.resolve("vse", "sum", ASKED | {"data_dir": str(write_album(tmp_path))})
    first = retrieval.load(settings)
    for variant in ("sum", "devise"):
        assert retrieval.load(experiment.resolve("vse", variant, ASKED | {"data_dir": str(tmp_path)})) is first
