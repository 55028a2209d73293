"""A retrieval report: what belongs into which table, and that photographs stay out."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.analysis import retrieval_reports
from lib.report import plots
from lib.report.evidence import Evidence
from lib.report.tables import evident
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
    figures = {"recall": plt.subplots()[0], "search": plt.subplots()[0], "strip": plots.pictures([])}
    parameters = PARAMETERS | {"dataset": dataset}
    table = {"details": pd.DataFrame({"detail": ["noun"], "model": [50.0]}), "regularities": pd.DataFrame()}
    retrieval_reports.write("vse", runs[:1], parameters, table, figures, ["few pictures"], ["because"])
    folder = tmp_path / "smoke" / dataset / "vse"
    assert {path.stem for path in folder.glob("*.png")} == shown
    assert "details" in {path.stem for path in folder.glob("*.csv")}
    assert "because" in (folder / "README.md").read_text() and not (folder / "regularities.csv").exists()
    plt.close("all")


JUDGED = {"source": "a paper", "matters": True, "word": "holds", "text": "holds", "value": 2.0, "low": 1.0, "high": 3.0}


def test_evidence_is_shown_whether_its_verdicts_are_words_or_texts(tmp_path):
    folder = tmp_path / "own" / "vse"
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text("{}")
    evidence = Evidence("vse", "own", tmp_path)
    assert evident(evidence, "numbers").empty and evident(evidence, "comparisons").empty
    pd.DataFrame({"claim": ["old"], "verdict": ["reproduced"]}).to_csv(folder / "claims.csv", index=False)
    assert evident(evidence, "numbers")["claim"].tolist() == ["old"]
    said = JUDGED | {"row": "LSTM", "metric": "R@1", "published": 1.5, "differs": None, "sure": "source"}
    pd.DataFrame([said]).to_csv(folder / "numbers.csv", index=False)
    said = JUDGED | {"claim": "more is more", "metric": "R@1", "p": 0.02, "adjusted": None}
    pd.DataFrame([said]).to_csv(folder / "comparisons.csv", index=False)
    numbers, comparisons = (evident(evidence, kind) for kind in ("numbers", "comparisons"))
    assert numbers.loc[0, ["claim", "ours", "differs in"]].tolist() == ["LSTM", "2.0", ""]
    assert comparisons.loc[0, ["claim", "difference", "p"]].tolist() == ["more is more", "+2.0", ".020"]


def test_changes_are_drawn_beside_each_other_also_of_tables_with_other_parts():
    first = pd.DataFrame({"variant": ["all", "a", "b"], "change": [0, -1.0, -2], "dev": ["9 ± 1", "8", "7 ± 0.5"]})
    figure = plots.changes({"one": first, "other": first.iloc[:2], "none": pd.DataFrame()}, "")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a"]
    plt.close("all")


def test_where_no_report_is_it_is_said(tmp_path):
    evidence = Evidence("gxn", "own", tmp_path)
    assert evidence.table("ablation").empty and evident(evidence, "comparisons").empty
    for part in (evidence.figure("recall"), evidence.provenance()):
        assert "No report of gxn on own yet" in part.data
