"""A report of GXN: captions, pictures, reinforcement's curve, and places in rankings."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from lib.analysis import imagination_reports as reports
from lib.analysis import retrieval_reports, trained
from lib.report import tables
from lib.report.pages import Report
from lib.run import experiment, store
from lib.run.paper import find_variant
from lib.run.store import predictions, read
from lib.tasks import retrieval

ALBUM = "flickr8k"


@pytest.fixture
def runs(imagining_runs):
    return imagining_runs


def result(**content) -> SimpleNamespace:
    return SimpleNamespace(**{"seed": 0, "settings": {}, "history": [], **content})


def test_only_rows_that_tell_or_draw_have_a_line(runs):
    captions = reports.captions_table(runs, ALBUM)
    assert list(captions["variant"]) == [reports.TITLES[name] for name in ("captions", "full")]
    full = runs[runs["variant"] == "full"].iloc[0]
    assert float(captions["CIDEr-D"][1]) == pytest.approx(100 * full["CIDEr-D"], abs=0.06)
    assert float(captions["BLEU-4, beam"][1]) == pytest.approx(full["beam/BLEU-4"], abs=0.06)
    pictures = reports.pictures_table(runs, ALBUM)
    assert list(pictures["variant"]) == [reports.TITLES["full"]] and "colour" not in pictures  # nobody knows it here
    assert float(pictures["own@1"][0]) == pytest.approx(full["own@1"], abs=0.06)
    matching = runs[runs["variant"] == "two-level"].dropna(axis=1)
    assert reports.captions_table(matching, ALBUM).empty and reports.pictures_table(matching, ALBUM).empty


def test_the_same_vectors_are_read_as_a_cosine_too(runs, beside, tmp_path):
    table = reports.by_cosine(beside, ALBUM)
    assert list(table["variant"]) == [reports.TITLES[name] for name in dict.fromkeys(runs["variant"])]
    for row, folder in zip(table.to_dict("records"), runs["folder"], strict=True):
        said = predictions(Path(folder))
        cosines = normalize(said["images"], dim=1) @ normalize(said["sentences"], dim=1).T
        first = said["owner"][cosines.argmax(1)] == torch.arange(len(cosines))
        assert float(row["i2t R@1, cosine"]) == pytest.approx(100 * first.double().mean().item(), abs=0.06)
        assert float(row["i2t R@1"]) == pytest.approx(read(Path(folder)).scores["test"]["i2t R@1"], abs=0.06)
    store.keep_records([read(Path(folder)) for folder in runs["folder"]], tmp_path)
    records = runs.assign(folder=[str(tmp_path / Path(folder).name) for folder in runs["folder"]])
    assert reports.by_cosine(records, ALBUM).empty


def test_real_pictures_stand_below_those_that_were_drawn(monkeypatch):
    drawn = pd.DataFrame({"variant": ["GXN"], "colour": ["90.0"], "own@1": ["9.0"], "seeds": [5]})
    monkeypatch.setattr(reports, "real_judged", lambda data: {"colour": 98.71, "kind@5": 97.0})
    assert reports.with_real(drawn, None).iloc[1].tolist() == ["real pictures, as small", "98.7", "–", "–"]
    monkeypatch.setattr(reports, "real_judged", lambda data: {})
    assert reports.with_real(drawn, None) is drawn


def test_pairs_that_training_never_showed_are_counted_apart():
    sums = {"seen/colour": [[3, 4], [0, 0]], "held out/colour": [[0, 0], [1, 4]]}
    known = result(statistics=lambda metric: np.array(sums[metric], float))
    assert reports._apart(known, ["colour", "own@1"]) == {"colour, seen": 75.0, "colour, held out": 25.0}


def test_the_curve_has_a_line_a_row_that_tells_and_the_stage_before_stands_left(runs):
    figure = reports.reinforcement(runs)
    assert len(figure.axes) == 4
    captions, full = figure.axes[0].lines[:2]
    assert list(captions.get_xdata()) == [0] and list(full.get_xdata()) == [1]
    nothing = reports.reinforcement(runs[runs["variant"] == "two-level"])
    assert nothing.texts[0].get_text() == "nothing to show"
    plt.close("all")


@pytest.mark.parametrize("reward, raised, fell", [
    ("cider", "CIDEr-D, changed by +0.20 on dev", "BLEU-4 by 3.0, rsum by 1.5"),
    ("bleu", "BLEU-4, changed by -3.00 on dev", "BLEU-4 by 3.0, rsum by 1.5"),
])  # fmt: skip
def test_every_fall_of_more_than_a_point_is_told(monkeypatch, reward, raised, fell):
    def record(*values):
        return dict(zip(("CIDEr-D", "BLEU-4", "words", "rsum", "all"), values, strict=True))

    before = result(history=[record(9, 0, 0, 0, 1), record(0.5, 20, 8, 400, 9)])
    settings = {"captions": True, "gamma": 0.5, "reward": reward}
    after = result(history=[record(0.7, 17, 7.5, 398.5, 9), record(0, 0, 0, 0, 1)], settings=settings)
    alone = result(history=after.history, settings=settings | {"gamma": 0.0})
    found = {"captions": [before], "full": [after], "xe": [alone], "two-level": [result(settings={"captions": False})]}
    monkeypatch.setattr(reports, "results_of", lambda runs, paper, variant: found[variant])
    with_reward, without = reports.told(pd.DataFrame({"variant": ["two-level", "full", "xe"]}))
    assert raised in with_reward and "its reward" in with_reward and "no reward" in without
    assert with_reward.endswith(f"what fell by more than a point: {fell}.")


def test_places_before_and_after_are_counted(monkeypatch):
    hits = {"one": [[1, 1, 1], [0, 1, 1], [0, 0, 0]], "other": [[1, 1, 1], [1, 1, 1], [0, 0, 1]]}

    def of(name):
        columns = {k: np.array([[row[i], 1] for row in hits[name]], float) for i, k in enumerate((1, 5, 10))}
        return result(statistics=lambda metric: columns[int(metric.removeprefix("i2t R@"))])

    found = {"two-level": [of("one")] * 2, "full": [of("other")] * 2, "cut": []}
    monkeypatch.setattr(reports, "results_of", lambda runs, paper, variant: found[variant])
    counts = reports.moves(None, "two-level", "full")
    assert counts.to_numpy().sum() == 6 and counts.loc["first", "first"] == 2
    assert counts.loc["2 to 5", "first"] == 2 and counts.loc["later", "6 to 10"] == 2
    assert reports.moves(None, "two-level", "cut").empty


def test_the_same_places_of_a_run_are_on_the_diagonal(runs):
    counts = reports.moves(runs, "full", "full").to_numpy()
    assert counts.sum() == np.trace(counts) > 0


# ---- rows of another paper ----


@pytest.fixture(scope="module")
def beside(imagining_runs, album_settings, tmp_path_factory) -> pd.DataFrame:
    """GXN's runs and one of VSE, as `tables.ablate` puts them together."""

    def kept(*asked):
        return made(*asked, tmp_path_factory.mktemp("beside"), lambda line: None)

    made = experiment.ablate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "ablate", kept)
        theirs = tables.ablate("gxn", ["vse/lstm"], [0], album_settings | {"adversarial_steps": 2.0})
    return pd.concat([imagining_runs, theirs], ignore_index=True)


