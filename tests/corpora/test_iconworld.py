"""IconWorld: pictures and captions are a pure function of their index, true, and ask what the papers ask."""

import hashlib
import pickle
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import ROOT, corpora
from lib.corpora import CaptionedImage, DataError, open_picture, picture_key
from lib.corpora.iconworld.backgrounds import BACKGROUNDS
from lib.corpora.iconworld.captions import (
    COLOURS,
    HELD_OUT,
    Captions,
    _found,
    ceiling,
    colour_noun_pairs,
    decided_by,
    load,
)
from lib.corpora.iconworld.draw import ICONS, PALETTE, Scene, Thing, icon_mask
from lib.corpora.iconworld.grammar import NOUNS, OPENINGS, PLACES, RELATIONS, meanings, say

SCENES = st.builds(
    lambda name, seed, index: Captions(name, 10**6, seed).scene(index),
    st.sampled_from(["train", "dev", "test"]),
    st.integers(0, 99),
    st.integers(0, 10**6 - 1),
)


@pytest.fixture(scope="module")
def corpus():
    return corpora.load("iconworld-captions", train=600)


# ---- a pure function of (seed, split, index) ----


def test_splits_are_sequences_of_five_captions(corpus):
    example = corpus.train[17]
    assert isinstance(example, CaptionedImage) and example.id == "train-17"
    assert {len(set(example.captions)) for example in corpus.dev} == {5}
    assert corpus.describe()["captions"].tolist() == [3000, 1250, 2500]
    assert corpus.train[-1] == corpus.train[599] and corpus.dev[2:6:2] == [corpus.dev[2], corpus.dev[4]]
    with pytest.raises(IndexError):
        corpus.train[600]


def test_any_order_any_size_same_example(corpus):
    order = Random(1).sample(range(600), 50)
    assert [corpus.train[i] for i in order] == [load(train=10**9).train[i] for i in order]
    assert load(seed=1).train[3].image != corpus.train[3].image
    assert pickle.loads(pickle.dumps(corpus.train))[5] == corpus.train[5]


def digest(corpus) -> str:
    """A hash of some pixels and words, made in no particular order."""
    examples = [corpus.test[i] for i in (400, 3, 77)] + [corpus.train[9]]
    pixels = b"".join(example.image.draw().tobytes() for example in examples)
    return hashlib.sha256(pixels + repr(examples).encode()).hexdigest() + corpus.fingerprint


def test_another_process_makes_the_same_pixels_and_words():
    program = "from tests.corpora.test_iconworld import digest, load; print(digest(load()))"
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == digest(load())


def test_fingerprint_knows_the_options():
    assert load().fingerprint == load().fingerprint
    assert len({load(**options).fingerprint for options in ({}, {"seed": 1}, {"train": 3}, {"test": 3})}) == 4


def test_splits_share_no_picture(corpus):
    splits = [{example.image for example in split} for split in (corpus.train, corpus.dev, corpus.test)]
    assert [len(scenes) for scenes in splits] == [600, 250, 500]
    assert len(set.union(*splits)) == 1350


# ---- pictures ----


