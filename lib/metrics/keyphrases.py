"""Keyphrases: how many of the first k predicted phrases are right and how early those come, comparing word stems."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from lib.names import require_known

Phrases = Sequence[str]

METRICS = ("F1@1", "F1@3", "F1@5", "MAP@5", "NDCG@5")
PARTS = ("", "present/", "absent/")  # all of a post's keyphrases, those that its source contains, and the others
NOT_IN_A_PHRASE = {"<unk>", ",", "."}
TINY = 1e-9  # nothing over nothing is nothing


def evaluate(predictions: Sequence[Phrases], targets: Sequence[Phrases], sources: Sequence[str]) -> dict[str, float]:
    """Keyphrase scores {"F1@1", "F1@3", "F1@5", "MAP@5", "NDCG@5"}, and each as "present/..." and "absent/...".

    predictions: the phrases of each of N posts, best first; targets: its keyphrases in any order; sources: its text,
    with " <sep> " and the picture's words after it where those count as text. Words are what spaces divide, compared
    in lower case and by their Porter stems. A predicted phrase that came before, or has `<unk>`, a comma or a full
    stop for a word, is dropped, as is a target that came before, and a phrase without words. Scores are in percent:

    - F1@k is the harmonic mean of two means over posts: of the precision of the first k predictions (of fewer, if
      there are fewer) and of their recall. It is not a mean of F1 scores.
    - MAP@5: the precision at the rank of each right one of the first 5, summed, over the number of targets.
    - NDCG@5: gains of 1 / log2(rank + 1), over what the same right predictions would gain if they came first.

    A phrase is present if its words follow each other in the source; "present/..." is about the present predictions
    and targets alone. A post without targets, or without any of that kind, is in no mean; no post at all scores 0.0.
    This is the metric of Wang et al. 2020, released metric_utils.py.
    Raises ValueError for different numbers of posts, and for a string where phrases are expected, or the reverse.
    """
    posts = list(_posts(predictions, targets, sources))
    judged = {part: _judge(posts, part) for part in PARTS}
    summands = {part + name: _summands(judged[part], name) for part in PARTS for name in METRICS}
    return {metric: float(combine(metric, rows.sum(0))) for metric, rows in summands.items()}


def statistics(
    predictions: Sequence[Phrases], targets: Sequence[Phrases], sources: Sequence[str], metric: str
) -> np.ndarray:
    """What each post adds to the sums that `combine` turns into the metric: [N, k], for a bootstrap or a breakdown.

    The last column is 1 for a post that counts, and a row of one that does not is zero. Arguments and errors as in
    `evaluate`, whose names `metric` may have; ValueError for another.
    """
    part, name = _parsed(metric)
    return _summands(_judge(list(_posts(predictions, targets, sources)), part), name)


def combine(metric: str, sums: np.ndarray) -> np.ndarray:
    """The metric in percent [...] from sums [..., k] over any posts, each as often as one likes, of `statistics`."""
    _, name = _parsed(metric)
    sums = np.asarray(sums, dtype=float)
    means = 100 * sums[..., :-1] / np.maximum(sums[..., -1:], TINY)
    return _harmonic(means[..., 0], means[..., 1]) if name.startswith("F1") else means[..., 0]


def evaluate_aimkp(predictions: Sequence[Phrases], targets: Sequence[Phrases]) -> dict[str, float]:
    """{"F1@1", "F1@3", "MAP@5"} as AimKP defines them (AAAI 2026, released metrics.py): not comparable to `evaluate`.

    F1@k is a mean of the posts' F1, with precision over k however few predictions there are, and recall over all
    targets, repeated ones too. MAP@5 is the mean precision of the first 1, 2, ... 5 predictions, right or wrong, as
    far as there are any: fewer predictions score higher. Nothing is dropped, and a right phrase counts once.
    In percent; posts without targets are left out; errors as in `evaluate`.
    """
    _check_posts(predictions=predictions, targets=targets)
    pairs = [(_stems(guesses), _stems(wanted)) for guesses, wanted in zip(predictions, targets, strict=True) if wanted]
    scores = np.array([_aimkp(*pair) for pair in pairs]).reshape(-1, 3)
    return dict(zip(("F1@1", "F1@3", "MAP@5"), (100 * scores.sum(0) / max(len(pairs), 1)).tolist(), strict=True))


def _aimkp(predicted: list[str], targets: list[str]) -> list[float]:
    found = [len(set(predicted[:k]) & set(targets)) for k in range(1, 6)]
    f1 = [float(_harmonic(found[k - 1] / k, found[k - 1] / len(targets))) for k in (1, 3)]
    depth = min(len(predicted), 5)
    return [*f1, sum(found[k - 1] / k for k in range(1, depth + 1)) / max(depth, 1)]


# ---- from words to stems ----


@cache
def stem(word: str) -> str:
    """The lower-cased word without its suffixes: NLTK's Porter stemmer, which has rules that Porter's has not."""
    return _stemmer().stem(word.lower())


@cache
def _stemmer():
    from nltk.stem.porter import PorterStemmer  # here, because NLTK is slow to import, and a model needs no stems

    return PorterStemmer()


def _stems(phrases: Iterable[str]) -> list[str]:
    return [" ".join(map(stem, phrase.split())) for phrase in phrases]


def is_present(phrase: str, source: str) -> bool:
    """Whether the stems of a phrase's words follow each other in those of a source."""
    return _contains(*_stems([source, phrase]))


