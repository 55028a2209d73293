"""K3M's page: a trained model beside its shelf, what changes its neighbours, scores in all cells, and the tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib.analysis import product_reports, robustness, shelf
from lib.corpora.products import KINDS
from lib.papers import k3m
from lib.report import diagrams, plots, tables
from lib.report.pages import Report
from lib.run import experiment
from lib.tasks import products

TINY = dict(width=16, heads=2, graph_heads=2, text_layers=1, image_layers=1, image_size=64, longest=40, epochs=1)
SETTINGS = {**TINY, "pretraining_epochs": 1, "batch_size": 16, "train_limit": 40, "test_limit": 16}
ROWS = ("text-only", "two-stream", "k3m-questions", "k3m", "k3m-TNR50", "k3m-unnamed")
PARAMETERS = {"dataset": "iconworld-products", "profile": "smoke", "seeds": [0], "data_dir": None, "train_limit": 40}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    found = [experiment.run("k3m", row, 0, SETTINGS, folder, log=lambda line: None) for row in ROWS]
    return pd.DataFrame([{"variant": one.variant, "seed": 0, **one.scores["test"], "dev mean": 1.0, "seconds": 1.0,
                          "folder": str(one.folder)} for one in found])  # fmt: skip


@pytest.fixture(scope="module")
def data(runs):
    return products.load(experiment.resolve("k3m", "together", SETTINGS))


@pytest.fixture(scope="module")
def mine(runs):
    return shelf.looked_at(runs[runs["variant"].isin(["text-only", "k3m"])], PARAMETERS)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


# ---- looking inside ----


def test_ones_own_k3m_is_looked_at_with_the_listings_of_its_run(mine, data):
    assert mine.title == "K3M (hard-spl), seed 0, the best on dev"
    assert mine.items == list(data.views["test"]["clean"].items)
    assert mine.items[mine.stranger].category != mine.items[mine.example].category


def test_listings_looked_at_together_are_as_each_alone(mine):
    together = mine.look(mine.items[:5])
    for item, seen in zip(mine.items[:5], together, strict=True):
        alone = mine.predictor.inspect(item.title, item.image, dict(item.properties))
        assert torch.allclose(alone["c_star"], seen["c_star"], atol=1e-5) and alone["pieces"] == seen["pieces"]
        assert seen["attention"].shape == (len(item.properties), 2) and seen["chances"].sum() == pytest.approx(1)
    embedding = mine.predictor.predictions["embedding"][:5]
    assert torch.allclose(torch.stack([seen["c_star"] for seen in together]), embedding, atol=1e-4)


def test_neighbours_are_the_others_nearest_first(mine):
    (seen,) = mine.look([mine.items[3]])
    near = mine.near(seen, 3, k=15)
    assert {i for i, _ in near} == set(range(16)) - {3}
    scores = [score for _, score in near]
    assert scores == sorted(scores, reverse=True) and mine.near(seen, None, 1)[0][0] == 3


def test_a_frame_says_what_a_neighbour_shares(mine):
    of = mine.items[0]
    frames = [mine.cell(of, i, 1.0)[2] for i in range(16)]
    assert frames[:2] == [plots.RIGHT, plots.RIGHT]  # two listings of one product
    for item, frame in zip(mine.items[2:], frames[2:], strict=True):
        assert frame == (plots.TRUE if item.category == of.category else plots.WRONG)


def test_what_is_unchanged_keeps_its_neighbours(mine):
    stranger = mine.items[mine.stranger]
    changes = {"as it is": {}, "quite other": dict(title=stranger.title, image=stranger.image, properties=())}
    table = mine.moved(changes, count=8, k=3).set_index("listings")
    assert table.loc["as it is", "neighbours kept"] == 100 > table.loc["quite other", "neighbours kept"]
    assert table["same category"].between(0, 100).all()
    rows = mine.neighbours(mine.example, changes).axes
    assert len([axes for axes in rows if axes.images]) == 12 and "0 triples" in rows[6].get_xlabel().replace("\n", " ")


def test_attention_stands_beside_what_each_triple_does(mine):
    item = mine.items[mine.example]
    left, middle, right = mine.attention(mine.example, {"title": ""}).axes
    weights = middle.images[0].get_array()
    assert weights.shape == (len(item.properties), 2) and np.allclose(weights.sum(0), 1, atol=1e-5)
    assert [label.get_text() for label in middle.get_yticklabels()] == [f"{n}: {v}" for n, v in item.properties]
    without = right.collections[1].get_offsets()[:, 0]
    gold = mine.predictor.context["labels"].index(item.category)
    for i, chance in enumerate(without):
        fewer = tuple(t for j, t in enumerate(item.properties) if j != i)
        (seen,) = mine.look([item], {"properties": fewer, "title": ""})
        assert seen["chances"][gold].item() == pytest.approx(chance, abs=1e-5)
    assert item.category in left.get_xlabel().replace("\n", " ").lower()


def test_gates_are_shares_of_words_and_regions(mine):
    changes = {"as it is": {}, "no title": {"title": ""}}
    table = mine.kept(changes, count=6).set_index("listings")
    assert table.stack().dropna().between(0, 100).all() and np.isnan(table.loc["no title", "words keep of themselves"])
    assert mine.gates(mine.example, changes) and mine.region_gates(mine.example, changes)
    assert mine.region_gates(mine.example, {"no picture": {"image": None}}) is None


def test_a_report_on_other_data_keeps_nothing_of_the_model(mine, tmp_path, runs):
    table, kept = pd.DataFrame({"share": [12.34]}), {}
    for dataset in ("iconworld-products", "fashion"):
        out = Report("k3m", runs, PARAMETERS | {"dataset": dataset}, tmp_path)
        assert mine.tell(out, "shares", "shares", table)["share"].item() == 12.3
        mine.keep(out, "drawn", "drawn", plt.figure())
        kept[dataset] = {path.name for path in out.folder.iterdir()}
    assert kept == {"iconworld-products": {"shares.csv", "drawn.png"}, "fashion": set()}


def test_a_model_without_graph_and_gates_shows_neither(runs):
    blind = shelf.looked_at(runs[runs["variant"] == "two-stream"], PARAMETERS)
    assert blind.attention(0) is None and blind.gates(0, {"as it is": {}}) is None
    assert blind.region_gates(0, {"as it is": {}}) is None and blind.category(blind.look(blind.items[:1])[0])


# ---- all cells ----


def test_cells_are_the_runs_scores(runs):
    found = robustness.cells(runs, "accuracy")
    assert set(found["variant"]) == {"text-only", "two-stream", "k3m", "k3m-unnamed"}
    one = found.query("variant == 'k3m' and kind == 'TNR' and percent == 50")["value"].item()
    assert one == runs.set_index("variant").loc["k3m", "accuracy/TNR50"]
    table = robustness.cells_table(runs, "accuracy", product_reports.TITLES)
    assert table.shape == (4, 30) and table["variant"].iloc[0] == "title only"
    expected = [f"{runs.set_index('variant').loc['k3m', f'accuracy/{kind}100']:.1f}" for kind in KINDS]
    assert table.set_index("variant").loc["K3M (hard-spl)", [f"{kind}100" for kind in KINDS]].tolist() == expected
    assert robustness.cells_table(runs[runs["variant"] == "k3m-TNR50"], "accuracy", {}).empty
    other = {name: runs[name] + 2 for name in ("accuracy", "accuracy/TNR50")}
    twice = pd.concat([runs, runs.assign(seed=1, **other)])
    spread = robustness.cells_table(twice, "accuracy", product_reports.TITLES).set_index("variant")
    assert spread.loc["K3M (hard-spl)", "TNR50"] == f"{one + 1:.1f} ± 1.4"
    assert spread.loc["K3M (hard-spl)", "accuracy"].endswith(" ± 1.4")


def test_tuned_rows_stand_beside_the_same_cell_at_test(runs):
    row = robustness.tuned_table(runs, ["accuracy"], product_reports.TITLES).iloc[0]
    scores = runs.set_index("variant")
    assert (row["variant"], row["cell"]) == ("K3M (hard-spl)", "TNR50")
    assert row["accuracy, tuned at the ratio"] == f"{scores.loc['k3m-TNR50', 'accuracy']:.1f}"
    assert row["accuracy, tuned clean"] == f"{scores.loc['k3m', 'accuracy/TNR50']:.1f}"
    assert robustness.tuned_table(runs[:4], ["accuracy"], {}).empty
    assert product_reports.table_rows(ROWS) == ["text-only", "two-stream", "k3m"]


def test_the_tunings_of_a_model_stand_in_one_row(runs):
    by_model, single = product_reports.by_model(runs), runs.set_index("variant")
    assert by_model["variant"].tolist() == ["text-only", "two-stream", "k3m"]
    row = by_model.set_index("variant").loc["k3m"]
    assert row["accuracy"] == single.loc["k3m", "accuracy"] and row["seconds"] == 2
    assert row["Rank@10/TNR50"] == single.loc["k3m-questions", "Rank@10/TNR50"]
    assert np.isnan(by_model["Rank@10"][0]) and product_reports.model_of("scratch-alignment") == "scratch"


def test_curves_have_a_panel_a_kind_and_a_diamond_where_tuned(runs):
    panels = product_reports.robustness_figure(runs, "accuracy").axes
    assert [axes.get_title().split(":")[0] for axes in panels[:7]] == [*KINDS]
    diamonds = {axes.get_title()[:3]: sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "D")
                for axes in panels[:7]}  # fmt: skip
    assert diamonds == {kind[:3]: int(kind == "TNR") for kind in KINDS}


# ---- tables ----


def test_tables_of_a_report(runs, data):
    assert product_reports.ablation(runs, "iconworld-products")["variant"].tolist()[-1] == "K3M (hard-spl)"
    kinds = product_reports.kinds_table(runs, "iconworld-products")
    assert list(kinds.columns) == ["accuracy on test listings", *product_reports.KINDS.values(), "seeds"]
    table = product_reports.unnamed_table(runs)
    without = runs.set_index("variant").loc["k3m-unnamed", "accuracy"]
    assert table["accuracy, category not named"].tolist() == [f"{without:.1f}"]
    costs = product_reports.costs(["text-only", "two-stream-graph", "k3m", "scratch"], SETTINGS)
    weights = costs["weights, thousands"]
    assert weights.max() <= 1.05 * weights.min() and costs["pretraining steps"].tolist() == [3, 3, 3, 0]
    assert costs["pieces a listing"][0] < costs["pieces a listing"][2] < costs["pieces a listing"][1]
    assert len(product_reports.scores_figure(runs, data).axes) == 2  # nobody was tuned for pairs
    without = product_reports.deviations(data.settings, data, ROWS)
    assert any("40 training listings" in line for line in without)
    (released,) = set(product_reports.deviations(data.settings, data, [*ROWS, "released-questions"])) - set(without)
    assert "as released" in released
    assert "diamonds" in product_reports.why(data, ["k3m-TNR50"])[0]
    assert "diamonds" not in product_reports.why(data, ["k3m"])[0]
    assert "K3M (hard-spl), category not named" in product_reports.headline(runs, data)


def test_perfect_readers_know_more_the_more_they_see(data):
    best = product_reports.answer_ceilings(data)
    assert best.loc["neither", "Rank@10"] < best.loc["title", "Rank@10"] <= best.loc["both", "Rank@10"]
    assert product_reports.ceilings(data).loc["all", "all"] > 90


def test_every_row_that_is_tuned_otherwise_has_one_to_compare(data):
    for name, variant in k3m.VARIANTS.items():
        assert variant.title == product_reports.TITLES[name]
        if name not in k3m.ROWS:
            base = k3m.ROWS[(robustness.TUNED.fullmatch(name) or [0, name.removesuffix("-unnamed")])[1]]
            assert base.changes.items() <= variant.changes.items() and base.passes == variant.passes


def test_figures_of_listings(data):
    items = data.views["test"]["clean"].items
    assert len([axes for axes in shelf.gallery(items[:4]).axes if axes.images]) == 4
    titles = [axes.get_xlabel().replace("\n", " ") for axes in robustness.fates(items, 0).axes]
    assert titles[0].startswith("as it is") and titles[1] == "title missing: –" and items[0].title not in titles[3]
    logits = torch.zeros(8, 24)
    said = shelf.told_apart(items[:8], sorted({item.category for item in items} | {"x"}), {"before": logits})
    assert len(said.axes) == 6 and diagrams.product(items[0])


def test_rows_that_a_verdict_compares_have_all_seeds():
    rows = ["k3m", "two-stream", "fusion-soft"]
    assert tables.by_seeds("k3m", rows, [0]) == [(rows, [0])]
    few, all_of_them = tables.by_seeds("k3m", rows, [0, 1, 2, 3, 4])
    assert few == (["fusion-soft"], [0, 1, 2]) and all_of_them == (["k3m", "two-stream"], [0, 1, 2, 3, 4])
    assert tables.by_seeds("gxn", ["long", "full"], [3, 4]) == [(["long"], [3]), (["full"], [3, 4])]
