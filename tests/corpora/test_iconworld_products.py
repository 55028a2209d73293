"""IconWorld products: listings are a pure function of their index, true to their facts, and each modality tells the
category as often as it should."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import ROOT, corpora
from lib.corpora.iconworld import shop
from lib.corpora.iconworld.draw import icon_mask, icon_metadata
from lib.corpora.iconworld.products import (
    KINDS,
    MODALITIES,
    READERS,
    Listings,
    _fitting,
    _values,
    answer_ceiling,
    answered_by,
    boxes,
    ceiling,
    decided_by,
    load,
)
from lib.corpora.products import pairs, questions
from lib.corpora.types import Product, open_picture
from lib.precision import one_thread

LISTINGS = st.tuples(
    st.builds(lambda name, seed: Listings(name, 10**6, seed), st.sampled_from(["train", "test"]), st.integers(0, 99)),
    st.integers(0, 10**6 - 1),
)
MANY = Listings("train", 4000, 1)

# Read backwards, without the code that writes
CATEGORY_OF_WORD = {word: category for category, words in shop.WORDS.items() for word in words}
DEPARTMENT_OF_WORD = {word: department for department, words in shop.OF_DEPARTMENT.items() for word in words}
CATEGORY_OF_ICON = {icon: category for category, icons in shop.MODELS.items() for icon in icons}
CATEGORY_OF_TRIPLE = {(name, value): category for category, (name, values) in shop.OWN.items() for value in values}
BRAND_OF_BADGE = {badge: brand for brand, badge in shop.BRANDS.items()}


@pytest.fixture(scope="module")
def corpus():
    return corpora.load("iconworld-products", train=3000, dev=200)


# ---- a pure function of (seed, split, index) ----


def test_splits_are_sequences_of_listings_two_of_each_product(corpus):
    first, second = corpus.train[16:18]
    assert isinstance(first, Product) and first.id == "train-16" and first.product == second.product
    assert corpus.describe()[["examples", "products", "categories"]].values.tolist() == [
        [3000, 1500, 24],
        [200, 100, 24],
        [1000, 500, 24],
    ]
    assert len(load(limit=7).train) == 7 and load(limit=7).train[5] == corpus.train[5]
    assert load(seed=1).train[3] != corpus.train[3]


def digest(corpus) -> str:
    """A hash of some pixels and words, made in no particular order."""
    examples = [corpus.test[i] for i in (400, 3, 77)] + [corpus.train[9]]
    pixels = b"".join(example.image.draw().tobytes() for example in examples)
    return hashlib.sha256(pixels + repr(examples).encode()).hexdigest() + corpus.fingerprint


def test_another_process_makes_the_same_pixels_and_words():
    program = "from tests.corpora.test_iconworld_products import digest, load; print(digest(load()))"
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == digest(load())


def test_fingerprint_knows_options_and_sources(monkeypatch):
    assert len({load(**options).fingerprint for options in ({}, {"seed": 1}, {"train": 3}, {"test": 3})}) == 4
    assert load(limit=3).fingerprint == load(train=3).fingerprint
    before = load().fingerprint
    monkeypatch.setattr(shop, "__file__", __file__)
    assert load().fingerprint != before


# ---- the shop ----


def test_every_word_icon_and_triple_means_one_thing():
    assert len(shop.CATEGORIES) == 24 and set(Counter(shop.DEPARTMENT.values()).values()) == {4}
    icons = [*CATEGORY_OF_ICON, *BRAND_OF_BADGE, *shop.PACKAGES]
    assert len({icon_mask(icon, 48).tobytes() for icon in icons}) == len(icons) and set(icons) <= icon_metadata().keys()
    nouns = [*CATEGORY_OF_WORD, *DEPARTMENT_OF_WORD, *shop.VAGUE]
    assert (
        len(set(nouns)) == len(nouns) == sum(map(len, [*shop.WORDS.values(), *shop.OF_DEPARTMENT.values(), shop.VAGUE]))
    )
    assert len(CATEGORY_OF_TRIPLE) == sum(len(values) for _, values in shop.OWN.values())
    assert not {name for name, _ in CATEGORY_OF_TRIPLE} & {*shop.GENERAL, "department"}
    assert len({name for name, _ in CATEGORY_OF_TRIPLE}) < len(shop.OWN)  # some names tell no category by themselves
    others = [value for values in shop.GENERAL.values() for value in values] + [*shop.FLUFF]
    said = " . ".join([*others, *(value for _, value in CATEGORY_OF_TRIPLE)])
    assert not [noun for noun in nouns if re.search(rf"\b{noun}\b", said, re.IGNORECASE)]


# ---- listings ----


def read_title(title: str) -> set[str]:
    """The categories that a title's noun leaves; longer nouns contain shorter ones, so the longest counts."""
    found = [noun for noun in [*CATEGORY_OF_WORD, *DEPARTMENT_OF_WORD, *shop.VAGUE] if re.search(rf"\b{noun}\b", title)]
    noun = max(found, key=len)
    if noun in CATEGORY_OF_WORD:
        return {CATEGORY_OF_WORD[noun]}
    return {c for c, d in shop.DEPARTMENT.items() if DEPARTMENT_OF_WORD.get(noun, d) == d}


