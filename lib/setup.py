"""What must be true before anything else is imported: threads that sleep, and a torchvision that loads."""

import importlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _require_ours(package) -> None:
    """ImportError where a folder of the user's own is called as our package and hides it: half of it would be ours."""
    found = [getattr(package, "__file__", None), *getattr(package, "__path__", [])]
    theirs = next((path for path in found if path and Path(path).resolve().parent not in (ROOT, ROOT / "lib")), None)
    if theirs:
        raise ImportError(f"{theirs}: a package called lib hides Fivefold's; rename it, or start from another folder")


_require_ours(sys.modules["lib"])

# Threads that wait by spinning make small steps up to thirty times slower as soon as anything else runs on the
# machine. OpenMP reads this when torch loads, so import lib first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Nothing here shows a progress bar, and its absence is no news in a notebook.
warnings.filterwarnings("ignore", message="IProgress not found")

import torch  # noqa: E402

_schemas: list[torch.library.Library] = []  # a Library's definitions vanish with the object


def cure_torchvision() -> bool:
    """Make `import torchvision` work beside a CPU-only torch; returns whether its compiled ops are real.

    The wheel's compiled part needs CUDA libraries that a CPU-only torch lacks, and the import then fails
    because nobody declared `torchvision::nms`. The schemas are declared only where the real library does not
    load: a second declaration aborts the interpreter. Safe to call more than once.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or _schemas:
        return False
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
        return True
    except OSError:
        fragment = torch.library.Library("torchvision", "FRAGMENT")
        for op in ("nms", "qnms"):
            fragment.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.append(fragment)
        return False


class Later:
    """A module that is imported when something of it is first asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, wanted: str):
        return getattr(importlib.import_module(self._name), wanted)
