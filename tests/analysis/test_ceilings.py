"""What is true of IconWorld's pictures, and that there is something to learn between chance and a perfect reader."""

import pytest

from lib.analysis import ceilings
from lib.papers import vse
from lib.run import experiment
from lib.tasks.retrieval import RetrievalSettings, load, predict, score


@pytest.fixture(scope="module")
def data():
    return load(experiment.resolve("vse", "sum"))


def test_a_caption_is_true_of_its_own_picture_and_of_those_that_show_the_same(data):
    true = ceilings.true_pictures(data)
    assert all(owner in pictures for owner, pictures in zip(data.test.owner.tolist(), true, strict=True))
    caption = next(i for i, text in enumerate(data.test.captions) if text == "there is a black bird")
    for index, example in enumerate(data.test.examples):
        shows = any((thing.colour, thing.noun) == ("black", "bird") for thing in example.image.objects)
        assert (index in true[caption]) == shows


def test_elsewhere_only_the_owner_is_known(tmp_path):
    from PIL import Image

    names = ["a.jpg", "b.jpg", "c.jpg"]
    (tmp_path / "images").mkdir()
    for name, split in zip(names, ("train", "dev", "test"), strict=True):
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / name)
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text(f"{name}\n")
    (tmp_path / "Flickr8k.token.txt").write_text("".join(f"{name}#0\ta dog\n{name}#1\ta cat\n" for name in names))
    small = load(RetrievalSettings(dataset="flickr8k", data_dir=str(tmp_path), image_size=32))
    assert ceilings.true_pictures(small) == [{0}, {0}]
    assert ceilings.perfect_reader(small) == {}


def test_learning_lies_between_chance_and_a_perfect_reader(data, tmp_path):
    learned = experiment.run("vse", "sum", 0, {"epochs": 3}, folder=tmp_path, log=lambda line: None).scores["test"]
    chance = score(predict(vse.RandomRanking(8), data.test))
    perfect = ceilings.perfect_reader(data)
    for metric in ("i2t R@1", "t2i R@1"):
        assert 10 * chance[metric] < learned[metric] < perfect[metric] - 10
