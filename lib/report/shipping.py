"""The trained model that a report ships: what training made of it, in half precision, with the key of its run."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file

from lib.files import replacing, write_tensors
from lib.run.paper import find_paper
from lib.run.store import RECORD, REPORTS, Result, locate, read

MOST = 16 * 2**20  # bytes a paper
KEPT = ("settings.json", "context.json", "predictions.json", *RECORD)


def ship(result: Result, folder: Path) -> Path:
    """Write the model of a run, with what it said of the test split, into the folder of that name under `folder`, and
    beside it those of the runs that serve it as encoders.

    What a new model starts from is not written: it comes from the packages of the pretrained parts. Raises ValueError
    for a model of more than MOST bytes.
    """
    paper, settings = find_paper(result.paper), settings_of(result)
    model = paper.build(result.context, settings).eval()
    paper.initialise(model, result.context, settings, None)
    fresh, trained = model.state_dict(), result.weights()
    changed = {name: w for name, w in trained.items() if w.numel() == 1 or not torch.equal(w, fresh[name])}
    made = {name: _half(weight) for name, weight in changed.items()}  # a lone number may be as it was by chance
    said = {name: _half(tensor) for name, tensor in load_file(result.folder / "predictions.safetensors").items()}
    if (size := _bytes(made.values()) + _bytes(said.values())) > MOST:
        raise ValueError(f"{result.folder}: found {size / 2**20:.1f} MB to ship, expected at most {MOST / 2**20:.0f}")
    for value in vars(settings).values():
        if isinstance(value, str) and value.startswith("run:"):
            ship(read(locate(value)), folder)
    target = folder / result.folder.name
    write_tensors(target / "model.safetensors", made)
    write_tensors(target / "predictions.safetensors", said)
    for name in KEPT:
        with replacing(target / name) as path:
            path.write_bytes((result.folder / name).read_bytes())
    return target


def models(paper: str, reports: Path = REPORTS) -> list[Path]:
    """The folders of the models to be shown that a paper's reports on IconWorld ship."""
    name, shown = find_paper(paper).name, find_paper(paper).shown
    return sorted(path.parent for path in reports.glob(f"iconworld*/{name}/model/{shown}-seed*/result.json"))


def shipped(paper: str, reports: Path = REPORTS) -> Path:
    """The last of them; FileNotFoundError where there is none."""
    found = models(paper, reports)
    if not found:
        raise FileNotFoundError(f"{reports}: found no model of {paper}; run its notebook with profile small")
    return found[-1]


def settings_of(result: Result):
    """The settings that a run's folder holds."""
    names = {field.name for field in fields(find_paper(result.paper).Settings)}
    stored = result.stored_settings()
    if stored.keys() - {"paper", "variant", "seed"} != names:
        differ = sorted((stored.keys() - {"paper", "variant", "seed"}) ^ names)
        raise ValueError(f"{result.folder}: found a run of other code, whose settings differ in {', '.join(differ)}")
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items() if name in names}
    return find_paper(result.paper).Settings(**kept)


def load_model(result: Result) -> torch.nn.Module:
    """The trained model of a run, whole or as shipped. Raises DamagedRun for a run whose files are not as written."""
    result.check(whole=True)
    paper, settings = find_paper(result.paper), settings_of(result)
    model = paper.build(result.context, settings).eval()
    weights = {name: w.float() if w.is_floating_point() else w for name, w in result.weights().items()}
    if weights.keys() != model.state_dict().keys():  # shipped: the rest is what it started from
        paper.initialise(model, result.context, settings, None)
    model.load_state_dict(weights, strict=False)
    return model


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