def _contains(source: str, phrase: str) -> bool:
    return f" {phrase} " in f" {source} "


class _Post(NamedTuple):
    """A post in stems, without what the metric drops."""

    predicted: list[str]
    targets: list[str]
    source: str


def _posts(predictions: Sequence[Phrases], targets: Sequence[Phrases], sources: Sequence[str]) -> Iterator[_Post]:
    _check_posts(predictions=predictions, targets=targets)
    _check_sources(sources, len(predictions))
    for guesses, wanted, source in zip(predictions, targets, sources, strict=True):
        predicted = [phrase for phrase in _distinct(guesses) if NOT_IN_A_PHRASE.isdisjoint(phrase.split())]
        yield _Post(predicted, _distinct(wanted), *_stems([source]))


def _distinct(phrases: Phrases) -> list[str]:
    """The stemmed phrases that have words, each once, in their order."""
    return [phrase for phrase in dict.fromkeys(_stems(phrases)) if phrase]


# ---- from posts to scores ----


class _Judged(NamedTuple):
    """N posts as arrays: which prediction is right [N, K], how many predictions [N] and how many targets [N]."""

    hits: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray


def _judge(posts: list[_Post], part: str) -> _Judged:
    sides = [(_of_part(post.predicted, post, part), _of_part(post.targets, post, part)) for post in posts]
    predicted, targets = (np.array([len(pair[side]) for pair in sides], dtype=int) for side in (0, 1))
    hits = np.zeros((len(posts), max([5, *predicted])), dtype=bool)
    for row, (guesses, wanted) in zip(hits, sides, strict=True):
        row[: len(guesses)] = [guess in wanted for guess in guesses]
    return _Judged(hits, predicted, targets)


def _of_part(phrases: list[str], post: _Post, part: str) -> list[str]:
    return [phrase for phrase in phrases if not part or _contains(post.source, phrase) == (part == "present/")]


def _summands(judged: _Judged, name: str) -> np.ndarray:
    kind, k = name.split("@")
    values = {"F1": _precision_and_recall, "MAP": _average_precision, "NDCG": _ndcg}[kind](judged, int(k))
    return np.column_stack([values, np.ones(len(values))]) * (judged.targets > 0)[:, None]


def _precision_and_recall(judged: _Judged, k: int) -> np.ndarray:
    found = judged.hits[:, :k].sum(1)  # (N,)
    wholes = np.column_stack([np.minimum(judged.predicted, k), judged.targets])  # (N, 2)
    return found[:, None] / np.maximum(wholes, 1)


def _average_precision(judged: _Judged, k: int) -> np.ndarray:
    hits = judged.hits[:, :k]  # (N, k)
    precision = hits.cumsum(1) / np.arange(1, k + 1)  # (N, k)
    return (hits * precision).sum(1) / np.maximum(judged.targets, 1)


def _ndcg(judged: _Judged, k: int) -> np.ndarray:
    gains = 1 / np.log2(np.arange(2, k + 2))  # (k,)
    best = np.concatenate([[TINY], gains.cumsum()])  # the gain of 0 to k right ones that come first
    return judged.hits[:, :k] @ gains / best[np.minimum(judged.hits.sum(1), k)]


def _harmonic(precision: float | np.ndarray, recall: float | np.ndarray) -> np.ndarray:
    return 2 * precision * recall / np.maximum(precision + recall, TINY)


# ---- checks ----


def _parsed(metric: str) -> tuple[str, str]:
    """The part and the name: "present/F1@1" is ("present/", "F1@1"), "F1@1" is ("", "F1@1")."""
    require_known("metric", metric, [part + name for part in PARTS for name in METRICS])
    part, slash, name = metric.rpartition("/")
    return part + slash, name


def _check_posts(**sides: Sequence[Phrases]) -> None:
    lengths = {name: len(posts) for name, posts in sides.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"there are {lengths['predictions']} predictions, but {lengths['targets']} targets")
    for name, posts in sides.items():
        for post, phrases in enumerate(posts):
            if isinstance(phrases, str):
                raise ValueError(f"{name} of post {post} are the string {phrases!r}, expected a list of phrases")


def _check_sources(sources: Sequence[str], count: int) -> None:
    if len(sources) != count:
        raise ValueError(f"there are {count} predictions, but {len(sources)} sources")
    for post, source in enumerate(sources):
        if not isinstance(source, str):
            raise ValueError(f"source of post {post} is {source!r}, expected a string")
