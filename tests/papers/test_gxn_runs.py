"""GXN's rows as runs: stages, a network that is fine-tuned, and its predictor."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib import predict
from lib.papers import gxn
from lib.run.experiment import plan, run
from lib.tasks import imagination
from tests.album import write_album
from tests.tasks.test_imagination import TINY


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> dict:
    """Settings of runs that take a second."""
    folder = write_album(tmp_path_factory.mktemp("album"), missing=("train1.png",))
    return TINY | {"data_dir": str(folder), "epochs": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def silent(line: str) -> None:
    pass


def chain(variant: str, **settings) -> list:
    """A run, its parent, and so on."""
    found = [plan("gxn", variant, 0, {"profile": "small"} | settings)]
    while found[-1].parent:
        found.append(found[-1].parent)
    return found


# ---- stages ----

IMAGINING = [name for name, variant in gxn.VARIANTS.items() if variant.parent == "captions"]
ROWS = [name for name in gxn.VARIANTS if name not in ("match", "match-on", "captions", "two-level-best")]


@pytest.mark.parametrize("variant", ROWS)
def test_each_row_takes_as_many_matching_steps(variant):
    stages = chain(variant)
    assert len(stages) == 3 and len({one.settings.epochs for one in stages}) == 1
    assert [one.settings.hardest_after for one in stages] == [0, 0, 2]
    batches = {(one.settings.batch_size, one.settings.train_limit, one.settings.matching) for one in stages}
    assert len(batches) == 1


def test_rows_of_a_seed_descend_from_one_matching_run():
    same = [name for name in ROWS if name not in ("abstract", "grid")]
    assert len({chain(name)[-1] for name in same}) == 1
    decoders = [name for name in IMAGINING if name not in ("grid", "cut")]
    assert len(decoders) == 5 and len({chain(name)[1] for name in decoders}) == 1
    cut = chain("cut")[1].settings
    assert not cut.caption_gradient and cut.captions and not cut.gamma and not cut.pictures
    assert [one.settings.levels for one in chain("abstract")] == ["abstract"] * 3
    assert chain("grid")[-1].settings.image_layer == "grid"


def test_what_is_set_for_matching_reaches_the_first_stage_and_nothing_else_does():
    before = chain("full")
    wider, adversarial = chain("full", joint_dim=64), chain("full", adversarial_steps=9.0, gamma=0.1)
    assert [one.settings.joint_dim for one in wider] == [64] * 3
    assert adversarial[1] == before[1] and adversarial[0] != before[0]
    decoder = chain("full", decoder_dim=32)
    assert decoder[1].settings.decoder_dim == 32 and decoder[2] == before[2]


def test_a_stage_starts_from_the_weights_of_the_one_before(asked, runs):
    asked = asked | {"learning_rate": 1e-12}
    child, parent = run("gxn", "xe", 0, asked, runs / "slow", silent), plan("gxn", "xe", 0, asked).parent
    (folder,) = runs.glob(f"slow/gxn/*-{parent.key}")
    weights = predict.load(folder).model.state_dict()
    assert all(torch.allclose(weights[name], value, atol=1e-6) for name, value in child.weights().items())


def test_a_parent_of_another_kind_is_refused(asked):
    settings = plan("gxn", "match", 0, asked).settings
    data = imagination.load(settings)
    context = gxn.task(settings).context(data)

    class Parent:
        def weights(self):
            return {**gxn.build(context, settings).state_dict(), "other": torch.zeros(1)}

    with pytest.raises(ValueError, match="the parent has weights 'other'"):
        gxn.initialise(gxn.build(context, settings), context, settings, Parent())


# ---- fine-tuning ----


def test_a_network_that_is_fine_tuned_goes_round_the_feature_cache(asked, runs):
    tuned = asked | {"fine_tune": True, "image_rate": 1e-3, "views": ["full", "full-flip"], "gamma": 0.0}
    settings = plan("gxn", "full", 0, tuned).settings
    batch = imagination.load(settings).train.batch(np.array([0]), np.random.default_rng(0), "match")
    assert batch["image"].shape == (1, 3, 32, 32) and batch["image"][0, :, 0, 0].tolist() == [255, 0, 0]
    result = run("gxn", "full", 0, tuned, runs / "tuned", silent)
    name, published = "CNN_Enc.network.network.conv_stem.weight", gxn.build(result.context, settings).state_dict()
    assert not torch.equal(result.weights()[name], published[name])
    (start,) = runs.glob("tuned/gxn/match-seed0-*")
    assert name not in predict.load(start).model.state_dict()  # the first stages were taught with it frozen
    assert isinstance(predict.load(result.folder)(image=Image.new("RGB", (20, 20), "red"))["caption"], str)


# ---- the predictor ----


def test_a_user_asks_with_a_picture_a_sentence_or_both(asked, runs):
    predictor = predict.load(run("gxn", "full", 0, asked, runs, silent).folder)
    picture = Image.new("RGB", (30, 40), "blue")
    seen = predictor(image=picture, k=3)
    assert isinstance(seen["caption"], str) and len(seen["nearest"]) == 3
    told = predictor(text="a blue picture", k=2)
    assert len(told["found"]) == 2 and [image.size for image in told["imagined"]] == [(8, 8)] * 4
    assert np.array_equal(*(predictor.imagine("a red picture", 1)[0] for _ in range(2)))
    both = predictor(text="a blue picture", image=picture)
    index = int(seen["nearest"]["index"][0])
    assert both <= 0 and seen["nearest"]["score"].is_monotonic_decreasing and 0 <= index < 12
    with pytest.raises(ValueError, match="found neither text nor image"):
        predictor()


def test_a_matching_run_imagines_nothing(asked, runs):
    predictor = predict.load(run("gxn", "two-level", 0, asked, runs, silent).folder)
    assert set(predictor(text="a red picture")) == {"found"}
    assert set(predictor(image=Image.new("RGB", (30, 40), "blue"))) == {"nearest"}


@pytest.mark.parametrize("changes, message", [
    ({"sentence": "frozen"}, "sentence 'frozen' with text_encoder None, expected both"),
    ({"attention": True}, "attention looks at image_layer 'pooled', expected 'grid'"),
    ({"epochs": 0}, "epochs is 0, expected at least 1"),
    ({"game": "wgan"}, "game 'wgan' is unknown"),
])  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        gxn.Settings(**changes)


def test_every_form_runs(asked, runs):
    for variant, changes in (
        ("match", {"levels": "abstract"}),
        ("mix-bleu", {"baseline": "mean"}),
        ("cut", {}),
        ("grid", {}),
        ("t2i-paper", {}),
        ("two-level-best", {"joint_dim": 8}),
    ):
        result = run("gxn", variant, 0, asked | changes, runs, silent)
        assert 0 <= result.scores["test"]["rsum"] <= 600
