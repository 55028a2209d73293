"""Writing so that a reader, or the next start after a kill, finds the whole of a thing or nothing of it."""

import errno
import json
import os
import shutil
import socket
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from zlib import crc32

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save_file

from lib.progress import EVERY, tell

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As Rust, C++ and SQLite say it
SIGNS = ("os error", "PytorchStreamWriter", "inline_container", "iostream", "disk is full", "disk I/O error")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context that writes a file or folder: of a disk that is full it says so, in one sentence with the path, as
    OSError; any other error stays what it is."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, sqlite3.OperationalError) as error:
        known = error.errno in FULL if isinstance(error, OSError) else any(sign in str(error) for sign in SIGNS)
        if not known:
            raise
        why = " ".join(str(error).split())
        raise OSError(f"{path}: could not be written, is the disk full? ({why}); what stood there is whole") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it takes the place of `path` at once, after reaching the disk. Raises
    OSError as `writing` does."""
    path = Path(path)
    with writing(path), new_folder(path.parent, f".{path.name}.") as folder:
        yield folder / path.name
        _flush(folder / path.name)
        os.replace(folder / path.name, path)


def write_json(path: Path, content: object) -> None:
    """Replace the JSON file `path` at once."""
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace the safetensors file `path` at once."""
    with replacing(path) as fresh:
        # Cloned, because the format refuses tensors that share memory, as tied weights do.
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, fresh)


@contextmanager
def new_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A fresh folder to prepare something in, beside where it will stand; removed on leaving if still there."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context that one process at a time is in; who has to wait tells from time to time for whom."""
    lock, holder, patience = FileLock(path), path.with_name(f"{path.name}.holder"), EVERY
    while not lock.is_locked:
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            patience *= 2
            with suppress(FileNotFoundError):  # it may end just now
                tell(f"waiting for {path}, held by {holder.read_text('utf-8')}")
    try:
        with writing(holder):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


class Connection(sqlite3.Connection):
    """A database that says so, as `writing` does, if its disk is full."""

    def executemany(self, *arguments) -> sqlite3.Cursor:
        with self._writing():
            return super().executemany(*arguments)

    def __exit__(self, *error) -> bool:
        with self._writing():  # a transaction reaches the disk as it ends
            return super().__exit__(*error)

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.execute("PRAGMA database_list").fetchone()[2])


TEXTS = """
CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sums (key BLOB PRIMARY KEY, sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS summed AFTER INSERT ON texts BEGIN
    INSERT OR REPLACE INTO sums VALUES (new.key, checksum(new.key, CAST(new.text AS BLOB)));
END;
"""
UNSUMMED = "SELECT key, checksum(key, CAST(text AS BLOB)) FROM texts WHERE key NOT IN (SELECT key FROM sums)"
DAMAGED = "SELECT key FROM texts JOIN sums USING (key) WHERE sum != checksum(key, CAST(text AS BLOB))"


def connect(path: Path, timeout: float) -> Connection:
    """A database of `texts` by `key`, waiting up to `timeout` seconds for others that write. A damaged one is set aside
    with a warning; each text has a checksum, and one that is not what was written is dropped with a warning."""
    path = Path(path)
    with locked(path.with_name(f"{path.name}.lock")):
        if not _is_sound(path):
            aside = path.rename(path.with_name(f"{path.name}.damaged"))
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # it would be taken for the new one's
            warnings.warn(f"{path}: found a damaged database, now {aside.name}; it is made again", stacklevel=3)
        store = sqlite3.connect(path, timeout, factory=Connection)
        store.create_function("checksum", 2, lambda key, text: crc32(text, crc32(key)), deterministic=True)
        store.executescript(TEXTS)
        if unsummed := store.execute(UNSUMMED).fetchall():  # by an older version
            with store:
                store.executemany("INSERT OR IGNORE INTO sums VALUES (?, ?)", unsummed)
        if damaged := store.execute(DAMAGED).fetchall():
            with store:
                store.executemany("DELETE FROM texts WHERE key = ?", damaged)
            warnings.warn(f"{path}: found {len(damaged)} texts other than they were written; they are made again",
                          stacklevel=3)  # fmt: skip
        return store


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as store:
            return store.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return False
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what `replacing` had begun in a folder when it was killed; nobody else may be writing there."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)


def publish(folder: Path, target: Path) -> None:
    """Give a prepared folder its final name, after all its files have reached the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)
    os.replace(folder, target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
