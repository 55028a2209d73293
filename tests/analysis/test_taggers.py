"""Taggers looked at on IconWorld: counterfactual pictures, what is shipped, scores by what decides a post."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.analysis import modalities, tagger_reports, taggers
from lib.corpora.iconworld.entities import EVIDENCE, company_shown, evidence_shown
from lib.report.shipping import shipped
from lib.run import experiment
from lib.tasks import tagging

TINY = {"dataset": "iconworld-entities", "text_layers": 1, "longest": 20, "image_size": 64, "train_limit": 24}
SETTINGS = {**TINY, "epochs": 1, "batch_size": 6}


@pytest.fixture(scope="module")
def data():
    return tagging.load(experiment.resolve("maf", "full", SETTINGS))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    found = [experiment.run("maf", row, 0, SETTINGS, folder, log=lambda line: None) for row in ("text", "full")]
    rows = [{"variant": one.variant, "seed": 0, **one.scores["test"], "folder": str(one.folder)} for one in found]
    return pd.DataFrame(rows).assign(**{"dev F1": 50.0, "seconds": 1.0})


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_another_thing_is_all_that_changes(data):
    among = [i for i, one in enumerate(tagging.groups(data)["own picture"]) if one]
    post = modalities.ambiguous_post(data, among)
    facts, own = data.corpus.test.facts(post), data.test.examples[post].image
    assert len(facts.mentions) == 1 and len(facts.mentions[0].candidates) == 3 and facts.place and facts.companion
    pictures = modalities.other_pictures(data, post, taggers.pictures(data.test))
    assert list(pictures) == [*(f"something of {kind}" for kind in EVIDENCE), "another post's"]
    for kind in EVIDENCE:
        shown = pictures[f"something of {kind}"]
        assert evidence_shown(shown) == {kind: 1} and company_shown(shown) == company_shown(own) == facts.companion
        assert (shown.background, shown.variant) == (own.background, own.variant)
        changed = [a != b for a, b in zip(shown.objects, own.objects, strict=True)]
        assert sum(changed) <= 1
    assert pictures["another post's"] != own


def test_without_a_post_of_that_kind_the_first_will_do(data):
    text = [i for i, one in enumerate(tagging.groups(data)["text"]) if one]
    assert modalities.ambiguous_post(data, text) == text[0]


def test_scores_by_kind_have_a_column_each(runs, data):
    table = tagger_reports.kinds_table(runs, data)
    assert list(table.columns) == ["F1 on test posts", *tagger_reports.KINDS.values(), "seeds"]
    assert table["F1 on test posts"].tolist() == ["text only, CRF", "MAF"]
    panels = tagger_reports.kinds_figure(runs, data).axes
    assert [axes.get_xlabel() for axes in panels] == [*tagger_reports.KINDS.values()]


def test_ones_own_maf_is_looked_at_else_the_shipped_one(runs):
    assert taggers.looked_at(runs, SETTINGS).title == "MAF, seed 0"
    try:
        folder = shipped("maf")
    except FileNotFoundError:
        pytest.skip("no trained model is shipped")
    tagger = taggers.looked_at(runs[runs["variant"] == "text"], SETTINGS)
    assert tagger.folder == folder and tagger.judges
    assert len(tagger.data.train.examples) == 24  # no more of the corpus is read than was asked for
    right = [tagger.right(i) for i in tagger.of_kind("picture")]
    assert sum(right) > 0.5 * len(right)


def test_a_report_of_few_pictures_says_nothing_of_rows_that_need_them(runs, data, monkeypatch, tmp_path):
    class Report:
        def __init__(self, paper, runs, parameters):
            self.numbers = pd.DataFrame({"variant": ["text", "full"]})
            self.comparisons = pd.DataFrame({"above": ["full", "text"], "below": ["text", "text-softmax"]})

    monkeypatch.setattr(tagger_reports, "Report", Report)
    assert len(tagger_reports.report(runs, {}, data).numbers) == 2
    monkeypatch.setattr(tagger_reports, "most_are_missing", lambda data: True)
    out = tagger_reports.report(runs, {}, data)
    assert out.numbers["variant"].tolist() == ["text"] and out.comparisons["above"].tolist() == ["text"]