def read_picture(product: Product) -> set[str]:
    seen = {CATEGORY_OF_ICON[thing.noun] for thing in product.image.objects if thing.noun in CATEGORY_OF_ICON}
    return seen or {*shop.CATEGORIES}


def read_triples(product: Product) -> set[str]:
    told, left = {CATEGORY_OF_TRIPLE.get(triple) for triple in product.properties} - {None}, dict(product.properties)
    return told or {c for c, d in shop.DEPARTMENT.items() if left.get("department", d) == d}


@given(LISTINGS)
@settings(max_examples=200, deadline=None)
def test_what_each_modality_leaves_open_is_what_the_facts_say(where):
    split, index = where
    product, facts = split[index], split.facts(index)
    left = {"title": read_title(product.title), "picture": read_picture(product), "properties": read_triples(product)}
    assert all(product.category == facts.category and product.category in found for found in left.values())
    for seen in READERS.values():
        assert _fitting(facts, seen) == len(set.intersection(*(left[modality] for modality in seen)))


@given(LISTINGS)
@settings(max_examples=200, deadline=None)
def test_title_picture_and_triples_tell_the_same_product(where):
    split, index = where
    product, facts = split[index], split.facts(index)
    values = dict(facts.values)
    things = {thing.noun: thing.colour for thing in product.image.objects}
    badges = {BRAND_OF_BADGE[noun]: colour for noun, colour in things.items() if noun in BRAND_OF_BADGE}
    assert badges == ({values["brand"]: values["trim"]} if facts.badge else {})
    assert {colour for noun, colour in things.items() if noun not in BRAND_OF_BADGE} == {values["colour"]}
    told = dict(product.properties)
    assert told.pop("department", shop.DEPARTMENT[facts.category]) == shop.DEPARTMENT[facts.category]
    assert told == {name: values[name] for name in facts.triples} and values["trim"] != values["colour"]
    assert all(values[name] in product.title for name in facts.said)
    for name in ("brand", "series", "origin"):
        assert name in facts.said or not any(value in product.title for value in shop.GENERAL[name])


@given(LISTINGS)
@settings(max_examples=50, deadline=None)
def test_two_listings_are_one_product_seen_twice(where):
    split, index = where
    facts, other = split.facts(index), split.facts(index ^ 1)
    assert (facts.category, facts.model, facts.values) == (other.category, other.model, other.values)
    assert split.scene(index) != split.scene(index ^ 1) and split[index].product == split[index ^ 1].product


def test_things_are_drawn_inside_and_boxes_lie_around_them(corpus):
    for index in range(60):
        scene = corpus.test.scene(index)
        with_all = np.asarray(scene.draw(), int)
        for number, (left, top, right, bottom) in enumerate(boxes(scene)):
            assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
            fewer = type(scene)(scene.objects[:number] + scene.objects[number + 1 :], scene.background, scene.variant)
            changed = np.argwhere(abs(with_all - np.asarray(fewer.draw(), int)).max(2) > 60)  # no shadow
            low, high = changed.min(0) / 128, (changed.max(0) + 1) / 128
            assert np.allclose((top, left), low, atol=0.06) or number + 1 < len(scene.objects)
            assert np.allclose((bottom, right), high, atol=0.06) or number + 1 < len(scene.objects)
            assert (low > np.array((top, left)) - 0.06).all() and (high < np.array((bottom, right)) + 0.06).all()


def test_two_things_for_sale_and_a_badge_lie_apart(corpus):
    two = [boxes(corpus.test.scene(i)) for i in range(1000) if len(corpus.test.scene(i).objects) == 3]
    assert len(two) > 40
    for found in two:
        for a, b in combinations(found, 2):
            assert max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) > -0.03


