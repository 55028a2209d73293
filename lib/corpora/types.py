"""What a corpus is made of: frozen examples, three splits, pictures that are files or drawn on demand."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pandas as pd
from PIL import Image


class DataError(ValueError):
    """Bad input, in one sentence: file and line, what was found, what was expected."""


class Drawing(Protocol):
    """A picture made on demand. `key` says everything that decides its pixels."""

    key: str

    def draw(self) -> Image.Image: ...


Picture = Path | Drawing | None


@dataclass(frozen=True)
class CaptionedImage:
    """A picture and the sentences that describe it (VSE, GXN)."""

    id: str
    image: Picture
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Post:
    """A social-media post with its keyphrases (CMKP)."""

    id: str
    image: Picture
    text: str
    keyphrases: tuple[str, ...]
    ocr: str = ""
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaggedPost:
    """A post whose tokens carry BIO tags (MAF)."""

    id: str
    image: Picture
    tokens: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Product:
    """A product of a knowledge graph (K3M); properties are (name, value) pairs."""

    id: str
    image: Picture
    title: str
    properties: tuple[tuple[str, str], ...]
    category: str


@dataclass(frozen=True)
class Corpus:
    """Three splits of examples. `fingerprint` changes when any text or pixel that a run could see changes."""

    name: str
    train: Sequence
    dev: Sequence
    test: Sequence
    fingerprint: str
    notes: dict = field(default_factory=dict)  # what the loader counted, e.g. {"missing pictures": 3}

    def describe(self) -> pd.DataFrame:
        """Counts as a small table, one row a split."""
        rows = {name: _counts(list(getattr(self, name))) for name in ("train", "dev", "test")}
        return pd.DataFrame(rows).T.astype(int).rename_axis("split")


def _counts(split: Sequence) -> dict[str, int]:
    counts = {"examples": len(split), "with picture": sum(example.image is not None for example in split)}
    if len(split) and isinstance(split[0], CaptionedImage):
        counts["captions"] = sum(len(example.captions) for example in split)
    if len(split) and isinstance(split[0], Post):
        counts |= _keyphrase_counts(split)
    if len(split) and isinstance(split[0], TaggedPost):
        counts["tokens"] = sum(len(example.tokens) for example in split)
        begun = sum(tag[0] == "B" for example in split for tag in example.tags)
        counts["entities"] = begun + sum(stray_tags(example) for example in split)  # a stray I- begins one, leniently
    return counts


def _keyphrase_counts(posts: Sequence[Post]) -> dict[str, int]:
    said = [(phrase, f" {phrase} " in f" {post.text} ") for post in posts for phrase in post.keyphrases]
    return {
        "keyphrases": len(said),
        "distinct": len({phrase for phrase, _ in said}),
        "% in the text": round(100 * sum(in_text for _, in_text in said) / len(said)),
        "with OCR": sum(bool(post.ocr) for post in posts),
    }


def stray_tags(post: TaggedPost) -> int:
    """How many I- tags of a post follow no tag of their type."""
    return sum(tag[0] == "I" and tag[1:] != before[1:] for before, tag in pairwise(("O", *post.tags)))


def open_picture(picture: str | Path | Drawing | Image.Image) -> Image.Image:
    """The picture as RGB. Raises DataError naming a file that is not a readable image."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if not isinstance(picture, (str, Path)):
        return picture.draw().convert("RGB")
    try:
        with Image.open(picture) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # whatever Pillow's plugins raise
        raise DataError(f"{picture}: not a readable picture ({error}), expected JPEG, PNG or the like") from error


def picture_key(picture: Path | Drawing) -> bytes:
    """32 bytes that change whenever the picture's content does: a hash of the file, or of the drawing's recipe."""
    content = picture.read_bytes() if isinstance(picture, Path) else picture.key.encode()
    return hashlib.sha256(content).digest()
