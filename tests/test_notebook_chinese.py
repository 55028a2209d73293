"""MAF's notebook on ten Chinese posts: every figure draws their words, and pictures that are bad count as absent."""

import warnings

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from lib.analysis import modalities, tagger_reports, taggers
from lib.report import fonts, plots
from lib.run import experiment
from lib.tasks import tagging

POSTS = [  # the first names of each post as [name type], all else is O
    "[李娜 PER] 在 [北京 LOC] 打球 , 门票 $ 80 起 $",
    "[杭州 LOC] 的 西湖 下雪 了",
    "昨天 看 了 [流浪地球 MISC] , 真 好看",
    "[华为 ORG] 在 [深圳 LOC] 开 新店",
    "今天 天气 很好 , 出去 走走",
    "[王小明 PER] 和 他 的 狗",
    "[苹果 ORG] 发布 新 手机",
    "去 [上海 LOC] 的 火车 上",
    "[红楼梦 MISC] 读 了 三遍",
    "[张伟 PER] 祝 大家 新年 快乐",
]
TINY = {"text_layers": 1, "longest": 40, "image_size": 64, "epochs": 2, "batch_size": 5, "train_limit": None}
RUN = {"dataset": "conll-images", "profile": "smoke", **TINY}


def tagged(post: str) -> list[str]:
    """Lines of a CoNLL file; a name is a word a character, as in Chinese corpora."""
    lines, words = [], post.split()
    while words:
        word = words.pop(0)
        if not word.startswith("["):
            lines += [f"{sign}\tO" for sign in word]
            continue
        kind = words.pop(0).rstrip("]")
        lines += [f"{sign}\t{'B' if i == 0 else 'I'}-{kind}" for i, sign in enumerate(word[1:])]
    return lines


def write_corpus(folder) -> str:
    """The posts as each of the three splits; of the ten pictures one is missing, one broken."""
    (folder / "images").mkdir()
    for split in ("train", "valid", "test"):
        lines = [line for i, post in enumerate(POSTS) for line in (f"IMGID:{split}{i}", *tagged(post), "")]
        (folder / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
        for i in range(2, 10):
            Image.new("RGB", (48, 48), (25 * i, 200 - 20 * i, 90)).save(folder / "images" / f"{split}{i}.jpg")
        (folder / "images" / f"{split}1.jpg").write_bytes(b"no picture at all")
    return str(folder)


@pytest.fixture(autouse=True)
def quiet_style():
    with matplotlib.rc_context():
        plots.style()
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    for package in fonts.PACKAGES:
        pytest.importorskip(package, reason="the project's font packages are not installed")
    return RUN | {"data_dir": write_corpus(tmp_path_factory.mktemp("chinese"))}


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are missing and broken: looked at below
        folder = tmp_path_factory.mktemp("runs")
        found = [experiment.run("maf", row, 0, settings, folder, log=lambda line: None) for row in ("text", "full")]
    columns = [{"variant": one.variant, "seed": 0, **one.scores["test"], "folder": str(one.folder)} for one in found]
    return pd.DataFrame(columns).assign(**{"dev F1": 50.0, "seconds": 1.0})


@pytest.fixture(scope="module")
def data(settings, runs):
    return tagging.load(experiment.resolve("maf", "full", settings))


@pytest.fixture(scope="module")
def tagger(runs, settings):
    return taggers.looked_at(runs, settings)


def figures(runs, data, tagger) -> dict:
    """What draws each figure of the notebook."""
    posts, batch = taggers.one_batch(data.train)
    model = tagger.predictor.model
    return {
        "gallery": lambda: taggers.gallery(data.test, range(5)),
        "before and after": lambda: taggers.before_and_after(posts, batch, data.labels, {"before": model}),
        "curves": lambda: plots.curves(experiment.histories(runs), "F1", "F1", tagger_reports.TITLES),
        "f1": lambda: tagger_reports.f1_figure(runs, data),
        "matching": lambda: taggers.matching_figure(taggers.judgements(tagger)),
        "told": lambda: taggers.told_figure(tagger),
        "same words": lambda: taggers.same_words_figure(tagger),
        "gates": lambda: taggers.gates_figure(tagger),
        "attention": lambda: taggers.attention_figure(tagger),
        "confusion": lambda: plots.counts(taggers.confusion_table(tagger), "confusion", "said", "gold"),
    }


def test_every_figure_is_drawn_without_a_warning(runs, data, tagger):
    for name, draw in figures(runs, data, tagger).items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            draw().canvas.draw()
        assert [str(warning.message) for warning in said] == [], name


def test_the_figures_hold_chinese(data):
    texts = [text.get_text() for text in taggers.gallery(data.test, range(3)).findobj(matplotlib.text.Text)]
    assert any("北 京" in text for text in texts) and any("$" in text for text in texts)
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}), pytest.warns(UserWarning, match="missing from font"):
        taggers.gallery(data.test, range(3)).canvas.draw()  # so the test above could fail


