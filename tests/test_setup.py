"""The torchvision cure, in fresh interpreters: a wrong move would abort the one that runs the tests."""

import subprocess
import sys

import pytest


def fresh(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("first", ["torchvision", "torchvision.models", "transformers", "timm"])
def test_torchvision_imports_after_lib(first):
    done = fresh(f"import lib, {first}, torchvision; torchvision.models.vgg16(); print('fine')")
    assert done.stdout.strip() == "fine", done.stderr


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
