"""The torchvision cure, in fresh interpreters: a wrong move would abort the one that runs the tests."""

import os
import subprocess
import sys

import pytest

from lib.setup import ROOT


def fresh(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("first", ["torchvision", "torchvision.models", "transformers", "timm"])
def test_torchvision_imports_after_lib(first):
    done = fresh(f"import lib, {first}, torchvision; torchvision.models.vgg16(); print('fine')")
    assert done.stdout.strip() == "fine", done.stderr


def test_nothing_slow_is_imported_before_it_is_needed():
    """Torchvision takes as long as torch: every notebook, worker and predictor would wait for it."""
    done = fresh("import sys, lib.predict; from lib.papers import cmkp, gxn, k3m, maf, vse; print(*sys.modules)")
    assert not {"torchvision", "timm", "transformers", "torch._dynamo"} & set(done.stdout.split()), done.stderr


@pytest.mark.parametrize("make", [
    lambda root: (root / "lib").mkdir(),
    lambda root: [(root / "lib").mkdir(), (root / "lib" / "__init__.py").touch()],
])  # fmt: skip
def test_a_folder_of_ones_own_that_hides_ours_is_named(tmp_path, make):
    """Found first, as where the user stands is; the rest of our package is then found as an installed one is."""
    make(tmp_path)
    code = f"import sys, lib; lib.__path__ = [*lib.__path__, {str(ROOT / 'lib')!r}]; from lib.run import experiment"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "a package called lib hides Fivefold's; rename it" in done.stderr.splitlines()[-1]


def test_a_file_of_ones_own_that_hides_ours_is_named_by_the_first_line_of_every_notebook(tmp_path):
    (tmp_path / "lib.py").touch()
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "from lib import corpora, notebook, predict"]
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and str(tmp_path / "lib.py") in done.stderr.splitlines()[-1]


def test_cure_may_be_called_again():
    done = fresh("from lib.setup import cure_torchvision as cure; cure(); cure(); import torchvision; print('fine')")
    assert done.stdout.strip() == "fine", done.stderr


def test_schemas_are_declared_only_where_the_compiled_ops_do_not_load():
    code = """
import importlib.util, pathlib, torch, lib, lib.setup
try:
    for path in pathlib.Path(importlib.util.find_spec("torchvision").origin).parent.glob("_C*.so"):
        torch.ops.load_library(path)
    real = True
except OSError:
    real = False
print(real != bool(lib.setup._schemas))
"""
    assert fresh(code).stdout.strip() == "True"
