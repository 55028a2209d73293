"""Which trained model a notebook looks into."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib import predict
from lib.report.shipping import models
from lib.run.paper import find_paper
from lib.run.store import REPORTS, on_dev, read


def to_look_into(paper: str, runs: pd.DataFrame, parameters: Mapping, reports: Path = REPORTS) -> tuple[Any, str]:
    """A trained model as a predictor, and what it is: the one that the report ships, or, where parameters are not the
    notebook's own or none ships, of one's own `runs` (rows of `experiment.ablate`) the one that is best on dev.

    Raises FileNotFoundError where there is neither; a record that a report carries has no weights.
    """
    found = find_paper(paper)
    found_runs = map(read, map(Path, runs["folder"]))
    own = [result for result in found_runs if result.paper == paper]
    mine = [result for result in own if result.has_weights and result.history]  # that have learned something
    if models(paper, reports) and (as_given(parameters) or not mine):
        return predict.load(paper), f"{found.VARIANTS[found.shown].title}, the trained model that the report ships"
    if not mine:
        raise FileNotFoundError(f"{paper}: found records of runs only; train one of them with lib.run")
    best = max(mine, key=on_dev)
    title = found.VARIANTS[best.variant].title
    among = "" if all(result.has_weights for result in own) else " of those whose weights are here"
    return predict.load(best.folder), f"{title}, seed {best.seed}, the best on dev{among}"


def as_given(parameters: Mapping) -> bool:
    """Whether a notebook's parameters are those it is stored with: IconWorld, smoke, one seed, nothing else said."""
    stored = {"profile": "smoke", "seeds": [0]} | {"dataset": parameters["dataset"]}
    said = {name: value for name, value in parameters.items() if value is not None}
    return said == stored and parameters["dataset"].startswith("iconworld")
