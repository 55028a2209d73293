"""Flickr8k, Flickr30k and COCO captions, from the official token files or from a Karpathy `dataset_*.json`.

Where a folder holds both, the JSON wins: it carries captions and splits in one file, the published results on
Flickr30k and COCO use its splits, and Flickr30k's own token file comes without split lists.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import NamedTuple

from lib.corpora.files import (
    count_missing,
    data_folder,
    find_file,
    fingerprint,
    malformed,
    quote,
    read_json,
    read_lines,
    resolve_picture,
)
from lib.corpora.types import CaptionedImage, Corpus

TOKENS = {"flickr8k": "Flickr8k.token.txt", "flickr30k": "results_20130124.token"}
LISTS = {
    "train": ("*trainImages.txt", "*train*.txt"),
    "dev": ("*devImages.txt", "*dev*.txt", "*val*.txt"),
    "test": ("*testImages.txt", "*test*.txt"),
}
KARPATHY = {"train": "train", "restval": "train", "val": "dev", "test": "test"}
PICTURES = ("images", "Flicker8k_Dataset", "flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images",
            "")  # fmt: skip # "" is the root itself
EXPECTED = (
    "a Karpathy dataset_*.json, or a *.token or *.token.txt file and the lists"
    " *trainImages.txt, *devImages.txt, *testImages.txt, and the pictures in images/"
)


LONE = re.compile("[\ud800-\udfff]")  # one of the two parts in which JSON may write a character


class _Entry(NamedTuple):
    """One picture as its file describes it; `where` is the line or the JSON image that put it in its split."""

    where: str
    name: str
    captions: list[str]
    folder: str = ""

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)


def load(name: str, root: str | Path | None, limit: int | None = None) -> Corpus:
    """The corpus in the folder `root`; ids are file names, those that occur in several folders with their folder, and
    captions stay raw, only stripped.

    `limit` keeps the first pictures of the training split, dev and test stay whole. A missing picture is None; `notes`
    counts those, empty captions (dropped) and captioned pictures that no split lists (Flickr8k has some ninety).
    Raises DataError for a folder without these files or without any picture, and for every malformed file.
    """
    root = data_folder(root, EXPECTED)
    splits, unlisted = _read(name, root)
    _check_unique(entry for entries in splits.values() for entry in entries)
    splits["train"] = splits["train"][:limit]
    times = Counter(entry.name for entries in splits.values() for entry in entries)
    train, dev, test = (tuple(_example(root, entry, times) for entry in splits[split]) for split in LISTS)
    if all(example.image is None for example in train + dev + test):
        places = ", ".join(f"{place or '.'}/" for place in PICTURES)
        raise malformed(root, "none of the pictures", f"them in {places}, such as {quote(train[0].id)}")
    notes = {
        "missing pictures": count_missing(train + dev + test),
        "empty captions": sum(not caption for entries in splits.values() for e in entries for caption in e.captions),
        "pictures in no split": unlisted,
    }
    return Corpus(name, train, dev, test, fingerprint(train, dev, test), notes)


def _read(name: str, root: Path) -> tuple[dict[str, list[_Entry]], int]:
    """The entries of each split, and how many captioned pictures are in none. A file named after the corpus wins."""
    if path := find_file(root, f"dataset_{name}.json", "dataset_*.json"):
        return _read_karpathy(path), 0
    if path := find_file(root, TOKENS.get(name, "*.token"), "*.token", "*.token.txt"):
        captions = _read_tokens(path)
        splits = {split: _read_list(root, patterns, captions, path) for split, patterns in LISTS.items()}
        return splits, len(captions.keys() - {entry.name for entries in splits.values() for entry in entries})
    raise malformed(root, "no caption file", EXPECTED)


def _read_tokens(path: Path) -> dict[str, dict[int, str]]:
    """name -> {k: caption} from lines `name.jpg#k<TAB>caption`."""
    captions = {}
    for where, line in read_lines(path):
        if line.strip():
            name, k, caption = _parse_token(where, line)
            if k in captions.setdefault(name, {}):
                raise malformed(where, f"{quote(f'{name}#{k}')} a second time", "each caption once")
            captions[name][k] = caption
    return captions


def _parse_token(where: str, line: str) -> tuple[str, int, str]:
    head, tab, caption = line.partition("\t")
    if not tab:
        raise malformed(where, f"no tab in {quote(line)}", "name#k, a tab and a caption")
    name, mark, k = head.strip().rpartition("#")
    if not (name and mark):
        raise malformed(where, quote(head), "name#k before the tab")
    if not k.isdecimal() or len(k) > 9:
        raise malformed(where, f"caption index {quote(k)}", "a number after the #")
    return name, int(k), caption.strip()


def _read_list(root: Path, patterns: tuple[str, ...], captions: dict, tokens: Path) -> list[_Entry]:
    """The entries of one split list, in its order, captions in the order of their k."""
    path = find_file(root, *patterns)
    if path is None:
        raise malformed(root, "no split list", f"a file {' or '.join(patterns)} beside {tokens.name}")
    entries = []
    for where, name in ((where, line.strip()) for where, line in read_lines(path) if line.strip()):
        if name not in captions:
            raise malformed(where, quote(name), f"a picture that has captions in {tokens.name}")
        entries.append(_Entry(where, name, [caption for _, caption in sorted(captions[name].items())]))
    return _not_empty(entries, path)


def _read_karpathy(path: Path) -> dict[str, list[_Entry]]:
    """The entries of {"images": [{"filename", "filepath"?, "split", "sentences": [{"raw"}]}]}, in the file's order."""
    content = read_json(path)
    splits = {split: [] for split in LISTS}
    for index, image in enumerate(_get(content, "images", list, path)):
        where = f"{path}: image {index}"
        split = _get(image, "split", str, where)
        if split not in KARPATHY:
            raise malformed(where, f"split {quote(split)}", f"one of {', '.join(KARPATHY)}")
        splits[KARPATHY[split]].append(_karpathy_entry(image, where))
    return {split: _not_empty(entries, f"{path}: split {split}") for split, entries in splits.items()}