def test_each_picture_is_shown_once(corpus):
    shown = [split.scene(i) for split in (corpus.train, corpus.dev, corpus.test) for i in range(len(split))]
    assert len(set(shown)) == len(shown) == 4200
    assert np.asarray(open_picture(corpus.test[3].image)).shape == (128, 128, 3)


def test_words_and_values_are_known_from_training(corpus):
    words = [{word for p in split for word in p.title.split()} for split in (corpus.train, corpus.dev, corpus.test)]
    triples = [{triple for p in split for triple in p.properties} for split in (corpus.train, corpus.dev, corpus.test)]
    for seen in (words, triples):
        assert seen[1] | seen[2] <= seen[0]
    assert 4 < np.mean([len(p.properties) for p in corpus.test]) < 6
    assert 5 < np.mean([len(p.title.split()) for p in corpus.test]) < 10


# ---- shares and perfect readers ----


def test_shares_hold_in_every_stretch_of_twenty(corpus):
    for start in (0, 20, 2220, 3980):
        assert Counter((f.tells, f.together) for f in map(MANY.facts, range(start, start + 20))) == KINDS
    kinds = {"several": 400, "title": 250, "picture": 100, "properties": 100, "together": 100, "nothing": 50}
    assert Counter(decided_by(corpus.test)) == kinds


def test_ceilings_are_in_order_and_apart(corpus):
    best = {reader: found["all"] for reader, found in ceiling(corpus.test).items()}
    chance = 100 / 24
    in_order = [chance, *(best[f"{name} only"] for name in ("picture", "properties", "title")), best["without title"]]
    assert all(higher - lower > 5 for lower, higher in zip(in_order, in_order[1:], strict=False))
    assert best["without title"] < best["without picture"] < best["without properties"] < best["all"] < 96
    assert best["all"] == pytest.approx(95 + 5 / 24) and best["title only"] == pytest.approx(60 + 5 / 4 + 35 / 24)


def test_ceilings_by_what_decides(corpus):
    by_kind = ceiling(corpus.test)
    for modality in MODALITIES:
        assert by_kind[f"{modality} only"][modality] == 100 == by_kind["all"]["together"]
        assert by_kind[f"without {modality}"][modality] == pytest.approx(100 / 24) == by_kind["all"]["nothing"]
    assert ceiling(Listings("test", 0, 0))["all"] == {}


def test_attributes_are_told_as_often_as_promised():
    facts = [MANY.facts(index) for index in range(3000)]
    for name in shop.GENERAL:
        assert np.mean([name in f.said for f in facts]) == pytest.approx(shop.SAYS[name], abs=0.04)
        assert np.mean([name in f.triples for f in facts]) == pytest.approx(shop.HAS_TRIPLE, abs=0.04)
        shown = Counter(dict(f.values)[name] for f in facts)
        assert shown.keys() == set(shop.GENERAL[name]) and max(shown.values()) < 4 * min(shown.values())
    assert np.mean([f.badge for f in facts]) == pytest.approx(shop.HAS_BADGE, abs=0.04)


def test_who_answers_a_question(corpus):
    asked = questions(corpus.test)
    answers = answered_by(corpus.test, asked)
    assert len(asked) > 980 and {"title", "picture"} >= {modality for found in answers for modality in found}
    for question, found in zip(asked, answers, strict=True):
        name = re.search(r"what is the (.*)\?$", question.text)[1]
        if name in ("brand", "series", "origin"):
            assert ("title" in found) == (question.answer in question.product.title)
        if name == "colour":
            assert "picture" in found
        badge = {BRAND_OF_BADGE.get(thing.noun) for thing in question.product.image.objects}
        assert name != "brand" or ("picture" in found) == (question.answer in badge)
    shares = Counter(answers)
    assert min(shares[kind] for kind in ((), ("title",), ("picture",), ("title", "picture"))) > 50


