"""What K3M's experiments make of any products: missing and noisy modalities, pairs to align, questions."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.corpora import DataError, Product, open_picture, picture_key
from lib.corpora.iconworld.products import load as iconworld
from lib.corpora.products import KINDS, Crop, degrade, drawn, pairs, questions, unnamed

few = settings(max_examples=60, deadline=None)


def made(count: int, **changes) -> list[Product]:
    """Products without files: their pictures are drawings."""
    shown = iconworld(train=count).train
    return [
        replace(
            shown[i], id=f"i{i}", product=f"i{i}", title=f"title{i} word{i} thing", category="abc"[i % 3], **changes
        )
        for i in range(count)
    ]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture whose left half is red."""
    half = Image.new("RGB", (10, 10))
    half.paste((255, 0, 0), (0, 0, 5, 10))
    half.save(tmp_path / "half.png")
    return tmp_path / "half.png"


# ---- missing and noisy modalities ----

PRODUCTS = made(60)
RATIOS = (0.0, 0.2, 0.5, 0.8, 1.0)


def changes(before, after) -> tuple[bool, bool]:
    return before.title != after.title, before.image != after.image


@pytest.mark.parametrize(
    "kind, both", {"TMR": (1, 0), "IMR": (0, 1), "TNR": (1, 0), "INR": (0, 1), "TINR": (1, 1)}.items()
)
@pytest.mark.parametrize("ratio", RATIOS)
def test_so_many_lose_or_change_what_the_kind_says(kind, both, ratio):
    after = degrade(PRODUCTS, kind, ratio, seed=3)
    changed = [pair for pair in zip(PRODUCTS, after, strict=True) if pair[0] != pair[1]]
    assert len(changed) == round(60 * ratio) and {changes(*pair) for pair in changed} <= {both}
    if kind in ("TMR", "IMR"):
        assert all(not new.title if both[0] else new.image is None for _, new in changed)
    for old, new in changed:
        assert (old.id, old.properties, old.category, old.product) == (
            new.id,
            new.properties,
            new.category,
            new.product,
        )


@pytest.mark.parametrize(
    "kind, share", [("MMR", {(1, 0): 15, (0, 1): 15}), ("MNR", {(1, 0): 10, (0, 1): 10, (1, 1): 10})]
)
def test_mixtures_come_in_equal_shares(kind, share):
    after = degrade(PRODUCTS, kind, 0.5)
    found = Counter(changes(*pair) for pair in zip(PRODUCTS, after, strict=True))
    assert found == share | {(0, 0): 30}


@given(st.sampled_from([*KINDS]), st.integers(0, 99), st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted))
@few
def test_what_a_lower_ratio_degrades_a_higher_one_degrades_alike(kind, seed, ratios):
    low, high = (degrade(PRODUCTS, kind, ratio, seed) for ratio in ratios)
    for clean, some, more in zip(PRODUCTS, low, high, strict=True):
        assert some in (clean, more)
    fates = [drawn(60, kind, ratio, seed) for ratio in ratios]
    assert all(some in (None, more) for some, more in zip(*fates, strict=True))


@given(st.integers(0, 99))
@few
def test_every_kind_draws_the_same_items_and_both_noises_are_the_two_single_ones(seed):
    titles, images, both = (degrade(PRODUCTS, kind, 0.4, seed) for kind in ("TNR", "INR", "TINR"))
    assert both == tuple(replace(t, image=i.image) for t, i in zip(titles, images, strict=True))
    fates = {tuple(fate is not None for fate in drawn(60, kind, 0.4, seed)) for kind in KINDS}
    assert len(fates) == 1


PASSES = {
    "title missing": "TMR",
    "image missing": "IMR",
    "title noisy": "TNR",
    "image noisy": "INR",
    "both noisy": "TINR",
}


@pytest.mark.parametrize(
    "examples", [PRODUCTS, pairs(PRODUCTS), questions(PRODUCTS)], ids=["items", "pairs", "questions"]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_every_cell_is_a_mixture_of_six_passes(examples, kind, ratio):
    passes = {None: examples} | {fate: degrade(examples, name, 1.0, seed=2) for fate, name in PASSES.items()}
    mixed = tuple(passes[fate][i] for i, fate in enumerate(drawn(len(examples), kind, ratio, seed=2)))
    assert degrade(examples, kind, ratio, seed=2) == mixed


def test_another_seed_draws_other_items_and_donors():
    assert degrade(PRODUCTS, "TNR", 0.5, 0) == degrade(PRODUCTS, "TNR", 0.5, 0) != degrade(PRODUCTS, "TNR", 0.5, 1)
    donors = [product.title for product in degrade(PRODUCTS, "TNR", 1.0)]
    assert len(set(donors)) > 30


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9), st.integers(0, 9), st.sampled_from(["TNR", "INR"]))
@few
def test_donors_are_of_other_products_of_the_split(groups, seed, kind):
    listings = [replace(PRODUCTS[i], product=group, title=f"{group} {i}") for i, group in enumerate(groups)]
    if len(set(groups)) == 1:
        with pytest.raises(ValueError, match="no other product has (a title|an image) to give as noise"):
            degrade(listings, kind, 1.0, seed)
        return
    of = {product.title: product.product for product in listings} | {p.image: p.product for p in listings}
    for old, new in zip(listings, degrade(listings, kind, 1.0, seed), strict=True):
        assert of[new.title if kind == "TNR" else new.image] != old.product


