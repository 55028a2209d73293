"""Signs in IconWorld's pictures: a board with words on it, large enough for tesseract to read."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lib.corpora.iconworld.backgrounds import Colour
from lib.corpora.iconworld.draw import RENDERER, Scene
from lib.sources import hash_of

LOOKS: dict[str, tuple[Colour, Colour]] = {  # what a board is like: its colour, and the letters'
    "paper": ((250, 246, 232), (40, 36, 48)),
    "chalk": ((38, 70, 60), (244, 246, 240)),
    "night": ((24, 34, 84), (250, 240, 190)),
    "sun": ((250, 208, 60), (48, 32, 24)),
    "brick": ((160, 36, 42), (255, 246, 236)),
}
HEIGHT, WIDTH, MARGIN = 0.42, 0.94, 0.035  # of a board, and of what is free around it and in it
LINE = 11  # a headline that is longer is broken in two

# The letters come with matplotlib, which is found here without the time it takes to import
_FONT = Path(find_spec("matplotlib").origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
PAINTER = f"{hash_of(Path(__file__))}, matplotlib {version('matplotlib')}"


@dataclass(frozen=True)
class Sign:
    """A board at the top or the bottom of a picture: a headline, and below it smaller words. `look` is in LOOKS."""

    headline: str
    details: str
    look: str
    top: bool

    @property
    def words(self) -> str:
        """What stands on it, as it is read."""
        return f"{self.headline} {self.details}"


@dataclass(frozen=True)
class SignedScene(Scene):
    """A scene with a sign in it, or with none."""

    sign: Sign | None = None

    @property
    def key(self) -> str:
        """Decides every pixel."""
        return f"{self!r} {RENDERER} {PAINTER}"

    def draw(self, size: int | None = None) -> Image.Image:
        """The scene as an RGB picture of `size` x `size` pixels: if None 128, and 256 with a sign, for its letters."""
        picture = super().draw(size or (256 if self.sign else 128))
        if self.sign:
            _put_up(picture, self.sign)
        return picture


def _put_up(picture: Image.Image, sign: Sign) -> None:
    size, (board, letters) = picture.width, LOOKS[sign.look]
    left, height = (1 - WIDTH) / 2 * size, HEIGHT * size
    above = MARGIN * size if sign.top else (1 - MARGIN) * size - height
    pen, frame = ImageDraw.Draw(picture), (left, above, size - left, above + height)
    pen.rounded_rectangle([at + size / 80 for at in frame], size / 32, fill=(30, 32, 46))  # its shadow
    pen.rounded_rectangle(frame, size / 32, fill=board)  # without an outline, which hides the words from tesseract
    for lines, at, share in ((_lines(sign.headline.upper()), 0.06, 0.68), ([sign.details], 0.74, 0.2)):
        font = _fitting(lines, share * height / len(lines), size)
        for row, line in enumerate(lines):
            y = above + height * (at + share * (row + 0.5) / len(lines))
            pen.text((size / 2, y), line, fill=letters, font=font, anchor="mm")


def _lines(words: str) -> list[str]:
    """One line, or two about equally long ones."""
    spaces = [at for at, letter in enumerate(words) if letter == " "]
    if len(words) <= LINE or not spaces:
        return [words]
    middle = min(spaces, key=lambda at: abs(len(words) - 1 - 2 * at))
    return [words[:middle], words[middle + 1 :]]


def _fitting(lines: list[str], height: float, size: int) -> ImageFont.FreeTypeFont:
    """Letters as large as a line's height and the longest line let them be."""
    longest = max(_font(100).getlength(line) for line in lines) / 100
    return _font(max(1, int(min(0.9 * height, 0.2 * size, (WIDTH - 2 * MARGIN) * size / longest))))


@lru_cache(maxsize=128)
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FONT, pixels, layout_engine=ImageFont.Layout.BASIC)
