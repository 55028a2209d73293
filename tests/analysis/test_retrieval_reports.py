"""A retrieval report: what belongs into which table, and that photographs stay out."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.analysis import retrieval_reports
from lib.run import experiment

PARAMETERS = {"dataset": "iconworld-captions", "profile": "smoke", "train_limit": 40}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    settings = {"sentence": "random", "text_encoder": None, "train_limit": 40, "image_size": 32}
    one = experiment.ablate("vse", ["random"], [0], settings, folder, log=lambda line: None)
    names = ("random", "best", "best-gru", "best-linear")
    return pd.concat([one.assign(variant=name) for name in names], ignore_index=True)


def test_relatives_of_the_best_recipe_have_a_table_of_their_own(runs):
    rows = retrieval_reports.ablation(runs, "vse", "iconworld-captions")
    assert list(rows["variant"]) == ["random ranking", "the best recipe found here"]
    parts = retrieval_reports.ingredients(runs, "vse")
    assert len(parts) == 3 and (parts["change in dev rsum"] == 0).all()  # one and the same run
    for some in (runs[:2], runs[2:], runs[:0]):
        assert retrieval_reports.ingredients(some, "vse").empty
    assert retrieval_reports.ablation(runs[2:], "vse", "iconworld-captions").empty


@pytest.mark.parametrize("dataset, shown", [("iconworld-captions", {"recall", "search"}), ("flickr8k", {"recall"})])
def test_photographs_stay_out_of_the_report(runs, tmp_path, monkeypatch, dataset, shown):
    report = retrieval_reports.Report
    monkeypatch.setattr(retrieval_reports, "Report", lambda *given: report(*given, root=tmp_path))
    figures, parameters = {"recall": plt.figure(), "search": plt.figure()}, PARAMETERS | {"dataset": dataset}
    table = {"details": pd.DataFrame({"detail": ["noun"], "model": [50.0]}), "regularities": pd.DataFrame()}
    retrieval_reports.write("vse", runs[:1], parameters, table, figures, ["few pictures"], ["because"])
    folder = tmp_path / "smoke" / dataset / "vse"
    assert {path.stem for path in folder.glob("*.png")} == shown
    assert "details" in {path.stem for path in folder.glob("*.csv")}
    assert "because" in (folder / "README.md").read_text() and not (folder / "regularities.csv").exists()
    plt.close("all")
