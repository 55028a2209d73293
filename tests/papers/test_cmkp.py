"""CMKP from corpus to predictor: every row trains, is kept, and can be tried."""

import dataclasses

import pandas as pd
import pytest
import torch
from PIL import Image

from lib import predict
from lib.papers import cmkp
from lib.papers.cmkp import SHARES
from lib.report import shipping
from lib.report.shipping import ship
from lib.run import experiment, store
from lib.tasks import keyphrases
from tests.tasks.test_attributes import write_captions
from tests.tasks.test_keyphrases import write_corpus

pytestmark = pytest.mark.filterwarnings("ignore:1 of 18 pictures are missing")
TINY = {"profile": "smoke", "image_size": 64, "word_dim": 8, "dim": 8, "heads": 2, "head_dim": 4, "epochs": 1}
TINY |= {"batch_size": 4, "beams": 5, "train_limit": None}
OWN = [name for name in cmkp.VARIANTS if name not in ("ext-oracle", "attributes")]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = write_corpus(tmp_path_factory.mktemp("posts"))
    return {"dataset": "tweets", "data_dir": folder, "attributes": "file", **TINY}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def run(variant: str, settings: dict, folder) -> experiment.Result:
    return experiment.run("cmkp", variant, 0, settings, folder, log=lambda line: None)


@pytest.mark.parametrize("variant", OWN)
def test_every_variant_trains_and_can_be_tried(variant, settings, runs):
    result = run(variant, settings, runs)
    said = result.predictions()
    flat = keyphrases.score(said)
    start = f"{result.output}:" if result.output else ""
    assert result.scores["test"]["F1@1"] == flat[f"{start}F1@1"]
    assert {"MAP@5", "present/F1@3"} <= {*result.scores["dev"]}
    assert result.statistics("F1@1").shape == (5, 3) and result.statistics("seen/MAP@5").shape[0] == 5
    predictor = predict.load(result.folder)
    data = keyphrases.load(experiment.resolve("cmkp", variant, settings))
    post = data.test.examples[2]
    table = predictor(post.text, Image.open(post.image), ocr=post.ocr, attributes=post.attributes)
    assert list(table.columns) == ["phrase", "score", *SHARES] and len(table)
    assert table[SHARES].sum(1).to_numpy() == pytest.approx(1, abs=1e-4) and table["score"].between(0, 1.0001).all()
    output = "generator" if predictor.settings.generator else "classifier"
    assert table["phrase"].tolist() == said[output][2]  # the same as in the report
    if not predictor.settings.b:
        assert (table["classifier"] == float(output == "classifier")).all()
    if variant == "gen-att":
        assert (table["generated"] == 1).all()


def test_the_oracle_is_scored_and_not_for_use(settings, runs):
    result = run("ext-oracle", settings, runs)
    assert result.scores["test"]["present/F1@1"] == 100 and result.seconds == 0
    with pytest.raises(ValueError, match="the extraction oracle"):
        predict.load(result.folder)


def test_two_outputs_are_two_rows_of_one_run_and_full_is_its_child(settings, runs):
    rows = [run(variant, settings, runs) for variant in ("joint-cls", "joint-gen")]
    assert rows[0].folder == rows[1].folder and rows[0].output == "classifier"
    settings = settings | {"epochs": None}  # where they are said, they are said of the second stage alone
    plans = {variant: experiment.plan("cmkp", variant, 0, settings) for variant in cmkp.VARIANTS}
    assert plans["full"].parent.key == plans["distinct"].parent.key == plans["joint-gen"].key
    changed = experiment.plan("cmkp", "full", 0, settings | {"top_k": 3, "learning_rate": 0.5})
    assert changed.parent.key == plans["full"].parent.key != changed.key
    assert len({plan.parent.key for plan in plans.values() if plan.parent}) == 4  # all, without each, released
    child = run("full", settings | {"epochs": 1}, runs)
    assert child.output is None and child.context == rows[0].context


