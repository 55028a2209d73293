"""Posts with keyphrases: three fields a line, files beside them line by line, a valid file that is divided."""

import shutil
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib import corpora
from lib.corpora import Corpus, DataError, Post
from lib.corpora.posts import load

LINES = {
    "train": [
        "so excited to see these two at kca<sep>kca;two of us<sep>https://pbs.twimg.com/media/D2S4.jpg",
        "<user> hi<sep>dogs of twitter<sep>2.jpg",
        "good morning<sep>tea<sep>",
    ],
    "valid": ["東京 タワー<sep>東京<sep>deep/4.png"],
    "test": ["hi again<sep>again<sep>5.jpg", "more<sep>tea;more<sep>2.jpg"],
}
PICTURES = ["D2S4.jpg", "2.jpg", "deep/4.png", "5.jpg"]

words = st.text(st.characters(exclude_characters="\n\r;<\ufeff", exclude_categories=["Cs"]))
phrases = words.filter(str.strip)


def write(root: Path, lines: dict = LINES, end="\n", mark="", last: str | None = None, kind="src") -> Path:
    """The files; `last` is the end of their last line, as of every line if None."""
    root.mkdir(exist_ok=True)
    for split in lines:
        text = end.join(lines[split]) + (end if last is None else last)
        (root / f"{split}_{kind}.txt").write_bytes((mark + text).encode())
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for shade, name in enumerate(PICTURES):
        (tmp_path / "posts/images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (50 * shade, 0, 0)).save(tmp_path / "posts/images" / name)
    return write(tmp_path / "posts").resolve()


def add(root: Path, split: str, line: str) -> None:
    path = root / f"{split}_src.txt"
    path.write_bytes(path.read_bytes() + f"{line}\n".encode())


def examples(corpus: Corpus) -> tuple[Post, ...]:
    return corpus.train + corpus.dev + corpus.test


def quiet(root: Path, **options) -> Corpus:
    """The corpus, and not a word about missing pictures."""
    with pytest.warns(UserWarning, match="pictures are missing"):
        return load("cmkp", root, **options)


# Good folders


@pytest.mark.parametrize("name", ["cmkp", "tweets"])
def test_three_files_and_a_folder_of_pictures(root, name):
    with pytest.warns(UserWarning, match="1 of 6 pictures are missing, the first is 'train-3'") as warned:
        corpus = corpora.load(name, root)
    assert len(warned) == 1 and warned[0].filename == __file__
    assert corpus.name == name and [len(split) for split in (corpus.train, corpus.dev, corpus.test)] == [3, 1, 2]
    text = "so excited to see these two at kca"
    assert corpus.train[0] == Post("train-1", root / "images/D2S4.jpg", text, ("kca", "two of us"))
    assert corpus.train[1].text == "<user> hi" and corpus.train[2].image is None
    asian = {"cmkp": ("東京 タワー", ("東京",)), "tweets": ("東 京 タ ワ ー", ("東 京",))}[name]
    assert corpus.dev[0] == Post("valid-1", root / "images/deep/4.png", *asian)
    assert corpora.open_picture(corpus.test[1].image).size == (4, 4)
    notes = {"posts without keyphrases": 0, "posts without text": 0, "repeated pictures": 1, "missing pictures": 1}
    assert corpus.notes == notes


def test_somebody_s_own_text_is_split_into_tokens(root):
    (root / "train_src.txt").write_text("RT @user: won, hi <url>!<sep>won it;half-time<sep>D2S4.jpg\n", "utf-8")
    own, as_published = (load(name, root).train[0] for name in ("tweets", "cmkp"))
    assert own.text == "RT @user : won , hi < url > !" and own.keyphrases == ("won it", "half-time")
    assert as_published.text == "RT @user: won, hi <url>!"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", None])
def test_windows_files_read_alike(root, end, mark, last):
    before = quiet(root)
    assert quiet(write(root, LINES, end, mark, last)) == before


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, st.lists(phrases, min_size=1, max_size=3)), min_size=6, max_size=6))
def test_any_post_reads_back(tmp_path_factory, posts):
    rows = iter([f"{text}<sep>{';'.join(keyphrases)}<sep>" for text, keyphrases in posts])
    lines = {split: [next(rows) for _ in LINES[split]] for split in LINES}
    corpus = load("cmkp", write(tmp_path_factory.mktemp("round-trip"), lines))
    for post, (text, keyphrases) in zip(examples(corpus), posts, strict=True):
        assert post.text.split() == normalize("NFC", text).split() and "  " not in post.text
        expected = dict.fromkeys(" ".join(normalize("NFC", phrase).split()) for phrase in keyphrases)
        assert post.keyphrases == tuple(expected)


