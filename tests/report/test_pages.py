"""Reports: what the tables say is what the runs said, and the index finds them."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.papers import maf, vse
from lib.papers.vse import VARIANTS
from lib.report import claims, pages, plots
from lib.run import experiment
from lib.tasks import retrieval, tagging

METRICS = ["i2t R@1", "t2i R@1", "rsum"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    tiny = {"profile": "smoke", "train_limit": 40, "epochs": 1, "joint_dim": 16, "word_dim": 16}
    folder = tmp_path_factory.mktemp("runs")
    return experiment.ablate("vse", ["random", "lstm", "devise"], [0, 1], tiny, folder, log=lambda line: None)


def test_summary_is_mean_and_std_over_seeds(runs):
    mine = runs.loc[runs["variant"] == "lstm", "rsum"]
    row = pages.summary(runs, METRICS).loc["lstm"]
    assert row["runs", "seeds"] == 2
    assert row["rsum", "mean"] == pytest.approx(mine.mean()) and row["rsum", "std"] == pytest.approx(mine.std(ddof=1))


def test_the_table_sets_the_paper_beside_ours(runs):
    table = pages.ablation_table(runs, "vse", METRICS, "flickr8k")
    assert table["variant"].tolist() == [
        "random ranking",
        "LSTM, as in the paper",
        "DeViSE: mean of words, pictures only",
    ]
    assert table["published"].iloc[1] == "18.0 | 12.5"
    assert all(" ± " in cell for cell in table["rsum"])
    assert "published" not in pages.ablation_table(runs, "vse", METRICS, "iconworld-captions")


def test_one_seed_has_no_spread(runs):
    table = pages.ablation_table(runs[runs["seed"] == 0], "vse", METRICS, "flickr8k")
    assert not any("±" in cell or "nan" in cell for cell in table["rsum"])


def test_claims_get_verdicts(runs):
    table = pages.claims_table(runs, "vse", "flickr8k")
    assert set(table["metric"]) == set(retrieval.RECALLS)
    mine = table[table["claim"] == "LSTM, OxfordNet"].set_index("metric")
    ours = runs.loc[runs["variant"] == "lstm", "i2t R@10"].mean()
    assert float(mine.loc["i2t R@10", "ours"]) == pytest.approx(ours, abs=0.06)
    assert set(mine["verdict"]) == {"inconclusive"}  # two seeds
    assert set(table.loc[table["claim"].str.startswith("released"), "verdict"]) == {"not run"}


def test_what_a_paper_did_not_measure_is_no_claim(runs, monkeypatch):
    row = {"variant": "lstm", "source": "a paper", "sure": "source"}
    rows = pd.DataFrame([{**row, "row": "one", "i2t R@1": 5.0}, {**row, "row": "all", "i2t R@1": 6.0, "t2i R@1": 7.0}])
    monkeypatch.setattr(pages, "published", lambda paper, dataset: rows)
    table = pages.claims_table(runs, "vse", "flickr8k")
    assert list(zip(table["claim"], table["metric"], strict=True)) == [
        ("one", "i2t R@1"),
        ("all", "i2t R@1"),
        ("all", "t2i R@1"),
    ]


@pytest.mark.parametrize("numbers, line", [
    ({"P": 71.9, "R": 75.1, "F1": 73.4, "F1 PER": 84.7, "F1 LOC": 81.2}, "71.9 / 75.1 / 73.4 | 81.2 / 84.7"),
    ({"i2t R@1": 18.0, "i2t median": 8, "t2i R@1": 12.5}, "18.0 | 12.5"),
])  # fmt: skip
def test_a_published_row_on_one_line_in_the_order_of_the_table(numbers, line):
    columns = ["P", "R", "F1", "F1 LOC", "F1 MISC", "F1 PER", "i2t R@1", "i2t median", "t2i R@1"]
    assert pages._one_line(pd.Series({"row": "a", "sure": "copy", **numbers}), columns) == line


def summands(hits: np.ndarray) -> np.ndarray:
    return np.stack([hits, np.ones(hits.shape)], axis=-1)


def test_the_bootstrap_is_the_plain_one():
    units = np.random.default_rng(1).random((2, 30, 2))
    draws = claims.bootstrap(units, draws=4000)
    random = np.random.default_rng(2)
    plain = []
    for _ in range(4000):
        chosen = random.integers(0, 30, 30)
        plain.append(100 * np.mean([units[s, chosen, 0].sum() / units[s, chosen, 1].sum() for s in range(2)]))
    assert claims.interval(draws) == pytest.approx(claims.interval(plain), rel=0.03)


def test_nothing_of_nothing_is_nothing():
    assert claims.bootstrap(np.zeros((3, 10, 2))).tolist() == [0.0] * 2000


@pytest.mark.parametrize("value, expected", [(50, "reproduced"), (30, "above"), (70, "not reproduced")])
def test_verdicts(value, expected):
    interval = claims.interval(claims.bootstrap(summands(np.random.default_rng(0).random((3, 400)) < 0.5)))
    assert interval[0] < 50 < interval[1] and interval[1] - interval[0] < 10
    assert claims.verdict(value, interval, seeds=3) == expected
    assert claims.verdict(value, interval, seeds=2) == "inconclusive"


def test_a_comparison_is_paired_by_query():
    better = np.random.default_rng(0).random((3, 400)) < 0.5
    worse = better & (np.arange(400) % 20 > 0)  # loses one query in twenty
    low, high = claims.interval(claims.bootstrap(summands(better)) - claims.bootstrap(summands(worse)))
    assert 0 < low < 2.5 < high < 6
    assert claims.comparison_verdict((low, high), seeds=3) == "reproduced"
    assert claims.comparison_verdict((-high, -low), seeds=3) == "not reproduced"
    assert claims.comparison_verdict((-low, high), seeds=3) == "inconclusive"
    assert claims.comparison_verdict((low, high), seeds=2) == "inconclusive"


def test_comparisons_need_both_sides(runs):
    assert pages.comparisons_table(runs[runs["variant"] != "devise"], "vse").empty
    table = pages.comparisons_table(runs, "vse").set_index("metric")
    means = runs.groupby("variant")["i2t R@1"].mean()
    assert float(table.loc["i2t R@1", "difference"]) == pytest.approx(means["lstm"] - means["devise"], abs=0.06)


def test_published_claims_are_complete():
    for paper, metrics in ((vse.PAPER, retrieval.RECALLS), (maf.PAPER, tagging.METRICS)):
        for claim in claims.comparisons(paper.name):
            assert {claim["above"], claim["below"]} <= set(paper.VARIANTS)
            assert set(claim["metrics"]) <= set(metrics)
    for dataset in ("twitter2015", "twitter2017"):
        rows = claims.published("maf", dataset)
        assert set(rows["variant"]) <= set(maf.VARIANTS) and rows[["P", "R", "F1"]].notna().all().all()
        assert set(rows["sure"]) <= {"source", "copy", "memory"}
    for dataset in ("flickr8k", "flickr30k", "coco"):
        rows = claims.published("vse", dataset)
        assert set(rows["variant"]) <= set(VARIANTS)
        assert rows[["row", "source", *retrieval.RECALLS]].notna().all().all()
        assert set(rows["sure"]) <= {"source", "copy", "memory"}
    assert claims.published("vse", "iconworld-captions").empty


def test_a_report_is_written_and_indexed(runs, tmp_path):
    out = pages.Report("vse", "flickr8k", "paper", root=tmp_path)
    (out.folder / "somebody's.csv").touch()
    table = pages.ablation_table(runs, "vse", METRICS, "flickr8k")
    out.table("ablation", "Ablation", table)
    out.table("claims", "Claims", pd.DataFrame())
    titles = {name: variant.title for name, variant in VARIANTS.items()}
    out.figure("recall", "Recall", plots.bars(runs, ["i2t R@1"], "recall", titles, claims.published("vse", "flickr8k")))
    out.finish(runs, {"epochs": 1}, ["smaller"], "R@1 is 5")
    folder = tmp_path / "flickr8k" / "vse"
    back = pd.read_csv(folder / "ablation.csv", keep_default_na=False)
    assert back["rsum"].tolist() == table["rsum"].tolist()
    assert (folder / "somebody's.csv").exists()
    page = (folder / "README.md").read_text()
    assert "18.0 | 12.5" in page and "## Claims" not in page and "- smaller" in page and "commit" in page
    assert "![Recall](recall.png)" in page and (folder / "recall.png").read_bytes().startswith(b"\x89PNG")
    said = json.loads((folder / "provenance.json").read_text())
    assert len(said["runs"]) == 6 and said["deviations"] == ["smaller"] and said["report"]["packages"]["torch"]
    assert "| [flickr8k/vse](flickr8k/vse/README.md) | paper | R@1 is 5 |" in (tmp_path / "README.md").read_text()
    smoke = pages.Report("vse", "flickr8k", "smoke", root=tmp_path)
    assert smoke.folder == tmp_path / "smoke" / "flickr8k" / "vse"  # a smoke run never overwrites a result
