"""Verdicts: the words, what qualifies them, and a claims file in which every name is known."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from lib.report import claims
from lib.report.claims import Comparison, comparison_verdicts, number_verdict
from lib.report.intervals import Estimate, Score
from lib.run.paper import PAPERS as WRITTEN
from lib.run.paper import find_paper, find_variant

PAPERS = ("vse", "maf", "cmkp", "gxn", "k3m")


def estimate(value, error=1.0, seeds=5, over_units=True):
    return Estimate(value, error, 30.0, seeds, over_units)


def words(*asked, corpus=""):
    return [verdict.word for verdict in comparison_verdicts(asked, corpus)]


# ---- published numbers ----


@pytest.mark.parametrize("values, value, word", [
    ([70, 71, 72], 71.5, "agrees"),
    ([70, 71, 72], 74.0, "not told apart"),  # inside the interval, but farther than the margin
    ([70.9, 71, 71.1], 71.6, "lower"),  # nearer than the margin, but outside the interval
    ([70.9, 71, 71.1], 75.0, "lower"),
    ([70.9, 71, 71.1], 65.0, "higher"),
])  # fmt: skip
def test_a_number_agrees_if_it_is_inside_and_near(values, value, word):
    assert number_verdict(values, value, margin=1.0).word == word


def test_a_number_is_known_as_far_as_it_was_printed():
    assert number_verdict([8, 8, 8], 8.4, 1.0).word == "lower"
    assert number_verdict([8, 8, 8], 8.4, 1.0, within=0.5).word == "agrees"
    assert [claims.printed_within(value) for value in (18.0, 8, 47.06)] == pytest.approx([0.05, 0.5, 0.005])


def test_more_published_runs_narrow_the_interval():
    assert number_verdict([70, 71, 72], 75.0, 1.0).word == "not told apart"
    assert number_verdict([70, 71, 72], 75.0, 1.0, runs=5).word == "lower"


def test_the_setting_comes_first():
    differs = claims.differing(
        {"image_encoder": "vgg19", "epochs": 15, "views": ["full"]},
        {"image_encoder": "lite0", "epochs": 15, "views": ("full",), "seed": 3},
    )
    assert differs == {"image_encoder": ("vgg19", "lite0")}
    assert claims.told(differs) == "image_encoder lite0 (published vgg19)"
    assert number_verdict([70.9, 71, 71.1], 65.0, 1.0, differs=differs).text == "higher, in another setting"
    assert number_verdict([70.9, 71, 71.1], 71.0, 1.0, differs=differs).text == "agrees, in another setting"
    assert claims.differing({"fine_tune": True}, {}) == {"fine_tune": (True, None)}  # what is not known is other


def test_too_few_seeds_say_nothing():
    verdict = number_verdict([70.9, 71.1], 65.0, 1.0)
    assert (verdict.word, verdict.text) == (
        "no verdict",
        "no verdict: 2 of 3 seeds",
    ) and verdict.low < 71 < verdict.high
    (verdict,) = comparison_verdicts([Comparison(estimate(9.0, seeds=3), needed=5)])
    assert verdict.text == "no verdict: 3 of 5 seeds" and np.isnan(verdict.p)


# ---- comparisons ----


def test_words_of_comparisons():
    asked = [Comparison(estimate(value)) for value in (9.0, -9.0, 1.0)]
    assert words(*asked) == ["holds", "does not hold", "not told apart"]


@pytest.mark.parametrize("value, word", [
    (3.0, "no worse"), (-0.2, "no worse"), (-1.0, "not told apart"), (-1.9, "not told apart"), (-3.0, "does not hold")
])  # fmt: skip
def test_nothing_is_lost_if_the_lower_end_lies_above_minus_the_margin(value, word):
    (verdict,) = comparison_verdicts([Comparison(estimate(value, error=0.3), -1.5, "no worse")])
    assert verdict.word == word
    assert (verdict.low > -1.5) == (word == "no worse") and (verdict.high < -1.5) == (word == "does not hold")


def test_more_than_a_threshold():
    assert words(Comparison(estimate(0.05, 0.005), null=0.03)) == ["holds"]
    assert words(Comparison(estimate(0.035, 0.005), null=0.03)) == ["not told apart"]


def test_one_family_is_corrected_together():
    alone = comparison_verdicts([Comparison(estimate(2.3))])[0]
    assert alone.word == "holds" and alone.adjusted == alone.p
    family = comparison_verdicts([Comparison(estimate(value)) for value in (2.3, 0.1, 5.0, 2.4)])
    assert [verdict.word for verdict in family] == ["not told apart", "not told apart", "holds", "not told apart"]
    for verdict in family:
        assert (verdict.low > 0) == (verdict.word == "holds")
        assert verdict.adjusted >= verdict.p


def test_rows_without_enough_seeds_do_not_cost_the_family():
    few = [Comparison(estimate(0.0, seeds=2))] * 20
    assert words(*few, Comparison(estimate(2.3))) == ["no verdict"] * 20 + ["holds"]


def test_what_qualifies_a_verdict():
    (verdict,) = comparison_verdicts([Comparison(estimate(9.0))], "iconworld-posts")
    assert verdict.text == "holds on IconWorld"
    (verdict,) = comparison_verdicts([Comparison(estimate(9.0, over_units=False))], "flickr8k")
    assert verdict.word == "holds"
    assert verdict.text == "holds; over seeds only, the metric is no sum over examples"


# ---- all claims of a paper ----


def scores(offset, seeds=5, units=400):
    random = np.random.default_rng(0)
    noise = random.normal(size=(seeds, units))
    return Score(50 + offset + 0.3 * random.normal(size=seeds), noise - noise.mean(1, keepdims=True))


def test_comparisons_that_can_be_made_are_judged():
    offsets = {"full": 5, "text": 0, "text-softmax": 0, "no-matching": 5}
    known = {(variant, "F1"): scores(offset) for variant, offset in offsets.items()}
    known |= {("full", "picture/F1"): scores(9), ("text", "picture/F1"): scores(0)}
    table = claims.judge_comparisons("maf", "iconworld-entities", lambda *row: known.get(row), lambda variant: False)
    assert table[["above", "below", "metric"]].to_numpy().tolist() == [
        ["full", "text", "F1"],
        ["text", "text-softmax", "F1"],
        ["full", "no-matching", "F1"],
        ["full", "text", "picture/F1"],
    ]
    assert table["text"].tolist() == [
        "holds on IconWorld",
        "not told apart on IconWorld",
        "not told apart on IconWorld",
        "holds on IconWorld",
    ]
    elsewhere = claims.judge_comparisons("maf", "twitter2015", lambda *row: known.get(row), lambda variant: True)
    assert len(elsewhere) == 3 and elsewhere["shared_parent"].all() and not table["shared_parent"].any()


def test_a_loss_is_compared_as_a_contrast():
    losses = {"k3m": -4, "two-stream-graph": -10}
    known = {(variant, "accuracy"): scores(30) for variant in losses}
    known |= {(variant, "accuracy/TMR100"): scores(30 + loss) for variant, loss in losses.items()}
    table = claims.judge_comparisons("k3m", "fashion", lambda *row: known.get(row), lambda variant: False)
    row = table[table["metric"] == "accuracy/TMR100 - accuracy"].iloc[0]
    assert row["word"] == "holds" and row["value"] == pytest.approx(6)
    assert len(table) == 2  # and that K3M is better when clean


def test_thresholds_are_compared_with_a_number():
    known = {("full", "colour"): scores(45)}
    table = claims.judge_comparisons("gxn", "iconworld-captions", lambda *row: known.get(row), lambda variant: False)
    assert table["word"].tolist() == ["holds"] and table["value"].iloc[0] == pytest.approx(5, abs=0.5)
    assert table["metric"].tolist() == ["colour - 90"], "the aim is said"
    assert claims.judge_comparisons("gxn", "flickr8k", lambda *row: known.get(row), lambda variant: False).empty


@pytest.mark.parametrize("margin, places", [(6, 1), (2, 1), (0.5, 1), (0.1, 1), (0.03, 2), (0.001, 3)])
def test_a_metric_has_the_decimals_of_its_margin(margin, places):
    assert claims.digits(margin) == places


def test_published_numbers_beside_ours():
    ours = {("released", "i2t R@1"): [22.0, 23.0, 23.2], ("released", "i2t median"): [6, 6, 7]}
    setting = {"image_encoder": "vgg19", "image_layer": "fc", "word_dim": 300, "joint_dim": 1024}
    setting |= {"batch_size": 128, "learning_rate": 2e-4, "epochs": 15, "test examples": 1000}
    judged = claims.judge_numbers("vse", "flickr8k", lambda *row: ours.get(row, []), lambda variant: setting)
    assert judged[["metric", "published", "text", "differs"]].to_numpy().tolist() == [
        ["i2t R@1", 22.3, "agrees", ""],
        ["i2t median", 6, "agrees", ""],
    ]
    setting["image_encoder"] = "lite0"
    judged = claims.judge_numbers("vse", "flickr8k", lambda *row: ours.get(row, []), lambda variant: setting)
    assert set(judged["text"]) == {"agrees, in another setting"}
    assert set(judged["differs"]) == {"image_encoder lite0 (published vgg19)"}
    setting |= {"image_encoder": "vgg19", "train_limit": 800}
    judged = claims.judge_numbers("vse", "flickr8k", lambda *row: ours.get(row, []), lambda variant: setting)
    assert set(judged["differs"]) == {"train_limit 800 (published None)"}


# ---- the claims file ----


@pytest.mark.parametrize("paper", PAPERS)
def test_every_metric_has_a_margin_and_every_claim_a_source(paper):
    for claim in claims.comparisons(paper):
        options = {"at_least", "by", "no_worse", "corpora", "matters"}
        assert set(claim) <= {"claim", "above", "below", "metrics", "source"} | options
        assert set(claim.get("matters", [])) <= set(map(claims.named, claim["metrics"]))
        assert claim["source"] and claim["claim"] and ("at_least" in claim) != ("below" in claim)
        assert all(claims.margin(paper, metric) > 0 and claims.named(metric) for metric in claim["metrics"])
    for corpus in claims._claims()[paper]["published"]:
        rows = claims.published(paper, corpus)
        assert set(rows["sure"]) <= {"source", "copy", "figure", "memory"} and rows[["row", "source"]].notna().all(None)
        assert all(claims.margin(paper, metric) > 0 for metric in rows.columns.difference(claims.ABOUT))
        assert rows["setting"].map(type).eq(dict).all()


def test_a_metric_without_margin_is_named():
    with pytest.raises(ValueError, match="'speed' has no margin among those of 'vse'"):
        claims.margin("vse", "speed")


@pytest.mark.parametrize("name", WRITTEN)
def test_variants_and_settings_are_known_to_the_paper(name):
    paper = find_paper(name)
    settings = {field.name for field in fields(paper.Settings)}
    for claim in claims.comparisons(name):
        assert all(find_variant(name, claim[side]) for side in ("above", "below") if side in claim)
    assert set(claims._claims()[name]["setting"]) <= settings
    for corpus in claims._claims()[name]["published"]:
        rows = claims.published(name, corpus)
        assert all(find_variant(name, variant) for variant in rows["variant"])
        assert set().union(*rows["setting"]) <= settings


def test_a_claim_may_be_of_one_corpus():
    everywhere, here = claims.comparisons("maf", "twitter2015"), claims.comparisons("maf", "iconworld-entities")
    assert len(here) > len(everywhere) > 0
    assert claims.published("vse", "iconworld-captions").empty
    assert claims.seeds_needed("maf", "iconworld-entities") == 5 and claims.seeds_needed("maf", "twitter2015") == 3


def test_what_came_from_ten_times_as_much_text_is_another_setting():
    rows = claims.published("cmkp", "cmkp-small")
    pd.testing.assert_frame_equal(rows, claims.published("cmkp", "cmkp"))
    assert all("dataset" in claims.differing(setting, {"dataset": "cmkp-small"}) for setting in rows["setting"])
