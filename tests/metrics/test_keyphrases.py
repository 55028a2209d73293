"""Keyphrase scores against a plain reading of the metric, one post and one rank at a time, and case by case."""

import json
from itertools import pairwise
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer

from lib.metrics.keyphrases import METRICS, PARTS, combine, evaluate, evaluate_aimkp, is_present, statistics, stem

ALL = [part + name for part in PARTS for name in METRICS]
WORDS = ("cat", "Cats", "running", "runs", "sky", "skies", "a", "<unk>", ",", ".", "<sep>")
few = settings(deadline=None, max_examples=60)

phrase = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
phrases = st.lists(phrase, max_size=8)
posts = st.lists(st.tuples(phrases, phrases, st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)), max_size=5)
some = posts.filter(len)


def sides(rows):
    """Predictions, targets and sources."""
    return tuple([row[side] for row in rows] for side in range(3))


# ---- the plain reading ----


def stems(text):
    return [PorterStemmer().stem(word.lower()) for word in text.split()]


def once(phrases):
    kept = []
    for words in map(stems, phrases):
        if words and words not in kept:
            kept.append(words)
    return kept


def inside(words, source):
    return any(source[start : start + len(words)] == words for start in range(len(source)))


def plain_post(predicted, targets, source, part):
    """Which predictions are right, and how many targets there are."""
    valid = [words for words in once(predicted) if not {"<unk>", ",", "."} & set(words)]
    wanted, source = once(targets), stems(source)
    if part:
        valid, wanted = ([w for w in side if inside(w, source) == (part == "present/")] for side in (valid, wanted))
    return [words in wanted for words in valid], len(wanted)


def plain(rows, metric):
    part, name = metric[: metric.find("/") + 1], metric.split("/")[-1]
    kind, k = name.split("@")[0], int(name.split("@")[1])
    judged = [plain_post(*row, part) for row in rows]
    judged = [(hits, count) for hits, count in judged if count]
    if not judged:
        return 0.0
    if kind == "F1":
        p = np.mean([sum(hits[:k]) / min(k, len(hits)) if hits else 0 for hits, _ in judged])
        r = np.mean([sum(hits[:k]) / count for hits, count in judged])
        return 100 * (2 * p * r / (p + r) if p + r else 0.0)
    if kind == "MAP":
        at = [sum(sum(hits[: r + 1]) / (r + 1) for r in range(min(k, len(hits))) if hits[r]) for hits, _ in judged]
        return 100 * np.mean([precisions / count for precisions, (_, count) in zip(at, judged, strict=True)])

    def dcg(hits):
        return sum(hit / log2(rank + 2) for rank, hit in enumerate(hits[:k]))

    return 100 * np.mean([dcg(hits) / dcg(sorted(hits, reverse=True)) if dcg(hits) else 0.0 for hits, _ in judged])


@given(posts)
@few
def test_scores_are_those_of_the_plain_reading(rows):
    assert evaluate(*sides(rows)) == pytest.approx({metric: plain(rows, metric) for metric in ALL})


@pytest.mark.parametrize("metric", ALL)
@given(some)
@settings(deadline=None, max_examples=15)
def test_statistics_add_up_to_the_metric_over_any_posts(metric, rows):
    table = statistics(*sides(rows), metric)
    assert table.shape == (len(rows), 3 if "F1" in metric else 2)
    assert float(combine(metric, table.sum(0))) == pytest.approx(evaluate(*sides(rows))[metric])
    drawn = np.random.default_rng(0).integers(len(rows), size=(4, len(rows)))  # four samples with replacement
    expected = [evaluate(*sides([rows[post] for post in draw]))[metric] for draw in drawn]
    assert combine(metric, table[drawn].sum(1)) == pytest.approx(np.array(expected))


# ---- rule by rule ----


def score(predictions, targets, source=""):
    return evaluate([predictions], [targets], [source])


def test_case_and_suffixes_do_not_matter():
    assert score(["Running CATS"], ["run cat"])["F1@1"] == 100
    assert [stem(word) for word in ("flies", "Dying", "<number>", "a", "")] == ["fli", "die", "<number>", "a", ""]


def test_words_are_stemmed_as_nltk_does():
    for word in ("skies", "news", "innings", "happily", "enjoy", "generalizations", "oed", "ties", "fulli", "jour"):
        assert stem(word) == PorterStemmer().stem(word)
    assert stem("enjoy") == "enjoy" and stem("ties") == "tie"  # Porter's own rules give enjoi and ti


