"""A paper as small as can be, with all that a paper may need: two stages of which the first reads another corpus, two
tasks under one parent, noise, an adversarial pair with batches of its own, two outputs, an error to be minimised.

An encoder is pretrained against a critic to give back points of one corpus; on the other it serves two heads that tell
the points' norm (task "norm") or whether it is above one (task "side").
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import nn

from lib.run.paper import Paper, Task, Variant
from lib.run.settings import TrainingSettings
from lib.run.training import Part, batch_plan

METRICS = ("linear:RMSE", "deep:RMSE")  # of two outputs


@dataclass(frozen=True)
class Settings(TrainingSettings):
    dataset: str = "round"
    noise: float = 0.0
    width: int = 4
    asked: str = "norm"  # or "side", or "copy" for the pretraining
    encoder: str = "none"  # or "run:pretrain"


@dataclass
class Split:
    points: torch.Tensor  # (N, 3)
    lengths: np.ndarray

    def plan(self, seed: int, epoch: int, part: str) -> list[np.ndarray]:
        return batch_plan(self.lengths, 8 if part == "critic" else 16, seed, epoch)

    def batch(self, indices, random, part) -> dict[str, torch.Tensor]:
        keep = random.random((len(indices), 3)) > 0.1
        return {"x": self.points[indices] * torch.from_numpy(keep), "whole": self.points[indices]}


@dataclass
class Data:
    train: Split
    dev: Split
    test: Split
    fingerprint: str


@lru_cache
def points(dataset: str, noise: float, encoder: str) -> Data:
    random = np.random.default_rng(len(dataset))
    splits = []
    for count in (64, 32, 48):
        clean = random.normal(size=(count, 3)) * (2 if dataset == "wide" else 1)
        noisy = clean + noise * random.normal(size=clean.shape)
        splits.append(Split(torch.tensor(noisy, dtype=torch.float32), np.arange(count) % 5))
    return Data(*splits, f"{dataset}/{noise}/{encoder}")


class Model(nn.Module):
    def __init__(self, settings: Settings):
        super().__init__()
        width, self.asked = settings.width, settings.asked
        self.encoder = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Dropout(0.1))
        deep = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))
        self.heads = nn.ModuleDict({"linear": nn.Linear(width, 3), "deep": deep})
        self.critic = nn.Linear(3, 1)

    def optimizers(self, settings: Settings) -> dict:
        makers = [*self.encoder.parameters(), *self.heads.parameters()]
        maker = torch.optim.AdamW(makers, lr=settings.learning_rate)
        critic = torch.optim.SGD(self.critic.parameters(), lr=0.1)
        return {"maker": maker} | ({"critic": Part(critic, schedule="linear")} if self.asked == "copy" else {})

    def losses(self, part, batch, progress) -> dict[str, torch.Tensor]:
        made = self.heads["deep"](self.encoder(batch["x"]))
        if part == "critic":
            return {"critic": self.critic(made.detach()).mean() - self.critic(batch["whole"]).mean()}
        found = {f"{name} loss": loss for name, loss in self.errors(batch).items()}
        fooling = -progress.share * self.critic(made).mean()
        return found | ({"fooling": 0.1 * fooling} if self.asked == "copy" else {})

    def errors(self, batch) -> dict[str, torch.Tensor]:
        goal = target(batch["whole"], self.asked)
        return {name: (head(self.encoder(batch["x"]))[:, : goal.shape[1]] - goal).square().mean()
                for name, head in self.heads.items()}  # fmt: skip


def target(x: torch.Tensor, asked: str) -> torch.Tensor:
    norm = x.norm(dim=1, keepdim=True)
    return {"copy": x, "norm": norm, "side": (norm > 1).float()}[asked]


def predict(model: Model, split: Split, quick: bool = False) -> dict:
    model.eval()
    with torch.no_grad():
        heads = {name: head(model.encoder(split.points)) for name, head in model.heads.items()}
    goal = target(split.points, model.asked)
    return {"goal": goal, **{name: made[:, : goal.shape[1]] for name, made in heads.items()}}


def statistics(predictions: dict, metric: str) -> np.ndarray:
    squares = (predictions[metric.split(":")[0]] - predictions["goal"]).square().mean(1)
    return torch.stack([squares, torch.ones(len(squares))], 1).numpy()


def combine(metric: str, sums: np.ndarray) -> np.ndarray:
    return np.sqrt(sums[..., 0] / np.maximum(sums[..., 1], 1))


def score(predictions: dict) -> dict[str, float]:
    return {metric: float(combine(metric, statistics(predictions, metric).sum(0))) for metric in METRICS}


def task(settings: Settings) -> Task:
    return Task(
        load=lambda settings: points(settings.dataset, settings.noise, settings.encoder),
        prepare=lambda data: None,
        context=lambda data, parent_context: {"seen": [data.fingerprint, *(parent_context or {}).get("seen", [])]},
        predict=predict, score=score, monitor="deep:RMSE", mode="min", unit="point",
        metrics=METRICS, statistics=statistics, combine=combine,
        groups=lambda data: {"far": (data.test.points.norm(dim=1) > 1).numpy()},
    )  # fmt: skip


def build(context: dict, settings: Settings) -> Model:
    return Model(settings)


def initialise(model: Model, context: dict, settings: Settings, parent=None) -> None:
    if parent is not None:
        model.load_state_dict(parent.weights())


def stage(title: str, output: str, **changes) -> Variant:
    parent = dict(parent="pretrain", passes=("width",), parent_changes=dict(dataset="wide"))
    return Variant(title, changes, output=output, **parent)


PROFILES = {"smoke": dict(epochs=3, learning_rate=0.01, average=0.9, clip=1.0), "small": dict(epochs=6)}
VARIANTS = {
    "pretrain": Variant("pretraining", dict(asked="copy"), hands=("width",)),
    "norm-linear": stage("norm, linear head", "linear"),
    "norm": stage("norm, deep head", "deep"),
    "side": stage("side, deep head", "deep", asked="side"),
    "read": Variant("with another run as encoder", dict(encoder="run:pretrain"), output="deep"),
}
PAPER = Paper("toy", Settings, PROFILES, VARIANTS, task, build, initialise, partial(dict))
