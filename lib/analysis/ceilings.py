"""Looking inside retrieval: what is true of the pictures that a model finds."""

from lib.corpora.iconworld.captions import ceiling, readings
from lib.tasks.retrieval import RECALLS, RetrievalData


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
