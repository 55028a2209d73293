"""Which model a notebook looks into: the shipped one as long as nobody asks for another."""

import pandas as pd
import pytest

from lib import predict
from lib.analysis.trained import as_given, to_look_into
from lib.report.shipping import ship
from lib.run import experiment, store

STORED = {"dataset": "iconworld-captions", "data_dir": None, "profile": "smoke", "variants": None, "seeds": [0],
          "epochs": None}  # fmt: skip


@pytest.mark.parametrize("name, value", [
    ("dataset", "flickr8k"), ("profile", "small"), ("variants", ["sum"]), ("seeds", [0, 1]), ("epochs", 5),
])  # fmt: skip
def test_any_parameter_that_is_another_counts(name, value):
    assert as_given(STORED) and not as_given(STORED | {name: value})


def test_the_shipped_model_answers_unless_parameters_are_changed(tmp_path):
    settings = {"train_limit": 40, "epochs": 1, "image_size": 32}
    runs = experiment.ablate("vse", ["random", "sum"], [0], settings, tmp_path / "runs", log=lambda line: None)
    given = ("vse", runs, STORED, tmp_path / "reports")
    predictor, which = to_look_into(*given)
    assert which == "sum of words, seed 0, the best on dev"
    assert predictor.settings.sentence == "sum"
    with pytest.MonkeyPatch.context() as patch:  # as of a run whose record alone came from another machine
        patch.setattr(store.Result, "has_weights", property(lambda result: result.variant == "sum"))
        assert to_look_into(*given)[1] == "sum of words, seed 0, the best on dev of those whose weights are here"
    folder = ship(store.read(runs["folder"][1]), tmp_path / "reports/iconworld-captions/vse/model")
    assert "the best on dev" in to_look_into(*given)[1], "it is no model of the variant that is shown"
    folder.rename(folder.with_name(folder.name.replace("sum", "best")))
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "load", asked.append)
        assert "the report ships" in to_look_into(*given)[1]
        assert "the best on dev" in to_look_into("vse", runs, STORED | {"epochs": 1}, tmp_path / "reports")[1]
    assert asked[0] == "vse" and asked[1] != "vse"


def test_without_any_model_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="found records of runs only"):
        to_look_into("vse", pd.DataFrame({"folder": []}), STORED, tmp_path)


def test_a_shipped_model_that_started_from_nothing_published_has_all_its_weights(imagining_runs, tmp_path):
    """So that nothing but its folder is read: what it was rewarded by would be a corpus."""
    whole = store.read(imagining_runs.set_index("variant").loc["full", "folder"])
    assert whole.settings["gamma"] > 0
    assert store.read(ship(whole, tmp_path)).weights().keys() == whole.weights().keys()
