"""Posts and keyphrases as tensors, words back from ids, and scores."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lib.corpora.types import DataError
from lib.encoders import ocr
from lib.encoders.regions import region_encoder
from lib.layers.beam import Hypotheses
from lib.metrics import keyphrases as metric
from lib.models.cmkp import END, PAD, SEP, START, UNKNOWN
from lib.papers.cmkp import Settings, build
from lib.tasks import keyphrases
from lib.tasks.keyphrases import SPECIAL, Split, statistics

TOPICS = ["red sky", "blue sea", "green tea"]
SAID = {"train": 9, "valid": 4, "test": 5}


def write_corpus(root):
    """Posts whose picture has the colour of their keyphrase; some have words on it, which no training text has; one
    picture is missing."""
    (root / "images").mkdir()
    for colour, shade in (("red", (200, 0, 0)), ("blue", (0, 0, 200)), ("green", (0, 200, 0))):
        Image.new("RGB", (64, 64), shade).save(root / "images" / f"{colour}.png")
    for file, count in SAID.items():
        lines, drawn, shown = [], [], []
        for i in range(count):
            topic = TOPICS[i % 3]
            image = "lost.png" if (file, i) == ("train", 4) else f"{topic.split()[0]}.png"
            more = f";{file}ville fair" if i == 2 else ""
            about = topic if i == 3 else f"number {i}"
            lines.append(f"Look at {file}ville , {about} !<sep>{topic}{more}<sep>{image}\n")
            drawn.append("welcome to the fair\n" if i == 2 else "\n")
            shown.append("colour sky\n" if i < 2 else "\n")
        (root / f"{file}_src.txt").write_text("".join(lines))
        (root / f"{file}_ocr_final.txt").write_text("".join(drawn))
        (root / f"{file}_attribute_cleaned.txt").write_text("".join(shown))
    return str(root)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("posts"))


def settings(folder, **changes) -> Settings:
    return Settings(**{"dataset": "tweets", "data_dir": folder, "image_size": 64, "attributes": "file"} | changes)


@pytest.fixture(scope="module")
def data(folder):
    with pytest.warns(UserWarning, match="1 of 18 pictures are missing"):
        found = keyphrases.load(settings(folder))
    keyphrases.prepare(found)
    return found


@pytest.fixture(scope="module")
def bound(data):
    return keyphrases.bind(data, keyphrases.context(data))


def test_words_and_phrases_come_from_training_alone(data):
    found = keyphrases.context(data)
    assert found["phrases"] == ["blue sea", "green tea", "red sky", "trainville fair"]
    assert found["words"][:5] == list(SPECIAL) and [SPECIAL.index(w) for w in SPECIAL] == [0, 1, 2, 3, 4]
    assert (PAD, UNKNOWN, END, START, SEP) == tuple(range(5))
    assert {"trainville", "welcome", "colour", "look"} < set(found["words"]) and "testville" not in found["words"]
    assert len(found["words"]) == len({*found["words"]})


def test_the_words_of_keyphrases_are_kept_first(folder):
    small = keyphrases.load(settings(folder, vocabulary_size=14))
    words = keyphrases.context(small)["words"]
    assert {word for phrase in keyphrases.context(small)["phrases"] for word in phrase.split()} < {*words}
    assert len(words) == 14


def test_a_stage_has_its_parents_words(data):
    parent = {"words": [*SPECIAL, "a"], "phrases": ["a"], "picture_dim": 3}
    assert keyphrases.context(data, parent) == parent


def test_a_pair_of_each_keyphrase_and_a_target_of_each_word(bound):
    split, words = bound.test, bound.test.vocabulary.words
    assert [pair[:2] for pair in split.pairs] == [(0, 2), (1, 0), (2, 1), (2, -1), (3, 2), (4, 0)]
    batch = split.batch([3, 0, 1])
    assert batch["phrase"].tolist() == [-1, 2, 0]
    rows, width = batch["rows"].tolist(), batch["inputs"].shape[1]
    assert [row // width for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    size = len(words)
    spelled = [words[i] if i < size else i - size for i in batch["target"].tolist()]
    # testville is not in the vocabulary: it is copied, as the first such word of its source
    assert spelled == [0, "fair", "<end>", "red", "sky", "<end>", "blue", "sea", "<end>"]
    before = [words[i] for i in batch["inputs"][0].tolist()]
    assert before[:3] == ["<start>", "<unk>", "fair"]
    assert batch["source"].shape == batch["copy"].shape == (3, 16) and batch["image"].shape[:2] == (3, 4)


def test_a_source_extends_the_vocabulary_by_its_own_words(bound):
    size, words = len(bound.test.vocabulary), bound.test.vocabulary.words
    read = bound.test.read([2, 3])
    text = "look at testville , number 2 ! <sep> welcome to the fair".split()
    own = [word for word in dict.fromkeys(text) if word not in words]
    for place, word in enumerate(text):
        inside, copied = read["source"][0, place].item(), read["copy"][0, place].item()
        assert copied == (words.index(word) if word in words else size + own.index(word))
        assert inside == (copied if copied < size else UNKNOWN)
    assert own == ["testville"] and (read["source"][1] == SEP).sum() == 0


def test_attributes_and_pictures_that_are_not_there(bound):
    read = bound.train.read([0, 3, 4])
    words = bound.train.vocabulary.words
    assert [words[i] for i in read["attributes"][0, :2].tolist()] == ["colour", "sky"]
    assert read["attributes"][1:, 0].tolist() == [UNKNOWN, UNKNOWN]
    assert read["present"].tolist() == [True, True, False] and (read["image"][2] == 0).all()


def test_objects_are_regions_of_any_number(folder, monkeypatch):
    def two_objects(source, size):
        assert source == "detector"
        return region_encoder("boxes", size=size, boxes=lambda picture: [(0, 0, 0.5, 0.5), (0.25, 0, 1, 1)])

    monkeypatch.setattr(keyphrases, "region_encoder", two_objects)
    found = keyphrases.load(settings(folder, regions="detector"))
    context = keyphrases.context(found)
    read = Split(found.train, context).read([0, 3, 4])  # the last one's picture is missing
    assert tuple(read["image"].shape) == (3, 36, context["picture_dim"]) and context["picture_dim"] == 1280
    assert read["objects"].sum(1).tolist() == [2, 2, 36] and read["present"].tolist() == [True, True, False]
    model = build(context, settings(folder, regions="detector", word_dim=8, dim=8, head_dim=4)).eval()
    looks = model.read(**read).looks["text-vision"]  # (B, h, R)
    assert (looks[:2, :, 2:] == 0).all() and torch.allclose(looks.sum(-1), torch.ones(3, 4))


def test_what_is_left_out_is_not_read(folder):
    found = keyphrases.load(settings(folder, wordings=(), image=False, fusion="text"))
    split = Split(found.test, keyphrases.context(found))
    assert set(split.read([0, 2])) == {"source", "copy"} and "<sep>" not in found.test.sources[2]
    assert settings(folder, wordings=()).ocr == settings(folder, wordings=()).attributes == "none"
    other = keyphrases.load(settings(folder, wordings=("ocr",), image=False, fusion="text"))
    assert found.fingerprint != other.fingerprint


def test_pictures_are_read_with_words_of_training_only(folder, monkeypatch):
    asked = {}

    def wordings(pictures, vocabulary):
        asked["words"] = vocabulary
        return ["look number fair"] * len(pictures)

    monkeypatch.setattr(ocr, "wordings", wordings)
    monkeypatch.setattr(ocr, "identity", lambda: "a reader")
    found = keyphrases.load(settings(folder, ocr="tesseract", image=False, fusion="text"))
    assert found.test.sources[0][-4:] == ["<sep>", "look", "number", "fair"] and "a reader" in found.fingerprint
    assert "trainville" in asked["words"] and "testville" not in asked["words"]


def test_nothing_to_read_is_an_unknown_word(data):
    assert data.train._source([], []) == ["<unk>"]
    assert data.train._source(["a"] * 999, ["b"] * 999) == ["a"] * 128 + ["<sep>"] + ["b"] * 128


def test_ids_become_words_again(bound):
    split = bound.test
    size, sky = len(split.vocabulary), split.vocabulary.index["sky"]
    tokens = torch.tensor([[size, sky, END], [UNKNOWN, sky, sky], [END, END, END]])
    looks = torch.tensor([[0, 0, 0], [2, 0, 0], [0, 0, 0]])
    found = keyphrases.spelled(split, 2, tokens, torch.tensor([3, 3, 1]), looks)
    assert found == [("testville sky", 0), ("testville sky sky", 1)]  # an unknown word is the one looked at
    cut = keyphrases.spelled(split, 2, tokens[1:2, :1], torch.tensor([1]), torch.tensor([[9, 9, 4]]))
    assert cut == [("number", 0)]  # of three looks the last one is its


class Model(torch.nn.Module):
    """Always the same: the classes in their order, and two phrases of which the second says the first again."""

    def __init__(self, classifier=True, generator=True, stage=1):
        super().__init__()
        self.here = torch.nn.Parameter(torch.zeros(1))
        self.settings = SimpleNamespace(classifier=classifier, generator=generator, stage=stage)
        self.beams = []

    def read(self, source, **post):
        return SimpleNamespace(scores=-torch.arange(4.0).expand(len(source), -1), count=len(source))

    def generate(self, memory, beams, n_best, longest):
        self.beams.append(beams)
        tokens = torch.tensor([[5, END], [5, END], [6, END]]).expand(memory.count, -1, -1)
        lengths, looks = (torch.full((memory.count, *shape), 2) for shape in ((3,), (3, 2)))
        return Hypotheses(tokens, torch.zeros(memory.count, 3), lengths, {"looks": looks})


def test_predictions_have_a_list_for_each_post_and_output(bound):
    said = keyphrases.predict(Model(), bound.test)
    words = bound.test.vocabulary.words
    assert said["classifier"] == [bound.test.labels[:5]] * 5 and said["generator"] == [[words[5], words[6]]] * 5
    assert said["targets"][2] == ["green tea", "testville fair"] and said["sources"][2].endswith("welcome to the fair")
    assert set(keyphrases.predict(Model(stage=2), bound.test)) == {"targets", "sources", "generator"}
    assert set(keyphrases.predict(Model(generator=False), bound.test)) == {"targets", "sources", "classifier"}


def test_a_quick_look_is_at_the_first_posts(bound, monkeypatch):
    monkeypatch.setattr(keyphrases, "QUICK", 2)
    model = Model()
    assert len(keyphrases.predict(model, bound.test, quick=True)["generator"]) == 2
    keyphrases.predict(model, bound.test)
    assert model.beams == [5, 10]


def test_scores_are_those_of_the_metric_and_of_the_summands(bound):
    said = keyphrases.predict(Model(), bound.test)
    flat = keyphrases.score(said)
    for output in ("classifier", "generator"):
        plain = metric.evaluate(said[output], said["targets"], said["sources"])
        for name, value in plain.items():
            full = f"{output}:{name}"
            assert flat[full] == value
            assert keyphrases.combine(full, statistics(said, full).sum(0)) == pytest.approx(value)
    assert flat["both:MAP@5"] == pytest.approx((flat["classifier:MAP@5"] + flat["generator:MAP@5"]) / 2)
    del said["classifier"]
    assert keyphrases.score(said) == {name: flat[f"generator:{name}"] for name in keyphrases.METRICS}
    assert np.array_equal(statistics(said, "F1@1"), statistics(said, "generator:F1@1"))


def test_the_oracle_says_what_the_text_contains(bound):
    said = keyphrases.extract(Model(), bound.test)
    assert said["generator"] == [[], [], [], ["red sky"], []]  # the words of "testville fair" are there, but apart


def test_groups_are_told_by_training(data):
    groups = keyphrases.groups(data)
    assert groups["seen"].tolist() == [True] * 5 and not groups["unseen"].any()
    from lib.corpora.iconworld.posts import decided_by

    world = keyphrases.load(Settings(train_limit=3, image=False, wordings=(), fusion="text"))
    masks = keyphrases.groups(world)
    assert set(masks) == {"text", "picture", "drawn", "context"} and all(len(mask) == 1200 for mask in masks.values())
    assert masks["picture"].tolist() == [kind == "picture" for kind in decided_by(world.corpus.test)]


def test_a_corpus_without_keyphrases_is_named():
    with pytest.raises(DataError, match="'iconworld-captions' has no keyphrases"):
        keyphrases.load(Settings(dataset="iconworld-captions", train_limit=2))