def test_perfect_readers_of_answers(corpus):
    asked = questions(corpus.test)
    best, said = answer_ceiling(corpus.test, asked), answered_by(corpus.test, asked)
    for metric in ("Rank@1", "Rank@10", "MRR"):
        neither, title, picture, both = (best[reader][metric] for reader in ("neither", "title", "picture", "both"))
        assert neither + 3 < picture < title < both < 100
    seen = {triple for split in (corpus.train, corpus.test) for product in split for triple in product.properties}
    for question in asked[:100]:
        name = question.id.rpartition("?")[2]
        assert _values(question) == len({value for known, value in seen if known == name})
    first = [1.0 if found else 1 / _values(question) for question, found in zip(asked, said, strict=True)]
    assert best["both"]["Rank@1"] == pytest.approx(100 * np.mean(first))
    assert best["neither"]["Rank@10"] < 65  # or a high Rank@10 would say nothing


def test_pairs_show_one_product_twice_and_rivals_are_hard(corpus):
    found = pairs(corpus.test)
    assert Counter(pair.same for pair in found) == {True: 500, False: 500}
    assert all(pair.same == (pair.left.product == pair.right.product) and pair.left != pair.right for pair in found)
    assert all(pair.left.category == pair.right.category for pair in found)
    facts = corpus.test.facts
    colours = [
        len({dict(facts(int(side.id.split("-")[1])).values)["colour"] for side in (pair.left, pair.right)}) == 1
        for pair in found
        if not pair.same
    ]
    assert np.mean(colours) > 0.5  # by chance an eighth


# ---- a measured run ----


def shape_of(product: Product, size: int = 48, cell: int = 6, turns: int = 8) -> np.ndarray:
    """Which way the edges run in each cell of the picture: enough to know an icon of any colour."""
    down, across = np.gradient(np.asarray(product.image.draw(size), float), axis=(0, 1))
    strength = np.hypot(down, across)
    strongest = strength.argmax(2)[..., None]
    down, across, strength = (np.take_along_axis(a, strongest, 2)[..., 0] for a in (down, across, strength))
    turn = np.eye(turns)[(np.arctan2(down, across) % np.pi / np.pi * turns).astype(int) % turns]  # (S, S, 8)
    cells = (turn * strength[..., None]).reshape(size // cell, cell, size // cell, cell, turns).sum((1, 3))
    return 10 * (cells / np.linalg.norm(cells)).ravel()


def bags(documents: list[list[str]], known: list[str]) -> np.ndarray:
    place = {word: i for i, word in enumerate(known)}
    rows = np.zeros((len(documents), len(known)))
    for row, words in zip(rows, documents, strict=True):
        row[[place[word] for word in words if word in place]] = 1
    return rows


def log_chances(rows: np.ndarray, labels: list[int], asked: np.ndarray) -> torch.Tensor:
    """What a logistic regression learns of the categories."""
    rows, asked, labels = torch.tensor(rows).float(), torch.tensor(asked).float(), torch.tensor(labels)
    weights = torch.zeros(rows.shape[1] + 1, 24, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = rows @ weights[1:] + weights[0]
        loss = torch.nn.functional.cross_entropy(logits, labels) + 1e-3 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (asked @ weights[1:] + weights[0]).log_softmax(1).detach()


@cache
def learned(train: int = 4000, pictures: int = 2000, test: int = 400) -> dict[str, float]:
    """Accuracy of readers that learn from title, picture and triples, and of all three put together."""
    corpus = load(train=train, test=test)
    seen, asked = list(corpus.train), list(corpus.test)
    labels, gold = ([shop.CATEGORIES.index(p.category) for p in part] for part in (seen, asked))
    said = {}
    for name, read in (("title", lambda p: p.title.split()), ("properties", lambda p: list(map(str, p.properties)))):
        known = sorted({word for p in seen for word in read(p)})
        said[name] = log_chances(*(bags([read(p) for p in seen], known), labels, bags([read(p) for p in asked], known)))
    shapes = [np.stack([shape_of(p) for p in part]) for part in (seen[:pictures], asked)]
    said["picture"] = log_chances(shapes[0], labels[:pictures], shapes[1])
    said["all"] = sum(said.values())
    return {name: 100 * (table.argmax(1) == torch.tensor(gold)).float().mean().item() for name, table in said.items()}


def test_simple_learners_are_in_the_order_of_the_ceilings_and_below_them():
    with one_thread():
        found = learned()
    best = {reader: scores["all"] for reader, scores in ceiling(load(test=400).test).items()}
    assert 100 / 24 + 20 < found["picture"] < found["properties"] - 4
    assert found["properties"] + 8 < found["title"] < found["all"] - 8
    assert all(found[name] < best[f"{name} only"] + 4 for name in MODALITIES) and found["all"] < best["all"] - 5
