"""Simple places to be: ten backgrounds in VARIANTS versions each, painted once and kept."""

from collections.abc import Callable
from functools import lru_cache
from math import sin
from random import Random

from PIL import Image, ImageDraw

from lib.corpora.types import DataError

Colour = tuple[int, int, int]

VARIANTS = 16
CANVAS = 256  # backgrounds are painted at this size and scaled: smooth edges, and each is painted only once


def gradient(top: Colour, bottom: Colour, side: int = CANVAS) -> Image.Image:
    """A square picture that runs from one colour above to another below."""
    ramp = Image.linear_gradient("L").resize((side, side))
    return Image.composite(Image.new("RGB", ramp.size, tuple(bottom)), Image.new("RGB", ramp.size, tuple(top)), ramp)


def _hill(picture: Image.Image, level: float, height: float, colour: Colour, rng: Random) -> None:
    """Everything under a gentle wave, `level` and `height` as fractions of the picture."""
    phase, pace = rng.uniform(0, 6), rng.uniform(4, 8)
    wave = [(x, CANVAS * (level + height * sin(phase + pace * x / CANVAS))) for x in range(0, CANVAS + 1, 4)]
    ImageDraw.Draw(picture).polygon([*wave, (CANVAS, CANVAS), (0, CANVAS)], fill=colour)


def _dots(picture: Image.Image, count: int, radius: tuple[float, float], colour: Colour, rng: Random) -> None:
    pen = ImageDraw.Draw(picture)
    for _ in range(count):
        pen.circle((rng.uniform(0, CANVAS), rng.uniform(0, CANVAS)), rng.uniform(*radius), fill=colour)


def _clouds(picture: Image.Image, count: int, lowest: float, colour: Colour, rng: Random) -> None:
    pen = ImageDraw.Draw(picture)
    for _ in range(count):
        x, y = rng.uniform(0, CANVAS), rng.uniform(0.06, lowest) * CANVAS
        for dx, dy, radius in ((-18, 3, 9), (-4, -3, 14), (12, 0, 12), (24, 5, 7)):
            pen.circle((x + dx, y + dy), radius, fill=colour)


def _meadow(rng: Random) -> Image.Image:
    picture = gradient((170, 215, 245), (225, 242, 250))
    _clouds(picture, 2, 0.3, (245, 250, 253), rng)
    _hill(picture, 0.55, 0.05, (165, 210, 130), rng)
    _hill(picture, 0.7, 0.04, (140, 195, 105), rng)
    return picture


def _beach(rng: Random) -> Image.Image:
    picture = gradient((165, 220, 245), (220, 243, 250))
    _hill(picture, 0.42, 0.002, (95, 180, 210), rng)
    _hill(picture, 0.6, 0.02, (235, 245, 240), rng)
    _hill(picture, 0.63, 0.02, (238, 218, 165), rng)
    return picture


def _night(rng: Random) -> Image.Image:
    picture = gradient((18, 22, 58), (52, 58, 110))
    _dots(picture, 45, (0.6, 1.8), (235, 235, 210), rng)
    x, y = rng.uniform(0.1, 0.9) * CANVAS, rng.uniform(0.08, 0.2) * CANVAS
    ImageDraw.Draw(picture).circle((x, y), 17, fill=(245, 240, 205))
    ImageDraw.Draw(picture).circle((x + 8, y - 4), 14, fill=(26, 30, 68))
    _hill(picture, 0.86, 0.03, (32, 38, 74), rng)
    return picture


def _snow(rng: Random) -> Image.Image:
    picture = gradient((185, 200, 218), (222, 230, 240))
    _hill(picture, 0.6, 0.05, (238, 243, 249), rng)
    _hill(picture, 0.75, 0.04, (250, 252, 255), rng)
    _dots(picture, 60, (1.2, 3), (255, 255, 255), rng)
    return picture


