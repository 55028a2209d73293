"""Looking inside posts: what decides them, and whether a model notices a picture that is another post's."""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd

from lib import predict
from lib.encoders.cache import Features
from lib.metrics import entities
from lib.precision import device
from lib.run import store
from lib.run.paper import ratio
from lib.tasks import tagging
from lib.tasks.tagging import RATIOS, Split, TaggingData, groups


def by_kind(runs: pd.DataFrame, data: TaggingData) -> pd.DataFrame:
    """Lenient F1 of each run (a row of `experiment.ablate`) on each kind of test post: variant, seed, kind, F1."""
    rows = []
    for run in runs.to_dict("records"):
        result, of = store.read(run["folder"]), {"variant": run["variant"], "seed": run["seed"]}
        for kind in groups(data):
            rows.append({**of, "kind": kind, "F1": float(ratio("F1", result.statistics(f"{kind}/F1").sum(0)))})
    return pd.DataFrame(rows, columns=["variant", "seed", "kind", "F1"])


def f1_by_kind(predictions: Mapping, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Lenient F1 in percent of what `tagging.predict` found, of all posts and of those of each mask [N]."""
    counts, scores = entities.counts(predictions["gold"], predictions["predicted"]), {}  # [N, 3]
    for kind, mask in {"all": slice(None), **masks}.items():
        scores[kind] = float(ratio("F1", np.array(RATIOS["F1"]) @ counts[mask].sum(0)))
    return scores


def judged(folder: str | Path, data: TaggingData) -> pd.DataFrame:
    """How likely a run's model finds the test pictures to be their posts' own: `matching`, and whether they are, `own`.
    `data` is as this run saw it: its padding, its batch-norm.

    On IconWorld some pictures are another post's. Elsewhere each post is judged twice, with its picture and with that
    of the next post that has one; empty where there are no two pictures.
    """
    matching, own = store.predictions(Path(folder))["matching"], groups(data).get("own picture")
    if own is not None:
        return pd.DataFrame({"matching": matching, "own": own})
    present = data.test.features.present.numpy()
    if present.sum() < 2:
        return pd.DataFrame({"matching": [], "own": []})
    model = predict.load(folder).model.to(device())
    other = tagging.predict(model, exchanged(data.test))["matching"]
    shown = np.concatenate([matching[present], other[present]])
    return pd.DataFrame({"matching": shown, "own": np.repeat([True, False], present.sum())})


def exchanged(split: Split) -> Split:
    """The split with each picture in the post before, of those that have one."""
    other, features = copy(split), split.features
    positions, present = features.positions.copy(), features.present.numpy()
    positions[present] = np.roll(positions[present], -1, axis=0)
    other.features = Features(features.rows, positions)
    return other


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The chance that a positive example scores above a negative one, ties counting half (Mann and Whitney's U).

    Raises ValueError where there are only positives or only negatives.
    """
    positive = np.asarray(positive, bool)
    above, below = positive.sum(), (~positive).sum()
    if not (above and below):
        raise ValueError(f"found {above} positive and {below} negative examples, expected some of both")
    ranks = pd.Series(np.asarray(scores)).rank().to_numpy()
    return float((ranks[positive].sum() - above * (above + 1) / 2) / (above * below))
