"""Pictures are seen as a person would see them, whatever their file is like."""

import os

import numpy as np
import pytest
from PIL import Image

from lib.corpora import DataError, open_picture

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(32, 0)  # dark to light, (32, 64)


def seen(image: Image.Image, path, **options) -> np.ndarray:
    image.save(path, **options)
    return np.asarray(open_picture(path))


def test_deep_greys_are_scaled(tmp_path):
    grey = seen(Image.fromarray(RAMP), tmp_path / "grey.png")
    for name, array in {"deep.png": RAMP.astype(np.uint16) * 257, "float.tif": (RAMP / 255).astype(np.float32)}.items():
        assert np.abs(seen(Image.fromarray(array), tmp_path / name).astype(int) - grey).max() <= 1
    assert seen(Image.fromarray(np.zeros((4, 4), np.float32)), tmp_path / "flat.tif").max() == 0


def test_a_telephones_picture_stands_upright(tmp_path):
    upright = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x0112] = 6  # held so that its top is to the right
    turned = seen(upright.transpose(Image.Transpose.ROTATE_90), tmp_path / "phone.png", exif=exif)
    assert np.array_equal(turned, np.asarray(upright.convert("RGB")))


def test_what_is_transparent_is_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert seen(clear, tmp_path / "clear.png").min() == 255
    assert seen(Image.new("P", (8, 8)), tmp_path / "clear.gif", transparency=0).min() == 255
    assert np.asarray(open_picture(clear)).min() == 255


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="pipe.png: not a readable picture"):
        open_picture(tmp_path / "pipe.png")
