"""What a corpus is made of: frozen examples, three splits, pictures that are files or drawn on demand."""

import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from PIL import Image, ImageOps


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
    """A listing of a product (K3M); properties are (name, value) pairs, its triples of the knowledge graph.

    Listings of one product share `product`; unless told, a listing is a product of its own, and that is its id.
    A title may be empty: it is missing.
    """

    id: str
    image: Picture
    title: str
    properties: tuple[tuple[str, str], ...]
    category: str
    product: str = ""

    def __post_init__(self):
        if not self.product:
            object.__setattr__(self, "product", self.id)


@dataclass(frozen=True)
class Pair:
    """Two listings, and whether they are of the same product."""

    id: str
    left: Product
    right: Product
    same: bool


@dataclass(frozen=True)
class Question:
    """A question about a product, whose properties lack the triple asked for; `answer` is one of `pool`.

    `text` is the title and the question, `title [SEP] question`.
    """

    id: str
    product: Product
    text: str
    answer: str
    pool: tuple[str, ...]


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
        rows = {name: _counts(getattr(self, name)) for name in ("train", "dev", "test")}
        return pd.DataFrame(rows).T.astype(int).rename_axis("split")


def _counts(split: Sequence) -> dict[str, int]:
    split = list(split)  # made once, where examples are made on demand
    counts = {"examples": len(split), "with picture": sum(example.image is not None for example in split)}
    if len(split) and isinstance(split[0], CaptionedImage):
        counts["captions"] = sum(len(example.captions) for example in split)
    if len(split) and isinstance(split[0], Post):
        counts |= _keyphrase_counts(split)
    if len(split) and isinstance(split[0], TaggedPost):
        counts["tokens"] = sum(len(example.tokens) for example in split)
        begun = sum(tag[0] == "B" for example in split for tag in example.tags)
        counts["entities"] = begun + sum(stray_tags(example) for example in split)  # a stray I- begins one, leniently
    if len(split) and isinstance(split[0], Product):
        counts["with title"] = sum(bool(example.title) for example in split)
        counts["triples"] = sum(len(example.properties) for example in split)
        counts["products"] = len({example.product for example in split})
        counts["categories"] = len({example.category for example in split})
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
    """The picture as RGB, as a person would see it: upright, deep greys scaled, what is transparent on white.

    Raises DataError naming a file that is not a readable image.
    """
    if isinstance(picture, Image.Image):
        return as_seen(picture)
    if not isinstance(picture, (str, Path)):
        return picture.draw().convert("RGB")
    try:
        if not Path(picture).is_file():  # a pipe would be waited for
            raise OSError("no such file")
        with Image.open(picture) as image:
            return as_seen(image)
    except Exception as error:  # Pillow's plugins raise whatever they like
        raise DataError(f"{picture}: not a readable picture ({error}), expected JPEG, PNG or the like") from error


def as_seen(image: Image.Image) -> Image.Image:
    """A decoded picture as RGB, as `open_picture` gives it."""
    image = ImageOps.exif_transpose(image)  # a telephone stores how it was held
    if image.mode.startswith(("I", "F")):  # more than 8 bits of grey, which `convert` would cut off
        grey = np.nan_to_num(np.asarray(image, np.float64))
        span = 65535 if image.mode.startswith("I;16") else max(grey.max() - grey.min(), 1e-9)
        low = 0 if image.mode.startswith("I;16") else grey.min()
        image = Image.fromarray((255 * (grey - low) / span).round().astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("RGB")


def picture_key(picture: Path | Drawing) -> bytes:
    """32 bytes that change whenever the picture's content does: a hash of the file, or of the drawing's recipe.

    Raises OSError for a file that cannot be read, or is none: a pipe would be waited for.
    """
    if isinstance(picture, Path) and picture.exists() and not picture.is_file():
        raise OSError(errno.EINVAL, "not a file", str(picture))
    content = picture.read_bytes() if isinstance(picture, Path) else picture.key.encode()
    return hashlib.sha256(content).digest()
