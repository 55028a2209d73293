"""Image encoders: one interface, features computed once, and never a stale one."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from lib.corpora.types import DataError
from lib.encoders import images
from lib.encoders.images import NETWORKS, ImageEncoder, PictureBytes, TorchvisionNet, TrainableNetwork, pixels


@pytest.fixture
def photos(tmp_path):
    """Three small files: red, green, blue."""
    paths = [tmp_path / f"{colour}.png" for colour in ("red", "green", "blue")]
    for path in paths:
        Image.new("RGB", (50, 40), path.stem).save(path)
    return paths


@pytest.fixture
def encoder():
    return ImageEncoder("lite0", "pooled", size=64)


@pytest.fixture
def counted(monkeypatch):
    """How many pictures went through the network."""
    calls, encode = [], ImageEncoder.encode
    monkeypatch.setattr(ImageEncoder, "encode", lambda self, batch: calls.append(len(batch)) or encode(self, batch))
    return calls


def test_lite0_knows_what_a_picture_shows():
    """The packaged weights are in their places: an icon of a bell is no bell to it, but noise and shapes differ."""
    disc = np.zeros((224, 224, 3), np.uint8)
    yy, xx = np.mgrid[:224, :224]
    disc[(yy - 112) ** 2 + (xx - 112) ** 2 < 60**2] = (255, 140, 0)
    (names,) = ImageEncoder().class_names(torch.from_numpy(disc).permute(2, 0, 1)[None], k=5)
    assert {"orange", "ping-pong ball", "golf ball", "candle", "spotlight", "jack-o'-lantern"} & set(names), names


def test_layers_have_their_shapes(photos):
    batch = torch.stack([pixels(path, size=64) for path in photos])
    pooled = ImageEncoder("lite0", "pooled", 64).encode(batch)
    grid = ImageEncoder("lite0", "grid", 64).encode(batch)
    assert pooled.shape == (3, 1280) and grid.shape == (3, 4, 1280)
    assert torch.allclose(pooled, grid.mean(1), atol=1e-2)


@pytest.mark.parametrize("name, layer", [("vgg16", "fc"), ("vgg19", "grid"), ("resnet152", "pooled")])
def test_torchvision_networks_fit_the_interface(name, layer, monkeypatch):
    """With random weights: the real ones need a network connection."""
    random = torch.nn.Module.requires_grad_(TorchvisionNet(name, pretrained=False).eval(), False)
    monkeypatch.setattr(images, "_network", lambda *_: random)
    encoder = ImageEncoder(name, layer)
    assert encoder.encode(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape == (1, *encoder.row_shape)
    assert len(encoder.class_names(torch.zeros(1, 3, 224, 224, dtype=torch.uint8), k=3)[0]) == 3


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "resnet152"])
def test_weights_are_those_that_torchvision_would_fetch(name):
    assert NETWORKS[name].sha256 == Path(get_model_weights(name).IMAGENET1K_V1.url).stem


def test_wrong_weights_are_refused(tmp_path):
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights.pth: sha256 .*, expected 579344248a93"):
        images.check_weights(tmp_path / "weights.pth", images.Lite0.sha256)


def test_features_are_computed_once(photos, encoder, counted, tmp_path):
    first = encoder.features(photos, ("full", "tl"), tmp_path / "cache")
    again = encoder.features(photos[::-1], ("tl",), tmp_path / "cache")
    assert sum(counted) == 6
    assert torch.equal(first.gather([0, 1, 2], 1), again.gather([2, 1, 0]))


def test_a_changed_picture_is_encoded_again(photos, encoder, counted, tmp_path):
    before = encoder.features(photos, cache=tmp_path / "cache")[[0, 1]]
    Image.new("RGB", (50, 40), "white").save(photos[0])
    after = encoder.features(photos, cache=tmp_path / "cache")[[0, 1]]
    assert sum(counted) == 4
    assert not torch.allclose(before[0], after[0]) and torch.equal(before[1], after[1])


def test_encoders_do_not_share_rows(photos, tmp_path):
    small = ImageEncoder("lite0", "pooled", 32).features(photos, cache=tmp_path)[[0]]
    large = ImageEncoder("lite0", "pooled", 64).features(photos, cache=tmp_path)[[0]]
    assert not torch.allclose(small, large)


def test_batch_norm_in_training_mode_mixes_the_pictures_of_a_batch(photos, tmp_path):
    frozen, mixing = (ImageEncoder("lite0", "grid", 64, batch_norm) for batch_norm in ("eval", "train"))
    before = frozen.encode(torch.stack([pixels(path, size=64) for path in photos]))
    together = mixing.features(photos, cache=tmp_path)[[0]]
    in_other_company = mixing.features(photos[:2], cache=tmp_path)[[0]]
    assert not torch.allclose(together, in_other_company, atol=0.1)
    assert torch.equal(mixing.features(photos, cache=tmp_path)[[0]], together)  # kept, each company apart
    assert torch.equal(frozen.encode(torch.stack([pixels(path, size=64) for path in photos])), before)
    with pytest.raises(ValueError, match="batch_norm 'training' is unknown, did you mean 'train'"):
        ImageEncoder(batch_norm="training")


def test_batches_that_mix_stay_the_same_after_a_kill(photos, tmp_path, monkeypatch):
    """Also where a corrupt picture is in them, which is never kept and so is tried again."""
    monkeypatch.setattr(images, "BATCH", 2)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    mixing, pictures = ImageEncoder("lite0", "grid", 64, "train"), [broken, *photos]
    encode = ImageEncoder.encode
    with pytest.warns(UserWarning, match="broken.jpg"):
        whole = mixing.features(pictures, cache=tmp_path / "whole")[[0, 1, 2, 3]]

        def killed(self, batch):
            if len(batch) == 2:  # the second batch
                raise KeyboardInterrupt
            return encode(self, batch)

        monkeypatch.setattr(ImageEncoder, "encode", killed)
        with pytest.raises(KeyboardInterrupt):
            mixing.features(pictures, cache=tmp_path / "broken")
        monkeypatch.setattr(ImageEncoder, "encode", encode)
        assert torch.equal(mixing.features(pictures, cache=tmp_path / "broken")[[0, 1, 2, 3]], whole)
    assert whole.flatten(1).any(1).tolist() == [False, True, True, True]


def test_missing_and_corrupt_pictures_get_zeros(photos, encoder, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    content = bytearray(photos[0].read_bytes())
    content[16:33] = size = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0) + bytes(4)  # a bomb: its size is a lie
    content[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + size[:13]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.warns(UserWarning, match="not a readable picture") as warned:
        pictures = [None, tmp_path / "broken.jpg", tmp_path / "bomb.png", photos[0]]
        features = encoder.features(pictures, cache=tmp_path / "cache")
    named = sorted(str(w.message) for w in warned if "not a readable" in str(w.message))
    assert len(named) == 2 and "bomb.png" in named[0] and "broken.jpg" in named[1]
    assert features.present.tolist() == [False, False, False, True]
    assert not features[[0, 1, 2]].any() and features[[3]].any()


def test_a_picture_that_vanishes_between_reading_and_encoding_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("gone.png", "pipe.png"):
        with pytest.raises(DataError, match=f"{name}: found no readable file .*, expected a picture"):
            ImageEncoder(size=32).features([tmp_path / name], cache=tmp_path / "cache")


def test_views_show_their_part(tmp_path):
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, :50] = 255  # the left half is white
    Image.fromarray(picture).save(tmp_path / "half.png")
    whole, mirrored, corner = (pixels(tmp_path / "half.png", view, 50) for view in ("full", "full-flip", "tl"))
    assert whole[:, :, :20].min() == 255 and whole[:, :, 30:].max() == 0
    assert torch.equal(mirrored, whole.flip(2))
    assert (corner > 127).float().mean() == pytest.approx(50 / 80, abs=0.03)


@pytest.mark.parametrize("name, layer, message", [
    ("lite1", "pooled", "image encoder 'lite1' is unknown, expected one of lite0, vgg16"),
    ("lite0", "fc", "lite0 has no layer 'fc', expected one of pooled, grid"),
    ("lite0", "pooled", "image size 100 does not fit, expected a multiple of 32"),
])  # fmt: skip
def test_unknown_encoders_are_refused(name, layer, message):
    with pytest.raises(DataError, match=message):
        ImageEncoder(name, layer, size=100)


# ---- pictures themselves, and a network that learns ----


def test_pictures_are_kept_as_bytes(photos, tmp_path):
    kept = PictureBytes(8).features([*photos, None], ("full", "full-flip"), tmp_path / "cache")
    assert kept.rows.dtype == np.uint8 and kept.present.tolist() == [True, True, True, False]
    assert isinstance(kept.rows, np.memmap) and kept[[0]][0, :, 3, 3].tolist() == [255, 0, 0]
    assert torch.equal(kept[[2]][0].byte(), pixels(photos[2], size=8))
    again = PictureBytes(8).features(photos[::-1], cache=tmp_path / "cache")
    assert torch.equal(again[[0]], kept[[2]]) and len(again.rows) == len(kept.rows)


def test_bytes_of_a_corrupt_picture_are_missing(photos, tmp_path):
    photos[1].write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="treated as missing: .*green.png"):
        kept = PictureBytes(8).features(photos, cache=tmp_path / "cache")
    assert kept.present.tolist() == [True, False, True] and kept[[1]].abs().sum() == 0


@pytest.mark.parametrize("layer", ("pooled", "grid"))
def test_a_network_that_may_learn_begins_as_the_encoder(photos, layer):
    batch = torch.stack([pixels(path, size=64) for path in photos])
    frozen = ImageEncoder("lite0", layer, 64).encode(batch)
    network = TrainableNetwork("lite0", layer).train()
    seen = network(batch)
    assert torch.nn.functional.cosine_similarity(seen.flatten(1), frozen.flatten(1)).min() > 0.97  # bf16
    seen.square().mean().backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_its_batch_norms_keep_their_statistics(photos):
    network = TrainableNetwork("lite0", "pooled").train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.stack([pixels(path, size=64) for path in photos]))
    assert before and all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    with pytest.raises(DataError, match="lite0 has no layer 'fc'"):
        TrainableNetwork("lite0", "fc")
