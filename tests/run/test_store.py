"""What is read is what a run wrote, and a record counts as its run while its key fits."""

import json
import os
import shutil

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import predict
from lib.run import experiment, store
from lib.run.experiment import ablate, plan, run
from tests.disks import full_disk

TOY, QUICK = "tests.toy", {"profile": "smoke"}


def silent(line: str) -> None:
    pass


@pytest.fixture
def finished(tmp_path):
    return run(TOY, "pretrain", 0, QUICK, tmp_path / "runs", silent)


def edit(folder, **changes) -> None:
    stored = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(stored | changes))


def test_edited_results_are_refused_and_made_again(finished):
    scores = finished.scores | {"test": {"deep:RMSE": 0.0}}
    for damage in (
        lambda folder: edit(folder, scores=scores),
        lambda folder: edit(folder, variant="norm"),
        lambda folder: edit(folder, identity=finished.identity | {"seed": 7}),
        lambda folder: (folder / "result.json").write_text(""),
        lambda folder: (folder / "result.json").write_text('{"a": '),
        lambda folder: (folder / "result.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "result.json").write_text("[]"),
    ):
        damage(finished.folder)
        with pytest.raises(store.DamagedRun, match=str(finished.folder)):
            store.read(finished.folder)
        lines = []
        again = run(TOY, "pretrain", 0, QUICK, finished.folder.parents[1], lines.append)
        assert again.scores == finished.scores and any("train" in line and "again" in line for line in lines)


@given(st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 3))
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_a_result_is_what_was_written_or_damaged(finished, place, put, taken):
    path = finished.folder / "result.json"
    content = path.read_bytes()
    at = place % len(content)
    try:
        path.write_bytes(content[:at] + put + content[at + taken :])
        assert store.read(finished.folder) == finished
    except store.DamagedRun as error:
        assert str(finished.folder) in str(error) and str(error).endswith("again")
    finally:
        path.write_bytes(content)


FLIPPED, CUT, EMPTY = (lambda found: found[:-1] + b"\xff"), (lambda found: found[:-9]), lambda found: b""


@pytest.mark.parametrize("name, damage", [
    *((name, FLIPPED) for name in ("statistics.npz", *store.OTHERS, store.SUMS)),
    ("model.safetensors", CUT), ("model.safetensors", EMPTY), ("settings.json", EMPTY),
])  # fmt: skip
def test_a_damaged_file_of_a_finished_run_is_found_and_made_again(finished, name, damage):
    """For a child, which starts from its weights; none of them passes for what it was, and no child differs."""
    parent = run(TOY, "pretrain", 0, QUICK | {"dataset": "wide"}, finished.folder.parents[1], silent)
    before, path = {name: weight.clone() for name, weight in parent.weights().items()}, parent.folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(store.DamagedRun, match="train (it|this run) again"):
        store.read(parent.folder).check(whole=True)
    lines = []
    child = run(TOY, "norm", 0, QUICK, finished.folder.parents[1], lines.append)
    assert any(name in line and "again" in line for line in lines)
    again = store.read(parent.folder).check(whole=True)
    assert all(torch.equal(weight, before[name]) for name, weight in again.weights().items()) and child.has_weights


@pytest.mark.parametrize("name", store.OTHERS)
def test_a_predictor_of_a_damaged_run_says_so(finished, name):
    for damage in (FLIPPED, CUT, EMPTY):
        path = finished.folder / name
        content = path.read_bytes()
        path.write_bytes(damage(content))
        with pytest.raises(store.DamagedRun, match=f"{name}: found .* again"):
            predict.load(finished.folder)
        path.write_bytes(content)


def test_a_predictor_of_a_run_of_older_code_says_so(finished):
    path = finished.folder / "settings.json"
    stored = json.loads(path.read_text())
    del stored["width"]
    path.write_text(json.dumps(stored))
    (finished.folder / store.SUMS).unlink()  # as older runs are
    with pytest.raises(ValueError, match="found a run of other code, whose settings differ in width"):
        predict.load(finished.folder)


def test_a_cut_file_of_a_run_that_nobody_starts_from_is_found_by_its_size(finished):
    path = finished.folder / "predictions.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    lines = []
    again = run(TOY, "pretrain", 0, QUICK, finished.folder.parents[1], lines.append)
    assert again.scores == finished.scores and any("predictions.safetensors" in line for line in lines)


def test_a_run_for_which_the_disk_has_no_room_is_made_when_there_is_some(finished, tmp_path):
    said = "could not be written, is the disk full.* is whole$"
    for after in (10, 400, 1500):
        with full_disk(after), pytest.raises(OSError, match=said) as error:
            run(TOY, "pretrain", 0, QUICK, tmp_path / "full", silent)
        assert str(tmp_path / "full") in str(error.value)
    again = run(TOY, "pretrain", 0, QUICK, tmp_path / "full", silent)
    assert again.scores == finished.scores and not list(again.folder.glob(".*"))
    assert all(torch.equal(weight, again.weights()[name]) for name, weight in finished.weights().items())