def test_pictures_are_coloured_and_all_different(corpus):
    pictures = [np.asarray(open_picture(example.image)) for example in corpus.test[:100]]
    assert {picture.shape for picture in pictures} == {(128, 128, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 100
    assert min(picture.std() for picture in pictures) > 5


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_colour_shows_on_every_background(background):
    empty = np.asarray(Scene((), background).draw(), dtype=int)
    for colour, rgb in PALETTE.items():
        picture = np.asarray(Scene((Thing("apple", colour, 0.5, 0.5, 0.6),), background).draw(), dtype=int)
        assert (abs(picture - rgb).max(axis=2) < 40).mean() > 0.1  # the body is there, in its colour
        assert (abs(picture - empty).max(axis=2) > 60).mean() > 0.05  # and stands out


def test_every_noun_has_an_icon_of_its_own():
    shapes = {icon_mask(ICONS[noun], 48).tobytes() for noun in NOUNS}
    assert len(shapes) == len(NOUNS) == len(ICONS) == 40
    assert set(PLACES) == set(BACKGROUNDS)


def test_icons_stay_in_the_picture_and_apart(corpus):
    for example in corpus.test[:200]:
        things = example.image.objects
        assert all(-0.02 < at - t.size / 2 and at + t.size / 2 < 1.02 for t in things for at in (t.x, t.y))
        gaps = [max(abs(a.x - b.x), abs(a.y - b.y)) - (a.size + b.size) / 2 for a in things for b in things if a != b]
        assert min(gaps, default=0) > -0.06


@pytest.mark.parametrize(
    "scene, named",
    [
        (Scene((Thing("no-such-icon", "red", 0.5, 0.5, 0.5),), "snow"), "no-such-icon"),
        (Scene((Thing("car", "beige", 0.5, 0.5, 0.5),), "snow"), "beige"),
        (Scene((), "moon"), "moon"),
    ],
)
def test_unknown_names_are_named(scene, named):
    with pytest.raises(DataError, match=named):
        scene.draw()


@given(SCENES, SCENES)
@settings(max_examples=50, deadline=None)
def test_key_changes_if_and_only_if_the_scene_does(scene, other):
    assert (scene.key == other.key) == (scene == other) == (picture_key(scene) == picture_key(other))
    thing = scene.objects[0]
    turned = replace(scene, objects=(replace(thing, tilt=thing.tilt + 1), *scene.objects[1:]))
    assert len({scene.key, turned.key, replace(scene, variant=scene.variant + 1).key}) == 3


# ---- captions ----


def read(caption: str) -> tuple[list[tuple[str | None, str]], str, str | None]:
    """A caption's things, relation words and background, found without the grammar that wrote it."""
    background = next((place for place, words in PLACES.items() for phrase in words if phrase in caption), None)
    for phrase in sorted(sum(PLACES.values(), ()), key=len, reverse=True):
        caption = caption.replace(phrase, "")
    for opening in sorted(filter(None, OPENINGS), key=len, reverse=True):
        caption = re.sub(rf"^\s*{opening}\b", "", caption)
    noun_of = {word: noun for noun, words in NOUNS.items() for word in words}
    phrase = rf"\ban? (?:({'|'.join(COLOURS)}) )?({'|'.join(noun_of)})\b(?: that is ({'|'.join(COLOURS)}))?"
    things = [(before or after or None, noun_of[word]) for before, word, after in re.findall(phrase, caption)]
    words = " ".join(re.sub(phrase, " ", caption).split())
    return things, words, background


def holds(words: str, things: list[Thing]) -> bool:
    """Whether the relation's words fit where the things are."""
    a, b = things[0], things[-1]
    if "between" in words:
        ends = [(t.x, t.y) for t in things[1:]]
        return all(abs((ends[0][i] + ends[1][i]) / 2 - (a.x, a.y)[i]) < 0.1 for i in (0, 1))
    if "next to" in words or "beside" in words:
        return abs(a.y - b.y) < 0.1 and 0.2 < abs(a.x - b.x) < 0.55
    tests = {"left": a.x < b.x, "right": a.x > b.x, "above": a.y < b.y, "over": a.y < b.y}
    tests |= {word: a.y > b.y for word in ("below", "beneath", "under")} | {"and": True, "with": True}
    return words == "" or any(fits for word, fits in tests.items() if re.search(rf"\b{word}\b", words))


@given(st.sampled_from(["train", "test"]), st.integers(0, 9), st.integers(0, 9999))
@settings(max_examples=150, deadline=None)
def test_captions_are_true(name, seed, index):
    example = Captions(name, 10**4, seed)[index]
    shown = {thing.noun: thing for thing in example.image.objects}
    for caption in example.captions:
        things, words, background = read(caption)
        assert things and background in (None, example.image.background), caption
        assert all(noun in shown and colour in (None, shown[noun].colour) for colour, noun in things), caption
        assert holds(words, [shown[noun] for _, noun in things]), (caption, words)


@given(SCENES)
@settings(max_examples=50, deadline=None)
def test_the_chances_of_all_meanings_sum_to_one(scene):
    assert sum(meanings(scene).values()) == pytest.approx(1)


def test_words_are_lower_case_and_known_from_training():
    corpus = load()
    words = {
        name: Counter(w for e in getattr(corpus, name) for c in e.captions for w in c.split())
        for name in ("train", "dev", "test")
    }
    assert set(words["dev"]) | set(words["test"]) <= set(words["train"])
    assert min(words["train"].values()) >= 20 and all(re.fullmatch("[a-z]+", word) for word in words["train"])


def test_articles():
    car, apple = Thing("car", "orange", 0.3, 0.5, 0.4), Thing("apple", "red", 0.7, 0.5, 0.4)
    spoken = {say(meaning, "", Random(i)) for i, meaning in enumerate(meanings(Scene((car, apple), "snow")))}
    assert not any(re.search(r"\ba [aeiou]|\ban [^aeiou]", caption) for caption in spoken)


# ---- held-out pairs and twins ----


def test_held_out_pairs_never_occur_in_training():
    train = load(train=3000).train
    seen = set().union(*(colour_noun_pairs(train.scene(i)) for i in range(3000)))
    assert not seen & HELD_OUT and len(seen) > 0.95 * (len(COLOURS) * len(NOUNS) - len(HELD_OUT))
    said = {
        (colour, noun) for example in train[:1000] for caption in example.captions for colour, noun in read(caption)[0]
    }
    assert not said & HELD_OUT
    assert {colour for colour, _ in seen} == set(COLOURS) and {noun for _, noun in seen} == set(NOUNS)


def test_held_out_pairs_come_often_in_test(corpus):
    alone = Counter()
    for example in corpus.test:
        alone.update(colour_noun_pairs(example.image) if len(example.image.objects) == 1 else ())
    assert ("red", "car") in HELD_OUT and len(HELD_OUT) == 24
    assert all(alone[pair] >= 4 for pair in HELD_OUT)
    assert all(sum(colour == held for held, _ in HELD_OUT) == 3 for colour in COLOURS)


def test_twins_differ_only_in_who_stands_where(corpus):
    for index in range(2, 100, 10):
        scene, twin = corpus.test.scene(index), corpus.test.scene(index + 1)
        assert scene != twin and colour_noun_pairs(scene) == colour_noun_pairs(twin)
        assert {(t.x, t.y) for t in scene.objects} == {(t.x, t.y) for t in twin.objects}
        relational = [{m for m in meanings(s) if m.relation not in ("one", "two", "three")} for s in (scene, twin)]
        assert relational[0] != relational[1]


# ---- the perfect reader ----


def test_ceiling_lies_between_chance_and_certainty(corpus):
    best = ceiling(corpus.test)
    assert 60 < best["t2i"]["R@1"] < 90 and 80 < best["i2t"]["R@1"] < 99
    for recalls in (best["i2t"], best["t2i"]):
        assert recalls["R@1"] < recalls["R@5"] < recalls["R@10"] <= 100
    assert best["rsum"] == pytest.approx(sum(best["i2t"].values()) + sum(best["t2i"].values()))
    one = ceiling(Captions("test", 1, 0))
    assert one["t2i"]["R@1"] == one["i2t"]["R@1"] == 100


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_ties_in_random_order_as_by_shuffling(ranking, k):
    rng, hits = Random(0), 0
    for _ in range(600):
        shuffled = sorted(rng.sample(ranking, len(ranking)), key=lambda entry: -entry[0])
        hits += any(right for _, right in shuffled[:k])
    assert _found(ranking, k) == pytest.approx(hits / 600, abs=0.09)


def test_what_decides_a_caption(corpus):
    decisive = decided_by(corpus.test)
    told = [meaning for index in range(500) for meaning in corpus.test.told(index)]
    assert len(decisive) == len(told) and set(decisive) == {"relation", "company", "background", "colour", "noun"}
    for detail, meaning in zip(decisive, told, strict=True):
        assert detail != "relation" or len(meaning.mentions) == RELATIONS[meaning.relation][0] > 1
        assert detail != "company" or len(meaning.mentions) > 1
        assert detail != "background" or meaning.background
        assert detail != "colour" or any(colour for colour, _ in meaning.mentions)
