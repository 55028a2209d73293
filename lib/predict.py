"""Try a trained run on your own words and pictures."""

from pathlib import Path

from lib.report.shipping import load_model, settings_of, shipped
from lib.run.paper import PAPERS, find_paper
from lib.run.store import read


def load(run: str | Path):
    """The Predictor of a finished run's folder, or of the model that a paper's report ships, by the paper's name: call
    it with `text=...`, `image=...` or both.

    Raises FileNotFoundError if the folder holds no finished run, or only the record of one, DamagedRun if its files are
    not what the run wrote, and ValueError for a run of other code.
    """
    folder = shipped(run) if run in PAPERS else Path(run)
    if not (folder / "result.json").exists():
        raise FileNotFoundError(f"{folder}: found no result.json, expected the folder of a finished run")
    result = read(folder)
    if not result.has_weights:
        raise FileNotFoundError(f"{folder}: found the record of a run without its weights; train it with lib.run")
    said = {name: _single(value) for name, value in result.predictions().items()}
    paper = find_paper(result.paper)
    return paper.predictor(load_model(result), result.context, settings_of(result), said)


def _single(value):
    """Half-precision tensors, as shipped, in the precision that a CPU computes with."""
    return value.float() if getattr(value, "is_floating_point", bool)() else value
