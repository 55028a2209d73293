"""What a tagger trains on and what it said: windows of posts, missing pictures, scores under flat names."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.analysis import modalities
from lib.corpora import DataError
from lib.metrics import entities
from lib.papers import maf
from lib.tasks import tagging
from lib.tasks.tagging import TaggingSettings, load, score, statistics, swap

LONG = [("Ann", "B-PER"), ("went", "O"), ("home", "O"), (".", "O")] * 9 + [("Rio", "B-LOC")]
SHORT = [("Rio", "I-LOC"), ("!", "O")]


def write_corpus(folder) -> str:
    """Twelve long and short posts a split, every third without a picture."""
    (folder / "images").mkdir()
    for split in ("train", "valid", "test"):
        lines = []
        for i in range(12):
            lines += [f"IMGID:{split}{i}", *("\t".join(pair) for pair in (LONG if i % 2 else SHORT)), ""]
            if i % 3:
                Image.new("RGB", (40, 40), (20 * i, 0, 0)).save(folder / "images" / f"{split}{i}.jpg")
        (folder / f"{split}.txt").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = write_corpus(tmp_path_factory.mktemp("conll"))
    return TaggingSettings(dataset="conll-images", data_dir=root, longest=20, image_size=64)


@pytest.fixture(scope="module")
def data(settings):
    with pytest.warns(UserWarning, match="12 of 36 pictures are missing"):
        return load(settings)


def test_labels_are_those_of_training(data):
    assert data.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert tagging.labels_of([("O",)]) == ("O",)


def test_long_posts_are_read_in_parts_that_keep_picture_and_tags(data):
    train = data.train
    parts = [i for i, window in enumerate(train.windows) if window.post == 1]
    assert len(parts) == 3 and train.lengths.max() <= 20
    batch = train.batch(parts)
    shown = zip(batch["tags"], batch["token_mask"], strict=True)
    tags = [data.labels[tag] for row, mask in shown for tag in row[mask]]
    assert tags == [tag for _, tag in LONG]
    assert torch.equal(batch["image"], train.features[[1, 1, 1]]) and batch["present"].all()
    assert batch["picture"].unique().numel() == 1 and train.batch(range(5))["picture"].unique().numel() > 1


def test_missing_pictures_are_marked(data):
    batch = data.train.batch(range(5))
    assert batch["present"].tolist() == [data.train.examples[w.post].image is not None for w in data.train.windows[:5]]
    assert not batch["image"][~batch["present"]].any() and batch["image"][batch["present"]].any()


def swapped(picture, share=0.7, kind="pictures", seed=0) -> tuple:
    found = swap(np.array(picture), share, kind, np.random.default_rng(seed))
    return found["swapped"].tolist(), found["givers"].tolist()


def test_swapped_posts_exchange_pictures_in_two_halves():
    rows, givers = swapped(range(6))
    assert len(set(rows)) == 4  # 2k of a share of 0.7
    assert givers == [*rows[2:], *rows[:2]]
    assert swapped(range(6), kind="representations") == ([2, 3, 4, 5], [4, 5, 2, 3])
    assert swapped(range(6), seed=1) != (rows, givers)


def test_posts_without_picture_take_no_part_in_swaps():
    for seed in range(5):
        rows, givers = swapped([-1, 1, 2, -1, -1, 5], seed=seed)
        assert set(rows) == set(givers) <= {1, 2, 5} and len(rows) == 2
    assert swapped([-1] * 6) == ([], [])


@pytest.mark.parametrize("kind", ["pictures", "representations"])
def test_posts_that_share_a_picture_do_not_get_it_as_another(kind):
    shared = [1, 1, 2, 1, 1, 2]
    for seed in range(9):
        rows, givers = swapped(shared, 1.0, kind, seed)
        assert all(shared[a] != shared[b] for a, b in zip(rows, givers, strict=True)) and len(rows) <= 4


def test_a_training_batch_says_who_gets_whose_picture(data):
    batch = data.train.batch(range(20), np.random.default_rng(0))
    assert batch["present"][batch["swapped"]].all() and len(batch["swapped"]) == len(batch["givers"]) > 0
    assert "swapped" not in data.train.batch(range(20))


class Oracle(torch.nn.Module):
    """Says the gold tags, and that a picture matches as often as its batch's number says."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def tag(self, tags, token_mask, pieces, **_):
        rows = [row[shown].tolist() for row, shown in zip(tags, token_mask, strict=True)]
        return {"tags": rows, "p": (pieces > 0).sum(1) / 100}


