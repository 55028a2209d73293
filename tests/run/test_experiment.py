"""Runs: found again by all that decides them, never trained twice, never corrupted by a rival or a kill."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lib import precision, predict
from lib.run import experiment, store
from lib.run.experiment import resolve, run
from lib.run.settings import TrainingSettings
from lib.tasks import retrieval
from tests.processes import ended, forked, two_forked

TINY = {"profile": "smoke", "train_limit": 40, "epochs": 2, "batch_size": 20, "joint_dim": 16, "word_dim": 16}
LONG = TINY | {"epochs": 4, "batch_size": 8}
SCRIPT = f"""
import sys, torch
torch.set_num_threads(1)
from lib.run.experiment import run
run("vse", "lstm", 3, {LONG}, folder=sys.argv[1], checkpoint_seconds=0)
"""


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run("vse", "sum", 1, TINY, folder=tmp_path_factory.mktemp("runs"), log=silent)


def test_a_run_keeps_its_story(finished):
    assert {path.name for path in finished.folder.iterdir()} == {
        *("settings.json", "context.json", "model.safetensors", "result.json", "lock", "log.txt", "metrics.jsonl"),
        *("predictions.safetensors", "predictions.json", "statistics.npz", "sums.json"),
    }
    assert [record["epoch"] for record in finished.history] == [1, 2]
    assert finished.identity["seed"] == 1
    assert 0 < finished.scores["test"]["rsum"] < 600


def test_a_finished_run_is_read_not_trained(finished, monkeypatch):
    monkeypatch.setattr(experiment, "fit", lambda *args: pytest.fail("trained again"))
    again = run("vse", "sum", 1, TINY, folder=finished.folder.parents[1], log=silent)
    assert again == finished


def test_a_run_that_another_kind_of_machine_made_counts(finished, monkeypatch):
    monkeypatch.setattr(experiment, "fit", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr(precision, "device", lambda: torch.device("cuda"))
    assert experiment.plan("vse", "sum", 1, TINY).key != finished.key
    found = experiment.ablate("vse", ["sum"], [1], TINY, folder=finished.folder.parents[1], log=silent)
    assert found["folder"].tolist() == [str(finished.folder)]


@pytest.mark.parametrize("changes", [{"epochs": 3}, {"margin": 0.1}, {"train_limit": 39}, {"image_size": 64}])
def test_whatever_decides_the_result_makes_another_run(finished, changes, monkeypatch):
    class Trained(Exception):
        pass

    def train(*args):
        raise Trained

    monkeypatch.setattr(experiment, "fit", train)
    with pytest.raises(Trained):
        run("vse", "sum", 1, TINY | changes, folder=finished.folder.parents[1], log=silent)


def test_predictions_give_the_stored_scores(finished):
    for metric in ("i2t R@1", "i2t R@10", "t2i R@5"):
        answered, asked = finished.statistics(metric).sum(0)
        assert 100 * answered / asked == pytest.approx(finished.scores["test"][metric])


def test_sigkill_then_the_same_command_gives_the_same_numbers(tmp_path):
    assert ended(forked(lambda: run("vse", "lstm", 3, LONG, tmp_path / "whole", silent))) == 0
    command = [sys.executable, "-c", SCRIPT, tmp_path / "broken"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("broken/vse/*/checkpoint-0002*"))) < 1:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("broken/vse/*/result.json"))
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resumed at epoch" in again.stdout
    whole, broken = (next(tmp_path.glob(f"{name}/vse/*/")) for name in ("whole", "broken"))
    assert store.read(whole).scores == store.read(broken).scores
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_on_two_processes_breaks_and_ends_with_the_same_weights(tmp_path):
    def make(name: str, broken_at: int = 0) -> list[int]:
        """What the two processes end with, whose `broken_at`-th batch is one too many."""
        batch, calls = retrieval.Split.batch, []

        def breaking(self, *arguments):
            calls.append(1)
            if len(calls) == broken_at:
                raise SystemExit(9)
            return batch(self, *arguments)

        def work() -> None:
            retrieval.Split.batch = breaking
            settings = TINY | {"batch_size": 40, "dropout": 0.3}
            run("vse", "lstm", 3, settings, folder=tmp_path / name, log=silent, checkpoint_seconds=0)

        return [ended(process) for process in two_forked(work)]

    assert make("whole") == [0, 0] and 0 not in make("broken", 7) and make("broken") == [0, 0]
    (whole,), (broken,) = ((tmp_path / folder / "vse").iterdir() for folder in ("whole", "broken"))
    assert store.read(whole).identity["processes"] == 2
    assert "resumed at epoch" in (broken / "log.txt").read_text()
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not [path for path in broken.iterdir() if "checkpoint" in path.name]


def test_variants_that_a_profile_makes_equal_are_run_once():
    assert experiment.distinct("vse", ["best", "best-one-view"]) == ["best"]
    assert experiment.distinct("vse", ["best", "best-one-view"], {"profile": "paper"}) == ["best", "best-one-view"]


def test_random_vectors_are_scored_as_they_were_kept(tmp_path):
    random = run("vse", "random", 0, TINY, folder=tmp_path, log=silent)
    assert retrieval.score(random.predictions()) == random.scores["test"]


def test_what_is_pretrained_decides_a_run_by_its_content(tmp_path):
    vectors = tmp_path / "glove.txt"
    prints = []
    for content in ("red 1 2\n", "red 1 3\n"):
        vectors.write_text(content)
        retrieval._load.cache_clear()
        prints.append(retrieval.load(resolve("vse", "lstm", TINY | {"word_vectors": str(vectors)})).fingerprint)
    assert prints[0] != prints[1]
    assert "minilm" in retrieval.load(resolve("vse", "best", TINY)).fingerprint


def test_ablate_has_a_row_a_run(finished):
    frame = experiment.ablate("vse", ["random", "sum"], [1, 2], TINY, folder=finished.folder.parents[1], log=silent)
    assert frame[["variant", "seed"]].values.tolist() == [["random", 1], ["random", 2], ["sum", 1], ["sum", 2]]
    assert {"i2t R@1", "t2i median", "rsum", "dev rsum", "seconds", "folder"} <= set(frame)
    by_variant = frame.groupby("variant")["rsum"].mean()
    assert by_variant["sum"] > 2 * by_variant["random"]
    assert len(experiment.histories(frame)) == 4


def test_settings_come_in_order():
    assert (
        resolve("vse", "lstm", {"profile": "paper"}).epochs
        == resolve("vse", "lstm", {"profile": "paper", "epochs": None}).epochs
    )
    assert resolve("vse", "lstm", {"profile": "paper", "epochs": 2}).epochs == 2
    assert resolve("vse", "gru-hardest").negatives == "hardest"
    assert resolve("vse", "gru-hardest", {"negatives": 5}).negatives == 5
    hash(resolve("vse", "lstm", {"views": ["full", "tl"]}))


@pytest.mark.parametrize("arguments, message", [
    (("vsee", "lstm"), "paper 'vsee' is unknown, did you mean 'vse'?"),
    (("vse", "lsmt"), "variant 'lsmt' is unknown, did you mean 'lstm'?"),
    (("vse", "lstm", {"epoch": 2}), "setting 'epoch' is unknown, did you mean 'epochs'?"),
    (("vse", "lstm", {"profile": "smok"}), "profile 'smok' is unknown, did you mean 'smoke'?"),
    ((3, "lstm"), "paper 3 is unknown, did you mean"),
    (("vse", ["lstm"]), r"variant \['lstm'\] is unknown, did you mean"),
    (("vse", "lstm", {7: 2}), "setting 7 is unknown, did you mean"),
    (("vse", "lstm", "epochs=2"), "settings is 'epochs=2', expected a dict such as {'epochs': 2}"),
    (("vse", "lstm", [("epochs", 2)]), r"settings is \[\('epochs', 2\)\], expected a dict"),
])  # fmt: skip
def test_unknown_names_are_refused_with_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        resolve(*arguments)


@pytest.mark.parametrize("name, value, expected", [
    ("learning_rate", "1e-3", "learning_rate is '1e-3', expected a finite number"),
    ("learning_rate", float("inf"), "learning_rate is inf, expected a finite number"),
    ("learning_rate", 0.0, "learning_rate is 0.0, expected more than 0"),
    ("temperature", float("nan"), "temperature is nan, expected a finite number"),
    ("temperature", 0, "temperature is 0, expected more than 0"),
    ("epochs", "2", "epochs is '2', expected a whole number"),
    ("epochs", 2.5, "epochs is 2.5, expected a whole number"),
    ("epochs", True, "epochs is True, expected a whole number"),
    ("epochs", 0, "epochs is 0, expected at least 1"),
    ("train_limit", 0, "train_limit is 0, expected at least 1"),
    ("train_limit", "None", "train_limit is 'None', expected a whole number or nothing"),
    ("clip", -1, "clip is -1, expected at least 0"),
    ("average", 1.0, "average is 1.0, expected at least 0 and less than 1"),
    ("warmup", 5, "warmup is 5, expected 0 to 1"),
    ("dropout", 1, "dropout is 1, expected at least 0 and less than 1"),
    ("joint_dim", 0, "joint_dim is 0, expected at least 1"),
    ("unit_features", "yes", "unit_features is 'yes', expected true or false"),
    ("views", "full", "views is 'full', expected a list of text"),
    ("views", [], "views is empty, expected at least one"),
    ("views", ["ful"], "views 'ful' is unknown, did you mean 'full'?"),
    ("views", [1], "views is [1], expected a list of text"),
    ("dataset", "twitter2015", "corpus 'twitter2015' has no captions, expected one of iconworld-captions, flickr8k"),
    ("dataset", ["flickr8k"], "dataset is ['flickr8k'], expected text"),
    ("profile", ["smoke"], "profile ['smoke'] is unknown, did you mean"),
])  # fmt: skip
def test_a_setting_of_another_type_or_range_is_named(name, value, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        experiment.run("vse", "lstm", settings={name: value})


@given(st.sampled_from([field.name for field in dataclasses.fields(TrainingSettings)]),
       st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))  # fmt: skip
def test_whatever_is_set_is_taken_or_named(name, value):
    try:
        chosen = resolve("vse", "lstm", {name: value})
    except ValueError as error:
        assert str(error).startswith(name) and "\n" not in str(error)
    else:
        assert value is None or getattr(chosen, name) == value


def test_numbers_of_numpy_are_numbers():
    mine, same = ({"epochs": np.int64(2), "clip": np.float64(1.5), "views": [np.str_("full")]},
                  {"epochs": 2, "clip": 1.5, "views": ["full"]})  # fmt: skip
    asked = experiment.plan("vse", "lstm", np.int32(3), mine)
    assert asked == experiment.plan("vse", "lstm", 3, same) and type(asked.seed) is type(asked.settings.epochs) is int


@pytest.mark.parametrize("variants, seeds, expected", [
    (["lstm"], [], "seeds is [], expected a list of at least one"),
    ([], [0], "variants is [], expected a list of at least one"),
    ("lstm", [0], "variants is 'lstm', expected a list of at least one"),
    (["lstm"], 0, "seeds is 0, expected a list of at least one"),
    (["lstm"], ["0"], "seed is '0', expected a whole number from 0 on"),
    (["lstm"], [0.5], "seed is 0.5, expected a whole number from 0 on"),
    (["lstm"], [-1], "seed is -1, expected a whole number from 0 on"),
    (["lstm"], [True], "seed is True, expected a whole number from 0 on"),
    (["lstm"], ["../../x"], "seed is '../../x', expected a whole number from 0 on"),
    (["ltsm"], [0], "variant 'ltsm' is unknown, did you mean 'lstm'?"),
])  # fmt: skip
def test_wrong_lists_of_variants_and_seeds_are_named(variants, seeds, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        experiment.ablate("vse", variants, seeds)


def test_what_is_asked_for_twice_counts_once(finished):
    root = finished.folder.parents[1]
    frame = experiment.ablate("vse", ["sum", "sum"], [1, np.int64(1), 1], TINY, folder=root, log=silent)
    assert frame[["variant", "seed"]].values.tolist() == [["sum", 1]]


def test_predictor_answers_words_pictures_and_both(finished, tmp_path):
    predictor = predict.load(finished.folder)
    data = retrieval.load(predictor.settings)
    picture = data.test.examples[0].image.draw(128)
    by_text, by_image = predictor(text="a red car", k=3), predictor(image=picture, k=3)
    assert len(by_text) == len(by_image) == 3 and by_text["score"].is_monotonic_decreasing
    cosine = predictor(text=data.test.captions[0], image=picture)
    stored = finished.predictions()
    assert cosine == pytest.approx((stored["images"][0] @ stored["sentences"][0]).item(), abs=2e-2)
    with pytest.raises(ValueError, match="found neither text nor image"):
        predictor()
    picture.save(tmp_path / "photo.png")
    assert predictor(text=data.test.captions[0], image=str(tmp_path / "photo.png")) == pytest.approx(cosine, abs=2e-2)


def test_a_picture_asks_with_all_the_views_that_it_was_stored_with(tmp_path):
    views = run("vse", "sum", 0, TINY | {"views": ["full", "full-flip"]}, folder=tmp_path, log=silent)
    predictor = predict.load(views.folder)
    picture = retrieval.load(predictor.settings).test.examples[0].image.draw(128)
    answer = predictor(image=picture, k=5)["score"].tolist()
    stored = (views.predictions()["sentences"] @ views.predictions()["images"][0]).topk(5).values.tolist()
    assert answer == pytest.approx(stored, abs=2e-2)


def test_predictor_names_an_unfinished_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no result.json, expected the folder of a finished run"):
        predict.load(tmp_path)


def test_provenance_says_where_a_number_comes_from(finished):
    said = json.loads((finished.folder / "result.json").read_text())["provenance"]
    assert said["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert said["commit"] and said["hardware"] and said["time"].endswith("+00:00")
    assert np.isfinite(finished.seconds)
