"""What the notebooks call, in their order, on somebody's own data: any language, dollars, broken pictures."""

import shutil

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from lib.analysis import ceilings, regularities, retrieval_reports, searches, tagger_reports, taggers
from lib.analysis.trained import to_look_into
from lib.papers import maf, vse
from lib.report import pages, plots
from lib.run import experiment
from lib.tasks import retrieval, tagging
from tests.album import write_album

HERE = {"profile": "smoke", "image_size": 32, "epochs": 1}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Reports are written beside the data, and figures have the notebooks' look."""
    monkeypatch.setattr(pages.Report.__init__, "__defaults__", (tmp_path / "reports",))
    with plt.rc_context(), pd.option_context("display.max_colwidth", 50):
        plots.style()
        yield
    plt.close("all")


def drawn() -> None:
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()


def spoil(*pictures) -> None:
    """One is cut short, one is a web page, one is empty."""
    for picture, content in zip(pictures, (pictures[0].read_bytes()[:60], b"<!DOCTYPE html>", b""), strict=True):
        picture.write_bytes(content)


def write_posts(root):
    """Posts with a picture each and one name in two."""
    (root / "images").mkdir(parents=True)
    for split, size in {"train": 12, "valid": 4, "test": 6}.items():
        tags = ["B-$|<x>" if i % 2 else "O" for i in range(size)]
        lines = [f"IMGID:{split}{i}\nGrüße\tO\nParis\t{tag}\n$$\tO\n" for i, tag in enumerate(tags)]
        (root / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
        for i in range(size):
            Image.new("RGB", (20 + i, 20), "red").save(root / "images" / f"{split}{i}.jpg")
    return root


@pytest.mark.filterwarnings("ignore:treated as missing")
def test_captions_of_ones_own_from_the_data_to_the_page(tmp_path):
    root = write_album(tmp_path / "data")
    tokens = root / "Flickr8k.token.txt"
    told = tokens.read_text(encoding="utf-8").replace("a ", "ein $5 ").replace("all of it is", "只有 $$ | ist")
    tokens.write_text(told, encoding="utf-8")
    spoil(*(root / "images" / f"test{i}.png" for i in range(3)))
    parameters = HERE | {"dataset": "captions", "data_dir": str(root), "seeds": [0]}
    settings = {name: value for name, value in parameters.items() if name != "seeds"} | {"joint_dim": 8, "word_dim": 8}
    data = retrieval.load(experiment.resolve("vse", "sum", settings))
    plots.pictures([[(e.image, " / ".join(e.captions), plots.NEUTRAL) for e in data.test.examples[:5]]])
    runs = experiment.ablate("vse", ["sum"], [0], settings, tmp_path / "runs", log=lambda line: None)
    ablation = retrieval_reports.ablation(runs, "vse", "captions")
    recalls = retrieval_reports.recalls(runs, "vse", data, "first answer right")
    trained, _ = to_look_into("vse", runs, parameters)
    search = searches.Searches(trained, data)
    asked = search.some_captions()
    found = plots.pictures([search.pictures_for(i) for i in asked], [data.test.captions[i] for i in asked])
    plots.ranked_captions(data.test.examples[0].image, search.sentences_for(0), "the query")
    plots.matrices({"test pictures": search.scores()}, "after training", "sentence", "picture")
    plots.gaps(ceilings.by_detail(trained.predictions, data), ["model", "perfect reader"], "details", "%")
    sums, questions = regularities.galleries(runs), regularities.corpus_queries(data)
    precision = regularities.over_seeds([regularities.measure(gallery, questions) for gallery in sums])
    why = regularities.told(precision, questions, sums)
    assert why.startswith("Nothing to ask") and regularities.examples(questions) == []
    made = {"ablation": ablation, "regularities": precision, "details": pd.DataFrame()}
    figures = {"recall": recalls, "search": found, "regularities": plots.pictures([], [])}
    retrieval_reports.write("vse", runs, parameters, made, figures, vse.deviations(trained.settings), [why])
    (page,) = (tmp_path / "reports").glob("smoke/captions-*/vse/README.md")
    assert "Nothing to ask" in page.read_text(encoding="utf-8")
    picture = next(searches.readable(data.test.examples))
    assert picture.name == "test3.png" and len(trained(image=picture)) == 5
    drawn()


@pytest.mark.filterwarnings("ignore:treated as missing", "ignore:.*pictures are missing")
@pytest.mark.parametrize("lost", ["three", "all"])
def test_posts_of_ones_own_from_the_data_to_the_page(tmp_path, lost):
    root = write_posts(tmp_path / "data")
    spoil(*(root / "images" / f"test{i}.jpg" for i in range(3)))
    if lost == "all":
        shutil.rmtree(root / "images")
    parameters = HERE | {"dataset": "conll-images", "data_dir": str(root), "seeds": [0], "text_encoder": "characters"}
    settings = {name: value for name, value in parameters.items() if name != "seeds"}
    config = experiment.resolve("maf", "full", settings)
    data = tagging.load(config)
    taggers.gallery(data.test, range(5))
    posts, batch = taggers.one_batch(data.train)
    model = maf.build(tagging.context(data), config).eval()
    taggers.before_and_after(posts, batch, data.labels, {"before": model})
    runs = experiment.ablate("maf", ["full"], [0], settings, tmp_path / "runs", log=lambda line: None)
    out = tagger_reports.report(runs, parameters, data)
    out.figure("f1", "F1", tagger_reports.f1_figure(runs, data))
    assert len(tagger_reports.judged(out))
    tagger = taggers.looked_at(runs, settings)
    if len(judged := taggers.judgements(tagger)):
        taggers.matching_figure(judged)
    out.table("matching", "AUC of CM in %", tagger_reports.matching_table(runs, settings))
    for figure in (taggers.told_figure, taggers.same_words_figure, taggers.gates_figure, taggers.attention_figure):
        tagger.keep(out, figure.__name__, figure.__name__, figure(tagger))
    out.table("overruled", "CM overruled: F1", taggers.overruled_table(tagger))
    confusion = taggers.confusion_table(tagger)
    out.table("confusion", "Confusion", confusion.reset_index(names="gold"))
    plots.counts(confusion, "What is taken for what", "said", "gold")
    assert "posts went wrong" in taggers.mistakes(tagger)
    out.finish(tagger_reports.deviations(config, data), tagger_reports.why(data))
    post = tagger.telling()[0]
    found = tagger.predictor(tagger.posts[post].tokens, tagger.pictures[post])
    assert list(found) == ["entity", "type", "start", "end"]
    drawn()
