"""Reports: what the tables say is what the runs said, the pages open with verdicts, and the index finds them."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import predict
from lib.papers.vse import VARIANTS
from lib.report import evidence, plots, shipping, tables
from lib.report.claims import published
from lib.report.pages import Report, markdown
from lib.run import experiment, store
from lib.run.fingerprint import fingerprint
from lib.tasks import retrieval
from tests.disks import full_disk

METRICS = ["i2t R@1", "t2i R@1", "rsum"]
TINY = {"profile": "smoke", "train_limit": 40, "epochs": 1, "joint_dim": 16, "word_dim": 16}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return experiment.ablate("vse", ["random", "lstm", "devise"], [0, 1, 2], TINY, folder, log=lambda line: None)


def test_summary_is_mean_and_std_over_seeds(runs):
    mine = runs.loc[runs["variant"] == "lstm", "rsum"]
    row = tables.summary(runs, METRICS).loc["lstm"]
    assert row["runs", "seeds"] == 3
    assert row["rsum", "mean"] == pytest.approx(mine.mean()) and row["rsum", "std"] == pytest.approx(mine.std(ddof=1))


@pytest.mark.parametrize("seconds, told", [([30, 31, 393], "30 to 393"), ([300, 400, 500], 400.0), ([0, 0, 6], 2.0)])
def test_times_of_several_machines_have_no_mean(seconds, told, runs):
    mine = runs[runs["variant"] == "lstm"].assign(seconds=seconds)
    assert tables.ablation_table(mine, "vse", METRICS, "flickr8k")["seconds"].tolist() == [told]


def test_the_table_sets_the_paper_beside_ours(runs):
    table = tables.ablation_table(runs, "vse", METRICS, "flickr8k")
    assert table["variant"].tolist() == [VARIANTS[name].title for name in ("random", "lstm", "devise")]
    assert table["published"].iloc[1] == "18.0 | 12.5"
    assert all(" ± " in cell for cell in table["rsum"])
    assert "published" not in tables.ablation_table(runs, "vse", METRICS, "iconworld-captions")


def test_one_seed_has_no_spread(runs):
    table = tables.ablation_table(runs[runs["seed"] == 0], "vse", METRICS, "flickr8k")
    assert not any("±" in cell or "nan" in cell for cell in table["rsum"])


def test_a_row_that_knows_no_such_metric_has_no_number_and_no_dot(runs):
    runs = runs.assign(rsum=runs["rsum"].where(runs["variant"] != "lstm"))
    table = tables.ablation_table(runs, "vse", ["rsum"], "iconworld-captions").set_index("variant")
    title = VARIANTS["lstm"].title
    assert table.loc[title, "rsum"] == "–" and "±" in table["rsum"].drop(title).iloc[0]
    (panel,) = plots.dots(runs, ["rsum"], "", {name: name for name in VARIANTS}, "lstm").axes
    assert np.isnan(panel.collections[-1].get_offsets()[:, 0].filled(np.nan)).sum() == 1


def test_published_numbers_are_judged_by_the_runs_and_their_settings(runs):
    judged = tables.judged_numbers(runs, "vse", "flickr8k")
    assert set(retrieval.RECALLS) <= set(judged["metric"]) and set(judged["variant"]) == {"random", "lstm", "devise"}
    mine = judged[judged["row"] == "LSTM, OxfordNet"].set_index("metric")
    ours = runs.loc[runs["variant"] == "lstm", "i2t R@10"]
    assert mine.loc["i2t R@10", "value"] == pytest.approx(ours.mean())
    assert "image_encoder lite0 (published vgg19)" in mine.loc["i2t R@10", "differs"]
    assert all(text.endswith("in another setting") for text in mine["text"])
    shown = tables.numbers_table(judged)
    assert len(shown) == len(judged) and shown["ours"].str.fullmatch(r"\d+\.\d").all()


def test_marks_of_markdown_are_text_in_a_table():
    table = markdown(pd.DataFrame({"a|b": ["$5 now, $9 before", "<sep>"], "c": [1.25, 2.0]}), ".1f")
    assert [line.count("|") - line.count(r"\|") for line in table.splitlines()] == [3] * 4
    assert r"\$5 now, \$9 before" in table and r"\<sep>" in table and "| 1.2 |" in table.replace("  ", " ")


def test_a_difference_keeps_its_sign_and_its_zeros():
    table = markdown(pd.DataFrame({"difference": ["+4.0", "-0.5"], "interval": ["+1.0 to +7.0", ""]}))
    assert "| +4.0" in table and "| -0.5" in table


@pytest.mark.parametrize("value, digits, sign, shown", [
    (-0.04, 1, "+", "+0.0"), (12.34, float("nan"), "", "12.3"), (0.128, 2, "+", "+0.13"), (float("nan"), 1, "+", ""),
])  # fmt: skip
def test_numbers_of_judged_rows(value, digits, sign, shown):
    assert evidence.decimal({"value": value, "digits": digits}, "value", sign) == shown
    assert evidence.decimal({"value": 1.0}, "value") == "1.0", "a row of an old report"


def test_that_one_parent_serves_all_seeds_is_said_once(report):
    plain = report.comparisons
    for shared in (False, True):
        report.comparisons = pd.DataFrame([{"claim": "a beats b", "metric": "F1", "word": "holds", "text": "holds",
                                            "value": 1.0, "low": 0.5, "high": 1.5, "p": 0.01, "adjusted": 0.01,
                                            "source": "", "shared_parent": shared}] * 4)  # fmt: skip
        page = "\n".join(report._opening([]))
        assert page.count("all its seeds go on from the same one") == shared and "a beats b (4 metrics)" in page
    report.comparisons = plain


def test_another_test_split_is_another_setting(runs):
    """Whoever reads data of their own as Flickr8k is not told that its numbers were reproduced."""
    judged = tables.judged_numbers(runs, "vse", "flickr8k")
    assert judged["differs"].str.contains("test examples \\d+ .published 1000.").all()
    assert judged["text"].str.endswith("in another setting").all()


@pytest.mark.parametrize("dataset, folder, expected", [
    ("iconworld-captions", None, "iconworld-captions"), ("captions", "/data/zoo", "captions-{mark}"),
    ("conll-images", "/data/zoo", "conll-images-{mark}"), ("flickr8k", "/data/zoo", "flickr8k-{mark}"),
])  # fmt: skip
def test_data_of_ones_own_have_a_report_of_their_own(runs, tmp_path, dataset, folder, expected):
    asked = {"dataset": dataset, "profile": "smoke", "data_dir": folder}
    mark = store.read(runs["folder"].iloc[0]).identity["data"][:6]
    assert Report("vse", runs, asked, tmp_path).folder == tmp_path / "smoke" / expected.format(mark=mark) / "vse"


def test_comparisons_need_both_sides_and_seeds(runs):
    assert tables.judged_comparisons(runs[runs["variant"] != "devise"], "vse", "flickr8k").empty
    judged = tables.judged_comparisons(runs, "vse", "flickr8k").set_index("metric")
    means = runs.groupby("variant")["i2t R@1"].mean()
    assert judged.loc["i2t R@1", "value"] == pytest.approx(means["lstm"] - means["devise"])
    few = tables.judged_comparisons(runs, "vse", "iconworld-captions")
    assert set(few["text"]) == {"no verdict: 3 of 5 seeds"}
    assert tables.comparisons_table(judged.reset_index())["difference"].str.startswith(("+", "-")).all()


def test_what_was_published_is_a_diamond_where_there_is_one(runs):
    asked = dict(metrics=["i2t R@1"], title="", names={name: name for name in VARIANTS}, main="lstm")
    (legend,) = plots.dots(runs, **asked, claimed=published("vse", "flickr8k")).legends
    assert [text.get_text() for text in legend.get_texts()] == ["published"]
    assert not plots.dots(runs[runs["variant"] == "random"].assign(variant="best"), **asked,
                          claimed=published("vse", "flickr8k")).legends  # fmt: skip


def test_a_difference_without_an_interval_has_none():
    row = {"kind": "comparisons", "value": 1.25, "low": np.nan, "high": np.nan}
    assert evidence._ours(row) == "+1.2" and evidence._ours(row | {"low": 0.5, "high": 2.0}) == "+1.2 (+0.5 to +2.0)"


@pytest.mark.parametrize("numbers, line", [
    ({"P": 71.9, "R": 75.1, "F1": 73.4, "F1 PER": 84.7, "F1 LOC": 81.2}, "71.9 / 75.1 / 73.4 | 81.2 / 84.7"),
    ({"i2t R@1": 18.0, "i2t median": 8, "t2i R@1": 12.5}, "18.0 | 12.5"),
])  # fmt: skip
def test_a_published_row_on_one_line_in_the_order_of_the_table(numbers, line):
    columns = ["P", "R", "F1", "F1 LOC", "F1 MISC", "F1 PER", "i2t R@1", "i2t median", "t2i R@1"]
    assert tables._one_line(pd.Series({"row": "a", "sure": "copy", **numbers}), columns) == line


PARAMETERS = {"dataset": "flickr8k", "data_dir": "/home/somebody", "profile": "paper", "epochs": 1, "seeds": [0, 1, 2]}


@pytest.fixture
def report(runs, tmp_path):
    out = Report("vse", runs, PARAMETERS, tmp_path)
    (out.folder / "somebody's.csv").touch()
    out.table("ablation", "Ablation", tables.ablation_table(runs, "vse", METRICS, "flickr8k"))
    out.table("nothing", "Nothing", pd.DataFrame())
    titles = {name: variant.title for name, variant in VARIANTS.items()}
    known = published("vse", "flickr8k")
    out.figure("recall", "Recall", plots.dots(runs, ["i2t R@1"], "recall", titles, "lstm", known))
    out.finish(["smaller"], ["It was hardly trained."])
    return out


def test_a_page_opens_with_verdicts_and_ends_with_the_command(report):
    page = (report.folder / "README.md").read_text()
    opening = ("**Lower than published**", "It was hardly trained.", "## Published beside")
    places = [page.index(text) for text in opening]
    assert places == sorted(places)
    (index,) = re.findall(r"\[the list of all reports\]\((.*?)\)", page)
    assert (report.folder / index).resolve() == report.root / "README.md"
    assert "in another setting" in page and "## Nothing" not in page and "![Recall](recall.png)" in page
    folded = page[page.index("<details>") :]
    assert "9 runs on" in folded
    assert "- smaller" in folded and "papermill notebooks/vse.ipynb out.ipynb" in folded and "commit" in folded
    assert "/home/somebody" not in page and "data_dir" in report.command()
    assert (report.folder / "somebody's.csv").exists()


def test_records_and_verdicts_are_read_back(report, runs):
    corpus = report.folder.parent.name
    found = evidence.Evidence("vse", corpus, report.root)
    assert len(list((report.folder / "records").iterdir())) == 9
    record = store.read(next((report.folder / "records").glob("lstm-seed0-*")))
    mine = runs[(runs["variant"] == "lstm") & (runs["seed"] == 0)].iloc[0]
    assert record.scores["test"]["rsum"] == mine["rsum"] and not record.has_weights
    assert len(found.verdicts()) == len(report.numbers) + len(report.comparisons)
    table = tables.ablation_table(runs, "vse", METRICS, "flickr8k")
    assert found.table("ablation")["rsum"].tolist() == table["rsum"].tolist()
    assert found.table("of no such name").empty and found.figure("recall").data.startswith(b"\x89PNG")
    assert re.match(r"\*9 runs on .*, profile paper, commit", found.provenance().data)
    lines = evidence.found("vse", root=report.root).data.splitlines()
    assert lines[0].startswith(f"- ▼ **LSTM, OxfordNet**: lower, in another setting. *{corpus}, i2t R@1")
    stored = json.loads((report.folder / "provenance.json").read_text())
    assert stored["deviations"] == ["smaller"] and "data_dir" not in stored["parameters"]
    for name, run in stored["runs"].items():
        assert name.endswith(fingerprint(run["identity"]))


def test_the_index_has_a_row_a_claim_that_matters(report):
    index, corpus = (report.root / "README.md").read_text(), report.folder.parent.name
    assert "| vse     | LSTM, OxfordNet, i2t R@1" in index and f"[{corpus}]({corpus}/vse/README.md)" in index


def test_a_report_for_which_the_disk_has_no_room_stays_the_one_before(report, runs):
    before = {path: path.read_bytes() for path in report.root.rglob("*") if path.is_file()}
    table = pd.DataFrame({"a": ["b" * 99] * 999})
    for write in (
        lambda out: out.table("ablation", "Ablation", table),
        lambda out: out.figure("recall", "Recall", plt.figure()),
        lambda out: out.finish(["other"]),
    ):
        out = Report("vse", runs, PARAMETERS, report.root)
        with full_disk(500), pytest.raises(OSError, match=f"^{out.folder}/.*: could not be written, is the disk full"):
            write(out)
    plt.close("all")
    assert {path: path.read_bytes() for path in report.root.rglob("*") if path.is_file()} == before


def test_what_is_not_meant_for_a_report_writes_none(runs, tmp_path):
    for changes in ({"profile": "smoke"}, {"train_limit": 40}):
        out = Report("vse", runs, PARAMETERS | changes, tmp_path)
        out.finish([])
        assert out.folder.parents[1] == tmp_path / "smoke" and out.folder.parent.name.startswith("flickr8k-")
    assert not (tmp_path / "README.md").exists() and not (out.folder / "records").exists()


def test_a_report_on_iconworld_ships_its_model(tmp_path):
    runs = experiment.ablate("vse", ["best"], [0, 1], TINY, tmp_path / "runs", log=lambda line: None)
    out = Report("vse", runs, PARAMETERS | {"dataset": "iconworld-captions", "profile": "small"}, tmp_path / "reports")
    out.finish([])
    (model,) = (out.folder / "model").iterdir()
    best = runs.loc[runs["dev rsum"].idxmax()]
    assert model.name == best["folder"].rpartition("/")[2]
    assert sum(path.stat().st_size for path in model.iterdir()) < 16 * 2**20
    whole, small = predict.load(best["folder"]), predict.load(model)
    assert small("a red car")["index"].tolist()[0] in whole("a red car")["index"].tolist()


def test_where_no_model_is_shipped_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no model of vse"):
        shipping.shipped("vse", tmp_path)
