"""Products: the five-field format with other people's habits, fixed splits, a file larger than memory."""

import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib import corpora
from lib.corpora import DataError, Product
from lib.corpora.files import fingerprint
from lib.corpora.products import load, stream

ITEMS = [
    ("1", "Palm Tree White Skirt", "images/1.jpg", "baseColour#:#White#;#season#:#Summer", "Skirts"),
    ("2", "palm tree white  skirt", "images/2.jpg", "baseColour#:#White", "Skirts"),
    ("3", "红色 连衣裙", "https://img.example/a/red.jpg?x=1", "颜色#:#红色#;#适用年龄#:#4岁#;#适用年龄#:#5岁", "裙子"),
    ("4", "Blue Cap", "images/4.jpg", "", "Caps"),
    ("5", "", "", "baseColour#:#Blue", "Caps"),
]  # fmt: skip
# The format has no way to say that a mark is text: "#:#" and "#;#" can be read out of a lone ";" beside one.
words = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="#:;"), min_size=1, max_size=5)
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


def test_where_all_pictures_are_missing_it_is_said_where_they_were_looked_for(tmp_path):
    with pytest.warns(UserWarning, match="5 of 5 pictures are missing, .*; looked for in images, with .jpg, .jpeg"):
        load("k3m", write(tmp_path / "items.tsv"))


@pytest.mark.parametrize("there", ["1.JPG", "1.webp", "1.png"])
def test_pictures_that_are_named_otherwise_are_found(root, there):
    (root / "images/1.jpg").rename(root / "images" / there)
    (root / "images").rename(root / "Images")
    with pytest.warns(UserWarning, match="2 of 5 pictures are missing"):
        found = {product.id: product.image for product in every(load("k3m", root))}
    assert found["1"] == root / "Images" / there and found["2"] == root / "Images/2.jpg"


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


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text("1a\t\r\n #:;/.\"'", max_size=60).map(str.encode))
def test_whatever_is_added_loads_or_is_refused_in_one_sentence(tmp_path_factory, extra):
    path = write(tmp_path_factory.mktemp("noise") / "items.tsv")
    path.write_bytes(path.read_bytes() + extra)
    try:
        corpus = load("k3m", path.parent)
    except DataError as error:
        assert str(error).startswith(f"{path.resolve()}:") and "\n" not in str(error)
    else:
        found = every(corpus)
        assert len({product.id for product in found}) == len(found) >= len(ITEMS)
        assert all(product.id and product.category for product in found)
        assert all(name and value for product in found for name, value in product.properties)


# ---- a file larger than memory ----


def test_a_stream_holds_one_item_at_a_time_and_meets_bad_lines_where_they_are(tmp_path):
    path, count = tmp_path / "large.tsv", 20_000
    with open(path, "w", encoding="utf-8") as file:
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