def test_bad_pictures_are_drawn_as_absent(data, tagger):
    assert [picture is None for picture in taggers.pictures(data.test)] == [True, True] + 8 * [False]
    assert data.test.examples[1].image is not None  # there is a file, but no picture in it
    figure = taggers.gallery(data.test, range(3))
    assert [len(axes.images) for axes in figure.axes] == [0, 0, 1]
    told = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert told == [["no picture"], ["no picture"], []]
    assert tagger.cell(1)[0] is None and "p\u00a0" not in tagger.cell(1)[1] and "p\u00a0" in tagger.cell(2)[1]
    assert 0 not in tagger.telling(10) and 1 not in tagger.telling(10)


def test_a_batch_by_hand_has_pictures_first_and_is_the_models(data):
    posts, batch = taggers.one_batch(data.train)
    assert len(posts) == 8 and all(post.image is not None for post in posts) and batch["present"].all()
    assert batch["picture"].unique().numel() == 8 and len(batch["swapped"]) == 4
    posts, _ = taggers.one_batch(data.train, 10)
    assert [post.image is None for post in posts] == 8 * [False] + [True, True]
    rows = zip(batch["tags"], batch["token_mask"], strict=True)
    tags = [[data.labels[tag] for tag in row[mask]] for row, mask in rows]
    assert tags == [list(post.tags) for post in posts[:8]]


def test_tables_say_so_where_nobody_knows(runs, data, tagger, settings):
    assert tagger_reports.ceilings(data).empty and tagger_reports.kinds_table(runs, data).empty
    assert "not known" in taggers.kinds_counted(data) and "nobody knows" in taggers.perfect_judge(data)
    assert tagger_reports.matching_table(runs, settings)["variant"].tolist() == ["MAF"]
    blind = taggers.looked_at(runs[runs["variant"] == "text"], settings)
    assert not blind.judges and taggers.judgements(blind).empty and taggers.attention_figure(blind) is None
    assert taggers.matching_figure(taggers.judgements(blind)) is None and taggers.gates_figure(blind) is None
    assert "none" in taggers.overruled_table(blind)["CM"][0]
    assert "none" in tagger_reports.matching_table(runs[:1], settings)["variant"][0]


def test_overruling_leaves_the_model_as_it_was(runs, tagger):
    before = tagger.predictor.model.W_m.bias.clone()
    table = taggers.overruled_table(tagger)
    assert table["CM"].tolist() == ["as learned", "p = 1", "p = 0"]
    assert (tagger.predictor.model.W_m.bias == before).all()
    assert table["all"][0] == pytest.approx(runs[runs["variant"] == "full"].iloc[0]["F1"])


def test_the_report_names_what_differs_and_what_is_absent(data, settings):
    lines = tagger_reports.deviations(experiment.resolve("maf", "full", settings), data)
    assert "6 pictures are missing or unreadable" in lines[1]


def test_pictures_of_others_stay_out_of_reports(tagger):
    tagger.keep(None, "posts", "of a photographer", plt.figure())  # no report is asked to keep it


def test_other_pictures_for_the_same_words(data, tagger):
    found = modalities.other_pictures(data, 2, tagger.pictures)
    assert list(found) == ["its own", "another 1", "another 2", "another 3", "another 4"]
    assert found["its own"] == tagger.pictures[2] and None not in found.values()
