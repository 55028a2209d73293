"""Stages, tasks and outputs, on the toy paper of tests/toy.py, for which no line of lib.run was written."""

import dataclasses
import json
import random
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib.run import experiment, pool, store
from lib.run.experiment import ablate, in_order, plan, run
from lib.setup import ROOT
from tests import toy
from tests.processes import dying_at, ended, forked

TOY, QUICK = "tests.toy", {"profile": "smoke"}


def silent(line: str) -> None:
    pass


def key(variant: str, seed: int = 0, **settings) -> str:
    return plan(TOY, variant, seed, QUICK | settings).key


def test_only_what_is_passed_reaches_the_parent():
    clean = plan(TOY, "norm", 0, QUICK)
    assert clean.parent.settings.dataset == "wide" and clean.settings.dataset == "round"
    for changes in ({"noise": 0.5}, {"epochs": 9}, {"dataset": "other"}):
        changed = plan(TOY, "norm", 0, QUICK | changes)
        assert changed.parent.key == clean.parent.key and changed.key != clean.key
    wider = plan(TOY, "norm", 0, QUICK | {"width": 6})
    assert wider.parent.key != clean.parent.key and wider.parent.settings.width == 6
    assert plan(TOY, "side", 0, QUICK).parent.key == clean.parent.key  # two tasks under one parent
    assert plan(TOY, "norm", 1, QUICK).parent.seed == 1


def test_a_shared_parent_has_one_seed_for_all(monkeypatch):
    shared = dataclasses.replace(toy.VARIANTS["norm"], shared=True)
    monkeypatch.setitem(toy.VARIANTS, "norm", shared)
    assert {plan(TOY, "norm", seed, QUICK).parent.key for seed in range(3)} == {key("pretrain", dataset="wide")}


def test_parents_come_before_children_each_once():
    asked = [plan(TOY, variant, seed, QUICK) for variant in ("norm", "side", "norm-linear") for seed in (0, 1)]
    order = in_order(asked)
    assert len(order) == len({one.key for one in order}) == 2 + 4  # both heads of "norm" are one run
    places = {one.key: i for i, one in enumerate(order)}
    assert all(places[one.parent.key] < places[one.key] for one in asked)


def test_two_outputs_of_one_run_are_two_rows(tmp_path):
    frame = ablate(TOY, ["norm-linear", "norm"], [0], QUICK, tmp_path, silent)
    assert frame["folder"].nunique() == 1 and frame["RMSE"].nunique() == 2 and (frame["RMSE"] > 0).all()
    assert len(list((tmp_path / TOY).iterdir())) == 2  # the parent and the child
    for row in frame.to_dict("records"):
        output = {"norm-linear": "linear", "norm": "deep"}[row["variant"]]
        result = store.read(row["folder"], output)
        squares, count = result.statistics("RMSE").sum(0)
        assert row["RMSE"] == pytest.approx((squares / count) ** 0.5) and count == 48
        assert 0 < result.statistics("far/RMSE").sum(0)[1] < 48


def test_a_child_starts_from_its_parents_weights_and_context(tmp_path):
    child = run(TOY, "norm", 0, QUICK | {"learning_rate": 1e-12}, tmp_path, silent)
    parent = run(TOY, "pretrain", 0, QUICK | {"dataset": "wide"}, tmp_path, silent)
    assert child.context["seen"] == ["round/0.0/none", "wide/0.0/none"]
    assert all(torch.allclose(weight, child.weights()[name], atol=1e-6) for name, weight in parent.weights().items())
    assert {"critic", "fooling", "deep loss"} <= set(parent.history[0]) and "critic" not in child.history[0]


def test_a_finished_child_asks_nobody_for_its_parent(tmp_path):
    child = run(TOY, "norm", 0, QUICK, tmp_path, silent)
    (parent,) = (tmp_path / TOY).glob("pretrain-*")
    shutil.rmtree(parent)
    assert run(TOY, "norm", 0, QUICK, tmp_path, silent) == child and not parent.exists()


def test_the_smallest_error_is_the_best(tmp_path):
    result = run(TOY, "pretrain", 2, QUICK | {"epochs": 5}, tmp_path, silent)
    errors = [record["deep:RMSE"] for record in result.history]
    assert result.scores["dev"]["deep:RMSE"] == pytest.approx(min(errors), abs=1e-5)


