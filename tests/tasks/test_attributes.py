"""Which attributes captions have, and how a predictor of them is scored."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.corpora.types import CaptionedImage
from lib.encoders.images import ImageEncoder
from lib.papers.cmkp import Settings
from lib.tasks import attributes
from lib.tasks.attributes import Split, predict_attributes, score, statistics
from tests.corpora.test_flickr import write_official

SHADES = {"red": (220, 0, 0), "blue": (0, 0, 220)}


def write_captions(root):
    """Pictures of one colour, and captions that say it."""
    (root / "images").mkdir()
    splits = {part: [f"{part}{i}.png" for i in range(count)] for part, count in (("train", 8), ("val", 2), ("test", 4))}
    said = {}
    for names in splits.values():
        for i, name in enumerate(names):
            colour = list(SHADES)[i % 2]
            Image.new("RGB", (64, 64), SHADES[colour]).save(root / "images" / name)
            said[name] = [f"a {colour} square", f"{colour} walls"]
    return str(write_official(root, said, splits))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_captions(tmp_path_factory.mktemp("captions"))
    return attributes.load(Settings(captions="flickr8k", captions_dir=folder, image_size=64))


def test_labels_are_the_commonest_of_training(data):
    found = attributes.context(data)
    assert set(found["labels"][:2]) <= {"blue", "red", "square", "wall"} and len(found["labels"]) == 4
    bound = attributes.bind(data, found)
    for example, row in zip(bound.test.examples, bound.test.targets, strict=True):
        colour = example.captions[0].split()[1]
        assert {label for label, there in zip(found["labels"], row, strict=True) if there} == {colour, "square", "wall"}
    batch = bound.train.batch([2, 0])
    assert torch.equal(batch["labels"], bound.train.targets[[2, 0]]) and batch["image"].shape == (2, 1280)


class Fixed:
    """Says the same scores of every picture."""

    def __init__(self, scores):
        self.scores = torch.tensor(scores)

    def W(self, features):
        return self.scores.expand(len(features), -1)

    def eval(self):
        return self

    def parameters(self):
        yield self.scores


def test_scores_are_counted_over_all_pictures():
    captions = [("a red dog",), ("a blue cat",), ("the",)]
    examples = [CaptionedImage(str(i), None, said) for i, said in enumerate(captions)]
    labels = ["red", "dog", "blue", "cat", "x", "y"]
    split = Split(examples, ImageEncoder("lite0", size=64), labels)
    said = predict_attributes(Fixed([6.0, 5.0, 4.0, 0.0, 2.0, 1.0]), split)
    assert said["right"].sum(1).tolist() == [2, 1, 0] and said["true"].tolist() == [2, 2, 0]
    found = score(said)
    assert found == {"P@5": pytest.approx(100 * 3 / 15), "R@5": pytest.approx(75), "F1@5": pytest.approx(600 / 19)}
    assert np.array_equal(statistics(said, "F1@5"), [[4, 7], [2, 7], [0, 5]])
