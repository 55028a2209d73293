"""Looking inside posts: what decides them, and whether a model notices a picture that is another post's."""

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib import predict
from lib.corpora.iconworld.draw import Scene
from lib.corpora.iconworld.entities import EVIDENCE, TYPE_SHOWN
from lib.corpora.types import Picture
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


def overruled(predictor, test: Split, masks: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """F1 on the test posts and on those of each mask, with CM's verdict as learned, and with another in its place:
    every picture is its post's own (p = 1), or none is (p = 0)."""
    rows = [{"CM": "as learned", **f1_by_kind(predictor.predictions, masks)}]
    for name, push in {"p = 1": 99, "p = 0": -99}.items():
        model = deepcopy(predictor.model).to(device())
        model.W_m.bias.data[1] += push
        rows.append({"CM": name, **f1_by_kind(tagging.predict(model, test), masks)})
    return pd.DataFrame(rows)


def ambiguous_post(data: TaggingData, among: Sequence[int]) -> int:
    """Of some test posts the first with one name of three possible types and words that say where and with whom; the
    first of all where nobody knows that."""
    facts = data.corpus.test.facts if groups(data) else None
    return next((i for i in among if facts and _is_open(facts(i))), among[0])


def _is_open(facts) -> bool:
    return len(facts.mentions) == 1 and len(facts.mentions[0].candidates) == 3 and bool(facts.place and facts.companion)


def other_pictures(data: TaggingData, post: int, pictures: Sequence[Picture]) -> dict[str, Picture]:
    """Pictures for a test post's words, by what they show. On IconWorld its own with another thing in it, one for each
    type, and another post's; elsewhere its own and those of the next posts that have one."""
    others = [picture for picture in [*pictures[post + 1 :], *pictures[:post]] if picture is not None]
    if not groups(data):
        return {"its own": pictures[post], **{f"another {i + 1}": other for i, other in enumerate(others[:4])}}
    changed = {f"something of {kind}": showing(pictures[post], things[0]) for kind, things in EVIDENCE.items()}
    return {**changed, "another post's": others[0]}


def showing(scene: Scene, noun: str) -> Scene:
    """The same picture, but for what shows a name: there `noun` is drawn, in the same colour and place."""
    things = [replace(thing, noun=noun) if thing.noun in TYPE_SHOWN else thing for thing in scene.objects]
    return replace(scene, objects=tuple(things))


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
