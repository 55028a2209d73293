"""Products: the five-field format with other people's habits, fixed splits, and what the experiments make of them."""

import hashlib
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib import corpora
from lib.corpora import DataError, Product, open_picture, picture_key
from lib.corpora.files import fingerprint
from lib.corpora.iconworld.products import load as iconworld
from lib.corpora.products import KINDS, Crop, degrade, drawn, load, pairs, questions, stream

ITEMS = [
    ("1", "Palm Tree White Skirt", "images/1.jpg", "baseColour#:#White#;#season#:#Summer", "Skirts"),
    ("2", "palm tree white  skirt", "images/2.jpg", "baseColour#:#White", "Skirts"),
    ("3", "红色 连衣裙", "https://img.example/a/red.jpg?x=1", "颜色#:#红色#;#适用年龄#:#4岁#;#适用年龄#:#5岁", "裙子"),
    ("4", "Blue Cap", "images/4.jpg", "", "Caps"),
    ("5", "", "", "baseColour#:#Blue", "Caps"),
]  # fmt: skip
words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5).filter(lambda w: "#" not in w)
few = settings(max_examples=60, deadline=None)


def write(path: Path, items: list = ITEMS, end: str = "\n", mark: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((mark + "".join("\t".join(fields) + end for fields in items)).encode())
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of items with pictures, of which the third is a web link and the fifth is not there."""
    folder = (tmp_path / "shop").resolve()
    (folder / "images").mkdir(parents=True)
    for shade in (1, 2, 4):
        Image.new("RGB", (8, 6), (50 * shade, 0, 0)).save(folder / f"images/{shade}.jpg")
    write(folder / "items.tsv")
    return folder


def made(count: int, **changes) -> list[Product]:
    """Products without files: their pictures are drawings."""
    shown = iconworld(train=count).train
    return [
        replace(
            shown[i], id=f"i{i}", product=f"i{i}", title=f"title{i} word{i} thing", category="abc"[i % 3], **changes
        )
        for i in range(count)
    ]


def every(corpus) -> tuple[Product, ...]:
    return corpus.train + corpus.dev + corpus.test


# ---- good files ----


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@pytest.mark.parametrize("name", ["k3m", "fashion"])
def test_a_file_or_its_folder_is_a_corpus(root, name):
    corpus = corpora.load(name, root)
    assert corpus == corpora.load(name, root / "items.tsv") and corpus.name == name
    found = {product.id: product for product in every(corpus)}
    assert found.keys() == set("12345")
    triples = (("baseColour", "White"), ("season", "Summer"))
    assert found["1"] == Product("1", root / "images/1.jpg", "Palm Tree White Skirt", triples, "Skirts", "1")
    assert found["3"].properties == (("颜色", "红色"), ("适用年龄", "4岁"), ("适用年龄", "5岁"))
    assert found["3"].image is found["5"].image is None and found["4"].properties == () and found["5"].title == ""
    assert corpus.notes == {"missing pictures": 2, "empty titles": 1, "items without properties": 1}


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n\r\n"])
def test_windows_files_and_blank_lines_read_alike(root, end, mark):
    before = load("k3m", root)
    write(root / "items.tsv", ITEMS, end, mark)
    assert load("k3m", root) == before
    (root / "items.tsv").write_bytes((root / "items.tsv").read_bytes().rstrip(b"\r\n"))
    assert load("k3m", root) == before


def test_quotes_and_odd_characters_are_text(root):
    odd = ("9", 'a "13 inch\u2028laptop" \'x', "", 'size#:#13"', "a\u3000b")
    (product,) = stream(write(root / "odd.tsv", [odd]))
    assert product.title == 'a "13 inch laptop" \'x' and product.properties == (("size", '13"'),)
    assert product.category == "a\u3000b"


@given(st.lists(st.tuples(words, words, st.lists(st.tuples(words, words), max_size=3), words), min_size=1, max_size=5))
@few
def test_any_item_reads_back(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("round-trip") / "items.tsv"
    rows = [
        (f"{i}-{id}", title, "", "#;#".join(map("#:#".join, triples)), category)
        for i, (id, title, triples, category) in enumerate(items)
    ]
    read = list(stream(write(path, rows)))
    assert [(p.id, p.title, p.category) for p in read] == [(row[0], row[1], row[4]) for row in rows]
    assert [p.properties for p in read] == [tuple(dict.fromkeys(triples)) for _, _, triples, _ in items]


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
def test_pictures_of_web_links_lie_in_a_folder_under_their_id_or_name(root, tmp_path):
    for name in ("red.jpg", "5.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    found = {product.id: product.image for product in every(load("k3m", root, images=tmp_path))}
    assert found["3"] == tmp_path / "red.jpg" and found["5"] == tmp_path / "5.png"
    assert found["1"] == root / "images/1.jpg"  # its own path comes first
    Image.new("RGB", (4, 4)).save(root / "images/3.png")
    assert {product.id: product.image for product in every(load("k3m", root))}["3"] == root / "images/3.png"


def test_missing_pictures_are_counted_aloud(root):
    with pytest.warns(UserWarning, match="2 of 5 pictures are missing, the first is '[35]'"):
        load("k3m", root)


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
def test_the_table_counts_what_products_have(root):
    table = load("k3m", root).describe()
    assert table.sum()[["examples", "with picture", "with title", "triples", "products"]].tolist() == [5, 3, 4, 7, 5]


def test_a_listing_is_a_product_of_its_own_unless_told():
    one = Product("1", None, "a", (), "c")
    assert one.product == "1" and replace(one, id="1/2").product == "1"
    assert Product("1", None, "a", (), "c", "p").product == "p"
    assert fingerprint([one]) != fingerprint([replace(one, product="p")])


# ---- splits ----


def test_given_splits_are_kept_and_the_limit_cuts_training(root):
    for split, rows in {"train": [ITEMS[0], ITEMS[3]], "valid": ITEMS[1:2], "test": ITEMS[2:3]}.items():
        write(root / f"{split}.tsv", rows)
    with pytest.warns(UserWarning, match="missing"):
        corpus = load("fashion", root)
    assert [[p.id for p in split] for split in (corpus.train, corpus.dev, corpus.test)] == [["1", "4"], ["2"], ["3"]]
    (root / "valid.tsv").rename(root / "dev.tsv")
    with pytest.warns(UserWarning, match="missing"):
        assert load("fashion", root, limit=1).train == corpus.train[:1] and load("fashion", root).dev == corpus.dev


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
def test_fixed_splits_have_their_shares_and_keep_titles_together(tmp_path):
    rows = [(str(i), f"Title {i // 3}", "", "", "c") for i in range(300)]
    corpus = load("fashion", write(tmp_path / "items.tsv", rows))
    assert [len(split) for split in (corpus.train, corpus.dev, corpus.test)] == [240, 30, 30]
    titles = [{product.title for product in split} for split in (corpus.train, corpus.dev, corpus.test)]
    assert sum(map(len, titles)) == len(set.union(*titles)) == 100
    again = load("fashion", write(tmp_path / "items.tsv", rows[::-1]))
    assert {p.id for p in again.test} == {p.id for p in corpus.test}
    by_id = load("k3m", tmp_path / "items.tsv")
    assert {p.id for p in by_id.test} != {p.id for p in corpus.test} and len(by_id.test) == 30


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
def test_a_hash_of_the_id_decides(tmp_path):
    corpus = load("k3m", write(tmp_path / "items.tsv", [(f"{i}", "", "", "", "c") for i in range(10)]))
    order = sorted(map(str, range(10)), key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    assert [[p.id for p in split] for split in (corpus.dev, corpus.test)] == [order[:1], order[-1:]]


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
def test_titles_that_differ_in_case_or_spaces_stay_together(root):
    corpus = load("fashion", root)
    assert any({"1", "2"} <= {p.id for p in split} for split in (corpus.train, corpus.dev, corpus.test))


# ---- bad files ----


@pytest.mark.parametrize(
    "line, message",
    [
        (b"1\ta\tb", r"items.tsv:6: found 3 fields, expected 5: id, title, image address, properties and category"),
        (b"a b", r"items.tsv:6: found 1 field, expected 5"),
        (b"6\tt\t\t\tc\t", r"items.tsv:6: found 6 fields, expected 5"),
        (b" \tt\t\t\tc", r"items.tsv:6: found no id, expected id"),
        (b"6\tt\t\t\t ", r"items.tsv:6: found no category"),
        (b"1\tt\t\t\tc", r"items.tsv:6: found id '1' a second time \(first: .*items.tsv:1\), expected each id once"),
        (b"6\tt\t\tsize#:#\tc", r"items.tsv:6: found property 'size#:#', expected name#:#value, with #;# between"),
        (b"6\tt\t\tsize: 3\tc", r"items.tsv:6: found property 'size: 3'"),
        (b"6\tt\t\ta#:#b#:#c\tc", r"items.tsv:6: found property 'a#:#b#:#c'"),
        (b"6\tt\t../x.jpg\t\tc", r"items.tsv:6: found path '../x.jpg', expected a path inside"),
        (b"6\tt\t/etc/x.jpg\t\tc", r"items.tsv:6: found path '/etc/x.jpg', expected a path inside"),
        (b"6\tt\xff\t\t\tc", r"items.tsv:6: found byte 0xff, expected UTF-8 text"),
        (b"6\tt\r7\tu\t\t\tc", r"items.tsv:6: found an unreadable line \(new-line character"),
        (b"6\t" + b"t" * 200_000 + b"\t\t\tc", r"items.tsv:6: found an unreadable line \(field larger than"),
    ],
)  # fmt: skip
def test_bad_lines_are_named(root, line, message):
    path = root / "items.tsv"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=message):
        load("k3m", root)


def test_bad_folders_are_named(root, tmp_path):
    with pytest.raises(DataError, match="found no data folder, expected a folder with items.tsv, or train.tsv"):
        load("k3m", None)
    with pytest.raises(DataError, match="found no such folder"):
        load("k3m", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no such file, expected items.tsv, or .*; or name one file itself"):
        load("k3m", tmp_path / "empty")
    write(root / "train.tsv")
    with pytest.raises(DataError, match="found items.tsv, train.tsv, expected items.tsv, or train.tsv, valid.tsv and"):
        load("k3m", root)
    with pytest.raises(DataError, match="found no item, expected at least one"):
        load("k3m", write(tmp_path / "blank.tsv", [], mark="\n\n"))
    with pytest.raises(DataError, match="found items of 2 different ids, expected at least 3, one for each split"):
        load("k3m", write(tmp_path / "two.tsv", ITEMS[:2]))
    with pytest.raises(DataError, match="found no such folder, expected a folder with pictures"):
        load("k3m", root / "items.tsv", images=tmp_path / "nowhere")


def test_an_id_in_two_splits_is_named(root):
    for split in ("train", "valid", "test"):
        write(root / f"{split}.tsv", ITEMS[:1])
    with pytest.raises(DataError, match=r"valid.tsv:1: found id '1' a second time \(first: .*train.tsv:1\)"):
        load("k3m", root)


# ---- a file larger than memory ----


def test_a_stream_holds_one_item_at_a_time_and_meets_bad_lines_where_they_are(tmp_path):
    path, count = tmp_path / "large.tsv", 20_000
    with open(path, "w") as file:
        for i in range(count):
            file.write(f"{i}\tsome title number {i}\t\tsize#:#{i % 7}#;#colour#:#red\tcategory {i % 9}\n")
        file.write("bad line\n")
    items, peaks = stream(path), []
    tracemalloc.start()
    for i in range(count):
        assert next(items).id == str(i)
        if i % 5000 == 4999:
            peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert max(peaks) < 2**20 < path.stat().st_size and peaks[-1] < 1.1 * peaks[0]
    with pytest.raises(DataError, match="large.tsv:20001: found 1 field"):
        next(items)


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


def test_a_crop_shows_its_part_and_its_key_says_which(root):
    picture = Image.new("RGB", (10, 10))
    picture.paste((255, 0, 0), (0, 0, 5, 10))
    picture.save(root / "half.png")
    crop = Crop(root / "half.png", (0.0, 0.0, 0.8, 0.8), False)
    array = np.asarray(open_picture(crop))
    assert array.shape == (8, 8, 3) and array[:, :5, 0].min() == 255 and array[:, 5:].max() == 0
    mirrored = replace(crop, mirrored=True)
    assert (np.asarray(open_picture(mirrored)) == array[:, ::-1]).all()
    keys = {picture_key(c) for c in (crop, mirrored, replace(crop, box=(0.0, 0.0, 0.8, 0.9)))}
    picture.transpose(Image.Transpose.TRANSPOSE).save(root / "half.png")
    assert len(keys | {picture_key(crop)}) == 4
    (root / "half.png").write_bytes(b"no picture")
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