def test_a_dev_split_that_tells_nothing_apart_is_named(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(toy, "score", lambda predictions: dict.fromkeys(toy.METRICS, 1.0))
    run(TOY, "pretrain", 0, QUICK, tmp_path, lines.append)
    said = "dev tells none of 3 evaluations from another, so the first was kept"
    assert sum(said in line for line in lines) == 1
    lines.clear()
    run(TOY, "pretrain", 0, QUICK | {"epochs": 1}, tmp_path, lines.append)
    assert not any(said in line for line in lines)


def test_a_run_that_serves_as_an_encoder_is_part_of_the_key(tmp_path):
    asked = plan(TOY, "read", 0, QUICK)
    encoder = key("pretrain")
    assert asked.settings.encoder == f"run:{TOY}/pretrain@{encoder}" and asked.identity["data"].endswith(encoder)
    assert plan(TOY, "read", 3, QUICK).encoders[0].key == encoder  # whatever the reader's seed
    assert plan(TOY, "read", 0, QUICK | {"width": 6}).encoders[0].settings.width == 6
    run(TOY, "read", 0, QUICK, tmp_path, silent)
    assert store.locate(asked.settings.encoder).name == f"pretrain-seed0-{encoder}"
    with pytest.raises(FileNotFoundError, match="run:a/b@0123: found no such run"):
        store.locate("run:a/b@0123")


def test_side_by_side_is_the_same_as_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "at_once", lambda jobs, threads: 2)
    lines = []
    many = ablate(TOY, ["norm", "side"], [0, 1], QUICK, tmp_path / "many", lines.append)
    monkeypatch.setattr(pool, "at_once", lambda jobs, threads: 1)
    alone = ablate(TOY, ["norm", "side"], [0, 1], QUICK, tmp_path / "one", silent)
    assert many["RMSE"].tolist() == alone["RMSE"].tolist()
    begun = [line for line in lines if line in [f"{TOY} pretrain seed 0", f"{TOY} pretrain seed 1"]]
    assert len(begun) == 2  # each parent once


def weights(folder) -> dict:
    (found,) = folder.glob(f"{TOY}/side-*/model.safetensors")
    return load_file(found)


def test_killed_at_ten_moments_between_and_inside_the_stages_it_ends_with_the_same_bits(tmp_path):
    """12 of the parent's steps are the maker's and 24 the critic's, then come 12 of the child."""

    def attempt(folder, stop: int) -> int:
        make = lambda: experiment.run(TOY, "side", 0, {"profile": "smoke"}, folder, silent, checkpoint_seconds=0)  # noqa: E731
        return ended(forked(dying_at(stop, make)))

    assert attempt(tmp_path / "whole", -1) == 0
    moments, folder = sorted(random.Random(0).sample(range(48), 10)), tmp_path / "broken"
    done = 0
    for moment in moments:
        assert attempt(folder, moment - done) == -signal.SIGKILL
        done = moment
    assert attempt(folder, -1) == 0
    whole, broken = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    results = [store.read(next(root.glob(f"{TOY}/side-*"))) for root in (tmp_path / "whole", folder)]
    assert results[0].scores == results[1].scores


def test_the_command_line_names_what_is_wrong(capsys):
    from lib.run.__main__ import main

    for arguments, message in (
        (["vsee", "lstm", "0"], "paper 'vsee' is unknown, did you mean 'vse'?"),
        (["vse", "lstm", "../../x"], "seed is '../../x', expected a whole number"),
        (["vse", "lstm", "0", "--epoch", "2"], "setting 'epoch' is unknown, did you mean 'epochs'?"),
        (["vse", "lstm", "0", "--epochs"], "found --epochs without a value"),
        (["vse", "lstm", "0", "epochs", "2"], "found 'epochs', expected --name and a value"),
    ):
        assert main(arguments) == 1
        assert message in capsys.readouterr().err


def test_a_command_says_all_that_makes_the_run():
    settings = {"profile": "small", "epochs": np.int64(2), "noise": 0.5, "dataset": "12", "patience": None}
    asked = plan(TOY, "norm", 3, settings)
    command = experiment.command(asked, ROOT)
    assert command == [TOY, "norm", "3", "--folder", str(ROOT),
                       "--profile", "small", "--epochs", "2", "--noise", "0.5", "--dataset", '"12"']  # fmt: skip
    from lib.run.__main__ import _options

    again = _options(command[5:])
    assert again == {"profile": "small", "epochs": 2, "noise": 0.5, "dataset": "12"}
    assert json.dumps(again)
