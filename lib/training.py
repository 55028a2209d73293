"""The one training loop: named losses, length buckets, choice on dev, and checkpoints that lose nothing."""

import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, broadcast_object_list
from safetensors.torch import load_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.files import publish, write_json, write_tensors
from lib.names import require_known
from lib.precision import device, mixed_precision

SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
BUCKET = 32  # batches whose examples are sorted by length together: little padding, still a random order


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained. `clip` bounds the gradient's global norm, 0 leaves it alone; `warmup` is a share of
    all steps; `average` is the decay of an exponential average of the weights, 0 for none; `patience` counts epochs
    without a better dev score; precision "auto" is bf16 where the hardware is fast with it, else fp32."""

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 2e-4
    weight_decay: float = 0.0
    schedule: str = "constant"  # or "linear", "cosine": towards zero
    warmup: float = 0.0
    clip: float = 2.0
    average: float = 0.0
    patience: int | None = None
    precision: str = "auto"

    def __post_init__(self):
        require_known("schedule", self.schedule, SCHEDULES)
        mixed_precision(self.precision)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")


class TrainingData(Protocol):
    """What `fit` trains on: examples with a length each, and a function that batches some of them."""

    lengths: Sequence[int]

    def batch(self, indices: np.ndarray) -> dict: ...


def fit(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    evaluate: Callable[[nn.Module], dict[str, float]],
    monitor: str,
    checkpoint_seconds: float = 60,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Train `model` in place and leave it with the weights that scored best on dev; returns one record an epoch.

    `model(**batch)` returns a dict of named scalar losses, whose sum is minimised; `model.at_epoch(epoch)`, if it
    has one, is told where training is; `model.parameter_groups(learning_rate)`, if it has one, sets its own rates.
    `evaluate(model)` returns dev scores, of which `monitor` is maximised. `folder` keeps a checkpoint: called again
    after a kill, `fit` goes on from it and, on CPU, ends with bitwise the weights of an unbroken run.
    """
    trainer = _Trainer(model, data, settings, seed, Path(folder), log)
    trainer.resume()
    while trainer.epoch < settings.epochs and not trainer.out_of_patience():
        trainer.run_epoch(checkpoint_seconds)
        trainer.finish_epoch(evaluate, monitor)
    return trainer.finish()