def test_a_run_without_its_weights_still_has_its_scores(finished):
    (finished.folder / "model.safetensors").unlink()
    lines = []
    assert run(TOY, "pretrain", 0, QUICK, finished.folder.parents[1], lines.append) == finished and not lines


def test_what_a_kill_left_half_written_goes_with_the_next_run(finished):
    (finished.folder / "result.json").unlink()
    (finished.folder / ".result.json.abc").mkdir()
    (finished.folder / ".result.json.abc" / "result.json").write_text("{")
    (finished.folder.parent / f"x-{finished.key}").write_text("a stray file stops nothing")
    again = run(TOY, "pretrain", 0, QUICK, finished.folder.parents[1], silent)
    assert again.folder == finished.folder and not list(finished.folder.glob(".*"))


def test_a_finished_run_is_read_where_nothing_can_be_written(finished, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(experiment, "locked", refused)
    monkeypatch.setattr(experiment.Path, "mkdir", refused)
    monkeypatch.setattr(experiment, "write_json", refused)
    assert run(TOY, "pretrain", 0, QUICK, finished.folder.parents[1], silent) == finished


def test_a_renamed_run_is_no_other_run(finished):
    other = plan(TOY, "pretrain", 1, QUICK)
    taken = finished.folder.with_name(f"{other.name}-{other.key}")
    shutil.move(finished.folder, taken)
    with pytest.raises(store.DamagedRun, match=f"found the result of run {finished.key}"):
        store.read(taken)
    assert run(TOY, "pretrain", 1, QUICK, taken.parents[1], silent).seed == 1


def test_statistics_are_those_that_the_run_wrote(finished):
    (finished.folder / "statistics.npz").write_bytes(b"PK")
    with pytest.raises(store.DamagedRun, match="found other bytes than the run wrote"):
        store.read(finished.folder).statistics("deep:RMSE")


def test_a_record_of_another_machine_counts_while_its_key_fits(finished, tmp_path, monkeypatch):
    reports, elsewhere = tmp_path / "reports", tmp_path / "elsewhere"
    store.keep_records([finished], reports / "numbers" / "toy" / "records")
    record = store.find_record(TOY, finished.key, reports)
    assert {path.name for path in record.iterdir()} == {"result.json", "statistics.npz"}
    assert sum(path.stat().st_size for path in record.iterdir()) < 50_000
    monkeypatch.setattr(store, "REPORTS", reports)
    monkeypatch.setattr(store.find_record, "__defaults__", (reports,))
    monkeypatch.setattr(experiment, "make", lambda *arguments: pytest.fail("trained again"))
    row = ablate(TOY, ["pretrain"], [0], QUICK, elsewhere, silent).iloc[0]
    assert row["folder"] == str(record) and row["deep:RMSE"] == finished.scores["test"]["deep:RMSE"]
    assert not store.read(record).has_weights
    with pytest.raises(FileNotFoundError):
        store.read(record).weights()


def test_what_a_record_started_from_is_not_trained_for_it(tmp_path, monkeypatch):
    children = [run(TOY, "norm", seed, QUICK, tmp_path / "runs", silent) for seed in (0, 1)]
    store.keep_records(children, tmp_path / "reports/numbers/toy/records")
    monkeypatch.setattr(store.find_record, "__defaults__", (tmp_path / "reports",))
    monkeypatch.setattr(experiment.pool, "at_once", lambda count, threads: 2)
    ablate(TOY, ["norm"], [0, 1], QUICK, tmp_path / "elsewhere", silent)
    assert not (tmp_path / "elsewhere").exists()


def test_a_record_whose_key_does_not_fit_is_not_used(finished, tmp_path, monkeypatch):
    reports = tmp_path / "reports"
    store.keep_records([finished], reports / "numbers" / "toy" / "records")
    monkeypatch.setattr(store.find_record, "__defaults__", (reports,))
    changed = ablate(TOY, ["pretrain"], [0], QUICK | {"epochs": 2}, tmp_path / "elsewhere", silent).iloc[0]
    assert changed["folder"].startswith(str(tmp_path / "elsewhere"))
    (record,) = store.records(TOY, reports)
    shutil.move(record, record.with_name("pretrain-seed0-" + plan(TOY, "pretrain", 0, QUICK | {"epochs": 4}).key))
    with pytest.raises(store.DamagedRun):
        ablate(TOY, ["pretrain"], [0], QUICK | {"epochs": 4}, tmp_path / "elsewhere", silent)


def test_finishing_a_report_again_keeps_other_records(finished, tmp_path):
    records = tmp_path / "records"
    store.keep_records([finished], records)
    other = run(TOY, "pretrain", 1, QUICK, tmp_path / "runs", silent)
    store.keep_records([other, store.read(records / finished.folder.name)], records)
    assert {path.name for path in records.iterdir()} == {finished.folder.name, other.folder.name}