def test_a_repeated_prediction_takes_no_rank():
    assert score(["cat", "cats", "dog"], ["dog"])["MAP@5"] == 50
    assert score(["cat", "dog"], ["dog"])["MAP@5"] == 50


@pytest.mark.parametrize("bad", ["<unk>", "a <unk>", ",", "a , b", "u . s", "<UNK>", "<unk>s"])
def test_a_prediction_with_such_a_word_takes_no_rank(bad):
    assert score([bad, "dog"], ["dog"])["F1@1"] == 100


@pytest.mark.parametrize("fine", ["a,b", "u.s.", "unk"])
def test_other_words_with_such_letters_do(fine):
    assert score([fine, "dog"], ["dog"])["F1@1"] == 0


def test_a_target_may_have_what_a_prediction_may_not():
    assert score(["dog"], ["dog", "u . s"])["F1@5"] == pytest.approx(100 * 2 / 3)


def test_a_repeated_target_counts_once():
    assert score(["dog"], ["dog", "Dogs", "dog"])["F1@5"] == 100


def test_precision_is_over_the_predictions_there_are():
    assert score(["dog", "cat"], ["dog"])["F1@5"] == pytest.approx(100 * 2 * 0.5 / 1.5)
    assert score([], ["dog"]) == dict.fromkeys(ALL, 0.0)


def test_recall_is_over_all_targets():
    assert score(["dog"], ["dog", "cat", "cow"])["F1@1"] == pytest.approx(50)


def test_f1_is_of_means_and_not_a_mean():
    predictions, targets = [["dog"], ["cat"]], [["dog", "cow", "owl", "pig"], ["cat"]]
    precision, recall = 1, (0.25 + 1) / 2
    expected = 100 * 2 * precision * recall / (precision + recall)
    assert evaluate(predictions, targets, ["", ""])["F1@1"] == pytest.approx(expected)
    assert expected != pytest.approx(100 * (0.4 + 1) / 2)


def test_average_precision_is_over_targets_and_ends_at_five():
    result = score(["dog", "x", "cat", "y", "z", "owl"], ["dog", "cat", "owl", "cow"])
    assert result["MAP@5"] == pytest.approx(100 * (1 + 2 / 3) / 4)


def test_the_ideal_order_has_what_was_predicted_not_what_was_wanted():
    assert score(["dog"], ["dog", "cat"])["NDCG@5"] == 100
    assert score(["x", "dog"], ["dog"])["NDCG@5"] == pytest.approx(100 / log2(3))
    late = score(["x", "dog", "y", "z", "w", "cat"], ["dog", "cat"])["NDCG@5"]
    assert late == pytest.approx(100 * (1 / log2(3)) / (1 + 1 / log2(3)))  # what came sixth is in the ideal


def test_present_and_absent_are_apart():
    result = evaluate(
        [["blue sky", "sea"], ["sea"]], [["blue skies", "green sea"], ["sea"]], ["a Blue sky over the sea", "sand"]
    )
    assert result["present/F1@1"] == 100  # in the first post alone
    assert result["present/F1@3"] == pytest.approx(100 * 2 * 0.5 / 1.5)  # sea is present too, and wrong
    assert result["absent/F1@1"] == pytest.approx(50)  # nothing in the first post, everything in the second


@pytest.mark.parametrize(
    ("phrase", "source", "present"),
    [
        ("blue sky", "the blue skies", True),
        ("sky blue", "the blue sky", False),
        ("blue sky", "blue grey sky", False),
        ("blue sky", "blue <sep> sky", False),
        ("blue", "bluebird", False),
        ("the sky", "the sky", True),
        ("sky", "", False),
    ],
)
def test_present_is_a_run_of_words(phrase, source, present):
    assert is_present(phrase, source) is present
    assert statistics([[]], [[phrase]], [source], "present/F1@1")[0, -1] == present
    assert statistics([[]], [[phrase]], [source], "absent/F1@1")[0, -1] == (not present)


def test_posts_without_targets_are_in_no_mean():
    assert evaluate([["dog"], ["cat"]], [["dog"], []], ["", ""])["F1@1"] == 100
    assert evaluate([["dog"], ["cat"]], [["dog"], [" "]], ["", ""])["F1@1"] == 100
    assert evaluate([], [], []) == evaluate([["dog"]], [[]], ["dog"]) == dict.fromkeys(ALL, 0.0)
    assert statistics([], [], [], "F1@1").shape == (0, 3)


