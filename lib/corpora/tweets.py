"""Posts whose tokens carry BIO tags, each with its picture: Twitter-2015, Twitter-2017, and any data in their format.

A line `IMGID:n` begins a post, then one `token<TAB>tag` a line; a blank line, or the next IMGID, ends it. Its picture
is n.jpg, or n with another ending, in the folder images/ or, as others name it, <corpus>_images/ or ner_img/. Where the
posts lie beside that folder in one of their own, <corpus>/, as UMT and MAF keep them, the root is the folder of both.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lib.corpora.files import (
    count_missing,
    data_folder,
    find_file,
    fingerprint,
    malformed,
    quote,
    read_lines,
    resolve_picture,
)
from lib.corpora.types import Corpus, TaggedPost, stray_tags

FILES = {"train": ("train.txt",), "dev": ("valid.txt", "dev.txt"), "test": ("test.txt",)}
PICTURES = ("images", "{name}_images", "ner_img")
EXPECTED = "train.txt, valid.txt or dev.txt, test.txt, and the pictures in images/"

IMGID = "IMGID:"
TAG = re.compile(r"O|[BI]-\S+")


class _Post(NamedTuple):
    """One post as its file has it; `where` is its IMGID line."""

    where: str
    imgid: str
    tagged: list[tuple[str, str]]  # (token, tag)


def load(name: str, root: str | Path | None, limit: int | None = None) -> Corpus:
    """The corpus of `TaggedPost` in the folder `root`; tokens and tags stay as they are, in any language and label set.

    An id is the post's IMGID. Posts may share a picture: the second of an IMGID, in whichever split, is "IMGID #2".
    `limit` keeps the first posts of the training split, dev and test stay whole. A missing picture is None; `notes`
    counts those, the I- tags that continue no entity of their type (Twitter-2015 has hundreds; scorers decide what
    they mean), and in the whole files the posts without tokens (dropped) and those whose IMGID came before.
    Raises DataError for a folder without these files and for every malformed one.
    """
    root = data_folder(root, EXPECTED)
    found = [_read(root, name, files) for files in FILES.values()]
    splits = [[post for post in posts if post.tagged] for posts in found]
    imgids = [post.imgid for posts in splits for post in posts]
    train, dev, test = _examples(root, name, splits)
    train = train[:limit]
    notes = {
        "missing pictures": count_missing(train + dev + test, _folders(name)),
        "posts without tokens": sum(map(len, found)) - len(imgids),
        "repeated IMGIDs": len(imgids) - len(set(imgids)),
        "I- after O or another type": sum(stray_tags(post) for post in train + dev + test),
    }
    return Corpus(name, train, dev, test, fingerprint(train, dev, test), notes)


def _read(root: Path, name: str, files: tuple[str, ...]) -> list[_Post]:
    """The posts of one split in the order of its file, also those without tokens; at least one has some."""
    path = find_file(root, *files, *(f"{name}/{file}" for file in files))
    if path is None:
        raise malformed(root, f"no {' or '.join(files)}", f"a folder with {EXPECTED}")
    posts, post = [], None
    for where, line in read_lines(path):
        if line.startswith(IMGID):
            post = _Post(where, _parse_imgid(where, line), [])
            posts.append(post)
        elif not line.strip(" \t"):  # nothing more: Twitter-2015 has a no-break space for a token
            post = None
        elif post is None:
            raise malformed(where, quote(line), f"{IMGID} and an id before the tokens of a post")
        else:
            post.tagged.append(_parse_token(where, line))
    if not any(post.tagged for post in posts):
        raise malformed(path, "no post with tokens", f"at least one, {IMGID} and an id, then its tokens with tags")
    return posts


def _parse_imgid(where: str, line: str) -> str:
    words = line.removeprefix(IMGID).split()
    if len(words) != 1:
        raise malformed(where, quote(line), f"{IMGID} and one id without spaces")
    return words[0]


def _parse_token(where: str, line: str) -> tuple[str, str]:
    """(token, tag). No tag has a space, so where no tab divides them a space can, as in many CoNLL files."""
    token, _, tag = line.partition("\t" if "\t" in line else " ")
    if not tag:
        raise malformed(where, f"no tag in {quote(line)}", "a token, a tab and its tag")
    if not token:
        raise malformed(where, f"no token in {quote(line)}", "a token, a tab and its tag")
    if not TAG.fullmatch(tag):
        raise malformed(where, f"tag {quote(tag)} of {quote(token)}", "O, B-type or I-type")
    return token, tag


def _examples(root: Path, name: str, splits: list[list[_Post]]) -> Iterator[tuple[TaggedPost, ...]]:
    """The examples of each split; as no IMGID has a space, no id occurs twice."""
    folders = _folders(name)
    times = Counter()
    for posts in splits:
        examples = []
        for where, imgid, tagged in posts:
            times[imgid] += 1
            unique = imgid if times[imgid] == 1 else f"{imgid} #{times[imgid]}"
            examples.append(TaggedPost(unique, _picture(root, folders, imgid, where), *zip(*tagged, strict=True)))
        yield tuple(examples)


def _folders(name: str) -> list[str]:
    return [folder.format(name=name) for folder in PICTURES]


def _picture(root: Path, folders: list[str], imgid: str, where: str) -> Path | None:
    names = (os.path.join(folder, imgid + ending) for folder in folders for ending in (".jpg", ""))
    return next(filter(None, (resolve_picture(root, name, where) for name in names)), None)