def test_words_are_composed_spaces_single_and_each_phrase_once(root):
    add(root, "test", "  cafe\u0301  <sep> cafe\u0301 ;a  b;;café;A b; <sep> 2.jpg ")
    post = quiet(root).test[2]
    assert (post.text, post.keyphrases) == ("café", ("café", "a b", "A b")) and post.image.name == "2.jpg"


@pytest.mark.parametrize("name", ["cmkp", "tweets"])
def test_the_mark_of_padding_is_read_as_text(root, name):
    add(root, "test", "a <pad> <PAD> b<sep><pad>;<user> x<sep>2.jpg")
    write(root, {"test": ["", "", "<pad>"]}, kind="ocr_final")
    with pytest.warns(UserWarning, match="missing"):
        post = load(name, root).test[2]
    assert post.text == "a < pad > < PAD > b" and post.keyphrases == ("< pad >", "<user> x") and post.ocr == "< pad >"


def test_blank_lines_are_no_posts_but_have_numbers(root):
    add(root, "test", "\n \t\nhello<sep>x<sep>2.jpg")
    assert [post.id for post in quiet(root).test] == ["test-1", "test-2", "test-5"]


def test_posts_without_keyphrases_are_dropped_and_without_text_kept(root):
    add(root, "train", "hello<sep> ; <sep>2.jpg")
    add(root, "test", "<sep>silence<sep>2.jpg")
    corpus = quiet(root)
    assert len(corpus.train) == 3 and corpus.test[2].text == ""
    assert corpus.notes["posts without keyphrases"] == corpus.notes["posts without text"] == 1
    assert corpus.notes["repeated pictures"] == 3


def test_the_table_counts_keyphrases(root):
    write(root, {"test": ["join us", ""]}, kind="ocr_final")
    table = quiet(root).describe()
    assert table["examples"].tolist() == [3, 1, 2] and table["with picture"].tolist() == [2, 1, 2]
    assert table["keyphrases"].tolist() == [4, 1, 3] and table["distinct"].tolist() == [4, 1, 3]
    assert table["% in the text"].tolist() == [25, 100, 67]  # no "tea" in "team", "again" and "more" are
    assert table["with OCR"].tolist() == [0, 0, 1]


def test_the_limit_keeps_the_first_of_train_only(root):
    corpus = load("cmkp", root, limit=2)
    assert [post.id for post in examples(corpus)] == ["train-1", "train-2", "valid-1", "test-1", "test-2"]
    assert quiet(root, limit=99) == quiet(root)


# What stands beside the posts


def test_ocr_and_attributes_line_by_line(root):
    write(root, {"train": ["free entry here", "", "cafe\u0301 open"], "test": ["", "x"]}, kind="ocr_final")
    write(root, {"valid": ["tower city  sky"]}, kind="attribute_cleaned")
    corpus = quiet(root)
    assert [post.ocr for post in examples(corpus)] == ["free entry here", "", "café open", "", "", "x"]
    assert [post.attributes for post in examples(corpus)] == [(), (), (), ("tower", "city", "sky"), (), ()]


@pytest.mark.parametrize("src_end, end", [("", ""), ("\n", "\n"), ("", "\n")])
def test_a_last_line_may_be_empty(root, src_end, end):
    write(write(root, last=src_end), {"test": ["x", ""]}, last=end, kind="ocr_final")
    assert [post.ocr for post in quiet(root).test] == ["x", ""]


@pytest.mark.parametrize("lines", [["x"], ["x", "y", "z"], []])
@pytest.mark.parametrize("kind", ["ocr_final", "attribute_cleaned"])
def test_a_file_of_another_length_is_refused(root, lines, kind):
    write(root, {"test": lines}, kind=kind, last="" if not lines else None)
    with pytest.raises(DataError) as error:
        load("cmkp", root)
    found = f"{len(lines)} lines, expected 2, one for each of test_src.txt"
    assert str(error.value) == f"{root}/test_{kind}.txt: found {found}"


