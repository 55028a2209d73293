"""Features on disk: each row is computed once, found by what it was computed from, and mapped, not loaded."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

KEY_BYTES = 32


class FeatureCache:
    """A table of equally shaped rows in two append-only files: `rows.bin`, and `keys.bin` that commits them.

    A row's 32-byte key is a hash of its content, so a row is never stale. Rows reach the disk before their keys,
    and appending starts at the last committed row: a process killed at any moment leaves at worst a tail that the
    next writer overwrites. Writers take a file lock for the moment of appending, so any number may share a table.
    """

    def __init__(self, folder: Path, row_shape: Sequence[int], dtype: str = "float16"):
        self.folder = Path(folder)
        self.row_shape, self.dtype = tuple(row_shape), np.dtype(dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows_path, self.keys_path = self.folder / "rows.bin", self.folder / "keys.bin"

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.row_shape)) * self.dtype.itemsize

    def positions(self) -> dict[bytes, int]:
        """Key -> row number of every committed row."""
        stored = self.keys_path.read_bytes() if self.keys_path.exists() else b""
        count = len(stored) // KEY_BYTES
        return {stored[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(count)}

    def rows(self) -> np.ndarray:
        """All committed rows, memory-mapped read-only [R, *row_shape]."""
        count = self.keys_path.stat().st_size // KEY_BYTES if self.keys_path.exists() else 0
        if count == 0:
            return np.empty((0, *self.row_shape), self.dtype)
        return np.memmap(self.rows_path, self.dtype, "r", shape=(count, *self.row_shape))

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
        with FileLock(self.folder / "lock"):
            known = self.positions()
            fresh = {key: i for i, key in enumerate(keys) if key not in known}  # each key once
            _write_at(self.rows_path, len(known) * self.row_bytes, rows[list(fresh.values())].tobytes())
            _write_at(self.keys_path, len(known) * KEY_BYTES, b"".join(fresh))


def _write_at(path: Path, offset: int, content: bytes) -> None:
    """Write at `offset`, dropping whatever an interrupted writer left behind it, and wait for the disk."""
    path.touch()
    with open(path, "r+b") as file:
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
