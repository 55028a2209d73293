"""What a feature cache costs: an append and a look-up beside 10^4, 10^5 and 10^6 rows, the checksums of a row, and
what share of encoding and of loading the checks take."""

import time
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from zlib_ng.zlib_ng import crc32

from lib import corpora
from lib.encoders.cache import FeatureCache
from lib.encoders.images import ImageEncoder
from lib.run import experiment
from lib.run.paper import PAPERS, find_paper

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

    share_of_encoding()
    for paper in PAPERS:
        share_of_loading(paper)


def share_of_encoding(count: int = 256) -> None:
    """What checksums add to encoding pictures into the widest of rows."""
    pictures = [example.image for example in corpora.load("iconworld-captions").train[:count]]
    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        store = ImageEncoder("lite0", "grid").features(pictures, cache=Path(folder)).rows
        whole = time.perf_counter() - begun
        begun = time.perf_counter()
        for row in store:
            crc32(row)
        print(f"encoding: {whole:.2f} s, of which sums {100 * (time.perf_counter() - begun) / whole:.2f} %")


def share_of_loading(paper: str) -> None:
    """What checks add to loading a paper's data with cached features, as a run begins: in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        whole, checks = pool.apply(loaded, (paper,))
    print(f"loading {paper}: {whole:.2f} s, of which checks {100 * checks / whole:.2f} %", flush=True)


def loaded(paper: str) -> tuple[float, float]:
    """The seconds that a run of a paper's main row takes until its first step can be taken, and those of its checks."""
    plain, taken = FeatureCache._sum, []

    def timed(self: FeatureCache, key: bytes, row: np.ndarray) -> int:
        begun = time.perf_counter()
        found = plain(self, key, row)
        taken.append(time.perf_counter() - begun)
        return found

    FeatureCache._sum = timed
    begun = time.perf_counter()
    run = experiment.plan(paper, find_paper(paper).main, 0, {"profile": "small"})
    run.task.prepare(run.data)
    run.task.bind(run.data, run.task.context(run.data, None))
    return time.perf_counter() - begun, sum(taken)


if __name__ == "__main__":
    main()