def test_what_is_missing_is_not_noisy_and_gives_nothing():
    holes = [
        replace(p, title="" if i % 2 else p.title, image=None if i % 3 else p.image) for i, p in enumerate(PRODUCTS)
    ]
    for old, new in zip(holes, degrade(holes, "TINR", 1.0), strict=True):
        assert bool(old.title) == bool(new.title) and (old.image is None) == (new.image is None)
        assert not old.title or old.title != new.title
    assert degrade([replace(p, image=None) for p in PRODUCTS], "INR", 1.0)[0].image is None


@pytest.mark.parametrize("ratio", [-0.1, 1.1, 50, float("nan")])
def test_a_ratio_is_a_share(ratio):
    with pytest.raises(ValueError, match="ratio is a share between 0 and 1, got"):
        degrade(PRODUCTS, "TMR", ratio)
    with pytest.raises(ValueError, match="kind 'TITLE' is unknown, did you mean"):
        degrade(PRODUCTS, "TITLE", 0.5)


def test_no_products():
    assert degrade([], "MNR", 1.0) == pairs([]) == questions([]) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_both_listings_of_a_pair_are_degraded_alike_by_donors_of_their_own(kind):
    found = pairs(PRODUCTS)
    after = degrade(found, kind, 0.5)
    changed = [(a, b) for a, b in zip(found, after, strict=True) if a != b]
    assert len(changed) == len(found) / 2
    for old, new in changed:
        assert changes(old.left, new.left) == changes(old.right, new.right) and (old.id, old.same) == (new.id, new.same)
    if kind == "INR":
        assert sum(new.left.image.picture == new.right.image.picture for _, new in changed) < 10


def test_a_degraded_question_has_the_title_in_its_text_too():
    asked = questions(PRODUCTS)
    for old, new in zip(asked, degrade(asked, "TNR", 1.0), strict=True):
        assert new.text == old.text.replace(old.product.title, new.product.title) != old.text
        assert (new.id, new.answer, new.pool) == (old.id, old.answer, old.pool)
    assert degrade(asked, "TMR", 1.0)[0].text == asked[0].text[asked[0].text.index("[SEP]") :]
    assert degrade(asked, "TMR", 1.0) == questions([replace(p, title="") for p in PRODUCTS])


# ---- pairs ----


def test_two_listings_are_made_of_each_product():
    found = pairs(PRODUCTS, negatives=0)
    assert len(found) == 60 and all(pair.same for pair in found)
    originals = {product.id: product for product in PRODUCTS}
    for pair in found:
        assert pair.left != pair.right and pair.left.product == pair.right.product
        for listing in (pair.left, pair.right):
            original = originals[listing.product]
            assert listing.title and set(listing.title.split()) <= set(original.title.split())
            assert listing.properties and set(listing.properties) <= set(original.properties)
            assert isinstance(listing.image, Crop) and listing.image.picture == original.image
    assert found == pairs(PRODUCTS, negatives=0) != pairs(PRODUCTS, seed=1, negatives=0)
    kept = np.mean([len(side.properties) for pair in found for side in (pair.left, pair.right)])
    assert 0.6 < kept / np.mean([len(product.properties) for product in PRODUCTS]) < 0.8


def test_chinese_titles_lose_characters():
    product = replace(PRODUCTS[0], title="2020年冬季 新款毛绒 H42", image=None, properties=())
    (pair, *_) = pairs([product, replace(product, id="x", product="x")])
    for listing in (pair.left, pair.right):
        left = iter(product.title)
        assert 0 < len(listing.title) < len(product.title) and all(character in left for character in listing.title)
        assert listing.image is None and listing.properties == ()


def test_negatives_are_of_the_same_category_and_colour_where_there_is_one():
    colours = ("red", "red", "blue", "blue", "green")
    shop = [
        replace(p, category="hat" if i < 5 else "sock", properties=(("Farbcolor", colours[i % 5]), ("size", f"{i}")))
        for i, p in enumerate(PRODUCTS[:6])
    ]
    rivals = {}
    for pair in pairs(shop):
        if not pair.same:
            rivals.setdefault(pair.left.product, []).append(pair.right.product)
    assert rivals["i0"] == ["i1"] and rivals["i1"] == ["i0"] and rivals["i2"] == ["i3"]
    assert rivals["i4"][0] in ("i0", "i1", "i2", "i3")  # of its category, as no other hat is green
    assert rivals["i5"][0] in ("i0", "i1", "i2", "i3", "i4")  # the only sock
    assert rivals.keys() == {f"i{i}" for i in range(6)}