def _sunset(rng: Random) -> Image.Image:
    picture = gradient((120, 85, 150), (255, 190, 125))
    x, y = rng.uniform(0.15, 0.85) * CANVAS, 0.66 * CANVAS
    for radius, colour in ((46, (253, 190, 130)), (34, (255, 215, 145)), (26, (255, 238, 185))):
        ImageDraw.Draw(picture).circle((x, y), radius, fill=colour)
    _hill(picture, 0.74, 0.02, (112, 78, 110), rng)
    _hill(picture, 0.84, 0.03, (86, 62, 98), rng)
    return picture


def _ocean(rng: Random) -> Image.Image:
    picture = gradient((120, 210, 220), (25, 95, 145))
    pen = ImageDraw.Draw(picture)
    for _ in range(16):
        x, y, radius = rng.uniform(0, CANVAS), rng.uniform(0, CANVAS), rng.uniform(3, 8)
        pen.circle((x, y), radius, outline=(190, 235, 240), width=2)
    _hill(picture, 0.9, 0.025, (205, 190, 150), rng)
    return picture


def _city(rng: Random) -> Image.Image:
    picture = gradient((200, 212, 225), (232, 234, 236))
    pen, x = ImageDraw.Draw(picture), 0
    while x < CANVAS:
        width, top = rng.randint(24, 44), rng.uniform(0.2, 0.5) * CANVAS
        front = rng.choice([(160, 170, 185), (176, 180, 190), (148, 160, 178)])
        pen.rectangle((x, top, x + width - 3, CANVAS), fill=front)
        for row in range(int(top) + 8, int(0.7 * CANVAS), 16):
            for column in range(x + 6, x + width - 10, 12):
                pen.rectangle((column, row, column + 5, row + 7), fill=(226, 228, 214))
        x += width
    pen.rectangle((0, 0.76 * CANVAS, CANVAS, CANVAS), fill=(112, 116, 124))
    for x in range(rng.randint(-40, 0), CANVAS, 48):
        pen.rectangle((x, 0.87 * CANVAS, x + 26, 0.89 * CANVAS), fill=(225, 225, 220))
    return picture


def _room(rng: Random) -> Image.Image:
    wall = rng.choice([(236, 222, 205), (225, 215, 228), (214, 226, 222), (240, 228, 200)])
    picture = Image.new("RGB", (CANVAS, CANVAS), wall)
    pen = ImageDraw.Draw(picture)
    for x in range(rng.randint(0, 20), CANVAS, 26):
        pen.line((x, 0, x, 0.72 * CANVAS), fill=tuple(c - 9 for c in wall), width=6)
    pen.rectangle((0, 0.72 * CANVAS, CANVAS, CANVAS), fill=(190, 150, 112))
    pen.rectangle((0, 0.72 * CANVAS, CANVAS, 0.75 * CANVAS), fill=(250, 247, 240))
    for y in (0.81, 0.88, 0.95):
        pen.line((0, y * CANVAS, CANVAS, y * CANVAS), fill=(172, 132, 96), width=2)
    return picture


def _sky(rng: Random) -> Image.Image:
    picture = gradient((115, 180, 235), (205, 232, 250))
    _clouds(picture, 7, 0.95, (240, 247, 253), rng)
    return picture


def _plain(rng: Random) -> Image.Image:
    tint = rng.choice([(222, 224, 228), (214, 218, 224), (228, 224, 218), (205, 208, 214)])
    return gradient([min(255, c + 14) for c in tint], tint)


BACKGROUNDS: dict[str, Callable[[Random], Image.Image]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "snow": _snow,
    "sunset": _sunset,
    "ocean": _ocean,
    "city": _city,
    "room": _room,
    "sky": _sky,
    "plain": _plain,
}


@lru_cache(maxsize=2 * 10 * VARIANTS)
def background(name: str, variant: int, size: int) -> Image.Image:
    """A background as an RGB picture of `size` x `size` pixels; copy it before drawing. Raises DataError if unknown."""
    if name not in BACKGROUNDS:
        raise DataError(f"background {name!r} is unknown, expected one of {', '.join(BACKGROUNDS)}")
    return BACKGROUNDS[name](Random(f"{name}/{variant}")).resize((size, size), Image.Resampling.LANCZOS)
