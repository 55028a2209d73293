"""K3M's page on a Chinese shop without pictures, as in the released sample: every figure draws its words."""

import warnings

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.analysis import product_reports, robustness, shelf
from lib.report import fonts, plots
from lib.run import experiment
from lib.tasks import products

TINY = dict(width=16, heads=2, graph_heads=2, text_layers=1, image_layers=1, image_size=64, longest=40, epochs=1)
THINGS = {"男鞋": "真皮 $ 休闲男鞋 透气", "茶具": "陶瓷茶具套装 家用", "手机壳": "卡通手机壳 防摔软壳"}
COLOURS = ("红色", "黑色", "白色", "蓝色")


def write_shop(folder) -> str:
    lines = []
    for i in range(48):
        category, colour = [*THINGS][i % 3], COLOURS[i % 4]
        made, look = ("布", "真皮")[i % 2], "简约" if i % 5 else "复古"
        triples = f"颜色#:#{colour}#;#材质#:#{made}#;#风格#:#{look}#;#季节#:#春季"
        title = f"{colour}{THINGS[category]} {i}"
        lines.append("\t".join([str(i), title, f"https://img.example/{i}.jpg", triples, category]))
    (folder / "shop.tsv").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "shop.tsv")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    for package in fonts.PACKAGES:
        pytest.importorskip(package, reason="the project's font packages are not installed")
    return {**TINY, "pretraining_epochs": 1, "batch_size": 16, "dataset": "k3m",
            "data_dir": write_shop(tmp_path_factory.mktemp("shop"))}  # fmt: skip


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are missing
        one = experiment.run("k3m", "together", 0, settings, tmp_path_factory.mktemp("runs"), log=lambda line: None)
    row = {"variant": "together", "seed": 0, **one.scores["test"], "dev mean": 1.0, "seconds": 1.0}
    return pd.DataFrame([row | {"folder": str(one.folder)}])


@pytest.fixture(autouse=True)
def quiet_style():
    with matplotlib.rc_context():
        plots.style()
        yield
        plt.close("all")


def test_every_figure_is_drawn_without_a_warning(runs, settings):
    mine = shelf.looked_at(runs, settings | {"profile": "smoke", "seeds": [0]})
    data = products.load(experiment.resolve("k3m", "together", settings))
    items, other = mine.items, {"as it is": {}, "another's title": {"title": mine.items[mine.stranger].title}}
    said = {"before": mine.predictor.model.classify(mine.predictor.predictions["embedding"])}
    figures = {
        "gallery": lambda: shelf.gallery(items[:5]),
        "fates": lambda: robustness.fates(items, 0),
        "before": lambda: shelf.told_apart(items, mine.predictor.context["labels"], said),
        "neighbours": lambda: mine.neighbours(mine.example, other),
        "attention": lambda: mine.attention(mine.example),
        "gates": lambda: mine.gates(mine.example, other),
        "scores": lambda: product_reports.scores_figure(runs, data),
        "curves": lambda: product_reports.robustness_figure(runs, "accuracy"),
    }
    for name, draw in figures.items():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            draw().canvas.draw()
        assert [str(warning.message) for warning in told] == [], name
    assert mine.region_gates(mine.example, other) is None  # there is no picture


def test_what_nobody_knows_is_said_and_properties_are_answered_in_chinese(runs, settings):
    data = products.load(experiment.resolve("k3m", "together", settings))
    for table in (product_reports.ceilings(data), product_reports.answer_ceilings(data)):
        assert table.iloc[0, 0] == "nobody knows"
    assert product_reports.kinds_table(runs, "k3m").empty and product_reports.unnamed_table(runs).empty
    ask = shelf.looked_at(runs, settings | {"profile": "smoke"}).predictor
    found = ask("黑色男鞋", properties={"颜色": "黑色"})
    assert set(found["what"]) == {"category", "材质", "风格", "季节", "near"} and set(found["found"]) & {"真皮", "布"}
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}), pytest.warns(UserWarning, match="missing from font"):
        shelf.gallery(data.views["test"]["clean"].items[:2]).canvas.draw()  # so the test above could fail