def test_phrases_without_words_are_dropped():
    assert score(["", "  ", "dog"], ["dog", ""])["F1@1"] == 100


def test_results_are_plain_numbers():
    result = score(["dog"], ["dog"])
    assert json.loads(json.dumps(result)) == result and list(result) == ALL


def test_percent():
    assert float(combine("present/F1@3", [2, 1, 4])) == pytest.approx(100 * 2 * 0.5 * 0.25 / 0.75)
    assert combine("NDCG@5", [[1, 4], [0, 0]]).tolist() == [25, 0]


@given(some)
@few
def test_more_predictions_never_lower_recall_map_or_hits(rows):
    predictions, targets, sources = sides(rows)
    shorter = [[guesses[:k] for guesses in predictions] for k in range(9)]
    for metric, column in (("F1@5", 1), ("MAP@5", 0)):
        tables = [statistics(guesses, targets, sources, metric)[:, column] for guesses in shorter]
        assert all((before <= after).all() for before, after in pairwise(tables))


# ---- AimKP's metric ----


def test_aimkp_of_a_known_case():
    result = evaluate_aimkp([["dog", "cat", "owl"], ["x"]], [["dogs", "owl", "owl"], ["cat"]])
    assert result["F1@1"] == pytest.approx(100 * (2 * 1 / 3 / (1 + 1 / 3)) / 2)
    assert result["F1@3"] == pytest.approx(100 * (2 / 3) / 2)  # precision 2 / 3, recall 2 / 3: repeats count
    assert result["MAP@5"] == pytest.approx(100 * (1 + 1 / 2 + 2 / 3) / 3 / 2)


def test_aimkp_divides_by_k_and_averages_every_position():
    assert evaluate_aimkp([["dog"]], [["dog"]]) == pytest.approx({"F1@1": 100, "F1@3": 50, "MAP@5": 100})
    assert evaluate_aimkp([["dog", "dog"]], [["dog"]])["MAP@5"] == pytest.approx(75)  # repeats stay, and are wrong
    assert evaluate_aimkp([["<unk>", "dog"]], [["dog"]])["F1@1"] == 0  # nothing is dropped
    assert evaluate_aimkp([["x", "y", "z", "v", "w", "dog"]], [["dog"]])["MAP@5"] == 0


def test_aimkp_is_not_the_papers_metric():
    predictions, targets = [["dog"], ["cat"]], [["dog", "cow", "owl", "pig"], ["cat"]]
    assert evaluate_aimkp(predictions, targets)["F1@1"] == pytest.approx(70)
    assert evaluate_aimkp(predictions, targets)["F1@1"] < evaluate(predictions, targets, ["", ""])["F1@1"]


def test_aimkp_without_targets_or_predictions():
    assert evaluate_aimkp([], []) == evaluate_aimkp([["dog"]], [[]]) == {"F1@1": 0.0, "F1@3": 0.0, "MAP@5": 0.0}
    assert evaluate_aimkp([[]], [["dog"]])["MAP@5"] == 0


# ---- bad input ----


def test_numbers_of_posts_that_differ_are_named():
    for function in (lambda p, t: evaluate(p, t, [""] * len(p)), evaluate_aimkp):
        with pytest.raises(ValueError, match="^there are 2 predictions, but 1 targets"):
            function([["a"], ["b"]], [["a"]])
    with pytest.raises(ValueError, match="^there are 1 predictions, but 0 sources"):
        evaluate([["a"]], [["a"]], [])


def test_strings_are_no_lists_and_lists_no_strings():
    with pytest.raises(ValueError, match="^predictions of post 1 are the string 'dog', expected a list of phrases"):
        evaluate([["a"], "dog"], [["a"], ["b"]], ["", ""])
    with pytest.raises(ValueError, match="^targets of post 0 are the string 'dog', expected a list of phrases"):
        evaluate_aimkp([["a"]], ["dog"])
    with pytest.raises(ValueError, match=r"^source of post 0 is \['a'\], expected a string"):
        evaluate([["a"]], [["a"]], [["a"]])


@pytest.mark.parametrize("metric", ["F1", "F1@2", "present/MAP", "Present/F1@1", "present//F1@1", "/F1@1"])
def test_an_unknown_metric_is_refused_with_the_nearest(metric):
    with pytest.raises(ValueError, match="^metric .* is unknown, did you mean"):
        statistics([], [], [], metric)
    with pytest.raises(ValueError, match="^metric .* is unknown, did you mean"):
        combine(metric, [1, 1])
