"""Imagined pictures before judges: which colour and kind of thing they show, and whose caption they are nearest to.

A probe of ordinary features is thrown off by the fine speckle of imagined pictures. This one has also seen blurred and
noisy real pictures, and all that it judges is made small and slightly blurred first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from lib.corpora.iconworld.captions import COLOURS, HELD_OUT, Captions
from lib.corpora.iconworld.draw import PALETTE, Scene
from lib.corpora.iconworld.grammar import NOUNS
from lib.corpora.types import CaptionedImage, Drawing, Picture, open_picture, picture_key
from lib.encoders.images import ImageEncoder, pixels
from lib.metrics import pictures

BLUR, NOISE = 0.7, 12.0  # a radius in pixels of the imagined picture, a deviation in shades of 256
KINDS = tuple(NOUNS)


@dataclass(frozen=True)
class Treated:
    """A real picture as an imagined one is judged: `size` pixels wide, with noise if asked for, blurred."""

    picture: Path | Drawing
    size: int
    noise: float = 0.0
    blur: float = BLUR

    @property
    def key(self) -> str:
        return f"{picture_key(self.picture).hex()} {self.size} {self.noise} {self.blur}"

    def draw(self) -> Image.Image:
        small = open_picture(self.picture).resize((self.size, self.size))
        if self.noise:
            random = np.random.default_rng(list(self.key.encode()))
            noisy = np.asarray(small) + random.normal(0, self.noise, (self.size, self.size, 3))
            small = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        return small.filter(ImageFilter.GaussianBlur(self.blur))


def blurred(drawn: torch.Tensor, size: int) -> torch.Tensor:
    """Imagined pictures [N, 3, S, S] as bytes of `size` pixels, as a network is to see them."""
    images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in drawn]
    return torch.stack([pixels(image.filter(ImageFilter.GaussianBlur(BLUR)), size=size) for image in images])


def alone(example: CaptionedImage) -> bool:
    """Whether a picture shows one thing alone, as far as that is known."""
    return isinstance(example.image, Scene) and len(example.image.objects) == 1


def asked(examples: Sequence[CaptionedImage]) -> list[tuple[int, int]]:
    """Which captions are imagined, as (picture, which of its captions): on IconWorld those that name the colour of a
    thing alone, elsewhere each picture's first."""
    pairs = [
        (i, j)
        for i, example in enumerate(examples)
        if alone(example)
        for j, caption in enumerate(example.captions)
        if example.image.objects[0].colour in caption.split()
    ]
    return pairs or [(i, 0) for i, example in enumerate(examples) if example.image is not None]


def held_out(examples: Sequence[CaptionedImage]) -> np.ndarray:
    """Which pictures show a thing alone in a colour that training never shows it in [N] bool."""
    things = [example.image.objects[0] if alone(example) else None for example in examples]
    return np.array([thing is not None and (thing.colour, thing.noun) in HELD_OUT for thing in things])


def colours_right(drawn: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
    """Whether the middle of each picture [N, 3, S, S] is nearest to the colour of its scene's thing [N]."""
    gold = torch.tensor([COLOURS.index(scene.objects[0].colour) for scene in scenes])
    return pictures.nearest_colour(drawn, torch.tensor(list(PALETTE.values()))) == gold


def features(encoder: ImageEncoder, shown: Sequence[Picture]) -> torch.Tensor:
    """Cached features of pictures, a grid by its mean: [N, D]."""
    return _pooled(encoder.features(shown)[:])


def encoded(encoder: ImageEncoder, drawn: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """What the network sees of imagined pictures [N, 3, S, S]: [N, *row_shape]."""
    chunks = drawn.split(batch)
    return torch.cat([encoder.encode(blurred(chunk, encoder.size)) for chunk in chunks])


def _pooled(rows: torch.Tensor) -> torch.Tensor:
    return rows.mean(1) if rows.ndim == 3 else rows


class Probe:
    """Least squares on standardised features: which kind of thing a picture shows."""

    def __init__(self, encoder: ImageEncoder, size: int, scenes: int):
        every = Captions("judge", 3 * scenes, seed=1)  # all pairs of colour and kind, none of the corpus's pictures
        shown = [scene for scene in map(every.scene, range(len(every))) if len(scene.objects) == 1][:scenes]
        x = torch.cat([features(encoder, seen) for seen in self.ways(shown, size)]).double()  # (3 N, D)
        self.mean, self.std = x.mean(0), x.std(0) + 1e-6
        kinds = torch.tensor([KINDS.index(scene.objects[0].noun) for scene in shown]).repeat(3)
        x, y = (x - self.mean) / self.std, torch.nn.functional.one_hot(kinds, len(KINDS)).double()
        penalty = 0.1 * len(x) * torch.eye(x.shape[1], dtype=torch.double)
        self.weights = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - y.mean(0)))  # (D, K)

    @staticmethod
    def ways(scenes: Sequence[Scene], size: int) -> list[list[Picture]]:
        """Real pictures as they are, blurred, and noisy before that."""
        return [scenes, [Treated(scene, size) for scene in scenes], [Treated(scene, size, NOISE) for scene in scenes]]

    def ranks(self, x: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """The rank, from 0, of the kind that each scene shows, by what is seen of it: [N, D] -> [N]."""
        scores = ((_pooled(x).double() - self.mean) / self.std) @ self.weights  # (N, K)
        gold = torch.tensor([KINDS.index(scene.objects[0].noun) for scene in scenes])
        return (scores >= scores.gather(1, gold[:, None])).sum(1) - 1


@lru_cache(maxsize=2)
def probe(name: str, layer: str, image_size: int, size: int, scenes: int) -> Probe:
    """The probe of an encoder for imagined pictures of `size` pixels; made once in a process, its features once."""
    return Probe(ImageEncoder(name, layer, image_size), size, scenes)
