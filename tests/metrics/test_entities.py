"""Entity scores against conlleval's token-by-token counting, and against IOB2 read word by word."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.metrics.entities import chunks, confusion, counts, counts_by_type, evaluate

SCHEMES = ("lenient", "strict")
TYPES = ("PER", "LOC", "creative-work")
TAGS = ("O", *(f"{prefix}-{type}" for prefix in "BI" for type in TYPES))

tag = st.sampled_from(TAGS)
token = tag.flatmap(lambda gold: st.tuples(st.just(gold), st.one_of(st.just(gold), tag)))  # half of them predicted
corpora = st.lists(st.lists(token, max_size=9), max_size=5).map(
    lambda sentences: tuple([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
)
segment = st.tuples(st.sampled_from((None, *TYPES)), st.integers(1, 3))
valid_sentence = st.lists(segment, max_size=5).map(
    lambda segments: [
        tag
        for type, length in segments
        for tag in (["O"] * length if type is None else [f"B-{type}"] + [f"I-{type}"] * (length - 1))
    ]
)
each_function = pytest.mark.parametrize("function", (evaluate, counts, counts_by_type, confusion))
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)
few = settings(deadline=None, max_examples=60)


# ---- what is an entity ----


@pytest.mark.parametrize(
    ("tags", "lenient", "strict"),
    [
        ("", [], []),
        ("O O", [], []),
        ("B-PER", [("PER", 0, 1)], [("PER", 0, 1)]),
        ("O B-PER I-PER O", [("PER", 1, 3)], [("PER", 1, 3)]),
        ("B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)], [("PER", 0, 1), ("PER", 1, 3)]),
        ("B-PER B-LOC", [("PER", 0, 1), ("LOC", 1, 2)], [("PER", 0, 1), ("LOC", 1, 2)]),
        # not valid: I at the start, after O, after another type, and what follows such an I
        ("I-PER", [("PER", 0, 1)], []),
        ("I-PER I-PER O", [("PER", 0, 2)], []),
        ("O I-PER I-PER", [("PER", 1, 3)], []),
        ("I-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)], [("PER", 1, 3)]),
        ("B-PER O I-PER", [("PER", 0, 1), ("PER", 2, 3)], [("PER", 0, 1)]),
        ("B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)], [("PER", 0, 1)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)], [("PER", 0, 1)]),
        ("B-PER I-LOC I-PER", [("PER", 0, 1), ("LOC", 1, 2), ("PER", 2, 3)], [("PER", 0, 1)]),
        ("I-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)], []),
        ("B-PER I-PER I-LOC B-LOC", [("PER", 0, 2), ("LOC", 2, 3), ("LOC", 3, 4)], [("PER", 0, 2), ("LOC", 3, 4)]),
        # types are what follows the first hyphen
        ("B-a-b I-a-b I-a-c", [("a-b", 0, 2), ("a-c", 2, 3)], [("a-b", 0, 2)]),
        ("B-O I-B", [("O", 0, 1), ("B", 1, 2)], [("O", 0, 1)]),
    ],
)
def test_entities_of_every_shape(tags, lenient, strict):
    assert chunks(tags.split()) == chunks(tags.split(), "lenient") == lenient
    assert chunks(tags.split(), "strict") == strict


def iob2(tags):
    """Each B with the I of its type that follow without a gap, and nothing else."""
    found = set()
    for start, tag in enumerate(tags):
        if tag.startswith("B-"):
            end = start + 1
            while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                end += 1
            found.add((tag[2:], start, end))
    return found


@given(st.lists(tag, max_size=12))
@few
def test_strict_is_iob2(tags):
    found = chunks(tags, "strict")
    assert set(found) == iob2(tags) and found == sorted(found, key=lambda chunk: chunk[1])
    assert len(found) == sum(tag.startswith("B-") for tag in tags)


@given(st.lists(tag, max_size=12))
@few
def test_lenient_entities_cover_every_tagged_token_once(tags):
    covered = [(position, type) for type, start, end in chunks(tags) for position in range(start, end)]
    assert covered == [(position, tag[2:]) for position, tag in enumerate(tags) if tag != "O"]


@given(valid_sentence)
@few
def test_schemes_agree_on_valid_tags(tags):
    assert chunks(tags, "lenient") == chunks(tags, "strict")


# ---- scores ----


def starts(before, here):
    """conlleval's startOfChunk for O, B and I."""
    return here[0] == "B" or (here[0] == "I" and (before[0] == "O" or before[1] != here[1]))