def test_the_second_stage_starts_where_the_first_one_ended(settings, runs):
    child = run("full", settings | {"learning_rate": 1e-12}, runs)
    parent = run("joint-gen", settings | {"epochs": None}, runs)
    assert all(torch.allclose(w, child.weights()[n], atol=1e-6) for n, w in parent.weights().items())
    frozen = run("full", settings, runs).weights()
    assert all(torch.equal(w, frozen[n]) for n, w in parent.weights().items() if n.startswith("MLP"))


def test_attributes_of_a_predictor_that_captions_trained(settings, runs, tmp_path):
    folder = write_captions(tmp_path)
    changes = {"attributes": "run:cmkp/attributes", "captions": "flickr8k", "captions_dir": folder}
    asked = experiment.plan("cmkp", "gen-m3h-wordings", 0, settings | changes)
    (encoder,) = asked.encoders
    assert encoder.variant == "attributes" and encoder.settings.captions_dir == folder
    assert experiment.plan("cmkp", "gen-m3h", 0, settings | changes).encoders == ()  # it sees no attributes
    result = run("gen-m3h-wordings", settings | changes, runs)
    reader = store.read(store.locate(asked.settings.attributes))
    assert {"F1@5", "P@5", "R@5"} == {*reader.scores["test"]}
    data = keyphrases.load(asked.settings)
    found = data.train.attributes
    assert found[4] == () and all(len(row) == 4 for i, row in enumerate(found) if i != 4)  # a lost picture
    assert {word for row in found for word in row} == {"red", "blue", "square", "wall"}
    table = predict.load(result.folder)("hello", Image.new("RGB", (64, 64), (220, 0, 0)), ocr="")
    assert isinstance(table, pd.DataFrame) and len(table)
    # The shipped model finds the reader that was shipped with it, where no run is kept.
    reports = tmp_path / "reports"
    shipped = ship(result, reports / "iconworld-posts" / "cmkp" / "model")
    assert {folder.name for folder in shipped.parent.iterdir()} == {result.folder.name, reader.folder.name}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_roots", [tmp_path / "no runs"])
        patch.setattr(store, "REPORTS", reports)
        assert store.locate(asked.settings.attributes) == shipped.parent / reader.folder.name
        again = predict.load(shipped)("hello", Image.new("RGB", (64, 64), (220, 0, 0)), ocr="")
    assert again["phrase"].iloc[0] == table["phrase"].iloc[0]
    with pytest.raises(FileNotFoundError, match="found no model of cmkp"):
        shipping.shipped("cmkp", reports)  # none of its main row


def test_where_files_lie_decides_nothing(settings, tmp_path):
    keys = {
        experiment.plan("cmkp", "gen-m3h-wordings", 0, settings | {"captions_dir": str(place)}).key
        for place in (tmp_path, tmp_path / "other")
    }
    assert len(keys) == 1


def test_words_start_from_published_vectors(settings, tmp_path):
    lines = {"look": "1 2 3 4 5 6 7 8", "sea": "8 7 6 5 4 3 2 1", "never": "0 0 0 0 0 0 0 0"}
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"{word} {numbers}\n" for word, numbers in lines.items()))
    chosen = experiment.resolve("cmkp", "gen-copy", settings | {"word_vectors": str(path)})
    context = keyphrases.context(keyphrases.load(chosen))
    model = cmkp.build(context, chosen)
    cmkp.initialise(model, context, chosen)
    for word in ("look", "sea"):
        assert model.W_e.weight[context["words"].index(word)].tolist() == [float(n) for n in lines[word].split()]
    with pytest.raises(ValueError, match="found vectors of 8 numbers, expected 9"):
        cmkp.initialise(model, context, dataclasses.replace(chosen, word_dim=9))


def test_nothing_to_read_is_named(settings, runs):
    with pytest.raises(ValueError, match="found no word in ' ' and no picture"):
        predict.load(run("gen-m3h-wordings", settings, runs).folder)(" ")
    for variant in ("gen-copy", "full"):  # and a text alone is enough
        assert len(predict.load(run(variant, settings, runs).folder)("Welcome to Nowhereville!"))
