"""The one training loop: named losses, one optimizer or several, length buckets, choice on dev."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.precision import device, mixed_precision
from lib.progress import Progress as Telling
from lib.run.checkpoints import Checkpoints
from lib.run.settings import TrainingSettings

SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "late": lambda done: min(1.0, 2 * (1 - done)),
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "plateau": lambda done: 1.0,  # and half of it after each evaluation that was not the best
}
BUCKET = 32  # batches whose examples are sorted by length together: little padding, still a random order
AHEAD = 2  # batches prepared while a step is computed


@dataclass(frozen=True)
class Progress:
    """How far a training is: the epoch and the step in it, from 0, and the `share` of all steps done."""

    epoch: int
    step: int
    share: float


@dataclass
class Part:
    """One of a model's optimizers, with its own clipping and schedule where they are not those of the settings."""

    optimizer: torch.optim.Optimizer
    clip: float | None = None
    schedule: str | None = None
    warmup: float | None = None


class TrainingData(Protocol):
    """What `fit` trains on: examples with a length each, and a function that batches some of them.

    `random` is a generator of the step's own, so that a batch is a pure function of (seed, epoch, step). Data for a
    model with several parts also has `plan(seed, epoch, part) -> list of index arrays`.
    """

    lengths: Sequence[int]

    def batch(self, indices: np.ndarray, random: np.random.Generator, part: str) -> dict: ...


