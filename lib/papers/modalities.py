"""Looking inside posts: what decides them, and whether a model notices a picture that is another post's."""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd

from lib import experiment, predict
from lib.corpora.iconworld.entities import decided_by, matched
from lib.encoders.cache import Features
from lib.metrics import entities
from lib.papers import tagging
from lib.papers.tagging import RATIOS, Split, TaggingData
from lib.precision import device


def kinds(data: TaggingData) -> dict[str, np.ndarray]:
    """Masks [N] of the test posts by what decides their types, and by whose picture they show; empty where nobody
    knows, that is everywhere but on IconWorld."""
    if not data.corpus.name.startswith("iconworld"):
        return {}
    decided, own = np.array(decided_by(data.corpus.test)), np.array(matched(data.corpus.test))
    masks = {f"{kind} decides": decided == kind for kind in ("picture", "text", "neither")}
    return {**masks, "its own picture": own, "another's picture": ~own}


def by_kind(runs: pd.DataFrame, data: TaggingData) -> pd.DataFrame:
    """Lenient F1 of each run (a row of `experiment.ablate`) on each kind of test post: variant, seed, kind, F1."""
    masks, rows = kinds(data), []
    for run in runs.to_dict("records"):
        scores = f1_by_kind(experiment.predictions(Path(run["folder"])), masks)
        of = {"variant": run["variant"], "seed": run["seed"]}
        rows += [{**of, "kind": kind, "F1": scores[kind]} for kind in masks]
    return pd.DataFrame(rows, columns=["variant", "seed", "kind", "F1"])


def f1_by_kind(said: Mapping, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Lenient F1 in percent of what `tagging.predict` said, of all posts and of those of each mask [N]."""
    counts, scores = entities.counts(said["gold"], said["said"]), {}  # [N, 3]
    for kind, mask in {"all": slice(None), **masks}.items():
        above, below = np.array(RATIOS["F1"]) @ counts[mask].sum(0)
        scores[kind] = 100 * above / max(1, below)
    return scores


def judged(folder: str | Path, data: TaggingData) -> pd.DataFrame:
    """How likely a run's model finds the test pictures to be their posts' own: `matching`, and whether they are, `own`.
    `data` is as this run saw it: its padding, its batch-norm.

    On IconWorld some pictures are another post's. Elsewhere each post is judged twice, with its picture and with that
    of the next post that has one; empty where there are no two pictures.
    """
    matching, own = experiment.predictions(Path(folder))["matching"], kinds(data).get("its own picture")
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