def ends(before, here):
    """conlleval's endOfChunk for O, B and I."""
    return before[0] != "O" and (here[0] in "OB" or before[1] != here[1])


def conlleval(gold, predicted):
    """Correct, predicted and gold entities of each type as conlleval counts them: one pass, token by token."""
    totals = {"correct": Counter(), "predicted": Counter(), "gold": Counter()}
    for sentence in zip(gold, predicted, strict=True):
        open_type, before = None, [("O", ""), ("O", "")]
        for position in range(len(sentence[0]) + 1):
            here = [(tags[position][0], tags[position][2:]) if position < len(tags) else ("O", "") for tags in sentence]
            ended = [ends(*tags) for tags in zip(before, here, strict=True)]
            started = [starts(*tags) for tags in zip(before, here, strict=True)]
            if open_type and all(ended):
                totals["correct"][open_type] += 1
            if any(ended):
                open_type = None
            if all(started) and here[0][1] == here[1][1]:
                open_type = here[0][1]
            elif any(started):
                open_type = None
            totals["gold"][here[0][1]] += started[0]
            totals["predicted"][here[1][1]] += started[1]
            before = here
    return totals


def harmonic(precision, recall):
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def expected_scores(correct, predicted, gold):
    precision, recall = (100 * correct / whole if whole else 0.0 for whole in (predicted, gold))
    return pytest.approx({"precision": precision, "recall": recall, "f1": harmonic(precision, recall)})


def without(key, scores):
    return {name: value for name, value in scores.items() if name != key}


@given(corpora)
@settings(deadline=None, max_examples=200)
def test_lenient_scores_are_those_of_conlleval(corpus):
    totals, result = conlleval(*corpus), evaluate(*corpus)
    assert without("per_type", result) == expected_scores(*(side.total() for side in totals.values()))
    assert set(result["per_type"]) == {type for side in totals.values() for type, count in side.items() if count}
    for type, scores in result["per_type"].items():
        assert without("support", scores) == expected_scores(*(side[type] for side in totals.values()))
        assert scores["support"] == totals["gold"][type]


@given(corpora)
@few
def test_strict_counts_are_those_of_iob2(corpus):
    gold, predicted = ([iob2(tags) for tags in side] for side in corpus)
    expected = [[len(ours & theirs), len(theirs), len(ours)] for ours, theirs in zip(gold, predicted, strict=True)]
    assert counts(*corpus, "strict").tolist() == expected


def test_scores_of_a_known_case():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O", "B-PER"], ["O"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "I-LOC", "O"], ["I-ORG"]]
    result = evaluate(gold, predicted)  # right: one PER of the four gold and of the four predicted
    assert without("per_type", result) == {"precision": 25, "recall": 25, "f1": 25}
    assert result["per_type"] == {
        "LOC": {"precision": 0, "recall": 0, "f1": 0, "support": 2},
        "ORG": {"precision": 0, "recall": 0, "f1": 0, "support": 0},
        "PER": {"precision": 50, "recall": 50, "f1": 50, "support": 2},
    }
    assert list(result["per_type"]) == ["LOC", "ORG", "PER"]
    assert "ORG" not in evaluate(gold, predicted, "strict")["per_type"]
    assert evaluate(gold, predicted, "strict")["precision"] == pytest.approx(100 / 3)
    assert counts(gold, predicted).tolist() == [[1, 2, 2], [0, 1, 2], [0, 1, 0]]
    assert counts_by_type(gold, predicted)["PER"].tolist() == [[1, 2, 1], [0, 0, 1], [0, 0, 0]]