def _karpathy_entry(image: dict, where: str) -> _Entry:
    captions = [_get(sentence, "raw", str, where).strip() for sentence in _get(image, "sentences", list, where)]
    folder = _get(image, "filepath", str, where) if "filepath" in image else ""
    return _Entry(where, _get(image, "filename", str, where), captions, folder)


def _get(record: object, key: str, kind: type, where: object):
    """record[key], which must be there and of that kind."""
    if not isinstance(record, dict):
        raise malformed(where, quote(record), f"an object with {key!r}")
    if not isinstance(record.get(key), kind):
        found = f"{key!r} {quote(record[key])}" if key in record else f"no {key!r}"
        raise malformed(where, found, f"{key!r} as a {kind.__name__}")
    if kind is str and LONE.search(record[key]):
        raise malformed(where, f"{key!r} {quote(record[key])} with half a character", "whole ones")
    return record[key]


def _not_empty(entries: list[_Entry], where: object) -> list[_Entry]:
    if not entries:
        raise malformed(where, "no picture", "at least one")
    return entries


def _check_unique(entries: Iterable[_Entry]) -> None:
    first = {}
    for entry in entries:
        if entry.path in first:
            found = f"{quote(entry.path)} a second time (first: {first[entry.path]})"
            raise malformed(entry.where, found, "each picture once, in one split")
        first[entry.path] = entry.where


def _example(root: Path, entry: _Entry, times: Counter) -> CaptionedImage:
    captions = tuple(filter(None, entry.captions))
    if not captions:
        raise malformed(entry.where, f"no words for {quote(entry.name)}", "at least one caption")
    # COCO's filepath says train2014 or val2014, but some keep all the pictures in one folder
    folders = dict.fromkeys((entry.folder, "")) if times[entry.name] == 1 else (entry.folder,)
    places = product(PICTURES, folders)
    found = (resolve_picture(root, os.path.join(*place, entry.name), entry.where) for place in places)
    id = entry.name if times[entry.name] == 1 else entry.path
    return CaptionedImage(id, next(filter(None, found), None), captions)
