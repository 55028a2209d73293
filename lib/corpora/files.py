"""Reading data folders that other people made: strict about content, tolerant of Windows, errors with their place."""

import hashlib
import io
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

from lib.corpora.types import DataError, Picture, picture_key

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")  # of pictures


def malformed(where: object, found: str, expected: str) -> DataError:
    """The one sentence for bad input, to be raised; `where` is a folder, a file or `file:line`."""
    return DataError(f"{where}: found {found}, expected {expected}")


def quote(text: object, longest: int = 80) -> str:
    """`text` as an error message shows it: on one line, and cut where it is long."""
    shown = repr(text)
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def require_path(name: str, path: object) -> None:
    """DataError, naming the parameter, for what cannot be a path: whatever is there, or not there."""
    if not isinstance(path, (str, Path)):
        raise malformed(name, quote(path), "a path")
    plain = os.path.expanduser(path)
    if plain.startswith("~"):
        raise malformed(name, f"{quote(str(path))}, nobody's home", "a path")
    try:
        os.stat(plain)
    except (FileNotFoundError, NotADirectoryError):
        pass  # to be said with what belongs there
    except (OSError, ValueError) as error:  # endless, or with a character that no name has
        raise malformed(name, f"{quote(str(path))} ({getattr(error, 'strerror', error)})", "a path") from error


def data_folder(root: str | Path | None, expected: str) -> Path:
    """`root` as an absolute path, `~` and links resolved; `expected` tells which files belong there.

    Raises DataError for no root, or one that is not a folder.
    """
    if not root:
        raise malformed("root", "no data folder", f"a folder with {expected}")
    folder = Path(os.path.realpath(os.path.expanduser(root)))
    if not folder.is_dir():
        raise malformed(folder, "no such folder", f"a folder with {expected}")
    return folder


def find_file(root: Path, *patterns: str) -> Path | None:
    """The one file that matches the first pattern to match any, or None; hidden files (macOS's `._*`) do not count.

    Raises DataError where that pattern matches several.
    """
    for pattern in patterns:
        found = sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("."))
        if len(found) > 1:
            raise malformed(root, f"{len(found)} files {', '.join(p.name for p in found)}", f"only one {pattern}")
        if found:
            return found[0]
    return None


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte-order mark. Raises DataError naming the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise malformed(f"{path}:{line}", f"byte {error.object[error.start]:#04x}", "UTF-8 text") from error
    except OSError as error:
        raise malformed(path, f"no readable file ({error.strerror})", "UTF-8 text") from error


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Every line of a UTF-8 file, blank ones too, as (`file:line`, text without its line end).

    Only LF and CRLF end a line: `str.splitlines` would also cut a caption at U+2028 or a form feed.
    Raises DataError as `read_text` does.
    """
    lines = io.StringIO(read_text(path), newline="\n")
    return [(f"{path}:{n}", line.removesuffix("\n").removesuffix("\r")) for n, line in enumerate(lines, start=1)]


def read_json(path: Path):
    """What a JSON file holds. Raises DataError with the line, or the file, where it is malformed."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise malformed(f"{path}:{error.lineno}", f"{error.msg} at column {error.colno}", "valid JSON") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise malformed(path, f"what nobody can read ({error})", "JSON of a usual size and depth") from error


def resolve_picture(root: Path, name: str, where: str) -> Path | None:
    """The file `name` inside `root` (a folder as `data_folder` returns it), or else one whose name differs only in
    capitals, in the ending, or in how accents are put to letters; a bare one is looked for in `images` as well. None
    where there is no such file.

    Raises DataError, with `where` it was named, for a path that leaves the folder: absolute, `..`, or a link out; and
    for a folder that cannot be read.
    """
    if os.path.isabs(name) or ".." in name.split("/"):
        raise malformed(where, f"path {quote(name)}", f"a path inside {root}")
    path = os.path.join(root, name)
    if not os.path.isfile(path) and (path := _alike(str(root), name)) is None:
        return None
    target = os.path.realpath(path)
    if not target.startswith(os.path.join(root, "")):
        raise malformed(where, f"{quote(name)}, a link to {target}", f"a file inside {root}")
    return Path(path)


def _alike(folder: str, name: str) -> str | None:
    *folders, file = name.split("/")
    for part in folders:
        exact = os.path.join(folder, part)
        folder = exact if os.path.isdir(exact) else os.path.join(folder, _entries(folder).get(_folded(part), part))
    elsewhere = None if folders else _entries(folder).get("images")  # where a bare name may stand, beside its file
    stem, ending = os.path.splitext(file)
    stems = [file, stem] if ending.lower() in ENDINGS else [file]
    names = [file, *(stem + ending for stem in stems for ending in ENDINGS)]
    places = [folder, os.path.join(folder, elsewhere)] if elsewhere else [folder]
    listed = ((place, _entries(place)) for place in places)
    found = (os.path.join(place, known[_folded(name)]) for place, known in listed for name in names
             if _folded(name) in known)  # fmt: skip
    return next(filter(os.path.isfile, found), None)


def _folded(name: str) -> str:
    return normalize("NFC", name).casefold()


def _entries(folder: str) -> dict[str, str]:
    """What is in a folder, by how `_folded` spells it; nothing where there is no such folder."""
    try:
        return _listed(folder, os.stat(folder).st_mtime_ns)
    except PermissionError as error:
        raise malformed(folder, f"a folder that cannot be read ({error.strerror})", "pictures") from error
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=64)
def _listed(folder: str, changed: int) -> dict[str, str]:
    return {_folded(name): name for name in sorted(os.listdir(folder), reverse=True)}


def count_missing(examples: Sequence, places: Sequence[str] = ("images",)) -> int:
    """How many examples have no picture; if any, one warning says how many and names the first, and where all are
    missing in which `places` they were looked for."""
    missing = [example.id for example in examples if example.image is None]
    if missing:
        message = f"{len(missing)} of {len(examples)} pictures are missing, the first is {quote(missing[0])}"
        if len(missing) == len(examples):
            message += f"; looked for in {', '.join(places)}, with {', '.join(ENDINGS)}"
        warnings.warn(message, stacklevel=4)  # the line that called lib.corpora.load
    return len(missing)


def fingerprint(*splits: Sequence) -> str:
    """sha256 over each split's examples: every field, and the picture by content, so a moved folder keeps it.

    It reads every picture once (in threads, at about the speed of the disk): size and time stamps would be quicker,
    but a copy changes them, and an edit can leave them alone. Raises DataError for a picture that cannot be read.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for split in splits:
            digest.update(f"{len(split)} examples\n".encode())
            keys = pool.map(_content, [example.image for example in split])
            for example, key in zip(split, keys, strict=True):
                digest.update(_words(example) + key)
    return digest.hexdigest()


def _content(picture: Picture) -> bytes:
    try:
        return picture_key(picture) if picture is not None else bytes(32)
    except OSError as error:
        raise malformed(picture, f"no readable file ({error.strerror})", "a picture") from error


def _words(example: object) -> bytes:
    return json.dumps([getattr(example, field.name) for field in fields(example) if field.name != "image"]).encode()