@each_scheme
@pytest.mark.parametrize("gold", ([], [[]], [["O", "O"], ["O"]]))
def test_without_entities_every_score_is_zero(gold, scheme):
    assert evaluate(gold, gold, scheme) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "per_type": {}}
    assert counts(gold, gold, scheme).tolist() == [[0, 0, 0]] * len(gold)


def test_results_are_plain_numbers():
    result = evaluate([["B-PER", "O"]], [["B-PER", "B-LOC"]])
    assert json.loads(json.dumps(result)) == result and "np." not in repr(result)


@each_scheme
@given(corpora)
@few
def test_a_perfect_prediction_gets_everything(scheme, corpus):
    result, table = evaluate(corpus[0], corpus[0], scheme), counts(corpus[0], corpus[0], scheme)
    perfect = {"precision": 100, "recall": 100, "f1": 100}
    for scores in result["per_type"].values():
        assert without("support", scores) == perfect
    if result["per_type"]:
        assert without("per_type", result) == perfect
    assert (table == table[:, :1]).all()


@each_scheme
@given(corpora)
@few
def test_swapping_the_sides_swaps_precision_and_recall(scheme, corpus):
    gold, predicted = corpus
    there, back = evaluate(gold, predicted, scheme), evaluate(predicted, gold, scheme)
    assert (there["precision"], there["recall"], there["f1"]) == (back["recall"], back["precision"], back["f1"])
    np.testing.assert_array_equal(counts(gold, predicted, scheme), counts(predicted, gold, scheme)[:, [0, 2, 1]])
    assert confusion(gold, predicted, scheme).T.values.tolist() == confusion(predicted, gold, scheme).values.tolist()


@each_scheme
@given(corpora)
@few
def test_counts_add_up_over_sentences_and_types(scheme, corpus):
    table, result = counts(*corpus, scheme), evaluate(*corpus, scheme)
    assert table.shape == (len(corpus[0]), 3)
    alone = [counts([gold], [predicted], scheme) for gold, predicted in zip(*corpus, strict=True)]
    np.testing.assert_array_equal(table, np.concatenate([np.zeros((0, 3)), *alone]))
    by_type = counts_by_type(*corpus, scheme)
    np.testing.assert_array_equal(table, sum(by_type.values(), np.zeros_like(table)))
    assert without("per_type", result) == expected_scores(*table.sum(0))
    assert {type: rows.sum(0)[2] for type, rows in by_type.items()} == {
        type: scores["support"] for type, scores in result["per_type"].items()
    }


@each_scheme
@given(corpora, st.randoms(use_true_random=False))
@few
def test_the_order_of_sentences_does_not_matter(scheme, corpus, random):
    order = random.sample(range(len(corpus[0])), len(corpus[0]))
    shuffled = [[side[sentence] for sentence in order] for side in corpus]
    assert evaluate(*shuffled, scheme) == evaluate(*corpus, scheme)
    np.testing.assert_array_equal(counts(*shuffled, scheme), counts(*corpus, scheme)[order])
    assert confusion(*shuffled, scheme).equals(confusion(*corpus, scheme))


def test_an_entity_is_right_in_its_own_sentence_only():
    assert counts([["B-PER"], ["O"]], [["O"], ["B-PER"]]).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_any_sequence_of_strings_is_a_sentence():
    gold, predicted = [("B-PER", "I-PER")], [np.array(["B-PER", "I-PER"])]
    assert evaluate(gold, predicted)["f1"] == 100


@each_function
def test_unless_told_otherwise_scores_are_lenient(function):
    tags = [["O", "I-PER"]]
    default, lenient, strict = (repr(function(tags, tags, *scheme)) for scheme in ((), ("lenient",), ("strict",)))
    assert default == lenient != strict


