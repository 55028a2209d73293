"""How a model is trained, as settings, checked when they are made."""

from dataclasses import dataclass

from lib.names import require_known
from lib.precision import resolved

SCHEDULES = ("constant", "linear", "late", "cosine", "plateau")


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
        require_known("schedule", self.schedule, SCHEDULES)
        resolved(self.precision)
        for name in ("epochs", "batch_size", "accumulate", "evaluate_every", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