def fit(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    evaluate: Callable[[nn.Module], dict[str, float]],
    monitor: str,
    mode: str = "max",
    checkpoint_seconds: float = 60,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Train `model` in place and leave it with the weights of its best evaluation on dev; returns a record of each.

    `model(**batch)` gives a dict of losses, whose sum is minimised. A model with several optimizers has
    `optimizers(settings) -> {part: optimizer or Part}`, and every model that wants to know how far the training is
    `losses(part, batch, progress)` in place of `forward`. `evaluate` gives dev scores; the `monitor` among them is
    best at its "max" or "min". Every `checkpoint_seconds` `folder` gets a checkpoint: called again after a kill, `fit`
    goes on from it and, on CPU, ends with bitwise the weights of an unbroken run.
    """
    trainer = _Trainer(model, data, settings, seed, Path(folder), mode, checkpoint_seconds, log)
    trainer.resume()
    while trainer.epoch < settings.epochs and not trainer.out_of_patience():
        trainer.run_epoch(evaluate, monitor)
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


def turns(plans: Mapping[str, Sequence]) -> list[tuple[str, np.ndarray]]:
    """The batches of all parts in one order: next comes the part that is furthest behind, by its share done."""
    steps = [(i / len(plan), part, i) for part, plan in plans.items() for i in range(len(plan))]
    return [(part, plans[part][i]) for _, part, i in sorted(steps, key=lambda step: step[0])]


def schedule(name: str, warmup: float, steps: int) -> Callable[[int], float]:
    """The learning rate's factor at each of `steps` steps: a linear warm-up, then a shape of SCHEDULES."""
    warming, shape = round(warmup * steps), SCHEDULES[name]
    return lambda step: (step + 1) / warming if step < warming else shape((step - warming) / max(1, steps - warming))


class _Losses(nn.Module):
    """The model as something whose forward gives the losses of a part, so that processes can share its gradients."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, part: str, batch: Mapping, progress: Progress) -> dict[str, torch.Tensor]:
        return self.model.losses(part, batch, progress) if hasattr(self.model, "losses") else self.model(**batch)

    def train(self, mode: bool = True) -> "_Losses":
        """A frozen module stays as it is at evaluation: no dropout, no statistics of a batch."""
        super().train(mode)
        for module in self.model.modules() if mode else ():
            if (weights := list(module.parameters())) and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self


@dataclass
class _State:
    """What a checkpoint keeps as JSON. `epoch` and `step` are the next ones."""

    epoch: int = 0
    step: int = 0
    history: list[dict] = field(default_factory=list)
    best: float | None = None
    best_evaluation: int = 0
    seconds: float = 0.0
    examples: int = 0  # since the last evaluation
    steps: dict[str, int] = field(default_factory=dict)  # of each loss, since the last evaluation


class _Trainer:
    """The state of one `fit`: what a checkpoint holds, and the steps that change it."""

    def __init__(self, model, data, settings, seed, folder, mode, checkpoint_seconds, log):
        self.data, self.settings, self.seed, self.mode, self.log = data, settings, seed, mode, log
        AcceleratorState._reset_state()  # it remembers the precision of an earlier fit in this process
        parts = _parts(model, settings)
        self.accelerator = Accelerator(
            cpu=device().type == "cpu",
            mixed_precision=mixed_precision(settings.precision),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=len(parts) > 1)],
        )
        self.bare, self.losses = model, self.accelerator.prepare(_Losses(model))
        for part in parts.values():
            part.optimizer = self.accelerator.prepare(part.optimizer)
        self.parts = parts
        self.schedulers = {name: self._scheduler(name, part) for name, part in parts.items()}
        self.accelerator.register_for_checkpointing(*self.schedulers.values())
        decay = get_ema_multi_avg_fn(settings.average)
        self.average = AveragedModel(self.bare, multi_avg_fn=decay) if settings.average else None
        self.state, self.best_weights, self.sums = _State(), None, {}
        self.checkpoints = Checkpoints(folder, self.accelerator, checkpoint_seconds, log)

    @property
    def epoch(self) -> int:
        return self.state.epoch

    def plans(self, epoch: int) -> dict[str, list[np.ndarray]]:
        if hasattr(self.data, "plan"):
            return {part: self.data.plan(self.seed, epoch, part) for part in self.parts}
        plan = batch_plan(self.data.lengths, self.settings.batch_size, self.seed, epoch)
        return dict.fromkeys(self.parts, plan)

    def _scheduler(self, name: str, part: Part):
        shape = part.schedule or self.settings.schedule
        if shape == "plateau":
            return ReduceLROnPlateau(part.optimizer.optimizer, self.mode, factor=0.5, patience=0, threshold=0.0)
        steps = len(self.plans(0)[name]) * self.settings.epochs
        warmup = self.settings.warmup if part.warmup is None else part.warmup
        return LambdaLR(part.optimizer.optimizer, schedule(shape, warmup, steps))

    # ---- an epoch ----

    def run_epoch(self, evaluate: Callable, monitor: str) -> None:
        self.losses.train()
        plan = turns(self.plans(self.epoch))
        telling = Telling(f"epoch {self.epoch + 1}: step", len(plan))
        telling.done = self.state.step
        for part, batches in self._prepared(plan):
            with self._counting_seconds():
                self._train_step(part, batches, len(plan))
            telling.advance()
            self.state.step += 1
            if self._evaluation_due(len(plan)):
                self.evaluate(evaluate, monitor, len(plan))
                self.losses.train()
            if self.checkpoints.due():
                self.save()
            if self.out_of_patience():
                break
        self.state.epoch, self.state.step = self.epoch + 1, 0

    def _prepared(self, plan: Sequence[tuple[str, np.ndarray]]) -> Iterator[tuple[str, list[dict]]]:
        """The batches still to come, each prepared in the background while earlier ones are computed."""
        todo = list(enumerate(plan))[self.state.step :]
        with ThreadPoolExecutor(1) as pool:
            waiting: list[Future] = [pool.submit(self._batches, *item) for item in todo[:AHEAD]]
            for i, (_, (part, _)) in enumerate(todo):
                ready = waiting.pop(0).result()
                waiting += [pool.submit(self._batches, *item) for item in todo[i + AHEAD : i + AHEAD + 1]]
                yield part, ready

    def _batches(self, step: int, turn: tuple[str, np.ndarray]) -> list[tuple[float, dict]]:
        """This process's share of a step, in as many parts as `accumulate` says, each with its weight."""
        part, indices = turn
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = indices[: len(indices) // world * world][rank::world]  # equal shares, or gathering would hang
        random = np.random.default_rng((self.seed, self.epoch, step))
        pieces = [piece for piece in np.array_split(mine, self.settings.accumulate) if len(piece)]
        return [(len(piece) / len(mine), self.data.batch(piece, random, part)) for piece in pieces]

    def _train_step(self, part: str, batches: Sequence[tuple[float, dict]], steps: int) -> None:
        share = (self.epoch + self.state.step / steps) / self.settings.epochs
        progress, chosen = Progress(self.epoch, self.state.step, share), self.parts[part]
        for weight, batch in batches:
            losses = self.losses(part, _to(batch, self.accelerator.device), progress)
            self.accelerator.backward(weight * sum(losses.values()))
            self._remember(losses, weight)
        clip = self.settings.clip if chosen.clip is None else chosen.clip
        if clip:
            weights = [weight for group in chosen.optimizer.param_groups for weight in group["params"]]
            self.accelerator.clip_grad_norm_(weights, clip)
        chosen.optimizer.step()
        if not isinstance(self.schedulers[part], ReduceLROnPlateau):
            self.schedulers[part].step()
        self.bare.zero_grad()  # what a part's loss sent to another part's weights is not that part's business
        if self.average:
            self.average.update_parameters(self.bare)
        self.state.examples += sum(len(next(iter(batch.values()))) for _, batch in batches)

    def _remember(self, losses: Mapping[str, torch.Tensor], weight: float) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0) + weight * loss.detach()
            self.state.steps[name] = self.state.steps.get(name, 0) + weight

    @contextmanager
    def _counting_seconds(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.state.seconds += time.monotonic() - started

    # ---- an evaluation ----

    def _evaluation_due(self, steps: int) -> bool:
        every, done = self.settings.evaluate_every, self.epoch * steps + self.state.step
        regular = self.state.step == steps if every is None else done % every == 0
        return regular or done == self.settings.epochs * steps

    def evaluate(self, evaluate: Callable, monitor: str, steps: int) -> None:
        chosen, state = self.average.module if self.average else self.bare, self.state
        chosen.eval()
        trained = state.seconds - (state.history[-1]["seconds"] if state.history else 0)
        with torch.no_grad(), self._counting_seconds():
            scores = evaluate(chosen)
        means = {name: float(total) / state.steps[name] for name, total in self.sums.items()}
        _require_finite({**means, monitor: scores.get(monitor, math.nan)}, self.epoch + 1)
        if state.best is None or (scores[monitor] > state.best if self.mode == "max" else scores[monitor] < state.best):
            state.best, state.best_evaluation = scores[monitor], len(state.history) + 1
            self.best_weights = {name: value.detach().cpu().clone() for name, value in chosen.state_dict().items()}
        for scheduler in self.schedulers.values():
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(scores[monitor])
        done = self.epoch + state.step / steps
        record = {"epoch": int(done) if done == int(done) else round(done, 3), **means, **scores}
        rate = round(state.examples / max(trained, 1e-9), 1)
        state.history.append({**record, "seconds": round(state.seconds, 2), "examples/s": rate})
        state.examples, state.steps, self.sums = 0, {}, {}
        self.checkpoints.record(state.history)
        self._tell(state.history[-1], means, monitor)

    def _tell(self, record: Mapping, means: Mapping[str, float], monitor: str) -> None:
        if self.accelerator.is_main_process:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            done = f"epoch {record['epoch']}/{self.settings.epochs}"
            self.log(f"{done}  {shown}  dev {monitor} {record[monitor]:.1f}  {record['seconds']:.1f} s")

    def out_of_patience(self) -> bool:
        patience, state = self.settings.patience, self.state
        return patience is not None and bool(state.history) and len(state.history) - state.best_evaluation >= patience

    # ---- keeping it ----

    def save(self) -> None:
        tensors = {"best": self.best_weights or {}, "sums": {name: torch.as_tensor(v) for name, v in self.sums.items()}}
        if self.average:
            tensors["average"] = self.average.state_dict()
        name = f"checkpoint-{self.epoch:04d}-{self.state.step:06d}"
        self.checkpoints.save(name, tensors, vars(self.state))

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if (found := self.checkpoints.resume()) is None:
            return
        progress, tensors = found
        self.state = _State(**progress)
        self.sums = {name: total.to(self.accelerator.device) for name, total in tensors["sums"].items()}
        self.best_weights = tensors["best"] or None
        if self.average:
            self.average.load_state_dict(tensors["average"])
        self.log(f"resumed at epoch {self.epoch + 1}, step {self.state.step}")

    def finish(self) -> list[dict]:
        self.bare.load_state_dict(self.best_weights)
        self.bare.eval()
        self.accelerator.free_memory()
        return self.state.history


def _parts(model: nn.Module, settings: TrainingSettings) -> dict[str, Part]:
    """The model's own optimizers, or one AdamW over all weights that are trained."""
    if hasattr(model, "optimizers"):
        named = model.optimizers(settings)
        return {name: part if isinstance(part, Part) else Part(part) for name, part in named.items()}
    groups = model.parameter_groups(settings.learning_rate) if hasattr(model, "parameter_groups") else None
    optimizer = torch.optim.AdamW(
        groups or [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over all weights instead of a dozen over each
    )
    return {"model": Part(optimizer)}


def _require_finite(numbers: Mapping[str, float], epoch: int) -> None:
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ValueError(f"epoch {epoch}: {name} is {value}, expected a finite number")


def _to(batch: Mapping, device: torch.device) -> dict:
    """The batch on the device; a GPU copies while it computes."""
    if device.type != "cuda":
        return dict(batch)
    pinned = {name: v.pin_memory() if isinstance(v, torch.Tensor) else v for name, v in batch.items()}
    return {name: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for name, v in pinned.items()}
