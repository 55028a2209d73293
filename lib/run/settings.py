"""How a model is trained, as settings, checked when they are made."""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lib.corpora.files import quote
from lib.names import require_known
from lib.precision import resolved

SCHEDULES = ("constant", "linear", "late", "cosine", "plateau")

SPELLED = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", NoneType: "nothing"}
COUNTS = ("epochs", "batch_size", "accumulate", "evaluate_every", "threads", "patience", "beams", "min_count", "width",
          "longest*", "*_limit", "*dim", "*heads", "*_size", "*_batch", "*_epochs")  # fmt: skip
# Where the numbers of any paper's settings mean something, by their names, of which the first that fits counts.
RANGES = {
    "at least 1": (COUNTS, lambda value: value >= 1),
    "more than 0": (("learning_rate", "temperature"), lambda value: value > 0),
    "0 to 1": (("warmup",), lambda value: 0 <= value <= 1),
    "at least 0 and less than 1": (("average", "*dropout"), lambda value: 0 <= value < 1),
    "at least 0": (("*",), lambda value: value >= 0),
}


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained. `clip` bounds the gradient's global norm, 0 leaves it alone; `warmup` is a share of
    all steps; `average` is the decay of an exponential average of the weights, 0 for none; `accumulate` takes a batch
    in so many parts, where memory is short; dev is evaluated after each epoch, or every `evaluate_every` steps;
    `patience` counts evaluations without a better dev score; precision "auto" is bf16 where it was measured to be
    faster, else fp32; `threads` are those of a CPU, whose number changes the last bits of a result."""

    epochs: int = 10
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 2e-4
    weight_decay: float = 0.0
    schedule: str = "constant"  # "linear", "cosine": towards zero, "late" from half-way on; "plateau": halved where dev
    # stands still
    warmup: float = 0.0
    clip: float = 2.0
    average: float = 0.0
    evaluate_every: int | None = None
    patience: int | None = None
    precision: str = "auto"
    threads: int = 1

    def __post_init__(self):
        check(self)
        require_known("schedule", self.schedule, SCHEDULES)
        resolved(self.precision)


def check(settings: Any) -> None:
    """That every setting of a dataclass is of its type, and every number where it means something; raises ValueError
    for the first that is not."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if not _fits(value, kind):
            shown = quote(list(value) if isinstance(value, tuple) else value)  # as it was said
            raise ValueError(f"{name} is {shown}, expected {_spelled(kind)}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            _require_in_range(name, value)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(each, get_args(kind)[0]) for each in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _spelled(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return " or ".join(map(_spelled, get_args(kind)))
    return f"a list of {_spelled(get_args(kind)[0])}" if get_origin(kind) is tuple else SPELLED[kind]


def _require_in_range(name: str, value: float) -> None:
    for expected, (patterns, fits) in RANGES.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            if not fits(value):
                raise ValueError(f"{name} is {value}, expected {expected}")
            return