def test_ocr_and_attributes_are_in_the_fingerprint(root):
    prints = [quiet(root).fingerprint]
    for kind in ("ocr_final", "attribute_cleaned"):
        write(root, {"test": ["words", ""]}, kind=kind)
        prints.append(quiet(root).fingerprint)
    assert len(set(prints)) == 3


# Without a train file


@pytest.fixture
def small(root) -> Path:
    """Twenty texts and one of them a second time, three posts with the words of test posts."""
    (root / "train_src.txt").unlink()
    lines = [f"post {n}<sep>k{n}<sep>" for n in [*range(20), 7]] + ["more<sep>a<sep>", "hi again<sep>b<sep>"]
    return write(root, {"valid": ["more<sep>c<sep>2.jpg", *lines]})


def test_the_valid_file_is_divided(small):
    corpus = quiet(small)
    assert corpus.name == "cmkp-small" and corpus.notes["valid posts with a test post's text"] == 3
    train, dev = ({post.text for post in split} for split in (corpus.train, corpus.dev))
    assert len(train) == 16 and len(dev) == 4 and not train & dev and len(corpus.train + corpus.dev) == 21
    assert not (train | dev) & {post.text for post in corpus.test} and len(corpus.test) == 2
    for split in (corpus.train, corpus.dev):  # in the order of the file, each with its line
        numbers = [int(post.id.removeprefix("valid-")) for post in split]
        assert numbers == sorted(numbers)
        assert all(post.text == f"post {n - 2}" for post, n in zip(split, numbers, strict=True) if n < 22)


def test_the_seed_decides_the_division(small):
    assert quiet(small) == quiet(small, seed=0)
    divisions = {tuple(post.id for post in quiet(small, seed=seed).train) for seed in range(5)}
    assert len(divisions) > 1 and quiet(small).fingerprint != quiet(small, seed=1).fingerprint
    whole = quiet(small)
    assert quiet(small, limit=3).train == whole.train[:3] and quiet(small, limit=3).dev == whole.dev


@pytest.mark.parametrize("valid, count", [(["hi<sep>a<sep>"] * 3, 1), (["more<sep>a<sep>"], 0)])
def test_too_little_to_divide(root, valid, count):
    (root / "train_src.txt").unlink()
    write(root, {"valid": valid})
    with pytest.raises(DataError) as error:
        load("cmkp", root)
    found = f"no train_src.txt, and {count} texts to divide in valid_src.txt, expected at least 2"
    assert str(error.value) == f"{root}: found {found}"


# Pictures


@pytest.mark.parametrize(
    "image",
    ["2.jpg", "http://host/2.jpg", "https://host/a/b/2.jpg?format=jpg&name=large#x", "https://host/2.jpg:large"],
)
def test_a_web_address_names_a_file(root, image):
    add(root, "test", f"x<sep>y<sep>{image}")
    assert quiet(root).test[2].image == root / "images/2.jpg"


@pytest.mark.parametrize("image", ["https://host/%E6%9D%B1%20e%CC%81.jpg", "東 e\u0301.jpg"])
def test_names_of_files_stay_as_they_are(root, image):
    shutil.copy(root / "images/2.jpg", root / "images/東 e\u0301.jpg")
    add(root, "test", f"x<sep>y<sep>{image}")
    assert quiet(root).test[2].image == root / "images/東 e\u0301.jpg"


@pytest.mark.parametrize("image", ["", "no.jpg", "https://host/", "https://host", "http://[", "images/2.jpg", "deep"])
def test_a_missing_picture_is_none(root, image):
    add(root, "test", f"x<sep>y<sep>{image}")
    corpus = quiet(root)
    assert corpus.test[2].image is None and corpus.notes["missing pictures"] == 2


