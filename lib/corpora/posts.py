"""Posts with keyphrases, each with its picture: CMKP's tweets, and any data in their format.

A line is `text<sep>keyphrase;keyphrase<sep>image`; the image is a path in images/ or a web address, whose last part is
then the file's name there. Line by line beside it may stand what was read on the picture (`*_ocr_final.txt`) and what
it shows (`*_attribute_cleaned.txt`, words with spaces between). CMKP's own texts have spaces between their tokens;
other texts are split here, so that a word is the same with a full stop behind it.
"""

import os
import re
from pathlib import Path
from random import Random
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from lib.corpora.files import (
    count_missing,
    data_folder,
    find_file,
    fingerprint,
    malformed,
    quote,
    read_lines,
    read_text,
    resolve_picture,
)
from lib.corpora.types import Corpus, Post
from lib.words import tokens

SEPARATOR = "<sep>"
FILES = ("train", "valid", "test")  # train, dev, test
TOKENISED = ("cmkp", "cmkp-small")
EXPECTED = "valid_src.txt, test_src.txt, usually train_src.txt, and the pictures in images/"
FIELDS = f"text{SEPARATOR}keyphrase;keyphrase{SEPARATOR}image (which may be empty)"
TRAIN_SHARE = 0.8  # of the valid file, where there is no train file
PLACEHOLDER = re.compile(r"<\w+>")
PADDING = re.compile(r"(?<!\S)<(pad)>(?!\S)", re.IGNORECASE)
WEB = re.compile(r"https?://[^?#]*/([^/?#:]*)")


class _Post(NamedTuple):
    """One post as its files have it; `where` is its line."""

    where: str
    id: str
    text: str
    keyphrases: tuple[str, ...]
    image: str
    ocr: str
    attributes: tuple[str, ...]


def load(name: str, root: str | Path | None, limit: int | None = None, seed: int = 0) -> Corpus:
    """The corpus of `Post` in the folder `root`; words stay as they are but for Unicode's NFC.

    A folder without train_src.txt, or any if `name` ends so, has its valid posts divided 80/20 into train and dev, by
    `seed` and so that no text is in both; valid posts that say what a test post says are left out, and the corpus is
    called `<name>-small`.
    An id is the file and the line, as "valid-17". `limit` keeps the first posts of the training split, dev and test
    stay whole. A missing picture is None; `notes` counts those, and in the whole files the posts without keyphrases
    (dropped), those without text (kept) and those with a picture that came before.
    Raises DataError for a folder without these files and for every malformed one.
    """
    root = data_folder(root, EXPECTED)
    found = [_read(root, file, name in TOKENISED) for file in FILES]
    train, dev, test = ([post for post in posts if post.keyphrases] for posts in found)
    notes = _counts(sum(found, []))
    if not train or name.endswith("-small"):
        name, (train, dev, same) = f"{name.removesuffix('-small')}-small", _divided(root, dev, test, seed)
        notes["valid posts with a test post's text"] = same
    train, dev, test = (tuple(_example(root, post) for post in posts) for posts in (train, dev, test))
    train = train[:limit]
    notes["missing pictures"] = count_missing(train + dev + test, ["images"])
    return Corpus(name, train, dev, test, fingerprint(train, dev, test), notes)


def _counts(posts: list[_Post]) -> dict[str, int]:
    images = [post.image for post in posts if post.image]
    return {
        "posts without keyphrases": sum(not post.keyphrases for post in posts),
        "posts without text": sum(not post.text for post in posts),
        "repeated pictures": len(images) - len(set(images)),
    }


def _read(root: Path, file: str, tokenised: bool) -> list[_Post]:
    """The posts of one file in their order; none if there is no train file, else at least one with keyphrases."""
    path = find_file(root, f"{file}_src.txt")
    if path is None and file == "train":
        return []
    if path is None:
        raise malformed(root, f"no {file}_src.txt", f"a folder with {EXPECTED}")
    lines = read_lines(path)
    ocr, attributes = (_beside(path, f"{file}_{kind}.txt", len(lines)) for kind in ("ocr_final", "attribute_cleaned"))
    rows = enumerate(zip(lines, ocr, attributes, strict=True), start=1)
    posts = [_parse(where, f"{file}-{n}", line, *more) for n, ((where, line), *more) in rows if line.strip()]
    if not tokenised:
        alike = [tuple(dict.fromkeys(map(_split, post.keyphrases))) for post in posts]
        posts = [p._replace(text=_split(p.text), keyphrases=k) for p, k in zip(posts, alike, strict=True)]
    if not any(post.keyphrases for post in posts):
        raise malformed(path, "no post with keyphrases", f"at least one line {FIELDS}")
    return posts


def _beside(path: Path, name: str, count: int) -> list[str]:
    """The lines of a file that goes with `path` line by line, `count` empty ones if there is no such file."""
    other = find_file(path.parent, name)
    if other is None:
        return [""] * count
    lines = [line for _, line in read_lines(other)]
    if read_text(other).count("\n") == read_text(path).count("\n"):
        lines += [""] * (count - len(lines))  # no line end after the last line, and that one empty
    if len(lines) != count:
        raise malformed(other, f"{len(lines)} lines", f"{count}, one for each of {path.name}")
    return lines


def _parse(where: str, id: str, line: str, ocr: str, attributes: str) -> _Post:
    fields = line.split(SEPARATOR)
    if len(fields) != 3:
        raise malformed(where, f"{len(fields)} fields in {quote(line)}", FIELDS)
    text, phrases, image = fields
    keyphrases = dict.fromkeys(_spaced(phrase) for phrase in phrases.split(";"))  # each once, in order
    shown = tuple(_spaced(attributes).split())
    return _Post(where, id, _spaced(text), tuple(filter(None, keyphrases)), image.strip(), _spaced(ocr), shown)


def _spaced(words: str) -> str:
    """The words in Unicode's NFC, with one space between; the mark of padding is no word of anybody's."""
    return " ".join(PADDING.sub(r"< \1 >", normalize("NFC", words)).split())


def _split(text: str) -> str:
    """The tokens of somebody's text with spaces between them; what stands for a name or an address, <user>, is one."""
    parts = ([word] if PLACEHOLDER.fullmatch(word) else tokens(word) for word in text.split())
    return " ".join(token for part in parts for token in part)


def _divided(root: Path, valid: list[_Post], test: list[_Post], seed: int) -> tuple[list[_Post], list[_Post], int]:
    """Train and dev from the valid posts, and how many of these were left out."""
    tested = {post.text for post in test}
    kept = [post for post in valid if post.text not in tested]
    texts = list(dict.fromkeys(post.text for post in kept))
    if len(texts) < 2:
        raise malformed(root, f"no train_src.txt, and {len(texts)} texts to divide in valid_src.txt", "at least 2")
    learned = set(Random(seed).sample(texts, int(TRAIN_SHARE * len(texts))))
    train, dev = ([post for post in kept if (post.text in learned) is wanted] for wanted in (True, False))
    return train, dev, len(valid) - len(kept)


def _example(root: Path, post: _Post) -> Post:
    picture = _picture(root, post.image, post.where)
    return Post(post.id, picture, post.text, post.keyphrases, post.ocr, post.attributes)


def _picture(root: Path, image: str, where: str) -> Path | None:
    web = WEB.match(image)
    name = unquote(web[1]) if web else image
    return resolve_picture(root, os.path.join("images", name), where) if name else None