def test_windows_join_to_posts_in_their_order(data):
    found = tagging.predict(Oracle(), data.test, batch=2)
    assert found["predicted"] == found["gold"] == [[tag for _, tag in (LONG if i % 2 else SHORT)] for i in range(12)]
    assert score(found)["F1"] == 100.0
    lengths = [data.test.lengths[[w.post == 1 for w in data.test.windows]].mean() / 100, data.test.lengths[0] / 100]
    assert found["matching"][[1, 0]].tolist() == pytest.approx(lengths)


GOLD = [["B-PER", "I-PER", "O"], ["O", "I-LOC"], ["B-LOC"], ["O"]]
PREDICTED = [["B-PER", "O", "O"], ["O", "I-LOC"], ["B-PER"], ["B-ORG"]]


def test_scores_are_those_of_the_metric_under_flat_names():
    flat = score({"gold": GOLD, "predicted": PREDICTED})
    strict = entities.evaluate(GOLD, PREDICTED, "strict")
    assert (flat["P"], flat["R"]) == (25.0, pytest.approx(100 / 3))
    assert flat["strict F1"] == strict["f1"] == 0.0 and flat["F1 LOC"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("metric", ["P", "R", "F1", "strict F1", "F1 LOC", "F1 MISC", "strict R"])
def test_statistics_of_posts_add_up_to_the_score(metric):
    above, below = statistics({"gold": GOLD, "predicted": PREDICTED}, metric).sum(0)
    expected = score({"gold": GOLD, "predicted": PREDICTED}).get(metric, 0.0)
    assert 100 * above / max(1, below) == pytest.approx(expected)


def test_a_corpus_without_tags_is_refused():
    with pytest.raises(DataError, match="'iconworld-captions' has no tags"):
        load(TaggingSettings(dataset="iconworld-captions"))


def test_characters_need_no_encoder(settings):
    from dataclasses import replace

    with pytest.warns(UserWarning, match="missing"):
        spelled = load(replace(settings, text_encoder="characters"))
    assert "A" in spelled.characters and spelled.train.lengths[1] <= 20
    assert spelled.fingerprint.endswith("/characters")


def test_exchanged_pictures_are_another_posts(data):
    other, present = modalities.exchanged(data.test), data.test.features.present
    assert torch.equal(other.features.present, present)
    having = present.nonzero()[:, 0].tolist()
    for post, giver in zip(having, having[1:] + having[:1], strict=True):
        assert torch.equal(other.features[[post]], data.test.features[[giver]])
    assert torch.equal(data.test.features[[1]], load_again(data)[[1]])  # the split itself stays as it was


def load_again(data):
    return data.test.encoder.features([post.image for post in data.test.examples])


def test_auc_is_the_chance_to_rank_right():
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8, 0.3]), np.array([False, True, False, True, True])
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert modalities.auc(scores, positive) == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="found 3 positive and 0 negative"):
        modalities.auc(scores[:3], [True] * 3)


def test_the_predictor_takes_sentences_tokens_and_pictures(data, settings):
    chosen = maf.Settings(**{**vars(settings), "text_layers": 1})
    model = maf.build(tagging.context(data), chosen)
    predictor = maf.Predictor(model, tagging.context(data), chosen, {})
    found = predictor.inspect("@ann_b in Sa\u0303o Paulo-Rio! X我々 http://t.co/x", data.test.examples[1].image)
    assert found["tokens"] == ["@ann_b", "in", "S\u00e3o", "Paulo-Rio", "!", "X", "我", "々", "http://t.co/x"]
    assert found["attention"].shape == (9, 4) and found["gate"].shape == (9,) and 0 < found["matching"] < 1
    assert predictor.inspect(["Rio"])["matching"] is None
    model.crf.transitions.data.zero_(), model.W_y.weight.data.zero_()
    model.W_y.bias.data = torch.tensor([0.0, 0, 0, 9, 0])  # everything is a person
    table = predictor("Ann , Bo")
    assert table["entity"].tolist() == ["Ann", ",", "Bo"] and set(table["type"]) == {"PER"}
    with pytest.raises(ValueError, match="found no token in '  '"):
        predictor("  ")
