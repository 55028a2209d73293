"""What a feature cache costs: an append and a look-up beside 10^4, 10^5 and 10^6 rows, and the checksums of a row."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lib.encoders.cache import FeatureCache

WIDTH, BATCH = 16, 64


def keys(start: int, stop: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(start, stop)]


def seconds(action, times: int = 20) -> float:
    """The median of some times."""
    taken = []
    for i in range(times):
        begun = time.perf_counter()
        action(i)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def main(sizes=(10_000, 100_000, 1_000_000)) -> None:
    for size in sizes:
        with TemporaryDirectory() as folder:
            store = FeatureCache(Path(folder) / "table", (WIDTH,))
            store.append(keys(0, size), np.ones((size, WIDTH)))
            store.positions()
            rows = np.ones((BATCH, WIDTH))

            def append(i: int, store=store, size=size, rows=rows) -> None:
                store.append(keys(size + i * BATCH, size + (i + 1) * BATCH), rows)

            opened = seconds(lambda i, store=store: FeatureCache(store.folder, (WIDTH,)).positions(), 3)
            appended = seconds(append)
            print(f"{size:9,} rows: append {1e3 * appended:.2f} ms, open {1e3 * opened:.1f} ms", flush=True)
    with TemporaryDirectory() as folder:
        wide = FeatureCache(Path(folder) / "table", (49, 1280))
        wide.append(keys(0, 256), np.ones((256, 49, 1280)))
        known = wide.positions()
        checked = seconds(lambda i: known[keys(i, i + 1)[0]], 200)
        print(f"a check of {wide.row_bytes / 1024:.0f} KB: {1e6 * checked:.0f} µs", flush=True)


if __name__ == "__main__":
    main()
