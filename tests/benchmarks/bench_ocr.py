"""Pictures a second that OCR reads: python tests/benchmarks/bench_ocr.py [--pictures N] [--threads N] [...]

Prints one row of a Markdown table for pictures full of words, and one for pictures with nothing on them.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from textwrap import wrap

import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.encoders.ocr import read  # noqa: E402

WORDS = "come to our summer market this weekend entry is free for children bring friends music starts at eight".split()


@dataclass(frozen=True)
class Notice:
    """A picture with so many words on it."""

    number: int
    words: int
    width: int
    height: int

    @property
    def key(self) -> str:
        return repr(self)

    def draw(self) -> Image.Image:
        picture = Image.new("RGB", (self.width, self.height), "ivory")
        text = "\n".join(wrap(" ".join(Random(self.number).choices(WORDS, k=self.words)), 50))
        font = ImageFont.load_default(28)
        ImageDraw.Draw(picture).multiline_text((20, 20), text, fill="black", font=font, spacing=12)
        return picture


def measure(pictures: list[Notice]) -> tuple[float, float]:
    """Pictures a second, with an empty cache, and the share of the words that were found."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        texts = read(pictures, Path(folder) / "ocr.sqlite")
        seconds = time.perf_counter() - start
    found = sum(len(text.split()) for text in texts)
    return len(pictures) / seconds, found / max(1, sum(picture.words for picture in pictures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("pictures", 128), ("words", 30), ("width", 800), ("height", 300)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| pictures | words on each | pictures/s | words found | threads | load |")
    print("|---|---|---|---|---|---|")
    for words in (options.words, 0):
        pictures = [Notice(number, words, options.width, options.height) for number in range(options.pictures)]
        rate, share = measure(pictures)
        size = f"{options.pictures} of {options.width} x {options.height}"
        machine = f"{options.threads} | {os.getloadavg()[0]:.1f}"
        print(f"| {size} | {words} | {rate:.1f} | {share:.0%} | {machine} |", flush=True)


if __name__ == "__main__":
    main()