# ---- confusion ----


def test_confusion_of_a_known_case():
    gold = [["B-PER", "O", "B-LOC", "B-LOC", "I-LOC"], ["B-PER", "B-PER"]]
    predicted = [["B-LOC", "O", "B-LOC", "B-LOC", "O"], ["B-PER", "B-ORG"]]
    table = confusion(gold, predicted)
    assert (table.index.name, table.columns.name) == ("gold", "predicted")
    assert (list(table.index), list(table.columns)) == (["LOC", "PER", "none"], ["LOC", "ORG", "PER", "none"])
    assert table.values.tolist() == [[1, 0, 0, 1], [1, 1, 1, 0], [1, 0, 0, 0]]


def test_confusion_without_entities():
    assert confusion([["O"]], [["O"]]).to_dict() == {"none": {"none": 0}}


@each_scheme
@given(corpora)
@few
def test_confusion_adds_up_to_the_counts(scheme, corpus):
    table, by_type = confusion(*corpus, scheme), counts_by_type(*corpus, scheme)
    totals = {type: rows.sum(0).tolist() for type, rows in by_type.items()}
    assert table.loc["none", "none"] == 0
    assert table.sum(axis=1).drop("none").to_dict() == {t: gold for t, (_, _, gold) in totals.items() if gold}
    assert table.sum(axis=0).drop("none").to_dict() == {t: said for t, (_, said, _) in totals.items() if said}
    diagonal = {type: table.get(type, {}).get(type, 0) for type in totals}
    assert diagonal == {type: correct for type, (correct, _, _) in totals.items()}


# ---- bad input ----

BAD_TAGS = ("X", "[CLS]", "[SEP]", "PAD", "", 0, None, "B", "I-", "B_PER", "S-PER", "b-PER", "o", "O-PER", "O-", "-PER")


@pytest.mark.parametrize("bad", BAD_TAGS)
@each_scheme
def test_what_is_no_tag_is_named_and_special_labels_are_to_become_o(bad, scheme):
    with pytest.raises(ValueError) as error:
        chunks(["O", "B-PER", bad], scheme)
    expected = "expected O, B-type or I-type: map special labels (X, [CLS], [SEP], padding) to O first"
    assert str(error.value) == f"token 2: found {bad!r}, {expected}"


@each_function
def test_a_bad_tag_is_found_with_its_side_and_sentence(function):
    good, bad = [["O"], ["O", "O"]], [["O"], ["O", "X"]]
    with pytest.raises(ValueError, match="^gold sentence 1, token 1: found 'X', expected O, B-type or I-type"):
        function(bad, good)
    with pytest.raises(ValueError, match="^predicted sentence 1, token 1: found 'X', expected O, B-type or I-type"):
        function(good, bad)


@each_function
def test_lengths_that_differ_are_named(function):
    with pytest.raises(ValueError, match="there are 2 gold, but 1 predicted sentences"):
        function([["O"], ["O"]], [["O"]])
    with pytest.raises(ValueError, match="sentence 1 has 3 gold, but 2 predicted tags"):
        function([["O"], ["O", "O", "O"]], [["O"], ["O", "O"]])


@each_function
def test_an_unknown_scheme_is_named_even_without_sentences(function):
    with pytest.raises(ValueError, match="^scheme is 'lenient' or 'strict', got 'iobes'"):
        function([], [], "iobes")
    with pytest.raises(ValueError, match="^scheme is 'lenient' or 'strict', got 'iobes'"):
        chunks(["O"], "iobes")


def test_a_type_called_none_has_no_place_in_the_confusion():
    tags = [["B-none"]], [["O"]]
    for gold, predicted in (tags, tags[::-1]):
        assert evaluate(gold, predicted)["f1"] == 0
        with pytest.raises(ValueError, match="an entity has the type 'none', where .* counted: rename it"):
            confusion(gold, predicted)