def test_a_row_of_another_paper_is_run_by_it_with_what_it_knows_of_the_settings(monkeypatch):
    asked = []

    def ablate(paper, variants, seeds, settings):
        asked.append((paper, variants, seeds, settings))
        return pd.DataFrame([{"variant": name, "seed": seed} for name in variants for seed in seeds])

    monkeypatch.setattr(experiment, "ablate", ablate)
    settings = {"profile": "small", "image_size": 64, "adversarial_steps": 3.0}
    runs = tables.ablate("gxn", ["vse/lstm", "full", "vse/best-all-negatives"], [0, 1, 2], settings)
    theirs = {"profile": "small", "image_size": 64}
    assert asked[0] == ("vse", ["lstm", "best-all-negatives"], [0, 1, 2], theirs)
    assert asked[1] == ("gxn", ["full"], [0, 1, 2], settings)
    assert list(dict.fromkeys(runs["variant"])) == ["vse/lstm", "full", "vse/best-all-negatives"]


@pytest.mark.parametrize("profile, neighbours", [("smoke", 0), ("small", 2), ("paper", 2), ("original", 0)])
def test_the_neighbours_see_the_same_features(profile, neighbours):
    rows = reports.rows({"profile": profile})
    assert sum("/" in row for row in rows) == neighbours
    mine = experiment.resolve("gxn", "two-level", {"profile": profile})
    for row in rows[len(rows) - neighbours :]:
        theirs = experiment.resolve(*row.split("/"), {"profile": profile})
        for name in ("image_encoder", "image_layer", "image_size", "views"):
            assert getattr(theirs, name) == getattr(mine, name), (row, name)


def test_it_stands_in_the_tables_under_its_papers_name(beside, album_settings):
    title = find_variant("gxn", "vse/lstm").title
    assert title == f"VSE: {find_variant('vse', 'lstm').title}" == reports.TITLES["vse/lstm"]
    relative = find_variant("gxn", "vse/best-all-negatives").title
    assert relative.startswith(f"VSE: {find_variant('vse', 'best').title}, ") and "all negatives" in relative
    table = retrieval_reports.ablation(beside, "gxn", ALBUM).set_index("variant")
    assert float(table.loc[title, "rsum"]) == pytest.approx(beside["rsum"].iloc[-1], abs=0.06)
    assert table.loc[title, "published"].startswith("18.0 / 40.9")
    data = retrieval.load(experiment.resolve("gxn", "two-level", album_settings))
    panel = retrieval_reports.recalls(beside, "gxn", data, "").axes[0]
    assert title in [label.get_text() for label in panel.get_yticklabels()] and reports.told(beside)
    plt.close("all")


def test_its_record_stands_among_those_of_its_paper(beside, album_settings, tmp_path):
    parameters = dict(dataset=ALBUM, data_dir=album_settings["data_dir"], profile="paper", seeds=[0])
    out = Report("gxn", beside, parameters, tmp_path)
    out.finish([])
    assert len(list((out.folder / "records").iterdir())) == 3
    (record,) = (out.folder.parent / "vse" / "records").iterdir()
    assert record.name.startswith("lstm-seed0-")


def test_what_is_looked_into_is_a_model_of_the_paper_itself(beside, tmp_path):
    with pytest.raises(FileNotFoundError, match="found records of runs only"):
        trained.to_look_into("gxn", beside[beside["variant"] == "vse/lstm"], {"dataset": ALBUM}, tmp_path)
    assert trained.to_look_into("gxn", beside, {"dataset": ALBUM}, tmp_path)[0].settings.levels == "both"
