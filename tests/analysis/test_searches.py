"""What is found among test pictures, drawn whatever the gallery's size and whether its pictures can be opened."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from lib.analysis import ceilings
from lib.analysis.searches import Searches, nearest, readable
from lib.corpora.types import CaptionedImage, Corpus
from lib.papers import vse
from lib.report import plots
from lib.run import experiment
from lib.tasks import retrieval


def gallery(pictures: list) -> tuple:
    """A model to which each picture is its own first caption, and the pictures with two captions each."""
    examples = [CaptionedImage(str(i), picture, (f"first {i}", f"second {i}")) for i, picture in enumerate(pictures)]
    owner = np.repeat(np.arange(len(examples)), 2)
    images = torch.eye(len(examples))
    sentences = normalize(images[owner] + 0.1 * (torch.arange(len(owner)) % 2)[:, None], dim=1)
    captions = [caption for example in examples for caption in example.captions]
    test = SimpleNamespace(examples=examples, captions=captions, owner=owner)
    data = SimpleNamespace(corpus=Corpus("own", (), (), tuple(examples), ""), test=test)
    return SimpleNamespace(predictions={"images": images, "sentences": sentences}), data


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_galleries_of_any_size_are_searched(count):
    search = Searches(*gallery([None] * count))
    asked = search.some_captions()
    assert 1 <= len(asked) <= 4 and max(asked) < 2 * count
    for caption in asked:
        found = search.pictures_for(caption)
        assert len(found) == min(5, count) and found[0][2] == plots.RIGHT
        assert all(colour == plots.WRONG for *_, colour in found[1:])
    lines = search.sentences_for(0)
    assert len(lines) == min(5, 2 * count) and [text for text, *_ in lines[:2]] == ["first 0", "second 0"]
    scores = search.scores()
    assert scores.shape == (min(8, count),) * 2 and (scores.argmax(1) == torch.arange(len(scores))).all()


def test_nearest_first():
    assert nearest(torch.tensor([0.1, 0.7, 0.4]), 2) == [(1, pytest.approx(0.7)), (2, pytest.approx(0.4))]


def test_what_is_near_is_said_by_the_similarity():
    predictor, data = gallery([None] * 3)
    far = Searches(predictor, data, lambda images, captions: -images @ captions.T)
    assert far.pictures_for(0)[-1][2] == plots.RIGHT and Searches(predictor, data).pictures_for(0)[0][2] == plots.RIGHT
    assert torch.allclose(far.scores(), -torch.eye(3))


def test_broken_pictures_are_drawn_as_missing(tmp_path):
    good, page, empty = (tmp_path / name for name in ("good.png", "page.jpg", "empty.jpg"))
    Image.new("RGB", (40, 30), "red").save(good)
    page.write_text("<html>not here</html>")
    empty.touch()
    search = Searches(*gallery([page, empty, None, tmp_path / "gone.png", good]))
    assert list(readable(search.examples)) == [good]
    figure = plots.pictures([search.pictures_for(caption) for caption in search.some_captions()])
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert said.count("no picture") == 4 * len(search.some_captions())
    plots.ranked_captions(page, search.sentences_for(0))
    plt.close("all")


def test_where_there_is_nothing_it_is_said():
    empty = pd.DataFrame({"variant": [], "i2t R@1": []})
    curves, gaps = plots.curves(empty, "y", "", {}), plots.gaps(pd.DataFrame(), ["a", "b"], "", "")
    for figure in (plots.pictures([]), gaps, curves):
        assert figure.texts[0].get_text() == "nothing to show"
    plots.dots(empty, ["i2t R@1"], "", {}, "best")
    plt.close("all")


def test_a_predictor_answers_with_all_of_a_small_gallery():
    settings = vse.Settings(sentence="sum", joint_dim=8, image_size=32)
    context = {"words": ["<pad>", "<unk>", "<end>", "dog"], "picture_dim": 4, "sentence_dim": 4}
    said = {"images": normalize(torch.ones(2, 8), dim=1), "sentences": normalize(torch.ones(3, 8), dim=1)}
    predictor = vse.Predictor(vse.build(context, settings), context, settings, said)
    assert sorted(predictor(text="dog")["index"]) == [0, 1]
    assert len(predictor(text="dog", k=1)) == 1


def test_details_have_a_perfect_reader_above_everybody():
    data = retrieval.load(experiment.resolve("vse", "sum"))
    said = {"images": torch.randn(500, 8), "sentences": torch.randn(2500, 8)}
    table = ceilings.by_detail({**said, "owner": torch.from_numpy(data.test.owner)}, data)
    assert list(table["detail"]) == list(ceilings.DETAILS) and table["sentences"].sum() == len(data.test.captions)
    mean = (table["perfect reader"] * table["sentences"]).sum() / table["sentences"].sum()
    assert mean == pytest.approx(ceilings.perfect_reader(data)["t2i R@1"])
    assert (table["model"] < table["perfect reader"]).all()
