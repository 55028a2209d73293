"""What GXN is trained on and judged by: batches of three parts, captions and pictures as scores of pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.metrics.captions import CiderD, bleu
from lib.metrics.retrieval import cosine_similarity
from lib.papers import gxn
from lib.run.experiment import resolve
from lib.tasks import imagination, judging, retrieval
from lib.tasks.imagination import Split
from tests.album import write_album

RANDOM = np.random.default_rng(0)
TINY = {
    **{"dataset": "flickr8k", "image_size": 32, "joint_dim": 8, "word_dim": 6, "decoder_dim": 8, "decoder_word_dim": 6},
    **{"picture_size": 8, "width": 2, "condition_dim": 4, "noise_dim": 4, "train_limit": 16, "batch_size": 8},
    **{"adversarial_batch": 3, "adversarial_steps": 2.0, "longest": 6},
}


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    return str(write_album(tmp_path_factory.mktemp("album"), missing=("train1.png", "test2.png")))


def settings(album, **changes) -> gxn.Settings:
    return resolve("gxn", "full", TINY | {"data_dir": album} | changes)


@pytest.fixture(scope="module")
def data(album):
    return imagination.load(settings(album))


def model(data, album, **changes):
    torch.manual_seed(0)
    return gxn.build(retrieval.context(data), settings(album, **changes)).eval()


# ---- batches ----


def test_a_matching_batch_has_captions_that_end(data):
    batch = data.train.batch(np.array([0, 5]), RANDOM, "match")
    assert set(batch) == {"image", "owner", "words", "lengths", "caption"}
    for row, index in enumerate((0, 5)):
        expected = data.vocabulary.encode(data.train.captions[index], end=True)
        assert [i for i in batch["caption"][row].tolist() if i] == expected


def test_an_adversarial_batch_has_pictures_as_bytes(data):
    batch = data.train.batch(np.array([0, 4, 4]), RANDOM, "generator")
    assert batch["picture"].dtype == torch.uint8 and batch["picture"].shape == (3, 3, 8, 8)
    assert batch["picture"][0, :, 0, 0].tolist() == [255, 0, 0] and batch["picture"][1, :, 0, 0].tolist() == [0, 0, 255]
    assert batch["owner"].tolist() == [0, 2, 2] and "image" not in batch


def test_plans_are_pure_functions_and_leave_missing_pictures_out(data):
    matching = data.train.plan(3, 1, "match")
    assert sorted(np.concatenate(matching)) == [*range(32)]  # with those whose picture is missing
    plan = data.train.plan(3, 1, "generator")
    assert len(plan) == 2 * len(matching) and {len(part) for part in plan} == {3}
    again = data.train.plan(3, 1, "discriminator")
    assert all(np.array_equal(a, b) for a, b in zip(plan, again, strict=True))
    assert not np.array_equal(plan[0], data.train.plan(3, 2, "generator")[0])
    counts = np.bincount(np.concatenate([np.concatenate(data.train.plan(3, e, "generator")) for e in range(40)]))
    assert set(np.flatnonzero(counts == 0)) == {2, 3}  # the captions of the missing picture
    assert counts[counts > 0].max() <= 2 * counts[counts > 0].min()


def test_where_no_picture_is_there_none_is_imagined(album, data):
    examples = [replace(example, image=None) for example in data.train.examples]
    bare = Split(retrieval.Split(examples, data.vocabulary, data.train.settings), data.vocabulary, data.train.settings)
    assert bare.plan(0, 0, "generator") == [] and len(bare.plan(0, 0, "match")) == 4


def test_only_things_alone_are_imagined_where_they_are_asked_for():
    changes = {"dataset": "iconworld-captions", "train_limit": 40, "alone": True}
    train = imagination.load(resolve("gxn", "full", TINY | changes)).train
    pictures = train.owner[np.concatenate(train.plan(0, 0, "generator"))]
    assert all(len(train.examples[i].image.objects) == 1 for i in pictures) and len(set(pictures)) > 1


def test_what_is_read_once_does_not_depend_on_training(album, data):
    assert imagination.load(settings(album, epochs=9, learning_rate=0.5)) is data
    assert imagination.load(settings(album, batch_size=4)) is not data


# ---- what is imagined ----


def test_predictions_hold_all_that_is_scored(album, data):
    found = imagination.predict(model(data, album), data.test)
    assert found["images"].shape == (6, 16) and found["sentences"].shape == (12, 16)
    assert len(found["said"]) == len(found["beam"]) == len(found["nearest"]) == 6
    assert found["nearest"][0] == "a red picture ." or found["nearest"][0] == "a red picture"
    assert found["asked"].numel() == 5 and 4 not in found["asked"]  # test2.png is missing
    task = gxn.task(settings(album))
    scores = task.score(found)
    assert set(task.metrics) - {"colour", "kind@1", "kind@5"} <= set(scores) and scores["Fréchet"] > 0
    for metric in task.metrics:
        sums = task.statistics(found, metric)
        assert len(sums) == 6
        if metric in scores:
            assert task.combine(metric, sums.sum(0)) == pytest.approx(scores[metric])


def test_imagining_moves_no_random_number_and_gives_the_same_twice(album, data):
    gxn_model = model(data, album)
    before = torch.random.get_rng_state()
    first, second = (imagination.imagined(gxn_model, data.test, [0, 3]) for _ in range(2))
    assert first.equal(second) and first.dtype == torch.uint8 and first.shape == (2, 3, 8, 8)
    assert torch.random.get_rng_state().equal(before)


def test_quick_is_the_first_pictures_greedily(album, data, monkeypatch):
    monkeypatch.setattr(imagination, "QUICK", 4)
    fresh = Split(data.test.known, data.vocabulary, data.test.settings)
    fresh.train = data.train
    found = imagination.predict(model(data, album), fresh, quick=True)
    assert len(found["images"]) == len(found["said"]) == 4 and "beam" not in found and "Fréchet" not in found
    scores = gxn.task(settings(album)).score(found)
    assert "CIDEr-D" in scores and "nearest/CIDEr-D" not in scores and "reference/CIDEr-D" not in scores
    assert scores["all"] == pytest.approx(scores["rsum"] + 100 * scores["CIDEr-D"] + scores["own@1"])


def test_runs_that_imagine_nothing_are_scored_by_retrieval_alone(album):
    quiet = settings(album, captions=False, pictures=False, gamma=0.0)
    data, task = imagination.load(quiet), gxn.task(quiet)
    found = imagination.predict(model(data, album, captions=False, pictures=False, gamma=0.0), data.test)
    assert set(found) == {"images", "sentences", "owner", "folds"} and task.monitor == "rsum"
    assert set(task.metrics) == set(retrieval.RECALLS) and "caption" not in data.train.batch(np.arange(2), RANDOM)


# ---- scores ----

SAID = {
    "images": torch.eye(3), "sentences": torch.eye(3), "owner": torch.arange(3), "folds": torch.tensor(1),
    "references": [["a red car", "the car is red"], ["a dog", "a big dog"], ["two birds"]],
    "said": ["a red car", "a dog dog", "a"], "beam": ["a red car", "a dog", "two birds"],
    "nearest": ["a dog", "a red car", "two birds"],
    "asked": torch.tensor([0, 0, 2]), "colour": torch.tensor([True, False, True]),
    "kind": torch.tensor([0, 4, 7]), "own": torch.tensor([False, False, True]),
}  # fmt: skip


def test_scores_are_those_of_the_metrics():
    scores = imagination.score(SAID, cosine_similarity)
    for way, said in imagination.SAYING.items():
        expected = bleu(SAID[said], SAID["references"])
        assert [scores[f"{way}{name}"] for name in imagination.BLEU] == pytest.approx([100 * b for b in expected])
        cider = CiderD(SAID["references"]).score(SAID[said]).mean().item()
        assert scores[f"{way}CIDEr-D"] == pytest.approx(cider, abs=1e-6)
    assert scores["words"] == pytest.approx(7 / 3)
    found = [scores[name] for name in ("colour", "kind@1", "kind@5", "own@1")]
    assert found == pytest.approx([200 / 3, 100 / 3, 200 / 3, 100 / 3])


def test_a_pictures_own_statistics_stand_in_its_row():
    sums = imagination.statistics(SAID, "colour", cosine_similarity)
    assert sums.tolist() == [[1, 2], [0, 0], [1, 1]]
    assert imagination.combine("held out/colour", sums[0]) == 50


def test_one_reference_is_judged_by_the_others():
    references = SAID["references"]
    found = imagination.reference_cider(references)
    plain = []
    for i, own in enumerate(references):
        each = []
        for j in range(len(own)) if len(own) > 1 else ():
            others = [r if k != i else [*own[:j], *own[j + 1 :]] for k, r in enumerate(references)]
            each.append(CiderD(others, df=references).score([own[j]], [i]).item())
        plain.append(sum(each) / max(1, len(each)))
    assert found == pytest.approx(plain, abs=1e-6) and found[2] == 0


# ---- judges ----


def test_judges_know_what_real_pictures_show():
    data = retrieval.load(retrieval.RetrievalSettings(train_limit=30, image_size=64))
    few = [example for example in data.test.examples if judging.alone(example)][:40]
    shown = [example.image for example in few]
    real = torch.stack([judging.pixels(scene, size=64) for scene in shown])
    assert judging.colours_right(real, shown).float().mean() > 0.9
    encoder = data.test.encoder
    probe = judging.Probe(encoder, 32, scenes=80)
    seen = judging.encoded(encoder, torch.stack([judging.pixels(scene, size=32) for scene in shown]))
    assert (probe.ranks(seen, shown) < 5).float().mean() > 0.3  # chance is an eighth
    pairs = judging.asked(few)
    assert pairs and all(few[i].image.objects[0].colour in few[i].captions[j].split() for i, j in pairs)
    never = judging.held_out(few)
    assert 0 < never.sum() < len(few)


def test_a_treated_picture_is_the_same_at_each_draw():
    scene = judging.Captions("judge", 1, 1).scene(0)
    noisy, clean = judging.Treated(scene, 16, judging.NOISE), judging.Treated(scene, 16)
    assert np.array_equal(noisy.draw(), noisy.draw()) and noisy.key != clean.key
    assert 0 < np.abs(np.asarray(noisy.draw(), float) - np.asarray(clean.draw())).mean() < judging.NOISE
