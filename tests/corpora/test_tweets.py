"""Tagged posts: one format with many habits, tags kept as they are, every bad line named."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib import corpora
from lib.corpora import Corpus, DataError, TaggedPost
from lib.corpora.tweets import load

# split -> posts of (IMGID, its lines)
POSTS = {
    "train": [
        ("17", ["RT\tO", "George\tB-PER", "Zimmerman\tI-PER"]),
        ("16_05_O", ["Swan\tO", "Thames\tB-LOC"]),
        ("4", ["Hi\tO"]),
    ],
    "valid": [("O_12", ["the\tO", "Olympic\tI-OTHER", "rings\tI-OTHER", "London\tI-LOC"])],
    "test": [("9", ["Rio\tB-LOC", "Rio\tB-LOC", ".\tO"])],
}
IMGIDS = [imgid for posts in POSTS.values() for imgid, _ in posts]

separators = st.sampled_from("\t ")
tokens = st.text(st.characters(exclude_characters="\n\t ", exclude_categories=["Cs"]), min_size=1)
labels = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1).filter(
    lambda x: not set(x) & {"\x85"}
)
tags = st.just("O") | st.builds("{}-{}".format, st.sampled_from("BI"), st.sampled_from(["PER", "LOC"]) | labels)
tagged = st.tuples(tokens, separators, tags).filter(lambda line: not line[0].startswith("IMGID:"))
posts_of_five = st.lists(st.lists(tagged, min_size=1, max_size=4), min_size=len(IMGIDS), max_size=len(IMGIDS))


def write(root: Path, posts: dict = POSTS, blank: str = "\n\n", end: str = "\n", mark: str = "") -> Path:
    """The three files; `blank` stands after every post."""
    root.mkdir(exist_ok=True)
    for split in posts:
        text = blank.join("\n".join([f"IMGID:{imgid}", *lines]) for imgid, lines in posts[split]) + blank
        (root / f"{split}.txt").write_bytes((mark + text.replace("\n", end)).encode())
    return root


def write_pictures(root: Path, folder: str = "images", suffix: str = ".jpg") -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for shade, imgid in enumerate(IMGIDS):
        Image.new("RGB", (4, 4), (50 * shade, 0, 0)).save(root / folder / f"{imgid}{suffix}")
    return root


def add(root: Path, split: str, text: str) -> None:
    path = root / f"{split}.txt"
    path.write_bytes(path.read_bytes() + text.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(write_pictures(tmp_path / "tweets")).resolve()


def ids(split: tuple[TaggedPost, ...]) -> list[str]:
    return [post.id for post in split]


def examples(corpus: Corpus) -> tuple[TaggedPost, ...]:
    return corpus.train + corpus.dev + corpus.test


# Good folders


@pytest.mark.parametrize("name", ["twitter2015", "twitter2017", "conll-images"])
def test_three_files_and_a_folder_of_pictures(root, name):
    corpus = corpora.load(name, root)
    assert corpus.name == name
    assert [ids(split) for split in (corpus.train, corpus.dev, corpus.test)] == [
        ["17", "16_05_O", "4"],
        ["O_12"],
        ["9"],
    ]
    tokens, tags = ("RT", "George", "Zimmerman"), ("O", "B-PER", "I-PER")
    assert corpus.train[0] == TaggedPost("17", root / "images/17.jpg", tokens, tags)
    assert corpora.open_picture(corpus.test[0].image).size == (4, 4)
    strays = {"I- after O or another type": 2}
    assert corpus.notes == {"missing pictures": 0, "posts without tokens": 0, "repeated IMGIDs": 0} | strays


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("blank", ["\n", "\n\n", "\n\n\n\n", "\n \n\t\n"])
def test_windows_files_and_any_number_of_blank_lines_read_alike(root, tmp_path, blank, end, mark):
    before = load("twitter2015", root)
    assert load("twitter2015", write(root, POSTS, blank, end, mark)) == before


def test_the_last_line_needs_no_end_and_the_first_post_no_beginning(root):
    before = load("twitter2015", root)
    for split in POSTS:
        path = root / f"{split}.txt"
        path.write_text("\n\n" + path.read_text().rstrip("\n"))
    assert load("twitter2015", root) == before


def test_dev_may_be_called_dev(root):
    before = load("twitter2015", root)
    (root / "valid.txt").rename(root / "dev.txt")
    assert load("twitter2015", root) == before


def test_a_space_divides_where_no_tab_does(root):
    before = load("twitter2015", root)
    spaced = {split: [(i, [x.replace("\t", " ") for x in lines]) for i, lines in POSTS[split]] for split in POSTS}
    assert load("twitter2015", write(root, spaced)) == before
    add(root, "test", "IMGID:9\nNew York\tB-LOC\n \tO\n")
    assert load("twitter2015", root).test[1].tokens == ("New York", " ")


@pytest.mark.parametrize(
    "token", ["\u2028", "\ufe0f", "\u200b", "\ufeff", "\xa0", "\x0c", "O", "B-PER", "@IMGID:1", "🏳️‍🌈", "東京"]
)
def test_odd_tokens_are_tokens(root, token):
    add(root, "test", f"IMGID:9\n{token}\tO\n{token} I-地名\n")
    post = load("twitter2015", root).test[1]
    assert post.tokens == (token, token) and post.tags == ("O", "I-地名")


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@settings(max_examples=60, deadline=None)
@given(posts_of_five, st.sampled_from(["\n", "\n\n", "\n\n\n"]), st.sampled_from(["", "\ufeff"]))
def test_any_post_reads_back(tmp_path_factory, posts, blank, mark):
    lines = iter([f"{token}{separator}{tag}" for token, separator, tag in post] for post in posts)
    files = {split: [(imgid, next(lines)) for imgid, _ in POSTS[split]] for split in POSTS}
    corpus = load("conll-images", write(tmp_path_factory.mktemp("round-trip"), files, blank, "\n", mark))
    assert ids(examples(corpus)) == IMGIDS
    assert [(post.tokens, post.tags) for post in examples(corpus)] == [
        tuple(zip(*post, strict=True))[::2] for post in posts
    ]
    assert corpus.describe()["tokens"].sum() == sum(map(len, posts))
    entities = [len(entities_of(post.tags)) for post in examples(corpus)]
    assert corpus.describe()["entities"].tolist() == [sum(entities[:3]), *entities[3:]]
    begun = sum(tag.startswith("B-") for post in examples(corpus) for tag in post.tags)
    assert corpus.notes["I- after O or another type"] == sum(entities) - begun


def entities_of(tags: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """The lenient chunks (type, start, end), read one tag at a time."""
    found, kind = [], None
    for i, tag in enumerate(tags):
        if tag == "O":
            kind = None
        elif tag.startswith("I-") and tag[2:] == kind:
            found[-1] = (kind, found[-1][1], i + 1)
        else:
            kind = tag[2:]
            found.append((kind, i, i + 1))
    return found


def test_the_table_counts_tokens_and_entities(root):
    table = load("twitter2015", root).describe()
    assert table["examples"].tolist() == table["with picture"].tolist() == [3, 1, 1]
    assert table["tokens"].tolist() == [6, 4, 3]
    assert table["entities"].tolist() == [2, 2, 2]  # in dev I-OTHER I-OTHER is one and I-LOC another


def test_the_limit_keeps_the_first_of_train_only(root):
    corpus = load("twitter2015", root, limit=2)
    assert ids(examples(corpus)) == ["17", "16_05_O", "O_12", "9"]
    assert load("twitter2015", root, limit=99) == load("twitter2015", root)


def test_notes_count_what_the_limit_keeps(root):
    add(root, "train", "IMGID:4\nParis\tI-LOC\n")
    (root / "images/4.jpg").unlink()
    with pytest.warns(UserWarning, match="2 of 6 pictures are missing, the first is '4'"):
        assert load("twitter2015", root).notes["I- after O or another type"] == 3
    notes = load("twitter2015", root, limit=2).notes
    assert notes["I- after O or another type"] == 2 and notes["missing pictures"] == 0


def test_posts_without_tokens_are_dropped_and_counted(root):
    before = load("twitter2015", root)
    add(root, "train", "IMGID:5\n\n\nIMGID:6\nIMGID:17\n")
    add(root, "test", "IMGID:7")
    corpus = load("twitter2015", root)
    assert examples(corpus) == examples(before) and corpus.fingerprint == before.fingerprint
    assert corpus.notes == before.notes | {"posts without tokens": 4}


def test_posts_that_share_a_picture_have_ids_of_their_own_whatever_the_limit(root):
    add(root, "train", "IMGID:17\nOnce\tO\n\nIMGID:17\nmore\tO\n")
    add(root, "test", "IMGID:4\nUSA\tB-LOC\n")
    corpus = load("twitter2015", root)
    assert ids(corpus.train) == ["17", "16_05_O", "4", "17 #2", "17 #3"] and ids(corpus.test) == ["9", "4 #2"]
    assert corpus.train[4].image == corpus.train[0].image == root / "images/17.jpg"
    assert corpus.notes["repeated IMGIDs"] == 3
    assert load("twitter2015", root, limit=1).test == corpus.test


# Pictures


@pytest.mark.parametrize("folder", ["images", "conll-images_images"])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png"])
def test_pictures_in_either_folder_and_format(tmp_path, folder, suffix):
    root = write(write_pictures(tmp_path, folder, suffix)).resolve()
    assert load("conll-images", root).test[0].image == root / folder / f"9{suffix}"


def test_posts_may_lie_in_their_own_folder_beside_the_pictures(tmp_path):
    write(write_pictures(tmp_path, "twitter2015_images") / "twitter2015")
    root = tmp_path.resolve()
    assert load("twitter2015", root).test[0].image == root / "twitter2015_images/9.jpg"
    with pytest.raises(DataError, match="found no train.txt, expected a folder with train.txt, valid.txt or dev.txt"):
        load("twitter2017", root)


@pytest.mark.parametrize("imgid, there", [("7.jpg", "7.jpg"), ("7.jpg", "7.JPG"), ("7", "7.webp"), ("7.JPG", "7.png")])
def test_an_imgid_may_have_an_ending_and_its_picture_another(root, imgid, there):
    shutil.copy(root / "images/9.jpg", root / "images" / there)
    add(root, "test", f"IMGID:{imgid}\nhi\tO\n")
    assert load("conll-images", root).test[1].image == root / "images" / there


def test_an_imgid_may_name_a_folder(root):
    (root / "images/2017").mkdir()
    shutil.copy(root / "images/9.jpg", root / "images/2017/1.jpg")
    add(root, "test", "IMGID:2017/1\nhi\tO\n")
    assert load("twitter2015", root).test[1].image == root / "images/2017/1.jpg"


def test_pictures_of_another_corpus_are_not_this_ones(tmp_path):
    root = write(write_pictures(tmp_path, "twitter2017_images"))
    with pytest.warns(UserWarning, match="5 of 5 pictures are missing"):
        assert load("twitter2015", root).notes["missing pictures"] == 5


def test_missing_pictures_are_none_counted_and_warned_of_once(root):
    (root / "images/4.jpg").unlink()
    (root / "images/9.jpg").unlink()
    with pytest.warns(UserWarning, match="2 of 5 pictures are missing, the first is '4'") as warned:
        corpus = corpora.load("twitter2015", root)
    assert corpus.train[2].image is None and corpus.notes["missing pictures"] == 2
    assert len(warned) == 1 and warned[0].filename == __file__


# The fingerprint


def test_a_moved_folder_keeps_its_fingerprint(root, tmp_path):
    shutil.copytree(root, tmp_path / "moved")
    assert load("twitter2015", tmp_path / "moved").fingerprint == load("twitter2017", root).fingerprint


@pytest.mark.parametrize(
    "split, old, new",
    [
        ("train", "Hi", "Ho"),
        ("train", "Hi\tO", "Hi\tB-PER"),
        ("valid", "I-LOC", "I-ORG"),
        ("test", "IMGID:9", "IMGID:17"),
    ],
)
def test_each_change_of_the_text_changes_the_fingerprint(root, split, old, new):
    before = load("twitter2015", root).fingerprint
    path = root / f"{split}.txt"
    path.write_text(path.read_text().replace(old, new))
    assert load("twitter2015", root).fingerprint != before


def test_a_changed_pixel_changes_the_fingerprint(root):
    before = load("twitter2015", root).fingerprint
    Image.new("RGB", (4, 4), "white").save(root / "images/9.jpg")
    assert load("twitter2015", root).fingerprint != before


# Bad folders and files

FOLDER = "a folder with train.txt, valid.txt or dev.txt, test.txt, and the pictures in images/"


@pytest.mark.parametrize(
    "root, found", [(None, "no data folder"), ("", "no data folder"), ("no/such", "no such folder")]
)
def test_no_folder_says_which_files_it_expects(root, found):
    with pytest.raises(DataError, match=f": found {found}, expected {FOLDER}$"):
        corpora.load("twitter2015", root)


@pytest.mark.parametrize(
    "split, found", [("train", "train.txt"), ("valid", "valid.txt or dev.txt"), ("test", "test.txt")]
)
def test_each_file_is_needed(root, split, found):
    (root / f"{split}.txt").unlink()
    with pytest.raises(DataError) as error:
        load("twitter2015", root)
    assert str(error.value) == f"{root}: found no {found}, expected {FOLDER}"


@pytest.mark.parametrize("content", ["", "\ufeff", "\n \n\n", "IMGID:1\n", "IMGID:1\n\nIMGID:2"])
@pytest.mark.parametrize("split", POSTS)
def test_a_file_without_a_post(root, split, content):
    (root / f"{split}.txt").write_text(content)
    with pytest.raises(DataError) as error:
        load("twitter2015", root)
    expected = "at least one, IMGID: and an id, then its tokens with tags"
    assert str(error.value) == f"{root}/{split}.txt: found no post with tokens, expected {expected}"


A_TAG = "a token, a tab and its tag"
A_TYPE = "O, B-type or I-type"
AN_ID = "IMGID: and one id without spaces"


@pytest.mark.parametrize(
    "line, found, expected",
    [
        ("Rio", "no tag in 'Rio'", A_TAG),
        ("Rio\t", r"no tag in 'Rio\t'", A_TAG),
        ("Rio ", "no tag in 'Rio '", A_TAG),
        ("\xa0", r"no tag in '\xa0'", A_TAG),
        ("\tO", r"no token in '\tO'", A_TAG),
        (" O", "no token in ' O'", A_TAG),
        ("Rio\tLOC", "tag 'LOC' of 'Rio'", A_TYPE),
        ("Rio\tB", "tag 'B' of 'Rio'", A_TYPE),
        ("Rio\tB-", "tag 'B-' of 'Rio'", A_TYPE),
        ("Rio\tb-LOC", "tag 'b-LOC' of 'Rio'", A_TYPE),
        ("Rio\tS-LOC", "tag 'S-LOC' of 'Rio'", A_TYPE),
        ("Rio\tO-LOC", "tag 'O-LOC' of 'Rio'", A_TYPE),
        ("Rio\t0", "tag '0' of 'Rio'", A_TYPE),
        ("Rio\tB-LOC ", "tag 'B-LOC ' of 'Rio'", A_TYPE),
        ("Rio\tB-a place", "tag 'B-a place' of 'Rio'", A_TYPE),
        ("Rio\tO\r", r"tag 'O\r' of 'Rio'", A_TYPE),
        ("Rio\tNNP\tB-LOC", r"tag 'NNP\tB-LOC' of 'Rio'", A_TYPE),
        ("Rio\tB-NP\tB-LOC", r"tag 'B-NP\tB-LOC' of 'Rio'", A_TYPE),
        ("Rio NNP B-NP B-LOC", "tag 'NNP B-NP B-LOC' of 'Rio'", A_TYPE),
        ("imgid:1\tO\tO", r"tag 'O\tO' of 'imgid:1'", A_TYPE),
        ("IMGID:", "'IMGID:'", AN_ID),
        ("IMGID: \t", r"'IMGID: \t'", AN_ID),
        ("IMGID:1 2", "'IMGID:1 2'", AN_ID),
        ("IMGID:1\tO", r"'IMGID:1\tO'", AN_ID),
        ("IMGID:1\rRio\tO\r", r"'IMGID:1\rRio\tO\r'", AN_ID),  # the line ends of very old Macs
    ],
)
def test_a_bad_line_is_named(root, line, found, expected):
    add(root, "test", f"IMGID:10\nhi\tO\n{line}\r\n.\tO\n")
    with pytest.raises(DataError) as error:
        load("twitter2015", root)
    assert str(error.value) == f"{root}/test.txt:8: found {found}, expected {expected}"


@pytest.mark.parametrize("before, place", [("", 1), ("\n\n", 3), ("IMGID:1\n\n", 3), ("IMGID:1\nhi\tO\n \n", 4)])
def test_tokens_without_an_imgid_before_them(root, before, place):
    (root / "valid.txt").write_text(f"{before}Rio\tB-LOC\n")
    with pytest.raises(DataError) as error:
        load("twitter2015", root)
    found = r"'Rio\tB-LOC', expected IMGID: and an id before the tokens of a post"
    assert str(error.value) == f"{root}/valid.txt:{place}: found {found}"


def test_a_long_line_is_cut_in_the_message(root):
    add(root, "train", "IMGID:1\n" + "x" * 10_000)
    with pytest.raises(DataError) as error:
        load("twitter2015", root)
    assert "no tag in 'xxx" in str(error.value) and len(str(error.value)) < 500


def test_a_byte_that_is_not_utf8(root):
    path = root / "train.txt"
    path.write_bytes(path.read_bytes() + b"IMGID:1\ncaf\xe9\tO\n")
    with pytest.raises(DataError, match=rf"^{path}:14: found byte 0xe9, expected UTF-8 text$"):
        load("twitter2015", root)


@pytest.mark.parametrize(
    "imgid, found",
    [
        ("../out", "path 'images/../out.jpg', expected a path inside {root}"),
        ("a/../../out", "path 'images/a/../../out.jpg', expected a path inside {root}"),
        ("/out", "path '/out.jpg', expected a path inside {root}"),
        ("link", "'images/link.jpg', a link to {root}.jpg, expected a file inside {root}"),
    ],
)
@pytest.mark.parametrize("limit", [None, 1])
def test_a_picture_outside_the_folder_is_refused(root, imgid, found, limit):
    (root / "images/link.jpg").symlink_to(shutil.copy(root / "images/9.jpg", f"{root}.jpg"))
    add(root, "train", f"IMGID:{imgid}\nhi\tO\n")
    with pytest.raises(DataError) as error:
        load("twitter2015", root, limit=limit)
    assert str(error.value) == f"{root}/train.txt:13: found {found.format(root=root)}"


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text("IMGID:1 \t\nOB-\r", max_size=60).map(str.encode))
def test_whatever_is_added_loads_or_is_refused_in_one_sentence(tmp_path_factory, extra):
    root = write(tmp_path_factory.mktemp("noise"))
    path = root / "test.txt"
    path.write_bytes(path.read_bytes() + extra)
    try:
        corpus = load("conll-images", root)
    except DataError as error:
        assert str(error).startswith(f"{path.resolve()}:") and "\n" not in str(error)
    else:
        assert len(set(ids(examples(corpus)))) == len(examples(corpus))
        assert all(len(post.tokens) == len(post.tags) > 0 for post in examples(corpus))
