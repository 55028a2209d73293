"""What was corrected while a kernel runs is read again, though corpora are remembered by their settings."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_seen: dict[Path, int] = {}


def look_at(folders: Iterable[str | Path]) -> None:
    """Forget all corpora that were read if a file in one of the folders of data is another than at the last look."""
    for folder in {Path(os.path.expanduser(folder)) for folder in folders}:
        stamp = hash(tuple(sorted(_files(folder))))
        if _seen.get(folder) != stamp:
            _seen[folder] = stamp
            _forget()


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of each file of a data folder, or of a file of items and the pictures beside it."""
    tops = [folder] if os.path.isdir(folder) else [folder.parent / "images"]
    paths = [folder, *(os.path.join(where, name) for top in tops for where, _, names in os.walk(top) for name in names)]
    for path in paths:
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # gone meanwhile, a link to nothing, or no path at all
            continue
        yield str(path), found.st_size, found.st_mtime_ns


def _forget() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("lib.tasks."):
            for thing in vars(module).values():
                if hasattr(thing, "cache_clear"):
                    thing.cache_clear()
