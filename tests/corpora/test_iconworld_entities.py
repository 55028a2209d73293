"""IconWorld entities: posts are a pure function of their index, true to their facts, and known in what decides them."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations, combinations_with_replacement, permutations, product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import ROOT, corpora
from lib.corpora import TaggedPost, open_picture
from lib.corpora.iconworld import captions, entities, grammar, names
from lib.corpora.iconworld.backgrounds import VARIANTS
from lib.corpora.iconworld.draw import ICONS, icon_mask
from lib.corpora.iconworld.entities import COMPANIONS, Entities, ceiling, evidence_shown, load, match_chances, matched
from lib.corpora.iconworld.grammar import NOUNS, PLACES
from lib.corpora.iconworld.names import AMBIGUOUS, CUES, NEUTRAL, PRIOR, TYPES, UNAMBIGUOUS, USUAL

POSTS = st.tuples(
    st.builds(lambda name, seed: Entities(name, 10**6, seed), st.sampled_from(["train", "test"]), st.integers(0, 99)),
    st.integers(0, 10**6 - 1),
)
MANY = Entities("train", 6000, 1)


@pytest.fixture(scope="module")
def corpus():
    return corpora.load("iconworld-entities")


@pytest.fixture(scope="module")
def facts():
    return [MANY.facts(index) for index in range(len(MANY))]


# ---- a pure function of (seed, split, index) ----


def test_splits_are_sequences_of_tagged_posts(corpus):
    post = corpus.train[17]
    assert isinstance(post, TaggedPost) and post.id == "train-17"
    assert corpus.describe()["examples"].tolist() == [6000, 300, 800]
    assert len(load(limit=7).train) == 7 and load(limit=7).train[5] == corpus.train[5]


def test_any_order_any_size_same_post(corpus):
    order = Random(1).sample(range(3000), 50)
    assert [corpus.train[i] for i in order] == [load(train=10**9).train[i] for i in order]
    assert load(seed=1).train[3] != corpus.train[3]


def digest(corpus) -> str:
    """A hash of some pixels and words, made in no particular order."""
    examples = [corpus.test[i] for i in (400, 3, 77)] + [corpus.train[9]]
    pixels = b"".join(example.image.draw().tobytes() for example in examples)
    return hashlib.sha256(pixels + repr(examples).encode()).hexdigest() + corpus.fingerprint


def test_another_process_makes_the_same_pixels_and_words(corpus):
    program = "from tests.corpora.test_iconworld_entities import digest, load; print(digest(load()))"
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == digest(corpus)


def test_fingerprint_knows_the_options():
    assert load().fingerprint == load().fingerprint != captions.load().fingerprint
    assert len({load(**options).fingerprint for options in ({}, {"seed": 1}, {"train": 3}, {"test": 3})}) == 4
    assert load(limit=3).fingerprint == load(train=3).fingerprint


@pytest.mark.parametrize("module", [captions, grammar, names])
def test_fingerprint_knows_the_sources(module, monkeypatch):
    before = load().fingerprint
    monkeypatch.setattr(module, "__file__", __file__)
    assert load().fingerprint != before


# ---- names ----


def test_names_of_all_kinds_in_balance():
    sets = [frozenset(kinds) for count in (2, 3) for kinds in combinations(TYPES, count)]
    assert Counter(map(frozenset, AMBIGUOUS.values())) == dict.fromkeys(sets, 6)
    orders = Counter(AMBIGUOUS.values())
    assert orders == {o: 3 if len(o) == 2 else 1 for count in (2, 3) for o in permutations(TYPES, count)}
    assert Counter(UNAMBIGUOUS.values()) == dict.fromkeys(TYPES, 16)
    assert not AMBIGUOUS.keys() & UNAMBIGUOUS.keys()
    assert sum(" " in name for name in AMBIGUOUS) >= 8 and sum(" " in name for name in UNAMBIGUOUS) >= 24


def test_the_most_usual_type_is_known_but_not_sure():
    for name, prior in PRIOR.items():
        assert list(prior) == list(AMBIGUOUS[name]) and sum(prior.values()) == pytest.approx(1)
        assert 0.65 <= max(prior.values()) <= 0.75 and list(prior.values()) == sorted(prior.values(), reverse=True)


def wordings(template: str) -> set[str]:
    """All that a template can say."""
    parts = [part.split("|") for part in re.split(r"\[(.*?)\]", template)]
    return {" ".join("".join(choice).split()) for choice in product(*parts)}


SPOKEN = {label: {w for t in templates for w in wordings(t)} for label, templates in CUES.items()}
SPOKEN["neutral"] = {wording for template in NEUTRAL for wording in wordings(template)}


def test_sentences_are_many_and_none_says_two_things():
    assert len(NEUTRAL) >= 15 and all(len(templates) >= 8 for templates in CUES.values())
    said = [(label, wording) for label, wordings in SPOKEN.items() for wording in wordings]
    assert all(wording.split().count("X") == 1 for _, wording in said)
    for (label, wording), (other, longer) in permutations(said, 2):
        assert label == other or f" {wording} " not in f" {longer} ", (wording, longer)


def test_no_name_is_a_word_of_something_else():
    everything = [*AMBIGUOUS, *UNAMBIGUOUS]
    assert not [(a, b) for a, b in permutations(everything, 2) if f" {a.lower()} " in f" {b.lower()} "]
    templates = [wording for said in SPOKEN.values() for wording in said]
    phrases = sum([*PLACES.values(), *(NOUNS[noun] for noun in COMPANIONS)], ())
    texts = " . ".join((*templates, *phrases, *names.ACCOMPANIED)).lower()
    assert not [name for name in everything if f" {name.lower()} " in f" {texts} "]


# ---- posts ----


def spans(post: TaggedPost) -> list[tuple[int, int, str]]:
    """(start, end, type) of each name; fails if the tags are not valid BIO."""
    found = []
    for at, tag in enumerate(post.tags):
        mark, _, label = tag.partition("-")
        assert tag == "O" or label in TYPES
        if mark == "B":
            found.append((at, at + 1, label))
        elif mark == "I":
            start, end, open_label = found.pop()
            assert (end, label) == (at, open_label), post
            found.append((start, at + 1, label))
    return found


def plain(tokens: tuple[str, ...]) -> str:
    return " ".join(tokens).lower().removeprefix("#")


@given(POSTS)
@settings(max_examples=200, deadline=None)
def test_tags_are_valid_and_mark_the_names(where):
    split, index = where
    post = split[index]
    assert len(post.tokens) == len(post.tags) and all(token and token == token.strip() for token in post.tokens)
    said = Counter((plain(post.tokens[start:end]), label) for start, end, label in spans(post))
    assert said == Counter((mention.name.lower(), mention.type) for mention in split.facts(index).mentions)


@given(POSTS)
@settings(max_examples=200, deadline=None)
def test_posts_say_the_place_and_the_companion_of_the_facts(where):
    split, index = where
    post, facts = split[index], split.facts(index)
    text = f" {' '.join(t for t, tag in zip(post.tokens, post.tags, strict=True) if tag == 'O').lower()} "
    places = {place for place, phrases in PLACES.items() for phrase in phrases if f" {phrase} " in text}
    company = {noun for noun in COMPANIONS for word in NOUNS[noun] if f" {word} " in text}
    assert places == {facts.place} - {None} and company == {facts.companion} - {None}


def contexts(post: TaggedPost, mention, together: bool) -> set[str]:
    """Whose wording stands around a name: types for cues, "neutral"."""
    text, last = "", 0
    for start, end, _ in spans(post):
        name = "X" if plain(post.tokens[start:end]) == mention.name.lower() else "other"
        text, last = f"{text} {' '.join(post.tokens[last:start]).lower()} {name} ", end
    text = " ".join(f"{text} {' '.join(post.tokens[last:]).lower()}".split())
    if together:
        text = re.sub(r"(X|other) (and|&|or|\+) (X|other)", "X", text)
    return {label for label, said in SPOKEN.items() for wording in said if f" {wording} " in f" {text} "}


@given(POSTS)
@settings(max_examples=200, deadline=None)
def test_cues_stand_where_the_facts_say_so_and_nowhere_else(where):
    split, index = where
    post, mentions = split[index], split.facts(index).mentions
    together = len(mentions) == 2 and all(mention.settled_by != "cue" for mention in mentions)
    for mention in mentions:
        expected = mention.type if mention.settled_by == "cue" else "neutral"
        assert expected in contexts(post, mention, together), post
        if together or len(mentions) == 1:
            assert contexts(post, mention, together) == {expected}, post


def test_posts_look_like_posts(corpus):
    lengths = np.array([len(post.tokens) for post in corpus.test])
    assert 12 < lengths.mean() < 16 and ((lengths >= 10) & (lengths <= 20)).mean() > 0.7 and lengths.max() < 32
    marks = {"RT": 0.25, "@": 0.25, "http": 0.4, "#": 0.45}
    found = {mark: np.mean([any(t.startswith(mark) for t in post.tokens) for post in corpus.test]) for mark in marks}
    assert found == pytest.approx(marks, abs=0.1)
    words = [[t for t, tag in zip(p.tokens, p.tags, strict=True) if tag[0] == "B" and t[0] != "#"] for p in corpus.test]
    assert np.mean([all(map(str.islower, name)) for name in words if name]) == pytest.approx(0.12, abs=0.05)
    assert np.mean([all(map(str.isupper, name)) for name in words if name]) == pytest.approx(0.04, abs=0.03)


def test_names_and_words_are_known_from_training(corpus):
    words, seen = {}, {}
    for name in ("train", "dev", "test"):
        split = getattr(corpus, name)
        words[name] = {t.lower().lstrip("#") for post in split for t in post.tokens if t[0] != "@" and t[:4] != "http"}
        seen[name] = {mention.name for i in range(len(split)) for mention in split.facts(i).mentions}
    assert seen["train"] == AMBIGUOUS.keys() | UNAMBIGUOUS.keys()
    assert AMBIGUOUS.keys() <= seen["test"] and len(seen["test"]) > 115 and len(seen["dev"]) > 90
    assert words["dev"] | words["test"] <= words["train"]


# ---- pictures ----


def test_every_icon_means_one_thing():
    shown, firms = entities.TYPE_SHOWN, entities.LOGOS
    icons = [*sum(entities.EVIDENCE.values(), []), *firms.values(), *COMPANIONS]
    assert len({icon_mask(ICONS.get(icon, icon), 48).tobytes() for icon in icons}) == len(icons)
    assert shown.keys().isdisjoint(ICONS) and set(COMPANIONS) <= NOUNS.keys() == ICONS.keys()
    assert all("ORG" in PRIOR.get(name, UNAMBIGUOUS.get(name)) for name in firms)


@given(POSTS)
@settings(max_examples=200, deadline=None)
def test_the_own_picture_shows_what_the_post_is_about(where):
    split, index = where
    facts, own = split.facts(index), split.own_scene(index)
    assert evidence_shown(own) == Counter(mention.type for mention in facts.mentions)
    assert own.background == split.background(index) and facts.place in (None, own.background)
    assert facts.companion in (None, entities.company_shown(own))
    assert len(own.objects) == len(facts.mentions) + bool(entities.company_shown(own))
    marks = {entities.LOGOS.get(mention.name) for mention in facts.mentions if mention.type == "ORG"}
    assert {thing.noun for thing in own.objects} & {*entities.LOGOS.values()} <= marks


@given(POSTS)
@settings(max_examples=200, deadline=None)
def test_an_exchanged_picture_is_the_neighbours_and_from_elsewhere(where):
    split, index = where
    facts, shown = split.facts(index), split.scene(index)
    assert shown == split[index].image
    if facts.matched:
        assert shown == split.own_scene(index)
    else:
        neighbour = index + 1 - 2 * (index % 2)
        assert shown == split.own_scene(neighbour) and split.scene(neighbour) == split.own_scene(index)
        assert shown.background != split.background(index) and shown.background != facts.place


def test_where_a_thing_stands_does_not_tell_its_name(facts):
    two = [(i, f.mentions) for i, f in enumerate(facts[:3000]) if len({mention.type for mention in f.mentions}) == 2]
    in_order = [entities.TYPE_SHOWN[MANY.own_scene(i).objects[0].noun] == first.type for i, (first, _) in two]
    assert len(two) > 400 and np.mean(in_order) == pytest.approx(0.5, abs=0.1)


def test_each_picture_is_shown_once(corpus):
    shown = [split.scene(i) for split in (corpus.train, corpus.dev, corpus.test) for i in range(len(split))]
    assert len(set(shown)) == len(shown) == 7100
    assert set(shown[:6000]) == {corpus.train.own_scene(i) for i in range(6000)}


def test_pictures_are_drawn_with_things_inside_and_apart(corpus):
    assert np.asarray(open_picture(corpus.test[3].image)).shape == (128, 128, 3)
    for scene in (corpus.test.scene(i) for i in range(800)):
        things = scene.objects
        assert all(-0.03 < at - t.size / 2 and at + t.size / 2 < 1.03 for t in things for at in (t.x, t.y))
        gaps = [max(abs(a.x - b.x), abs(a.y - b.y)) - (a.size + b.size) / 2 for a, b in combinations(things, 2)]
        assert min(gaps, default=0) > -0.12 and min(t.size for t in things) > 0.3


def test_a_firm_shows_its_own_mark_every_other_time(facts):
    firms = [i for i, f in enumerate(facts) if any(m.name in entities.LOGOS and m.type == "ORG" for m in f.mentions)]
    marked = [any(t.noun in entities.LOGOS.values() for t in MANY.own_scene(i).objects) for i in firms]
    assert len(firms) > 200 and np.mean(marked) == pytest.approx(entities.SHOWS_LOGO, abs=0.12)


# ---- shares ----


def test_shares_hold_in_every_stretch_of_forty():
    expected = {("picture", True): 18, ("text", True): 12, ("text", False): 5, ("neither", False): 5}
    for start in (0, 40, 2222, 5960):
        assert Counter((f.kind, f.matched) for f in map(MANY.facts, range(start, start + 40))) == expected


def test_a_kind_is_what_its_mentions_say(facts):
    for f in facts:
        settled = {mention.settled_by for mention in f.mentions}
        allowed = {"picture": {"picture", "name"}, "neither": {"nothing", "name"}, "text": {"name", "cue"}}[f.kind]
        assert settled <= allowed and (f.kind == "text" or settled - {"name"})
        for mention in f.mentions:
            certain = mention.settled_by in ("name", "cue")
            assert mention.candidates == ({mention.type: 1} if certain else PRIOR[mention.name])
            assert mention.type in mention.candidates and (mention.name in AMBIGUOUS or certain)


def test_details_come_as_often_as_promised(facts):
    own = [MANY.own_scene(index) for index in range(2000)]
    company = np.array([entities.company_shown(scene) is not None for scene in own])
    lonely = [not f.companion for f in facts[:2000]]
    for kind in ("picture", "text", "neither"):
        chosen = [f for f in facts if f.kind == kind]
        assert np.mean([f.place is not None for f in chosen]) == pytest.approx(entities.SAYS_PLACE, abs=0.03)
        assert np.mean([f.companion is not None for f in chosen]) == pytest.approx(entities.SAYS_COMPANION, abs=0.05)
        assert np.mean([len(f.mentions) == 2 for f in chosen]) == pytest.approx(entities.TWO_NAMES, abs=0.05)
        counts = Counter(mention.type for f in chosen for mention in f.mentions)
        assert all(counts[label] / counts.total() == pytest.approx(1 / 4, abs=0.05) for label in TYPES)
    assert company[lonely].mean() == pytest.approx(entities.HAS_BYSTANDER, abs=0.05)
    assert company.mean() == pytest.approx(entities.SHOWS_COMPANY, abs=0.03)
    backgrounds = Counter(scene.background for scene in own)
    assert all(backgrounds[place] / 2000 == pytest.approx(0.1, abs=0.03) for place in PLACES)
    assert {scene.variant for scene in own} == set(range(VARIANTS))
    told = Counter(m.settled_by for f in facts if f.kind == "text" for m in f.mentions if m.name in UNAMBIGUOUS)
    assert told["name"] / told.total() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("settled_by", ["picture", "cue", "nothing"])
def test_names_are_of_their_types_as_often_whatever_tells_them(facts, settled_by):
    ranks = {2: Counter(), 3: Counter()}
    for mention in (mention for f in facts for mention in f.mentions):
        if mention.settled_by == settled_by and mention.name in AMBIGUOUS:
            order = AMBIGUOUS[mention.name]
            ranks[len(order)][order.index(mention.type)] += 1
    for count, found in ranks.items():
        shares = [found[rank] / found.total() for rank in range(count)]
        assert found.total() > 250 and shares == pytest.approx(USUAL[count], abs=0.06)


def test_two_ambiguous_names_cannot_change_places_in_the_picture(facts):
    pairs = [f.mentions for f in facts if len(f.mentions) == 2 and all(len(m.candidates) > 1 for m in f.mentions)]
    assert len(pairs) > 200 and len({m.type for mentions in pairs for m in mentions}) == 4
    for mentions in pairs:
        assert len(set(mentions[0].candidates) & set(mentions[1].candidates)) < 2
        shown = Counter(mention.type for mention in mentions)
        fitting = [types for types in product(*(m.candidates for m in mentions)) if Counter(types) == shown]
        assert fitting == [tuple(mention.type for mention in mentions)]


# ---- the perfect readers ----


def test_ceilings_are_in_order_and_apart(corpus):
    text, believing, judging, knowing = ceiling(corpus.test).values()
    assert knowing["picture"] == believing["picture"] == 100 and knowing["picture"] - text["picture"] > 20
    assert knowing["neither"] == text["neither"] and knowing["neither"] - believing["neither"] > 12
    assert text["all"] < believing["all"] < judging["all"] <= knowing["all"] < 99
    assert judging["picture"] > 99 and knowing["neither"] - judging["neither"] < 2
    assert {reader["text"] for reader in (text, believing, judging, knowing)} == {100}


def test_what_text_alone_reaches(corpus):
    right = [max(m.candidates.values()) for i in range(300) for m in corpus.dev.facts(i).mentions]
    assert ceiling(corpus.dev)["text only"]["all"] == pytest.approx(100 * np.mean(right))


def test_a_believer_takes_what_the_picture_shows_if_the_name_can_be_that():
    split = Entities("test", 10**4, 3)
    for index in range(1000):
        facts, scene = split.facts(index), split.scene(index)
        if facts.kind == "neither" and len(facts.mentions) == 1:
            prior = PRIOR[facts.mentions[0].name]
            seen = [label for label in prior if label in evidence_shown(scene)] or list(prior)
            assert entities._guess(facts.mentions, entities._believe(facts, scene)) == [max(seen, key=prior.get)]


def test_said_and_shown_tell_whose_the_picture_is(facts):
    chances, own = np.array(match_chances(MANY)), np.array(matched(MANY))
    order = np.argsort(np.argsort(chances))
    area = (order[own].mean() - (own.sum() - 1) / 2) / (~own).sum()
    assert area > 0.99 and own.mean() == 0.75
    placed = np.array([f.place is not None for f in facts])
    assert (chances[placed] == own[placed]).all()
    assert chances[~placed].mean() == pytest.approx(own[~placed].mean(), abs=0.02)
    unsure = (chances > 0.05) & (chances < 0.95)
    assert unsure.sum() > 50 and chances[unsure].mean() == pytest.approx(own[unsure].mean(), abs=0.1)


def test_the_chances_of_all_pictures_sum_to_one():
    evidence = [Counter(types) for count in (1, 2) for types in combinations_with_replacement(TYPES, count)]
    assert sum(map(entities._evidence_chance, evidence)) == pytest.approx(1)
    assert sum(entities._company_chance(company, 0.3) for company in (None, *COMPANIONS)) == pytest.approx(1)


def test_what_decides_a_post(corpus):
    kinds, own = entities.decided_by(corpus.test), matched(corpus.test)
    assert Counter(kinds) == {"picture": 360, "text": 340, "neither": 100} and sum(own) == 600
    assert {pair for pair in zip(kinds, own, strict=True) if pair[0] != "text"} == {
        ("picture", True),
        ("neither", False),
    }
    shares = {kind: count / 300 for kind, count in Counter(entities.decided_by(corpus.dev)).items()}
    assert shares == pytest.approx({"picture": 0.45, "text": 0.425, "neither": 0.125}, abs=0.02)
