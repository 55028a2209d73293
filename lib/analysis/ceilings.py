"""Looking inside retrieval: what is true of the pictures that a model finds."""

from collections.abc import Mapping

import pandas as pd

from lib.corpora.iconworld.captions import ceiling, decided_by, readings
from lib.metrics import retrieval
from lib.tasks.retrieval import RECALLS, RetrievalData

DETAILS = ("noun", "colour", "background", "company", "relation")  # from easy to hard


def true_pictures(data: RetrievalData) -> list[set[int]]:
    """For each caption of the test split the pictures that it is true of.

    Only one of them owns the caption and counts as right. On IconWorld the others are known by construction;
    elsewhere nobody knows, and it is the owner alone.
    """
    if not data.corpus.name.startswith("iconworld"):
        return [{owner} for owner in data.test.owner.tolist()]
    test = data.corpus.test
    return [set(readings(test)[meaning]) for index in range(len(test)) for meaning in test.told(index)]


def perfect_reader(data: RetrievalData) -> dict[str, float]:
    """Test recalls in percent of a reader who knows what each caption is true of; empty where nobody can say."""
    if not data.corpus.name.startswith("iconworld"):
        return {}
    best = ceiling(data.corpus.test)
    return {name: best[name[:3]][name[4:]] for name in RECALLS} | {"rsum": best["rsum"]}


def by_detail(predictions: Mapping, data: RetrievalData, similarity: retrieval.Similarity = "cosine") -> pd.DataFrame:
    """How often a sentence's picture is found first, in percent, by the hardest detail that the sentence needs: beside
    a trained model, whose `predictions` of the test split these are, a perfect reader. Empty where nobody can say."""
    if not data.corpus.name.startswith("iconworld"):
        return pd.DataFrame()
    test = data.corpus.test
    _, ranks = retrieval.ranks(predictions["images"], predictions["sentences"], predictions["owner"], similarity)
    told = [(index, meaning) for index in range(len(test)) for meaning in test.told(index)]
    best = [100 * _first(readings(test)[meaning], owner) for owner, meaning in told]
    table = pd.DataFrame({"detail": decided_by(test), "model": 100.0 * (ranks < 1).double(), "perfect reader": best})
    groups = table.groupby("detail")
    means = groups.mean().assign(sentences=groups.size())
    return means.reindex([detail for detail in DETAILS if detail in means.index]).reset_index()


def _first(chances: Mapping[int, float], owner: int) -> float:
    """The chance to put the owner first, of a reader who ranks by the chance to be told so, ties in random order."""
    rounded = {picture: round(chance, 12) for picture, chance in chances.items()}
    tied = [picture for picture, chance in rounded.items() if chance == max(rounded.values())]
    return (owner in tied) / len(tied)
