"""Regularities: the queries ask what the pictures can answer, and the measure counts what it says."""

import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from lib import corpora
from lib.analysis.regularities import Gallery, Query, examples, measure, over_seeds, queries, said_pairs, told
from lib.corpora.iconworld.captions import HELD_OUT, colour_noun_pairs
from lib.corpora.types import CaptionedImage
from lib.models.vse import regularity_query, rerank_by_centroid


def test_iconworld_queries_name_all_right_pictures():
    shows = [colour_noun_pairs(example.image) for example in corpora.load("iconworld-captions", train=1, dev=1).test]
    asked = queries(shows, HELD_OUT, alone=True)
    for query in asked:
        assert shows[query.image] == {(query.minus, query.noun)} and query.minus != query.plus
        assert query.targets == {i for i, pairs in enumerate(shows) if (query.plus, query.noun) in pairs} != set()
        assert query.held_out == ((query.plus, query.noun) in HELD_OUT)
    assert sum(query.held_out for query in asked) > 90
    assert {query.noun for query in asked if query.held_out} == {noun for _, noun in HELD_OUT}
    assert len({(query.image, query.plus) for query in asked}) == len(asked)


def test_rare_answers_and_pictures_of_both_are_no_queries():
    red, blue = ("red", "car"), ("blue", "car")
    shows = [{red}, {blue}, {red, blue}, {blue}, set()]
    assert {(q.image, q.plus) for q in queries(shows)} == {(0, "blue"), (1, "red"), (3, "red")}
    assert {(q.image, q.plus) for q in queries(shows, fewest=3)} == {(0, "blue")}
    shows[0] = {red, ("green", "hat")}
    assert {(q.image, q.plus) for q in queries(shows, alone=True)} == {(1, "red"), (3, "red")}


def test_examples_to_look_at_take_turns():
    asked = queries([{(colour, noun)} for noun in ("car", "dog", "hat") for colour in ("red", "blue", "blue")],
                    held_out={("blue", "dog")})  # fmt: skip
    chosen = examples(asked, count=3)
    assert [(q.noun, q.held_out) for q in chosen] == [("car", False), ("dog", True), ("hat", False)]
    assert all(len(q.targets) == 2 for q in chosen)
    assert examples([]) == []


def test_said_pairs_stand_side_by_side():
    captions = ("A black dog in a gray coat .", "the dog is brown .", "A Red shirt; blue car .")
    assert said_pairs(CaptionedImage("x", None, captions)) == {("black", "dog"), ("grey", "coat"), ("red", "shirt")}


class Toy(Gallery):
    """A perfect world of three colours and three nouns: a picture is the sum of its two words."""

    parts = {"red": 0, "blue": 1, "green": 2, "car": 3, "dog": 4, "hat": 5}

    def __init__(self):
        self.pairs = [(c, n) for c in ("red", "blue", "green") for n in ("car", "dog", "hat")]
        self.images = normalize(torch.stack([self.word(c) + self.word(n) for c, n in self.pairs]), dim=1)

    def word(self, word):
        return torch.eye(6)[self.parts[word]]

    def words(self, words):
        return torch.stack([self.word(word) for word in words])


def test_arithmetic_is_perfect_where_pictures_are_sums():
    toy = Toy()
    asked = queries([{pair} for pair in toy.pairs], held_out={("red", "car")})
    table = measure(toy, asked).set_index(["search by", "answer's pair in training"])
    assert table.loc[("picture - word + word", "seen"), "P@1"] == 100
    assert table.loc[("words", "never seen"), "P@1"] == 100
    assert table.loc[("chance", "seen"), "P@1"] == pytest.approx(100 / 9)
    assert table.loc[("picture", "seen"), "P@1"] < 100
    assert table["queries"].loc[("chance", "never seen")] == 2
    assert table.loc[("best possible", "seen"), ["P@1", "P@4"]].tolist() == [100, 25]


def test_over_seeds_is_mean_and_std():
    toy = Toy()
    one = measure(toy, queries([{pair} for pair in toy.pairs]))
    assert set(one["answer's pair in training"]) == {"seen"}
    two = one.assign(**{"P@1": one["P@1"] - 10})
    both = over_seeds([one, two])
    assert both["P@1"].tolist() == pytest.approx((one["P@1"] - 5).tolist())
    assert both["std of P@1"].tolist() == pytest.approx([50**0.5] * len(one))
    assert over_seeds([one]).equals(one)


def test_the_query_picture_is_never_its_own_answer():
    toy = Toy()
    asked = [Query(0, "car", "red", "blue", frozenset({3}), False)]
    for by in ("picture", "words", "picture - word + word"):
        assert toy.search(asked, by)[0, 0] == -torch.inf


def test_the_query_has_unit_norm():
    q, minus, plus = normalize(torch.randn(3, 4, 8), dim=-1)
    asked = regularity_query(q, minus, plus)
    assert torch.allclose(asked.norm(dim=-1), torch.ones(4))
    assert torch.allclose(asked * (q - minus + plus).norm(dim=-1, keepdim=True), q - minus + plus, atol=1e-6)


def test_reranking_drops_the_picture_that_lies_apart():
    gallery = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.98, -0.1], [0.0, 1.0], [-1.0, 0.0]])
    scores = torch.tensor([[0.5, 0.6, 0.7, 0.9, 0.1]])  # the fourth scores best but has no company
    assert sorted(rerank_by_centroid(scores, gallery, shown=3, top=4)[0].tolist()) == [0, 1, 2]
    plain = [max(range(4), key=lambda i: -(gallery[i] - gallery[:4].mean(0)).norm())]
    assert rerank_by_centroid(scores, gallery, shown=1, top=4)[0].tolist() == plain


def test_nothing_to_ask_is_said():
    assert measure(Toy(), []).empty and over_seeds([]).empty and over_seeds([measure(Toy(), [])]).empty
    assert "Nothing to ask" in told(pd.DataFrame(), [], [Toy()])
    asked = queries([{pair} for pair in Toy().pairs])
    assert "no run of yours" in told(pd.DataFrame(), asked, [])


def test_what_is_told_is_what_was_measured():
    toy = Toy()
    asked = queries([{pair} for pair in toy.pairs], held_out={("red", "car")})
    lines = told(over_seeds([measure(toy, asked)]), asked, [toy]).splitlines()
    assert len(lines) == 2 and lines[1].startswith("2 questions, their answers never seen in training.")
    assert "picture - word + word 100 %" in lines[0] and "chance 11 %" in lines[0]


def test_a_gallery_of_a_few_pictures_is_searched_whole():
    toy = Toy()
    toy.pairs, toy.images = toy.pairs[:4:3], toy.images[:4:3]  # a red car and a blue one
    asked = queries([{pair} for pair in toy.pairs])
    table = measure(toy, asked).set_index("search by")
    assert len(asked) == 2 and set(table.index) >= {"words", "picture - word + word, re-ranked"}
    assert table.loc["picture - word + word", ["P@1", "P@4"]].tolist() == [100, 25]
    assert toy.best(asked).tolist() == [[0], [1]] == toy.reranked(asked).tolist()


def test_of_records_there_is_no_gallery(monkeypatch):
    from lib.analysis import regularities

    class Record:
        has_weights = False

    monkeypatch.setattr(regularities, "read", lambda folder: Record())
    runs = pd.DataFrame({"variant": ["sum", "lstm"], "folder": ["a", "b"]})
    assert regularities.galleries(runs) == []
