"""The CMKP notebook's tables and figures, on a corpus of a few posts and on one that knows where its evidence is."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from lib import corpora, predict
from lib.analysis import keyphrase_reports, keyphrasers
from lib.corpora.iconworld.signs import SignedScene
from lib.corpora.types import Post
from lib.metrics.keyphrases import combine
from lib.models.cmkp import UNKNOWN
from lib.papers import cmkp
from lib.papers.cmkp import SHARES
from lib.run import experiment
from lib.tasks import keyphrases
from tests.tasks.test_keyphrases import write_corpus

pytestmark = pytest.mark.filterwarnings("ignore:1 of 18 pictures are missing")
TINY = {"profile": "smoke", "image_size": 64, "word_dim": 8, "dim": 8, "heads": 2, "head_dim": 4, "epochs": 1}
TINY |= {"batch_size": 4, "beams": 5}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = write_corpus(tmp_path_factory.mktemp("posts"))
    return {"dataset": "tweets", "data_dir": folder, "attributes": "file", "train_limit": 9, **TINY}


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return experiment.ablate("cmkp", ["gen-copy", "joint-cls", "full"], [0, 1], settings, folder, log=lambda line: None)


@pytest.fixture(scope="module")
def model(runs, settings):
    folder = runs[runs["variant"] == "full"]["folder"].iloc[0]
    return keyphrasers.looked_at((predict.load(folder), "full"), settings)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


# ---- what is asked for ----


def test_what_a_folder_has_is_used_and_the_rest_is_made(settings, tmp_path):
    asked = {"dataset": "tweets", "data_dir": settings["data_dir"], "ocr": None, "attributes": None}
    assert keyphrase_reports.at_hand(asked) == asked | {"ocr": "file", "attributes": "file", "image": None}
    for file in ("train", "valid", "test"):
        (tmp_path / f"{file}_src.txt").write_text(f"a text of {file}<sep>a phrase<sep>\n")
    bare = asked | {"data_dir": str(tmp_path)}
    assert keyphrase_reports.at_hand(bare) == bare | {"ocr": "none", "attributes": "none", "image": False}
    other = keyphrase_reports.at_hand(asked | {"ocr": "tesseract"})
    assert other["ocr"] == "tesseract"
    assert keyphrase_reports.at_hand({"dataset": "iconworld-posts"}) == {"dataset": "iconworld-posts"}


def test_pictures_without_wordings_are_read(settings, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images" / "a.png")
    for file in ("train", "valid", "test"):
        (tmp_path / f"{file}_src.txt").write_text(f"a text of {file}<sep>a phrase<sep>a.png\n")
    asked = {"dataset": "tweets", "data_dir": str(tmp_path)}
    assert keyphrase_reports.at_hand(asked) == asked | {"ocr": "tesseract", "attributes": "classes", "image": None}
    found = keyphrase_reports.at_hand(asked | {"captions_dir": "captions"})
    assert found["attributes"] == "run:cmkp/attributes"


def test_rows_without_pictures_are_those_that_need_none():
    blind = keyphrase_reports.rows({"profile": "paper", "image": False, "attributes": "file", "dataset": "cmkp-small"})
    assert {"cls-max", "gen-copy", "gen-m3h-wordings", "full"} <= {*blind}
    assert not {"image-avg", "cls-m3h", "cls-co-att", "cls-no-attributes", "attributes"} & {*blind}
    nothing = {"profile": "paper", "image": False, "attributes": "none", "dataset": "tweets"}
    assert "full" not in keyphrase_reports.rows(nothing) and "gen-copy" in keyphrase_reports.rows(nothing)
    for name in blind:
        assert not experiment.resolve("cmkp", name, {"profile": "paper", "image": False, "attributes": "file"}).image
    assert keyphrase_reports.rows({"profile": "smoke"}) == keyphrase_reports.QUICK
    table = keyphrase_reports.what_changes(["full", "gen-copy"])
    assert table.loc["full", "goes on from"] == cmkp.VARIANTS["joint-gen"].title


# ---- tables ----


def test_what_labels_and_copies_reach(settings):
    data = keyphrases.load(experiment.resolve("cmkp", "full", settings))
    found = keyphrase_reports.reachable(data)["test keyphrases within reach, %"]
    # of six test keyphrases training has five; the text or the picture says "red sky" and "testville fair"
    asked = [phrase for post in data.test.examples for phrase in post.keyphrases]
    known = {phrase for post in data.train.examples for phrase in post.keyphrases}
    assert found["by the keyphrases of training"] == pytest.approx(100 * sum(a in known for a in asked) / len(asked))
    assert found["by either"] >= max(found[:2]) and found["by either"] < 100.1
    assert list(keyphrase_reports.wordings(data)["with OCR words, %"]) == pytest.approx([100 / 9, 25, 20])
    assert "never seen" in keyphrase_reports.counted(data)


def test_scores_by_kind_are_those_of_the_posts_of_that_kind(runs, settings):
    wide = keyphrase_reports.kinds(runs)
    assert [name for name in wide if name in keyphrase_reports.KINDS.values()] == ["seen in training", "never seen"]
    run = runs[runs["variant"] == "joint-cls"].iloc[0]
    result = keyphrase_reports.store.read(run["folder"], "classifier")
    expected = combine("F1@1", (result.statistics("F1@1") * result._arrays["group seen"][:, None]).sum(0))
    mine = wide[(wide["variant"] == "joint-cls") & (wide["seed"] == run["seed"])]
    assert mine["seen in training"].item() == pytest.approx(float(expected))
    table = keyphrase_reports.kinds_table(runs, "tweets")
    assert table.columns[0] == "F1@1 by evidence" and len(table) == 3
    assert isinstance(keyphrase_reports.kinds_figure(runs), plt.Figure)
    assert keyphrase_reports.histories(runs)["MAP@5"].notna().all()


def test_a_report_bears_the_corpus_own_name(runs, settings, monkeypatch, tmp_path):
    monkeypatch.setattr(keyphrase_reports, "Report", lambda *given: given)
    data = keyphrases.load(experiment.resolve("cmkp", "full", settings))
    given = keyphrase_reports.report(runs, {"dataset": "else"}, data)
    assert given[2]["dataset"] == "tweets"
    lines = keyphrase_reports.deviations(experiment.resolve("cmkp", "full", settings), data)
    assert "tweets with 9 training posts" in lines[0] and keyphrase_reports.why(data)
    assert "2 seed(s) on tweets" in keyphrase_reports.headline(runs, data)
    assert "no report" in keyphrase_reports.other_evidence("nowhere")["variant"].item()


# ---- by hand ----


def test_by_hand(settings):
    asked = experiment.resolve("cmkp", "full", settings)
    data = keyphrases.load(asked)
    context = keyphrases.context(data)
    words = keyphrases.bind(data, context)
    net = cmkp.build(context, asked).eval()
    branch, memory, mask = keyphrasers.asked_by_text(net, words.train.read([0, 4]))
    assert branch == "text-vision" and memory.shape[:2] == mask.shape
    assert torch.equal(memory[1], net.missing.expand(4, -1))  # a picture that is not there
    own = keyphrasers.with_own_words(words.test)
    assert "‹testville›" in own and own[0] == "look"
    for total, _ in keyphrasers.sums_of_probabilities(net, words.test, [0, 1]):
        assert total == pytest.approx(1, abs=1e-4)
    released = cmkp.build(context, experiment.resolve("cmkp", "released", settings)).eval()
    for total, switch in keyphrasers.sums_of_probabilities(released, words.test, [0, 1]):
        assert total == pytest.approx(2 - switch, abs=1e-4)
    table = keyphrasers.said_of(net, words.train, [0, 1])
    assert list(table["right"]) == ["red sky", "blue sea"] and table["said"].str.len().gt(0).all()


def test_right_is_judged_by_stems():
    post = Post("", None, "", ("red skies", "blue sea"))
    assert keyphrasers.is_right(post, ["Blue Seas", "x"]) and keyphrasers.is_right(post, ["red sky"])
    assert not keyphrasers.is_right(post, ["sea"]) and not keyphrasers.is_right(post, [])


# ---- a trained model ----


def test_what_was_said_is_found_again(model):
    everything = range(len(model.posts))
    assert model.phrases(everything) == model.said
    assert model.some("seen in training", 9) and model.some("a kind that is not there", 99) == [0, 1, 2, 3, 4]
    assert all(keyphrasers.is_right(model.posts[i], model.said[i]) for i in model.some("", 9, right=True))
    table = keyphrasers.without_table(model)
    assert list(table["F1@1"]) == ["all that it reads", "without regions", "without OCR", "without attributes"]
    seen = model.seen([2], ocr="", attributes=(), image=None)
    assert seen.posts.ocr == [""] and seen.posts.attributes == [()]
    assert not seen.read([0])["present"].any() and model.seen([2]).posts.ocr == ["welcome to the fair"]


def test_words_come_from_somewhere(model):
    table = keyphrasers.word_by_word(model, 2, "testville fair")
    assert list(table["word"]) == ["testville", "fair"]
    assert table[SHARES].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    assert table["text"].iloc[0] == pytest.approx(1, abs=1e-4)  # the vocabulary has it not, and no class
    assert UNKNOWN not in model.seen([2], keyphrases=("testville fair",)).batch([0])["target"].tolist()


def test_figures_of_a_trained_model(model):
    for draw in (keyphrasers.told_figure, keyphrasers.mistakes):
        assert isinstance(draw(model), (plt.Figure, pd.DataFrame))
    for draw in (keyphrasers.looks_figure, keyphrasers.words_figure, keyphrasers.shares_figure):
        assert len(draw(model, [0, 2]).axes) > 1
    assert len(keyphrasers.other_pictures(model, 0).axes) > 1
    assert not keyphrasers.other_signs(model, 0, ["x"]).axes  # nothing drawn on it


def test_another_sign_is_read_and_drawn(model):
    scene = next(post.image for post in corpora.load("iconworld-posts").test if post.ocr)
    assert isinstance(scene, SignedScene)
    kept = model.posts[0]
    model.posts[0] = replace(kept, image=scene)
    try:
        figure = keyphrasers.other_signs(model, 0, ["green tea"])
        assert len(figure.axes) == 2
    finally:
        model.posts[0] = kept
