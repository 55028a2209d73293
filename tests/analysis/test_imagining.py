"""A trained GXN looked into: what it says, what it draws and how it came there, who finds what."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lib import predict
from lib.analysis import imagining
from lib.report import plots
from lib.run import experiment, store
from lib.tasks import imagination


@pytest.fixture(scope="module")
def results(imagining_runs) -> dict:
    return {row.variant: store.read(Path(row.folder)) for row in imagining_runs.itertuples()}


@pytest.fixture(scope="module")
def data(album_settings):
    return imagination.load(experiment.resolve("gxn", "full", album_settings))


@pytest.fixture(scope="module")
def full(results):
    return predict.load(results["full"].folder)


@pytest.fixture(scope="module")
def matching(results):
    return predict.load(results["two-level"].folder)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_model_that_does_not_draw_shows_nothing(matching, data):
    assert imagining.imagined(matching, "a red picture") == [] and imagining.said_of(matching, data).empty
    nothing = [imagining.strip(matching, data), imagining.grid(matching), imagining.between(matching, [("a", "b")])]
    nothing += [imagining.judged(matching, data), imagining.best_and_worst(imagining.said_of(matching, data), data)]
    assert {figure.texts[0].get_text() for figure in nothing} == {"nothing to show"}


def test_the_strip_has_a_frame_an_evaluation_up_to_the_best(results, full, data):
    history = results["full"].history
    best = max(range(len(history)), key=lambda i: history[i]["all"]) + 1
    frames = [frame for frame in full.model.strip if frame.any()]
    assert len(frames) == best
    figure = imagining.strip(full, data)
    shown = [axes for axes in figure.axes if axes.images]
    captions = min(len(imagination.asked(data.dev, quick=True)), len(frames[0]))
    assert len(shown) == captions * (best + 1)  # the real ones too
    asked = imagination.asked(data.dev, quick=True)
    again = imagination.imagined(full.model, data.dev, asked)[0]
    assert (frames[-1][0].int() - again.int()).abs().max() <= 1  # the last frame is what it draws now


def test_judged_pictures_are_those_that_were_judged(full, data):
    asked = torch.arange(len(data.test.captions))
    judgement = {"asked": asked, "colour": asked % 2 == 0, "kind": asked}
    predictor = SimpleNamespace(**vars(full) | {"predictions": full.predictions | judgement, "draw": full.draw,
                                                "grounded": full.grounded})  # fmt: skip
    cells = list(imagining._judged(predictor, data, count=4))
    expected = imagination.imagined(full.model, data.test, asked.numpy())
    for (picture, caption, frame), other, i in zip(cells, expected, range(4), strict=False):
        shown = torch.from_numpy(np.array(picture)).permute(2, 0, 1).int()
        assert (shown - other.int()).abs().max() <= 1 and caption.startswith(data.test.captions[i])
        assert frame == (plots.RIGHT if i % 2 == 0 else plots.WRONG)
    figure = imagining.judged(predictor, data, count=4)
    assert len(cells) == 4 == len([axes for axes in figure.axes if axes.images])


def test_the_way_from_one_sentence_to_another_begins_at_the_one_and_ends_at_the_other(full):
    t_l = full.grounded(["a red picture", "a blue picture"])
    ends = [np.asarray(picture, int) for picture in full.draw(t_l, same_noise=True)]
    figure = imagining.between(full, [("a red picture", "a blue picture")], steps=3)
    row = figure.axes[0].images[0].get_array().astype(int)
    side = ends[0].shape[0]
    assert row.shape == (side, 3 * side, 3)
    assert np.abs(row[:, :side] - ends[0]).max() <= 1 and np.abs(row[:, -side:] - ends[1]).max() <= 1


def test_pictures_have_noise_of_their_own_unless_it_is_held(full):
    same = full.draw(full.grounded(["a red picture"]).expand(3, -1), same_noise=True)
    assert len({picture.tobytes() for picture in same}) == 1
    other = full.draw(full.grounded(["a red picture"]).expand(3, -1))
    assert len({picture.tobytes() for picture in other}) == 3


def test_a_mosaic_has_each_picture_in_its_place():
    shades = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in range(6)]
    axes = imagining.mosaic(shades, ["x", "y", "z"], ["a", "b"], "", [False, True, False, False, False, False]).axes[0]
    array = axes.images[0].get_array()
    assert array[1::4, 1::4, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    (frame,) = axes.patches
    assert frame.get_xy() == (4, 0)


def test_captions_are_ordered_by_what_they_score(results, full, data):
    said = imagining.said_of(full, data)
    assert said["CIDEr-D"].is_monotonic_decreasing and sorted(said["picture"]) == list(range(len(data.test.examples)))
    assert said["CIDEr-D"].mean() / 100 == pytest.approx(results["full"].scores["test"]["beam/CIDEr-D"], abs=1e-4)
    assert len(imagining.best_and_worst(said, data, count=2).axes) == 4


def test_each_level_searches_by_itself_and_both_as_the_run_was_scored(results, full):
    levels = imagining.by_level(full).set_index("level")
    assert list(levels.index) == ["abstract (h)", "grounded (l)", "both (s*)"]
    scores = results["full"].scores["test"]
    for name in levels:
        assert levels.loc["both (s*)", name] == pytest.approx(scores[name], abs=1e-4)


def test_a_batch_of_each_part_holds_the_same_captions(data):
    batches = imagining.one_batch(data, count=5)
    assert set(batches) == {"match", "discriminator", "generator"} and len(set(batches["match"]["owner"].tolist())) == 5
    for batch in batches.values():
        assert torch.equal(batch["words"], batches["match"]["words"])
        assert torch.equal(batch["owner"], batches["match"]["owner"])


def test_drawing_in_the_middle_of_training_leaves_it_as_it_was(full, data):
    batch = imagining.one_batch(data, count=3)["generator"]
    model = full.model.train()
    state = torch.get_rng_state()
    one, other = imagining.drawn_of(model, batch), imagining.drawn_of(model, batch)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert [p.tobytes() for p in one] == [p.tobytes() for p in other]
    model.eval()
    captions = ["one", "two", "three"]
    axes = imagining.by_heart({"step 0": one}, batch, captions).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["step 0", "real"]


def test_what_is_to_be_drawn_is_shown_small(data):
    cells = imagining.real_and_small(data, 8, count=2)
    assert [picture.size for picture, *_ in cells] == [(8, 8)] * 2
    assert np.array_equal(np.asarray(cells[0][0]), data.train.bytes.gather([0])[0].permute(1, 2, 0).byte().numpy())


def test_judges_find_most_of_real_pictures_right_where_they_know_what_is_shown(data):
    assert imagining.real_judged(data) == {}, "nobody knows what an album shows"
    asked = dict(profile="smoke", image_size=32, picture_size=32, train_limit=40)
    found = imagining.real_judged(imagination.load(experiment.resolve("gxn", "full", asked)))
    assert found["colour"] > 80 and found["kind@5"] > found["kind@1"] > 2.5
    assert {"colour, seen", "kind@5, held out"} < set(found)