@pytest.mark.parametrize(
    "image, found",
    [
        ("../out.jpg", "path 'images/../out.jpg', expected a path inside {root}"),
        ("/out.jpg", "path '/out.jpg', expected a path inside {root}"),
        ("https://host/..%2Fout.jpg", "path 'images/../out.jpg', expected a path inside {root}"),
        ("https://host/%2Fout.jpg", "path '/out.jpg', expected a path inside {root}"),
        ("link.jpg", "'images/link.jpg', a link to {root}.jpg, expected a file inside {root}"),
    ],
)
def test_a_picture_outside_the_folder_is_refused(root, image, found):
    (root / "images/link.jpg").symlink_to(shutil.copy(root / "images/2.jpg", f"{root}.jpg"))
    add(root, "test", f"x<sep>y<sep>{image}")
    with pytest.raises(DataError) as error:
        load("cmkp", root)
    assert str(error.value) == f"{root}/test_src.txt:3: found {found.format(root=root)}"


def test_a_changed_pixel_or_word_changes_the_fingerprint_and_a_moved_folder_does_not(root, tmp_path):
    before = quiet(root).fingerprint
    assert quiet(Path(shutil.copytree(root, tmp_path / "moved"))).fingerprint == before
    Image.new("RGB", (4, 4), "white").save(root / "images/5.jpg")
    pixel = quiet(root).fingerprint
    write(root, {"valid": ["東京 タワー<sep>タワー<sep>deep/4.png"]})
    assert len({before, pixel, quiet(root).fingerprint}) == 3


# Bad folders and files

FOLDER = "a folder with valid_src.txt, test_src.txt, usually train_src.txt, and the pictures in images/"
LINE = "text<sep>keyphrase;keyphrase<sep>image (which may be empty)"


@pytest.mark.parametrize("split", ["valid", "test"])
def test_two_files_are_needed(root, split):
    (root / f"{split}_src.txt").unlink()
    with pytest.raises(DataError) as error:
        load("cmkp", root)
    assert str(error.value) == f"{root}: found no {split}_src.txt, expected {FOLDER}"


def test_no_folder_says_which_files_it_expects():
    with pytest.raises(DataError, match=f": found no data folder, expected {FOLDER}$"):
        corpora.load("cmkp")


@pytest.mark.parametrize("content", ["", "\ufeff", "\n \n\n", "hi<sep><sep>2.jpg\n"])
@pytest.mark.parametrize("split", LINES)
def test_a_file_without_a_post(root, split, content):
    (root / f"{split}_src.txt").write_text(content)
    with pytest.raises(DataError) as error:
        load("cmkp", root)
    expected = f"at least one line {LINE}"
    assert str(error.value) == f"{root}/{split}_src.txt: found no post with keyphrases, expected {expected}"


@pytest.mark.parametrize(
    "line, found",
    [
        ("hi", "1 fields in 'hi'"),
        ("hi<sep>kca", "2 fields in 'hi<sep>kca'"),
        ("hi<sep>free entry<sep>kca<sep>1.jpg", "4 fields in 'hi<sep>free entry<sep>kca<sep>1.jpg'"),
        ("x" * 100, f"1 fields in '{'x' * 79}…"),
    ],
)
def test_a_bad_line_is_named(root, line, found):
    add(root, "valid", line)
    with pytest.raises(DataError) as error:
        load("cmkp", root)
    assert str(error.value) == f"{root}/valid_src.txt:2: found {found}, expected {LINE}"


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text("<sep>;/. \ta\r\n%2F:", max_size=60).map(str.encode))
def test_whatever_is_added_loads_or_is_refused_in_one_sentence(tmp_path_factory, extra):
    root = write(tmp_path_factory.mktemp("noise"))
    path = root / "test_src.txt"
    path.write_bytes(path.read_bytes() + extra)
    try:
        corpus = load("cmkp", root)
    except DataError as error:
        assert str(error).startswith(f"{path.resolve()}:") and "\n" not in str(error)
    else:
        assert len({post.id for post in examples(corpus)}) == len(examples(corpus))
        assert all(post.keyphrases for post in examples(corpus))


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=2, max_size=2), st.sampled_from(["ocr_final", "attribute_cleaned"]), st.booleans())
def test_whatever_stands_beside_the_posts_reads_back(tmp_path_factory, lines, kind, ends):
    root = write(tmp_path_factory.mktemp("beside"))
    write(root, {"test": lines}, kind=kind, last=None if ends or not lines[-1] else "")
    found = load("tweets", root).test
    expected = [normalize("NFC", line).split() for line in lines]
    assert [post.ocr.split() if kind == "ocr_final" else list(post.attributes) for post in found] == expected
