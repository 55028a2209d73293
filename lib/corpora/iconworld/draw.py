"""How IconWorld looks: icons of Font Awesome as stickers with an outline and a shadow, on simple backgrounds."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lib.corpora.iconworld import backgrounds
from lib.corpora.iconworld.backgrounds import Colour, background, gradient
from lib.corpora.types import DataError
from lib.sources import hash_of

PALETTE: dict[str, Colour] = {
    "red": (222, 45, 45),
    "orange": (250, 140, 25),
    "yellow": (250, 222, 50),
    "green": (45, 160, 65),
    "blue": (40, 100, 225),
    "purple": (145, 65, 190),
    "white": (248, 248, 248),
    "black": (35, 35, 40),
}
PALE = {"yellow", "white"}  # these get a dark outline, the others a white one: visible on every background

# what things are called -> the icon's name in Font Awesome
ICONS = {
    **{name: name for name in "truck bus bicycle plane helicopter rocket sailboat tractor dog cat horse cow".split()},
    **{name: name for name in "fish frog hippo spider dragon tree house umbrella guitar drum carrot burger".split()},
    **{name: name for name in "bell key clock camera book chair gift robot crown".split()},
    "car": "car-side",
    "train": "train-subway",
    "bird": "crow",
    "apple": "apple-whole",
    "mug": "mug-hot",
    "sofa": "couch",
    "hat": "hat-cowboy",
}

PACKAGE = files("fontawesomefree") / "static" / "fontawesomefree"
FONTS = {"solid": "fa-solid-900.ttf", "regular": "fa-regular-400.ttf", "brands": "fa-brands-400.ttf"}

# Everything beside a scene that decides its pixels. A changed renderer changes every key, so no cache is stale.
_PACKAGES = ", ".join(f"{name} {version(name)}" for name in ("fontawesomefree", "pillow"))
RENDERER = f"{hash_of(Path(__file__), Path(backgrounds.__file__))}, {_PACKAGES}"


@dataclass(frozen=True)
class Thing:
    """An object: its name (a key of ICONS, or any icon), colour (a key of PALETTE), centre and longest side
    as fractions of the picture (x to the right, y down), tilt in degrees."""

    noun: str
    colour: str
    x: float
    y: float
    size: float
    tilt: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A picture as data. `variant` picks one of VARIANTS versions of the background (where the clouds are)."""

    objects: tuple[Thing, ...]
    background: str
    variant: int = 0

    @property
    def key(self) -> str:
        """Decides every pixel."""
        return f"{self!r} {RENDERER}"

    def draw(self, size: int = 128) -> Image.Image:
        """The scene as an RGB picture of `size` x `size` pixels. Raises DataError for an unknown name."""
        picture = background(self.background, self.variant, size).copy()
        for thing in self.objects:
            centre = round(thing.x * size), round(thing.y * size)
            icon, pixels = ICONS.get(thing.noun, thing.noun), round(thing.size * size)
            draw_icon(picture, icon, thing.colour, centre, pixels, thing.tilt)
        return picture


@lru_cache(maxsize=1)
def icon_metadata() -> dict[str, dict]:
    """What Font Awesome says of its icons by name: `label`, `free` styles, `search` terms, `unicode`."""
    return json.loads((PACKAGE / "metadata" / "icons.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=4096)
def glyph(icon: str) -> tuple[str, str]:
    """The font file (solid before regular before brands) and the character of an icon. Raises DataError if unknown."""
    about = icon_metadata().get(icon)
    if about is None:
        raise DataError(f"icon {icon!r} is unknown, expected a name from Font Awesome {version('fontawesomefree')}")
    return next(file for style, file in FONTS.items() if style in about["free"]), chr(int(about["unicode"], 16))


@lru_cache(maxsize=512)
def _font(file: str, em: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(PACKAGE / "webfonts" / file), em, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def _longest_side(file: str, character: str) -> float:
    left, top, right, bottom = _font(file, 512).getbbox(character)
    return max(right - left, bottom - top) / 512


@lru_cache(maxsize=4096)
def icon_mask(icon: str, pixels: int, outline: int = 0) -> Image.Image:
    """A grey square mask with room to turn: the icon, longest side `pixels`, grown by `outline` pixels all around."""
    file, character = glyph(icon)
    font = _font(file, round(pixels / _longest_side(file, character)))
    left, top, right, bottom = font.getbbox(character)
    middle = round(0.8 * pixels)
    mask = Image.new("L", (2 * middle, 2 * middle))
    corner = middle - (left + right) / 2, middle - (top + bottom) / 2
    ImageDraw.Draw(mask).text(corner, character, fill=255, font=font, anchor="la", stroke_width=outline)
    return mask


@lru_cache(maxsize=1024)
def _paint(colour: str, side: int) -> Image.Image:
    """A square of a colour lit from above."""
    if colour not in PALETTE:
        raise DataError(f"colour {colour!r} is unknown, expected one of {', '.join(PALETTE)}")
    base = PALETTE[colour]
    return gradient([min(255, int(c * 1.06 + 14)) for c in base], [int(c * 0.88) for c in base], side)


_SHADE = [level * 2 // 5 for level in range(256)]  # how much of the mask darkens the ground


def draw_icon(
    picture: Image.Image, icon: str, colour: str, centre: tuple[int, int], pixels: int, tilt: float = 0.0
) -> None:
    """Put an icon on an RGB picture like a sticker: outlined, with a soft shadow. `pixels` is its longest side.

    Raises DataError for a name that is not in Font Awesome or not in PALETTE.
    """
    widths = 0, max(1, round(0.035 * pixels))
    body, rim = (icon_mask(icon, pixels, width).rotate(tilt, Image.Resampling.BICUBIC) for width in widths)
    left, top = centre[0] - body.width // 2, centre[1] - body.width // 2
    shadow = rim.filter(ImageFilter.BoxBlur(max(1, pixels / 24))).point(_SHADE)
    picture.paste((15, 20, 40), (left + 1 + pixels // 40, top + 1 + pixels // 24), shadow)
    picture.paste((60, 62, 75) if colour in PALE else (255, 255, 255), (left, top), rim)
    picture.paste(_paint(colour, body.width), (left, top), body)
