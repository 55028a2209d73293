"""Regions: the grid's cells or given boxes, each with what belongs to it and nothing of its neighbours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.corpora.iconworld.products import boxes as true_boxes
from lib.corpora.iconworld.products import load
from lib.corpora.types import DataError
from lib.encoders.images import ImageEncoder, _network, pixels
from lib.encoders.regions import (
    REGIONS,
    TOP,
    DetectorEncoder,
    RegionEncoder,
    _detector,
    average,
    distribution,
    overlap,
    region_encoder,
    unpack,
)
from lib.precision import device

FRACTIONS = st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda ends: ends[0] != ends[1]).map(sorted)
BOXES = st.lists(st.tuples(FRACTIONS, FRACTIONS), min_size=1, max_size=4)


@pytest.fixture
def quarters(tmp_path):
    """A picture whose quarters are red, green, blue and white."""
    array = np.zeros((64, 64, 3), np.uint8)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]):
        array[32 * (i // 2) : 32 * (i // 2 + 1), 32 * (i % 2) : 32 * (i % 2 + 1)] = colour
    Image.fromarray(array).save(tmp_path / "quarters.png")
    return tmp_path / "quarters.png"


@pytest.fixture
def counted(monkeypatch):
    """How many pictures went through the network."""
    calls, encode = [], RegionEncoder.encode_boxes
    monkeypatch.setattr(
        RegionEncoder, "encode_boxes", lambda self, batch, boxes: calls.append(len(batch)) or encode(self, batch, boxes)
    )
    return calls


# ---- the grid ----


def test_the_default_is_a_six_by_six_grid_and_fits_the_cache():
    encoder = region_encoder()
    assert encoder.size == 192 and encoder.row_shape == (36, 1280 + 8 + 2 * TOP)
    assert len(encoder._cells(None)) == REGIONS


def test_a_cell_has_the_grids_vector_its_place_and_its_colour(quarters, tmp_path):
    encoder = region_encoder(size=64)
    regions = unpack(encoder.features([quarters], cache=tmp_path / "cache")[[0]])
    grid = ImageEncoder("lite0", "grid", 64).encode(pixels(quarters, size=64)[None])
    assert regions["present"].tolist() == [[True] * 4 + [False] * 32]
    assert torch.allclose(regions["features"][0, :4], grid[0], atol=0.02)
    corners = [[0, 0, 0.5, 0.5, 0.25], [0.5, 0, 1, 0.5, 0.25], [0, 0.5, 0.5, 1, 0.25], [0.5, 0.5, 1, 1, 0.25]]
    assert regions["boxes"][0, :4].tolist() == corners
    assert regions["colours"][0, :4].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]
    assert not any(regions[name][0, 4:].any() for name in regions)


def test_a_cell_has_the_classes_that_the_networks_head_reads_from_it(quarters, tmp_path):
    shown = pixels(quarters, size=64)[None]
    regions = unpack(region_encoder(size=64).features([quarters], cache=tmp_path / "cache")[[0]])
    network = _network("lite0")
    expected = network.network.classifier(ImageEncoder("lite0", "grid", 64).encode(shown)[0].to(device())).cpu()
    whole = network.logits(ImageEncoder()._normalised(shown)).cpu()
    assert torch.allclose(expected.mean(0), whole[0].float(), atol=0.3)  # the head is linear, so it may read cells
    found = distribution(regions["classes"], regions["probabilities"], 1000)[0, :4]
    assert (found - expected.softmax(1)).abs().max() < 0.02
    assert (regions["classes"][0, :4, 0] == expected.argmax(1)).sum() >= 3


def test_missing_and_corrupt_pictures_have_no_regions(quarters, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.warns(UserWarning, match="treated as missing: .*broken.jpg"):
        features = region_encoder(size=64).features([None, tmp_path / "broken.jpg", quarters], cache=tmp_path / "cache")
    assert features.present.tolist() == [False, False, True]
    assert unpack(features[[0, 1, 2]])["present"].sum(1).tolist() == [0, 0, 4]


def test_nothing_but_missing_pictures(tmp_path):
    assert not region_encoder(size=64).features([None, None], cache=tmp_path)[[0, 1]].any()


# ---- given boxes ----


def test_boxes_are_computed_once_and_anew_when_they_move(quarters, counted, tmp_path):
    where = {"box": (0.0, 0.0, 0.5, 1.0)}
    encoder = region_encoder("boxes", size=64, boxes=lambda picture: [where["box"]])
    first = encoder.features([quarters, quarters], cache=tmp_path)
    assert torch.equal(first[[0]], encoder.features([quarters], cache=tmp_path)[[0]]) and counted == [1]
    where["box"] = (0.5, 0.0, 1.0, 1.0)
    moved = encoder.features([quarters], cache=tmp_path)
    assert counted == [1, 1]
    assert unpack(first[[0]])["colours"][0, 0].tolist() == [0.5, 0, 0.5]
    assert unpack(moved[[0]])["colours"][0, 0].tolist() == pytest.approx([0.5, 1, 0.5], abs=1e-3)


def test_things_of_iconworld_have_regions_of_their_own(tmp_path):
    split = load(test=12).test
    encoder = region_encoder("boxes", size=96, boxes=true_boxes)
    regions = unpack(encoder.features([split.scene(i) for i in range(12)], cache=tmp_path)[list(range(12))])
    assert regions["present"].sum(1).tolist() == [len(split.scene(i).objects) for i in range(12)]
    two = [i for i in range(12) if len(split.scene(i).objects) > 1]
    assert two and all((regions["features"][i, 0] - regions["features"][i, 1]).abs().max() > 0.05 for i in two)


def test_more_than_36_boxes_are_cut_and_none_is_a_picture_without_regions(quarters, tmp_path):
    for count, kept in ((40, 36), (0, 0)):
        encoder = region_encoder("boxes", size=64, boxes=lambda picture, n=count: [(0, 0, 0.5, 0.5)] * n)
        assert unpack(encoder.features([quarters], cache=tmp_path)[[0]])["present"].sum() == kept


@given(BOXES)
@settings(max_examples=40, deadline=None)
def test_averages_as_over_a_picture_twelve_times_as_fine(boxes):
    grid = torch.randn(1, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    fine = grid.repeat_interleave(3, 2).repeat_interleave(4, 3)  # (1, 2, 12, 12)
    given = torch.tensor([[[x[0], y[0], x[1], y[1]] for x, y in boxes]]) / 12
    expected = [fine[0, :, y[0] : y[1], x[0] : x[1]].mean((1, 2)) for x, y in boxes]
    assert torch.allclose(average(grid, given)[0], torch.stack(expected), atol=1e-5)


# ---- overlap and distributions ----


@given(BOXES)
@settings(max_examples=40, deadline=None)
def test_overlap_as_by_counting_squares(boxes):
    masks = np.zeros((len(boxes), 12, 12), bool)
    for mask, (x, y) in zip(masks, boxes, strict=True):
        mask[y[0] : y[1], x[0] : x[1]] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    found = overlap(torch.tensor([[x[0], y[0], x[1], y[1]] for x, y in boxes]) / 12)
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_empty_boxes_overlap_with_nothing_and_cells_only_with_themselves(quarters, tmp_path):
    regions = unpack(region_encoder(size=64).features([quarters], cache=tmp_path)[[0]])
    expected = torch.diag(torch.tensor([1.0] * 4 + [0.0] * 32))
    assert torch.allclose(overlap(regions["boxes"]), expected[None])


def test_a_distribution_keeps_the_likeliest_and_spreads_the_rest():
    found = distribution(torch.tensor([[[2, 0]]]), torch.tensor([[[0.6, 0.2]]]), 6)
    assert found[0, 0].tolist() == pytest.approx([0.2, 0.05, 0.6, 0.05, 0.05, 0.05])


# ---- what cannot be done ----


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"source": "grids"}, ValueError, "regions 'grids' is unknown, did you mean 'grid'"),
        ({"source": "boxes"}, ValueError, "regions 'boxes' take a function `boxes`"),
        ({"boxes": true_boxes}, ValueError, "regions 'grid' take no function `boxes`"),
        ({"name": "vgg19"}, DataError, "vgg19 tells no classes of a region, expected one of lite0, resnet152"),
        ({"size": 224}, DataError, "image size 224 makes 49 regions, expected at most 192 px for 36"),
    ],
)
def test_wrong_wishes_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        region_encoder(**options)


@pytest.mark.parametrize("box", [(0, 0, 64, 64), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1)])
def test_boxes_outside_their_picture_are_refused(quarters, tmp_path, box):
    encoder = region_encoder("boxes", size=64, boxes=lambda picture: [box])
    with pytest.raises(ValueError, match=r"box \(.*\) is not inside its picture"):
        encoder.features([quarters], cache=tmp_path)


def compiled() -> bool:
    from torchvision.extension import _has_ops

    return _has_ops()


@pytest.mark.skipif(compiled(), reason="torchvision's compiled operations are here")
def test_a_detector_without_its_operations_says_why():
    with pytest.raises(DataError, match=r"compiled operations \(nms, roi_align\) do not load .* choose regions 'grid'"):
        region_encoder("detector")


@pytest.mark.skipif(not compiled(), reason="torchvision's compiled operations do not load beside this torch")
def test_a_detector_finds_regions(quarters, tmp_path, monkeypatch):
    """With random weights: the real ones need a network connection."""
    model = _detector.__wrapped__(64, pretrained=False)
    model.roi_heads.score_thresh = 0.0
    monkeypatch.setattr("lib.encoders.regions._detector", lambda size: model)
    regions = unpack(DetectorEncoder(64).features([quarters, None], cache=tmp_path)[[0, 1]])
    assert regions["features"].shape == (2, 36, 1024) and regions["present"].any(1).tolist() == [True, False]