def batch_plan(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The epoch's batches as index arrays: a pure function of its arguments, every example exactly once.

    Random windows of BUCKET batches are sorted by length and cut, and the batches shuffled again.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    lengths = np.asarray(lengths)
    windows = np.array_split(order, max(1, round(len(order) / (batch_size * BUCKET))))
    batches = []
    for window in windows:
        by_length = window[np.argsort(lengths[window], kind="stable")]
        batches += np.array_split(by_length, math.ceil(len(by_length) / batch_size))
    return [batches[i] for i in random.permutation(len(batches))]


def schedule(settings: TrainingSettings, steps: int) -> Callable[[int], float]:
    """The learning rate's factor at each of `steps` steps: a linear warm-up, then constant, linear or cosine."""
    warmup, shape = round(settings.warmup * steps), SCHEDULES[settings.schedule]
    return lambda step: (step + 1) / warmup if step < warmup else shape((step - warmup) / max(1, steps - warmup))


class _Trainer:
    """The state of one `fit`: what a checkpoint holds, and the steps that change it."""

    def __init__(self, model, data, settings, seed, folder, log):
        self.data, self.settings, self.seed, self.folder, self.log = data, settings, seed, folder, log
        AcceleratorState._reset_state()  # it remembers the precision of an earlier fit in this process
        self.accelerator = Accelerator(
            cpu=device().type == "cpu",
            mixed_precision=mixed_precision(settings.precision),
            # The batch is split here, not by a data loader; so the schedule steps once a step.
            dataloader_config=DataLoaderConfiguration(split_batches=True),
        )
        groups = model.parameter_groups(settings.learning_rate) if hasattr(model, "parameter_groups") else None
        optimizer = torch.optim.AdamW(
            groups or [p for p in model.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over all weights instead of a dozen over each
        )
        per_epoch = len(batch_plan(data.lengths, settings.batch_size, seed, 0))
        scheduler = LambdaLR(optimizer, schedule(settings, per_epoch * settings.epochs))
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(model, optimizer, scheduler)
        self.bare = self.accelerator.unwrap_model(self.model)
        decay = get_ema_multi_avg_fn(settings.average)
        self.average = AveragedModel(self.bare, multi_avg_fn=decay) if settings.average else None
        self.epoch = self.step = 0  # the next epoch, and the next step in it
        self.history, self.best, self.best_epoch, self.best_weights = [], None, 0, None
        self.sums, self.seconds, self.saved_at = defaultdict(float), 0.0, time.monotonic()

    def run_epoch(self, checkpoint_seconds: float) -> None:
        if hasattr(self.bare, "at_epoch"):
            self.bare.at_epoch(self.epoch)
        self.model.train()
        plan = batch_plan(self.data.lengths, self.settings.batch_size, self.seed, self.epoch)
        for indices in plan[self.step :]:
            with self._counting_seconds():
                self._train_step(indices)
            self.step += 1
            if self._agreed(time.monotonic() - self.saved_at >= checkpoint_seconds):
                self.save()

    @contextmanager
    def _counting_seconds(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started

    def _agreed(self, decision: bool) -> bool:
        """The main process's decision: clocks differ."""
        if self.accelerator.num_processes == 1:
            return decision
        return broadcast_object_list([decision])[0]

    def _train_step(self, indices: np.ndarray) -> None:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = indices[: len(indices) // world * world][rank::world]  # equal shares, or gathering would hang
        batch = _to(self.data.batch(mine), self.accelerator.device)
        losses = self.model(**batch)
        self.accelerator.backward(sum(losses.values()))
        if self.settings.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update_parameters(self.bare)
        for name, loss in losses.items():
            self.sums[name] += loss.detach()

    def finish_epoch(self, evaluate: Callable, monitor: str) -> None:
        chosen = self.average.module if self.average else self.bare
        chosen.eval()
        with torch.no_grad(), self._counting_seconds():
            scores = evaluate(chosen)
        means = {name: float(total) / self.step for name, total in self.sums.items()}
        self._require_finite({**means, monitor: scores.get(monitor, math.nan)})
        self.epoch, self.step, self.sums = self.epoch + 1, 0, defaultdict(float)
        if self.best is None or scores[monitor] > self.best:
            self.best, self.best_epoch = scores[monitor], self.epoch
            self.best_weights = {name: value.detach().cpu().clone() for name, value in chosen.state_dict().items()}
        self.history.append({"epoch": self.epoch, **means, **scores, "seconds": round(self.seconds, 2)})
        if self.accelerator.is_main_process:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            done = f"epoch {self.epoch}/{self.settings.epochs}"
            self.log(f"{done}  {shown}  dev {monitor} {scores[monitor]:.1f}  {self.seconds:.1f} s")

    def _require_finite(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise ValueError(f"epoch {self.epoch + 1}: {name} is {value}, expected a finite number")

    def out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.best is not None and self.epoch - self.best_epoch >= patience

    def save(self) -> None:
        """A new checkpoint folder, complete before it gets its name; then the older ones go."""
        name = f"checkpoint-{self.epoch:04d}-{self.step:06d}"
        fresh, main = self.folder / f"{UNFINISHED}{name}", self.accelerator.is_main_process
        if main:
            fresh.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(fresh))  # each process leaves its random numbers' state
        self.accelerator.wait_for_everyone()
        if main:
            self._complete(fresh)
            older = _checkpoints(self.folder)
            publish(fresh, self.folder / name)
            _remove(older)
        self.saved_at = time.monotonic()

    def _complete(self, fresh: Path) -> None:
        if self.best_weights:
            write_tensors(fresh / "best.safetensors", self.best_weights)
        if self.average:
            write_tensors(fresh / "average.safetensors", self.average.state_dict())
        progress = {name: getattr(self, name) for name in _PROGRESS}
        sums = {name: float(total) for name, total in self.sums.items()}
        write_json(fresh / "progress.json", {**progress, "sums": sums})

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if self.accelerator.is_main_process:
            _remove(self.folder.glob(f"{UNFINISHED}*"))
        self.accelerator.wait_for_everyone()
        if not (found := _checkpoints(self.folder)):
            return
        folder = found[-1]
        self.accelerator.load_state(str(folder))
        progress = json.loads((folder / "progress.json").read_text())
        for name in _PROGRESS:
            setattr(self, name, progress[name])
        self.sums.update({name: torch.tensor(total) for name, total in progress["sums"].items()})
        if self.best is not None:
            self.best_weights = load_file(folder / "best.safetensors")
        if self.average:
            self.average.load_state_dict(load_file(folder / "average.safetensors"))
        self.log(f"resumed at epoch {self.epoch + 1}, step {self.step}")

    def finish(self) -> list[dict]:
        self.bare.load_state_dict(self.best_weights)
        self.bare.eval()
        self.accelerator.free_memory()
        return self.history


UNFINISHED = ".unfinished-"
_PROGRESS = ("epoch", "step", "history", "best", "best_epoch", "seconds")


def remove_checkpoints(folder: Path) -> None:
    """Once the result is safe, nobody needs them."""
    _remove([*_checkpoints(folder), *folder.glob(f"{UNFINISHED}*")])


def _remove(folders: Iterable[Path]) -> None:
    for path in folders:
        shutil.rmtree(path)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


def _to(batch: dict, device: torch.device) -> dict:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
