"""The feature cache: rows survive kills and rival writers, and are found by content alone."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.encoders.cache import KEY_BYTES, FeatureCache, Features
from tests.disks import full_disk


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


@pytest.mark.parametrize("after, name", [(85, "rows.bin"), (33, "rows.bin"), (0, "lock.holder")])
def test_rows_for_which_the_disk_has_no_room_leave_the_others_whole(tmp_path, after, name):
    """Eight rows of ten bytes, and a ninth."""
    store = table(tmp_path, "full")
    with full_disk(after), pytest.raises(OSError, match=f"full/{name}: could not be written, is the disk full"):
        store.append([key(8)], row(8)[None])
    for again in (store, FeatureCache(store.folder, (5,))):
        positions, rows = again.positions(), again.rows()
        assert len(positions) == 8 and all((rows[positions[key(n)]] == n).all() for n in range(8))
    store.append([key(8)], row(8)[None])
    assert len(FeatureCache(store.folder, (5,)).positions()) == 9


def test_keys_for_which_the_disk_has_no_room_leave_the_others_whole(tmp_path):
    """Rows shorter than their keys: 5 bytes, of which 32 fit."""
    store = FeatureCache(tmp_path, (5,), "uint8")
    store.append([key(n) for n in range(8)], np.arange(8, dtype=np.uint8)[:, None].repeat(5, 1))
    with full_disk(8 * KEY_BYTES + 7), pytest.raises(OSError, match="keys.bin: could not be written, is the disk full"):
        store.append([key(8)], np.full((1, 5), 8, np.uint8))
    again = FeatureCache(tmp_path, (5,), "uint8")
    assert again.positions() == {key(n): n for n in range(8)}
    again.append([key(8)], np.full((1, 5), 8, np.uint8))
    assert again.rows()[again.positions()[key(8)]].tolist() == [8] * 5


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


def table(folder, name: str, numbers=range(8)) -> FeatureCache:
    fill(folder / name, numbers)
    return FeatureCache(folder / name, (5,))


def assert_made_again(store: FeatureCache, lost: set[int], numbers=range(8)):
    """Only what was lost counts as not there, with a warning; made again, all rows are what they were."""
    with pytest.warns(UserWarning, match="rows.bin: found .*; what is damaged is computed again"):
        known = store.positions()
        assert {n for n in numbers if key(n) not in known} == lost
    for n in lost:
        store.append([key(n)], row(n)[None])
    for again in (store, FeatureCache(store.folder, (5,))):
        with warnings.catch_warnings(action="error"):
            positions, rows = again.positions(), again.rows()
            assert all((rows[positions[key(n)]] == n).all() for n in numbers)


@pytest.mark.parametrize("left", [0, 7, 30, 79])
def test_rows_that_a_copy_lost_are_not_zeros(tmp_path, left):
    """Eight rows of ten bytes."""
    store = table(tmp_path, "cut")
    os.truncate(tmp_path / "cut" / "rows.bin", left)
    assert_made_again(store, set(range(left // 10, 8)))


def test_rows_that_a_copy_lost_are_not_zeros_in_a_table_older_than_its_sums(tmp_path):
    store = table(tmp_path, "cut")
    (tmp_path / "cut" / "sums.bin").unlink()
    (tmp_path / "cut" / "rows.bin").unlink()
    assert_made_again(store, set(range(8)))
    assert (tmp_path / "cut" / "sums.bin").stat().st_size == 8 * 4


@given(st.sampled_from(("rows.bin", "sums.bin")), st.integers(0, 31), st.integers(1, 255))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_found(tmp_path, name, place, flips):
    store = table(tmp_path, f"{name}-{place}-{flips}")
    path = store.folder / name
    content = bytearray(path.read_bytes())
    content[place] ^= flips
    path.write_bytes(content)
    assert_made_again(store, {place // (10 if name == "rows.bin" else 4)})


def test_a_damaged_key_is_nobodys_row(tmp_path):
    store = table(tmp_path, "keys")
    path = store.folder / "keys.bin"
    path.write_bytes(b"?" + path.read_bytes()[1:])
    known = FeatureCache(store.folder, (5,)).positions()
    assert key(0) not in known and key(1) in known


@pytest.mark.parametrize("swapped", [("rows.bin",), ("keys.bin",), ("rows.bin", "keys.bin", "sums.bin")])
def test_another_tables_files_are_found(tmp_path, swapped):
    table(tmp_path, "other", range(7, -1, -1))
    store = table(tmp_path, "own")
    for name in swapped:
        shutil.copy(tmp_path / "other" / name, store.folder / name)
    assert_made_again(FeatureCache(store.folder, (5,)), set(range(8)))


def test_a_table_without_sums_is_read_and_gets_them(tmp_path):
    store = table(tmp_path, "old")
    (store.folder / "sums.bin").unlink()
    fill(store.folder, [8])
    assert len(FeatureCache(store.folder, (5,)).positions()) == 9
    with open(store.folder / "rows.bin", "r+b") as file:
        file.write(b"damaged")
    assert_made_again(FeatureCache(store.folder, (5,)), {0}, range(9))


def test_an_append_reads_only_what_others_appended(tmp_path, monkeypatch):
    store, other, looked = table(tmp_path, "long", range(300)), FeatureCache(tmp_path / "long", (5,)), []
    store.positions()
    monkeypatch.setattr(store, "_keys", lambda start: looked.append(start) or FeatureCache._keys(store, start))
    other.append([key(300)], row(300)[None])
    store.append([key(301)], row(301)[None])
    assert len(store.positions()) == 302 and min(looked) == 300


def test_a_row_is_looked_at_once_in_a_process_and_again_where_somebody_wrote(tmp_path, monkeypatch):
    store, looked = table(tmp_path, "long"), []
    plain = FeatureCache._sum
    monkeypatch.setattr(FeatureCache, "_sum", lambda self, key, row: looked.append(key) or plain(self, key, row))
    for again in (store, store, FeatureCache(store.folder, (5,))):
        assert len(again.positions()) == 8
    assert len(looked) == 8
    time.sleep(0.02)  # a file's time is not as fine as its nanoseconds say
    with open(store.folder / "rows.bin", "r+b") as file:
        file.write(b"damaged")
    assert_made_again(FeatureCache(store.folder, (5,)), {0})


def test_what_was_computed_can_be_read_where_nothing_can_be_written(tmp_path):
    store = table(tmp_path, "shipped")
    before = {path: path.read_bytes() for path in store.folder.iterdir()}
    assert len(FeatureCache(store.folder, (5,)).positions()) == 8
    assert {path: path.read_bytes() for path in store.folder.iterdir()} == before
