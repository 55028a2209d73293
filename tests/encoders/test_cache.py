"""The feature cache: rows survive kills and rival writers, and are found by content alone."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lib.encoders.cache import KEY_BYTES, FeatureCache, Features


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


def row(number: int) -> np.ndarray:
    return np.full(5, number, np.float16)


def fill(folder, numbers):
    store = FeatureCache(folder, (5,))
    for number in numbers:
        store.append([key(number)], row(number)[None])


def test_rows_come_back(tmp_path):
    fill(tmp_path, [3, 1, 2])
    store = FeatureCache(tmp_path, (5,))
    assert store.positions() == {key(3): 0, key(1): 1, key(2): 2}
    assert np.array_equal(store.rows(), np.stack([row(3), row(1), row(2)]))
    assert isinstance(store.rows(), np.memmap)


def test_a_row_is_stored_once(tmp_path):
    fill(tmp_path, [1, 1, 2])
    fill(tmp_path, [2, 1])
    assert len(FeatureCache(tmp_path, (5,)).rows()) == 2


@pytest.mark.parametrize("torn_rows, torn_keys", [(b"x" * 7, b""), (b"x" * 10, b"k" * 9), (b"x" * 25, b"")])
def test_the_torn_tail_of_a_killed_writer_is_overwritten(tmp_path, torn_rows, torn_keys):
    fill(tmp_path, [1])
    for name, tail in (("rows.bin", torn_rows), ("keys.bin", torn_keys)):
        with open(tmp_path / name, "ab") as file:
            file.write(tail)
    assert list(FeatureCache(tmp_path, (5,)).positions()) == [key(1)]
    fill(tmp_path, [2])
    assert np.array_equal(FeatureCache(tmp_path, (5,)).rows(), np.stack([row(1), row(2)]))


def test_two_writers_share_a_table(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=fill, args=(tmp_path, list(range(start, start + 60)))) for start in (0, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    store = FeatureCache(tmp_path, (5,))
    positions, rows = store.positions(), store.rows()
    assert len(rows) == len(positions) == 90
    assert all((rows[positions[key(n)]] == n).all() for n in range(90))


def test_a_writer_killed_at_any_moment_loses_only_what_it_had_not_committed(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_cache import fill
fill({str(tmp_path)!r}, range(100000))
"""
    for pause in (0.0, 0.013, 0.05):
        before = len(FeatureCache(tmp_path, (5,)).positions())
        writer = subprocess.Popen([sys.executable, "-c", script])
        while len(FeatureCache(tmp_path, (5,)).positions()) <= before:
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        store = FeatureCache(tmp_path, (5,))
        positions, rows = store.positions(), store.rows()
        assert len(rows) > before
        assert all((rows[positions[key(n)]] == np.float16(n)).all() for n in range(len(rows)))


def test_bad_rows_are_refused_and_nothing_is_written(tmp_path):
    store = FeatureCache(tmp_path, (5,))
    with pytest.raises(ValueError, match=r"rows of shape \(1, 4\), expected \(1, 5\)"):
        store.append([key(0)], np.zeros((1, 4)))
    with pytest.raises(ValueError, match="not finite in float16"):
        store.append([key(0)], np.full((1, 5), 1e6))
    assert not store.positions()


def test_features_gather_views_and_missing_pictures():
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    features = Features(rows, [[0, 1], [-1, -1], [2, 3]])
    assert len(features) == 3 and features.views == 2
    assert features.present.tolist() == [True, False, True]
    assert features.gather([2, 1], view=np.array([1, 0])).tolist() == [[9, 10, 11], [0, 0, 0]]
    assert features.gather(slice(0, 3), 1)[:, 0].tolist() == [3, 0, 9]
    assert features[[0]].tolist() == [[0, 1, 2]]
    nothing = Features(np.empty((0, 3), np.float16), [[-1], [-1]])
    assert nothing[[0, 1]].tolist() == [[0, 0, 0], [0, 0, 0]]
