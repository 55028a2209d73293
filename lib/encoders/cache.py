"""Features on disk: each row is computed once, found by what it was computed from, and mapped, not loaded."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from zlib_ng.zlib_ng import crc32  # zlib's own sums, three times as fast

from lib.files import locked, writing

KEY_BYTES, SUM_BYTES = 32, 4


class FeatureCache:
    """A table of equally shaped rows in three append-only files: `rows.bin`, their checksums in `sums.bin`, and
    `keys.bin`, which commits them.

    A row's 32-byte key is a hash of its content, so a row is never stale. Rows reach the disk before their keys,
    and appending starts at the last committed row: a process killed at any moment leaves at worst a tail that the
    next writer overwrites. Writers take a file lock for the moment of appending, so any number may share a table.
    A row that is not what was written (a file cut short by a copy, a flipped bit, another table's file) is warned of
    and counts as not there, so that it is computed and appended again; it is checked when it is first asked for, once
    in a process as long as nobody writes to the file.
    """

    def __init__(self, folder: Path, row_shape: Sequence[int], dtype: str = "float16"):
        self.folder = Path(folder)
        self.row_shape, self.dtype = tuple(row_shape), np.dtype(dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows_path, self.keys_path = self.folder / "rows.bin", self.folder / "keys.bin"
        self.sums_path = self.folder / "sums.bin"
        self._name_sum = crc32(self.folder.absolute().name.encode())
        self._forget()

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.row_shape)) * self.dtype.itemsize

    def positions(self) -> Mapping[bytes, int]:
        """Key -> row number of every committed row that is what was written."""
        self._read_on()
        return _Positions(self._index, self._is_sound)

    def rows(self) -> np.ndarray:
        """All committed rows, memory-mapped read-only [R, *row_shape]."""
        self._read_on()
        return _map(self.rows_path, self.dtype, (self._count, *self.row_shape))

    def append(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Store `rows` [n, *row_shape] under `keys`; rows that another writer stored meanwhile are skipped.

        Raises ValueError if the rows do not have the table's shape, or are not finite.
        """
        with np.errstate(over="ignore"):  # an overflow is reported below
            rows = np.ascontiguousarray(rows, self.dtype)
        if rows.shape != (len(keys), *self.row_shape):
            raise ValueError(f"{self.folder}: rows of shape {rows.shape}, expected {(len(keys), *self.row_shape)}")
        if not np.isfinite(rows).all():
            raise ValueError(f"{self.folder}: a feature is not finite in {self.dtype}, expected finite numbers")
        with locked(self.folder / "lock"):
            known = self.positions()
            fresh = {key: i for i, key in enumerate(keys) if key not in known}  # each key once
            end, summed = self._count, len(self._sums)
            if _size(self.keys_path) > end * KEY_BYTES:  # of rows that are lost: new ones must not pass for them
                _write_at(self.keys_path, end * KEY_BYTES, b"")
            rows = rows[list(fresh.values())]
            unsummed = zip(self._keys(summed), self._bytes[summed:], strict=True)  # of a table older than its sums
            sums = [self._sum(key, row) for pairs in (unsummed, zip(fresh, rows, strict=True)) for key, row in pairs]
            _write_at(self.rows_path, end * self.row_bytes, rows.tobytes())
            _write_at(self.sums_path, summed * SUM_BYTES, np.array(sums, np.uint32).tobytes())
            _write_at(self.keys_path, end * KEY_BYTES, b"".join(fresh))

    # ---- what is known of the files ----

    def _forget(self) -> None:
        self._count, self._index, self._checked, self._damaged = 0, {}, {}, False
        self._sums, self._bytes = np.empty(0, np.uint32), np.empty((0, self.row_bytes), np.uint8)

    def _read_on(self) -> None:
        """Take in what was committed since the last look, so that no look costs more than what is new."""
        committed = _size(self.keys_path) // KEY_BYTES  # looked at first: the others grow before it
        count = min(committed, _size(self.rows_path) // self.row_bytes)
        if count < committed:
            self._warn(f"{count} rows, expected {committed}")
        if count < self._count:  # the files were damaged meanwhile
            self._forget()
        if count > self._count:
            before, self._count = self._count, count
            self._checked = self._checked or _looked_at(self.rows_path, *_stamp(self.rows_path))
            self._index |= {key: before + i for i, key in enumerate(self._keys(before))}
            self._sums = _map(self.sums_path, np.uint32, (min(count, _size(self.sums_path) // SUM_BYTES),))
            self._bytes = np.asarray(_map(self.rows_path, np.uint8, (count, self.row_bytes)))

    def _keys(self, start: int) -> list[bytes]:
        """The keys of the rows from `start` on."""
        if start == self._count:
            return []
        with open(self.keys_path, "rb") as file:
            file.seek(start * KEY_BYTES)
            return [file.read(KEY_BYTES) for _ in range(start, self._count)]

    def _is_sound(self, key: bytes, row: int) -> bool:
        if row not in self._checked:
            self._checked[row] = row >= len(self._sums) or self._sum(key, self._bytes[row]) == self._sums[row]
            if not self._checked[row] and not self._damaged:  # said once
                self._damaged = True
                self._warn(f"row {row} other than it was written")
        return self._checked[row]

    def _sum(self, key: bytes, row: np.ndarray) -> int:
        """A checksum that also knows whose row it is, and of which table."""
        return crc32(row, crc32(key, self._name_sum))

    def _warn(self, found: str) -> None:
        warnings.warn(f"{self.rows_path}: found {found}; what is damaged is computed again", stacklevel=2)


class _Positions(Mapping):
    """The sound ones among some rows, by key; those that nobody asks for are not looked at."""

    def __init__(self, index: dict[bytes, int], is_sound: Callable[[bytes, int], bool]):
        self.index, self.is_sound = index, is_sound

    def __getitem__(self, key: bytes) -> int:
        row = self.index[key]
        if not self.is_sound(key, row):
            raise KeyError(key)
        return row

    def __iter__(self) -> Iterator[bytes]:
        return (key for key in list(self.index) if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _stamp(path: Path) -> tuple[int, int]:
    """Which file it is, and when it was last written to."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


@lru_cache(maxsize=64)
def _looked_at(path: Path, inode: int, written: int) -> dict[int, bool]:
    """Which rows of a file this process looked at, and whether they were sound."""
    return {}


def _map(path: Path, dtype, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype, "r", shape=shape) if shape[0] else np.empty(shape, dtype)


def _write_at(path: Path, offset: int, content: bytes) -> None:
    """Write at `offset`, dropping whatever an interrupted writer left behind it, and wait for the disk."""
    path.touch()
    with writing(path), open(path, "r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class Features:
    """Rows of a FeatureCache in the order of some examples: `features[indices]` gathers a float32 batch.

    `positions` [N, V] holds row numbers, V views an example; -1 marks a missing picture, whose rows are zeros.
    """

    def __init__(self, rows: np.ndarray, positions: np.ndarray):
        self.rows, self.positions = rows, np.asarray(positions)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def views(self) -> int:
        return self.positions.shape[1]

    @property
    def present(self) -> torch.Tensor:
        """[N] bool: which examples have a picture."""
        return torch.from_numpy(self.positions[:, 0] >= 0)

    def gather(self, indices: Iterable[int] | slice, view: int | np.ndarray = 0) -> torch.Tensor:
        """Rows of the examples `indices`, one view each -> [n, *row_shape] float32."""
        chosen = self.positions[indices]
        chosen = chosen[np.arange(len(chosen)), view]
        if len(self.rows) == 0:
            return torch.zeros(len(chosen), *self.rows.shape[1:])
        gathered = torch.from_numpy(self.rows[np.maximum(chosen, 0)].astype(np.float32))
        gathered[torch.from_numpy(chosen < 0)] = 0
        return gathered

    __getitem__ = gather
