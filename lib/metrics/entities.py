"""Named entities: precision, recall and F1 over exact spans, from tags that need not be valid BIO."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

Tags = Sequence[str]
Chunk = tuple[str, int, int]  # type, start, end (exclusive)

NONE = "none"  # where `confusion` counts an entity without counterpart


def evaluate(gold: Sequence[Tags], predicted: Sequence[Tags], scheme: str = "lenient") -> dict:
    """Entity scores {"precision", "recall", "f1", "per_type": {type: {"precision", "recall", "f1", "support"}}}.

    gold and predicted: the tags of N sentences; scheme: what is an entity, see `chunks`. Scores are in percent, the
    first three micro-averaged; an entity is right if its sentence, type, start and end are (Xu et al. 2022, released
    ner_evaluate.py). `per_type` has each type with an entity on either side, "support" is its number of gold ones.
    Where there is nothing to divide by, a score is 0.0: so is F1 without an entity on either side.
    Raises ValueError for different numbers of sentences or tags, an unknown scheme, or what is not a BIO tag, counting
    sentences and tokens from 0. Special labels (X, [CLS], [SEP], padding) are refused too, because scorers disagree
    on what they would count as: map them to O first, and say so beside the score.
    """
    totals = {type: table.sum(axis=0) for type, table in counts_by_type(gold, predicted, scheme).items()}
    per_type = {type: {**_scores(*total), "support": int(total[2])} for type, total in totals.items()}
    return {**_scores(*sum(totals.values(), np.zeros(3, dtype=int))), "per_type": per_type}


def counts(gold: Sequence[Tags], predicted: Sequence[Tags], scheme: str = "lenient") -> np.ndarray:
    """How many entities of each sentence are correct, predicted, and gold [N, 3]; errors as in `evaluate`.

    Sentences are what a bootstrap resamples and a breakdown selects. Over any of the rows precision is
    correct / predicted, recall correct / gold, and F1 2 correct / (predicted + gold).
    """
    return sum(counts_by_type(gold, predicted, scheme).values(), np.zeros((len(gold), 3), dtype=int))


def counts_by_type(gold: Sequence[Tags], predicted: Sequence[Tags], scheme: str = "lenient") -> dict[str, np.ndarray]:
    """`counts` of each type of entity by itself, {type: [N, 3]} in alphabetical order."""
    tables = defaultdict(lambda: np.zeros((len(gold), 3), dtype=int))
    for sentence, (gold_chunks, predicted_chunks) in enumerate(_chunk_pairs(gold, predicted, scheme)):
        correct = set(gold_chunks) & set(predicted_chunks)
        for column, entities in enumerate((correct, predicted_chunks, gold_chunks)):
            for type, _, _ in entities:
                tables[type][sentence, column] += 1
    return dict(sorted(tables.items()))


def confusion(gold: Sequence[Tags], predicted: Sequence[Tags], scheme: str = "lenient") -> pd.DataFrame:
    """How many entities of each gold type (rows) were predicted as each type (columns), spans being exactly equal.

    A gold entity whose span was not predicted counts in the column "none", a predicted one whose span is not gold in
    the row "none". Errors as in `evaluate`; ValueError too for a type that is itself called "none".
    """
    pairs = Counter()
    for gold_chunks, predicted_chunks in _chunk_pairs(gold, predicted, scheme):
        gold_types, predicted_types = _type_of_span(gold_chunks), _type_of_span(predicted_chunks)
        spans = gold_types.keys() | predicted_types.keys()
        pairs.update((gold_types.get(span, NONE), predicted_types.get(span, NONE)) for span in spans)
    rows, columns = ([*sorted({pair[side] for pair in pairs} - {NONE}), NONE] for side in (0, 1))
    table = [[pairs[row, column] for column in columns] for row in rows]
    return pd.DataFrame(table, pd.Index(rows, name="gold"), pd.Index(columns, name="predicted"))


def chunks(tags: Tags, scheme: str = "lenient") -> list[Chunk]:
    """The entities (type, start, end) of one sentence, from left to right, end exclusive.

    Both schemes: B-x starts an entity, and each I-x right after continues it. An I-x without an x before it starts
    one too if "lenient" (conlleval, seqeval's default mode); if "strict" (IOB2) it belongs to nothing.
    Raises ValueError for an unknown scheme, or a tag that is not O, B-type or I-type.
    """
    _check_scheme(scheme)
    found, type, start = [], "", 0  # type: that of the entity that is open, if any
    for position, tag in enumerate([*tags, "O"]):  # the O after the end closes the last one
        prefix, next_type = _parse(tag, position)
        if prefix == "I" and next_type == type:
            continue
        if type:
            found.append((type, start, position))
        type, start = next_type if prefix == "B" or scheme == "lenient" else "", position
    return found


def _parse(tag: str, position: int) -> tuple[str, str]:
    """B-x as ("B", "x"), I-x as ("I", "x"), O as ("O", "")."""
    prefix, _, type = str(tag).partition("-")  # only the first hyphen: a type may have its own
    if not (tag == "O" or (prefix in ("B", "I") and type)):
        expected = "expected O, B-type or I-type: map special labels (X, [CLS], [SEP], padding) to O first"
        raise ValueError(f"token {position}: found {tag!r}, {expected}")
    return prefix, type


def _check_scheme(scheme: str) -> None:
    if scheme not in ("lenient", "strict"):
        raise ValueError(f"scheme is 'lenient' or 'strict', got {scheme!r}")


def _chunk_pairs(gold: Sequence[Tags], predicted: Sequence[Tags], scheme: str) -> Iterator[tuple[list, list]]:
    """The gold and the predicted chunks of each sentence."""
    _check_scheme(scheme)  # not only where there are sentences
    if len(gold) != len(predicted):
        raise ValueError(f"there are {len(gold)} gold, but {len(predicted)} predicted sentences")
    for sentence, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(f"sentence {sentence} has {len(gold_tags)} gold, but {len(predicted_tags)} predicted tags")
        yield _chunks_of("gold", sentence, gold_tags, scheme), _chunks_of("predicted", sentence, predicted_tags, scheme)


def _chunks_of(side: str, sentence: int, tags: Tags, scheme: str) -> list[Chunk]:
    try:
        return chunks(tags, scheme)
    except ValueError as error:
        raise ValueError(f"{side} sentence {sentence}, {error}") from None


def _scores(correct: int, predicted: int, gold: int) -> dict[str, float]:
    return {
        "precision": _percent(correct, predicted),
        "recall": _percent(correct, gold),
        "f1": _percent(2 * correct, predicted + gold),  # 2PR / (P + R), and no 0 / 0 where nothing is correct
    }


def _percent(part: int, whole: int) -> float:
    return float(100 * part / whole) if whole else 0.0


def _type_of_span(entities: list[Chunk]) -> dict[tuple[int, int], str]:
    types = {(start, end): type for type, start, end in entities}
    if NONE in types.values():
        raise ValueError(f"an entity has the type {NONE!r}, where entities without counterpart are counted: rename it")
    return types
