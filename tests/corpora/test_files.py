"""The helpers that every reader of a data folder shares."""

import json
import os
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import corpora
from lib.corpora import files
from lib.corpora.types import CaptionedImage, DataError, Post, Product, TaggedPost


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with one picture, and a secret beside the folder."""
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/a.jpg").write_bytes(b"pixels of a")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return files.data_folder(tmp_path / "data", "pictures")


def test_lines_keep_blank_ones_and_know_their_place(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\n\r\nthrée\u2028still three\x0c\nfour".encode())
    expected = [
        (f"{path}:1", "one"),
        (f"{path}:2", ""),
        (f"{path}:3", "thrée\u2028still three\x0c"),
        (f"{path}:4", "four"),
    ]
    assert files.read_lines(path) == expected


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    st.sampled_from(["\n", "\r\n"]),
)
def test_lines_read_back_what_was_written(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(("\ufeff" + "".join(line + end for line in lines)).encode())
    assert [text for _, text in files.read_lines(path)] == lines


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path, mark):
    path = tmp_path / "latin.txt"
    path.write_bytes(mark + b"plain\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt:2: found byte 0xe9, expected UTF-8 text"):
        files.read_lines(path)


def test_a_file_that_cannot_be_read_is_bad_data(tmp_path):
    with pytest.raises(DataError, match="nothing.txt: found no readable file"):
        files.read_lines(tmp_path / "nothing.txt")


def test_a_data_folder_is_absolute_and_real(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    real = Path(os.path.realpath(tmp_path)) / "here"
    assert {files.data_folder(root, "") for root in ("here", "link", "~/here", tmp_path / "here")} == {real}


@pytest.mark.parametrize("root", [None, "", "no/such/folder", __file__])
def test_no_data_folder_says_what_belongs_there(root):
    with pytest.raises(DataError, match="expected a folder with three apples$"):
        files.data_folder(root, "three apples")


def test_the_first_pattern_that_matches_finds_the_file(tmp_path):
    for name in ("b.token", "c.txt", "._b.token"):
        (tmp_path / name).touch()
    (tmp_path / "folder.token").mkdir()
    assert files.find_file(tmp_path, "a.token", "*.token", "*.txt") == tmp_path / "b.token"
    assert files.find_file(tmp_path, "*.json") is None


def test_two_files_where_one_belongs(tmp_path):
    for name in ("a.token", "b.token"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"found 2 files a.token, b.token, expected only one \*.token"):
        files.find_file(tmp_path, "*.token")


def test_a_picture_is_found_or_none(root):
    assert files.resolve_picture(root, "images/a.jpg", "list:1") == root / "images/a.jpg"
    for absent in ("images/b.jpg", "images", "", "a\0b", "\ud800", "x" * 5000):
        assert files.resolve_picture(root, absent, "list:1") is None


@pytest.mark.parametrize("there, asked", [
    ("17.JPG", "17.jpg"), ("17.webp", "17.jpg"), ("17.gif", "17.jpg"), ("17.JPEG", "17"), ("17.avif", "17.png"),
    ("v1.5.PNG", "v1.5"), (normalize("NFD", "café.jpg"), "café.jpg"), ("café.jpg", normalize("NFD", "café.jpeg")),
])  # fmt: skip
def test_a_picture_that_is_named_otherwise_is_found(root, there, asked):
    (root / "Pictures").mkdir()
    (root / "Pictures" / there).touch()
    assert files.resolve_picture(root, f"pictures/{asked}", "list:1") == root / "Pictures" / there


def test_a_bare_name_is_looked_for_among_the_pictures(root):
    (root / "Images").mkdir()
    (root / "Images/17.webp").touch()
    assert files.resolve_picture(root, "17.jpg", "list:1") == root / "Images/17.webp"
    (root / "17.jpg").touch()
    assert files.resolve_picture(root, "17.jpg", "list:1") == root / "17.jpg"


@pytest.mark.parametrize("there, asked", [("v1.jpg", "v1.5"), ("17.txt", "17.jpg"), ("117.jpg", "17.jpg")])
def test_another_picture_is_not_taken_for_it(root, there, asked):
    (root / there).touch()
    assert files.resolve_picture(root, asked, "list:1") is None


def test_a_picture_that_is_named_exactly_wins(root):
    for name in ("17.JPG", "17.jpg", "17.png"):
        (root / name).touch()
        assert files.resolve_picture(root, name, "list:1") == root / name


def test_a_picture_that_comes_later_is_found(root):
    assert files.resolve_picture(root, "late.jpg", "list:1") is None
    (root / "late.png").touch()
    os.utime(root, (1, 1))
    assert files.resolve_picture(root, "late.jpg", "list:1") == root / "late.png"


def test_a_pipe_is_no_picture_and_waited_for_by_nobody(root):
    os.mkfifo(root / "pipe.jpg")
    assert files.resolve_picture(root, "pipe.jpg", "list:1") is None


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(root, monkeypatch):
    def refused(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "listdir", refused)
    with pytest.raises(DataError, match=r"images: found a folder that cannot be read \(Permission denied\)"):
        files.resolve_picture(root, "images/other.jpg", "list:1")


@pytest.mark.parametrize("content, found", [
    ("[" * 5000, "what nobody can read"), ("[" + "9" * 5000 + "]", "what nobody can read"), ("{]", "json:1: found .*"),
])  # fmt: skip
def test_json_that_nobody_can_read(root, content, found):
    (root / "a.json").write_text(content)
    with pytest.raises(DataError, match=f"a.json.*{found}|{found}"):
        files.read_json(root / "a.json")


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "images/../../secret.jpg", "images/../images/a.jpg", "/etc/passwd", ".."]
)
def test_a_path_out_of_the_folder_is_refused_even_if_nothing_is_there(root, name):
    with pytest.raises(DataError, match="list:7: found path .*, expected a path inside"):
        files.resolve_picture(root, name, "list:7")


def test_a_link_out_of_the_folder_is_refused_and_a_link_inside_is_not(root):
    (root / "images/out.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "up").symlink_to(root.parent)
    (root / "images/in.jpg").symlink_to(root / "images/a.jpg")
    for name in ("images/out.jpg", "up/secret.jpg"):
        with pytest.raises(DataError, match="list:7: found .* a link to .*secret.jpg, expected a file inside"):
            files.resolve_picture(root, name, "list:7")
    assert files.resolve_picture(root, "images/in.jpg", "list:7") == root / "images/in.jpg"


def test_a_folder_whose_name_only_begins_alike_is_outside(root):
    beside = root.parent / "data-private"
    beside.mkdir()
    (beside / "a.jpg").touch()
    (root / "a.jpg").symlink_to(beside / "a.jpg")
    with pytest.raises(DataError, match="a link to"):
        files.resolve_picture(root, "a.jpg", "list:1")


PARTS = ["..", ".", "", "images", "IMAGES", "a", "a.jpg", "A.png", "up", "secret.jpg", "~", "\0"]


@given(st.lists(st.sampled_from(PARTS), max_size=6), st.booleans())
def test_no_path_leads_out_of_the_folder(tmp_path_factory, parts, absolute):
    top = tmp_path_factory.mktemp("top")
    (top / "data/images").mkdir(parents=True)
    (top / "data/images/a.jpg").touch()
    (top / "secret.jpg").touch()
    (top / "data/up").symlink_to(top)
    root = files.data_folder(top / "data", "pictures")
    try:
        found = files.resolve_picture(root, "/" * absolute + "/".join(parts), "list:1")
    except DataError as error:
        assert str(error).startswith("list:1: found ") and "\n" not in str(error)
    else:
        assert found is None or found.resolve() == root / "images/a.jpg"


@settings(max_examples=50, deadline=None)
@given(st.text() | st.binary().map(lambda content: content.decode("latin-1")))
def test_any_json_is_read_or_named(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(text, "utf-8", errors="replace")
    try:
        json.dumps(files.read_json(path))
    except DataError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_missing_pictures_warn_once_with_count_and_first_name(root):
    examples = [
        CaptionedImage("a", root / "images/a.jpg", ("x",)),
        CaptionedImage("b", None, ()),
        Post("c", None, "", ()),
    ]
    with pytest.warns(UserWarning, match="2 of 3 pictures are missing, the first is 'b'") as warned:
        assert files.count_missing(examples) == 2
    assert len(warned) == 1


@pytest.mark.filterwarnings("error")
def test_where_all_are_missing_it_is_said_what_was_tried(root):
    with pytest.warns(UserWarning, match="the first is 'b'; looked for in images, x, with .jpg, .jpeg, "):
        files.count_missing([CaptionedImage("b", None, ())], ["images", "x"])


def test_no_missing_picture_no_warning(root):
    assert files.count_missing([CaptionedImage("a", root / "images/a.jpg", ("x",))]) == 0


def test_the_fingerprint_sees_every_field_of_every_kind_of_example(root):
    picture = root / "images/a.jpg"
    splits = [
        [CaptionedImage("1", picture, ("a b",))],
        [CaptionedImage("1", picture, ("a", "b"))],
        [CaptionedImage("1", None, ("a b",))],
        [Post("1", picture, "a", ("b",))],
        [Post("1", picture, "a", ("b",), ocr="c")],
        [TaggedPost("1", picture, ("a",), ("O",))],
        [Product("1", picture, "a", (("b", "c"),), "d")],
        [],
    ]
    assert len({files.fingerprint(split) for split in splits}) == len(splits)


def test_the_fingerprint_sees_where_a_split_ends(root):
    a, b = CaptionedImage("a", None, ("x",)), CaptionedImage("b", None, ("x",))
    layouts = [([a], [b]), ([a, b], []), ([], [a, b]), ([b], [a])]
    assert len({files.fingerprint(*layout) for layout in layouts}) == len(layouts)


def test_a_picture_that_vanished_is_named(root):
    with pytest.raises(DataError, match="gone.jpg: found no readable file"):
        files.fingerprint([CaptionedImage("a", root / "gone.jpg", ("x",))])


def test_long_quotes_are_cut_and_stay_on_one_line():
    assert files.quote("a\nb") == r"'a\nb'"
    assert len(files.quote("x" * 10_000)) < 100


@pytest.mark.parametrize("name", corpora.CORPORA)
def test_a_limit_below_one(name):
    for limit in (0, -1):
        with pytest.raises(DataError, match=f"^limit: found {limit}, expected at least 1 training example$"):
            corpora.load(name, limit=limit)