@given(st.integers(0, 7))
@few
def test_as_many_negatives_as_asked_or_as_there_are(negatives):
    found = pairs(PRODUCTS[:5], negatives=negatives)
    assert Counter(pair.same for pair in found) == Counter({True: 5, False: 5 * min(negatives, 4)})
    assert len({pair.id for pair in found}) == len(found)
    assert all((pair.left.product == pair.right.product) == pair.same for pair in found)
    assert pairs(PRODUCTS[:5], negatives=negatives)[:1] == found[:1]


def test_listings_that_there_are_are_paired_as_they_are():
    listings = [replace(p, product=f"p{i // 3}") for i, p in enumerate(PRODUCTS[:10])]  # p3 has one
    found = pairs(listings)
    assert {side.product for pair in found for side in (pair.left, pair.right)} == {"p0", "p1", "p2"}
    assert all(side in listings for pair in found for side in (pair.left, pair.right))
    assert all(pair.left.id != pair.right.id for pair in found) and sum(pair.same for pair in found) == 3


def test_a_crop_shows_its_part_and_its_key_says_which(picture):
    crop = Crop(picture, (0.0, 0.0, 0.8, 0.8), False)
    array = np.asarray(open_picture(crop))
    assert array.shape == (8, 8, 3) and array[:, :5, 0].min() == 255 and array[:, 5:].max() == 0
    mirrored = replace(crop, mirrored=True)
    assert (np.asarray(open_picture(mirrored)) == array[:, ::-1]).all()
    keys = {picture_key(c) for c in (crop, mirrored, replace(crop, box=(0.0, 0.0, 0.8, 0.9)))}
    open_picture(picture).transpose(Image.Transpose.TRANSPOSE).save(picture)
    assert len(keys | {picture_key(crop)}) == 4
    picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match="half.png: not a readable picture"):
        open_picture(crop)


# ---- questions ----


def test_a_question_asks_for_a_triple_that_is_not_there():
    asked = questions(PRODUCTS)
    everything = {value for product in PRODUCTS for _, value in product.properties}
    for question, product in zip(asked, PRODUCTS, strict=True):
        title, words = question.text.split(" [SEP] ")
        (name,) = [name for name, _ in product.properties if words == f"what is the {name}?"]
        assert title == product.title and dict(product.properties)[name] == question.answer
        assert {*question.product.properties} == {*product.properties} - {(name, question.answer)}
        assert set(question.pool) == everything and question.pool is asked[0].pool
    assert len({question.text.split("[SEP]")[1] for question in asked}) > 5
    assert questions(PRODUCTS, seed=1) != asked == questions(PRODUCTS)


def test_what_is_asked_does_not_depend_on_title_and_image():
    clean, noisy = questions(PRODUCTS), questions(degrade(PRODUCTS, "TINR", 1.0))
    assert [(q.id, q.answer, q.pool) for q in clean] == [(q.id, q.answer, q.pool) for q in noisy]


@given(st.integers(1, 60))
@few
def test_a_pool_has_its_size_and_the_answer(size):
    everything = {value for product in PRODUCTS for _, value in product.properties}
    for question in questions(PRODUCTS, pool=size):
        assert len(question.pool) == len(set(question.pool)) == min(size, len(everything))
        assert question.answer in question.pool and set(question.pool) <= everything
        assert list(question.pool) == sorted(question.pool)  # the place tells nothing


def test_properties_of_several_values_are_not_asked():
    (product,) = made(1, properties=(("年龄", "4岁"), ("年龄", "5岁"), ("颜色", "红")))
    (question,) = questions([product])
    assert question.text == "title0 word0 thing [SEP] 颜色是什么?" and question.answer == "红"
    assert question.product.properties == product.properties[:2]
    assert questions([replace(product, properties=product.properties[:2])]) == ()
    with pytest.raises(ValueError, match="a pool has at least 1 candidate, got 0"):
        questions([product], pool=0)


# ---- titles that do not name the category ----


@pytest.mark.parametrize("title, category, left", [
    ("Puma Men Caps black", "Caps", "Puma Men black"),
    ("a Cap, caps and CAPSULES", "Caps", "a , and"),
    ("Nike casual shoes", "Casual Shoes", "Nike"),
    ("Nike shoes", "Casual Shoes", "Nike shoes"),
    ("男鞋 红色", "男鞋", "红色"),
    ("红色男鞋真皮", "男鞋", "红色 真皮"),
    ("Sass", "S", ""),
    ("", "Caps", ""),
])  # fmt: skip
def test_a_title_without_the_words_of_its_category(title, category, left):
    product = Product("1", None, title, (("kind", "caps"),), category)
    assert unnamed(product) == replace(product, title=left)
