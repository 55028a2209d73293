"""Image wordings, second part: attributes, words for what a picture shows (Wang et al. 2020).

Three sources behind one interface, `source(posts) -> [words of each post]`: the posts' own file (FromFile), the
likeliest classes of a pretrained network (ClassNames), and a predictor trained on captions
(lib.tasks.attributes.Predicted).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

import torch

from lib.corpora.types import Post
from lib.encoders.images import ImageEncoder
from lib.words import words

COUNT = 5  # attributes of a picture
NOUN_OR_ADJECTIVE = ("NN", "AJ")  # how such tags begin in the British National Corpus's set, HanTa's for English


class FromFile:
    """The attributes that the posts came with."""

    identity = "file"

    def __call__(self, posts: Sequence[Post]) -> list[tuple[str, ...]]:
        return [post.attributes for post in posts]


class ClassNames(ImageEncoder):
    """The words of the five likeliest ImageNet classes, computed once a picture, as numbers of classes."""

    def __init__(self, name: str = "lite0", size: int = 224):
        super().__init__(name, "pooled", size)
        from torchvision.models._meta import _IMAGENET_CATEGORIES as names

        self.names = names

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (COUNT,)

    @property
    def identity(self) -> str:
        return f"classes-{super().identity}"

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pictures [B, 3, S, S] -> numbers of classes [B, 5], which half precision holds exactly."""
        number = {name: i for i, name in enumerate(self.names)}
        return torch.tensor([[number[name] for name in row] for row in self.class_names(pixels, COUNT)]).float()

    def __call__(self, posts: Sequence[Post]) -> list[tuple[str, ...]]:
        found = self.features([post.image for post in posts])
        rows = found[range(len(posts))].long().tolist()
        named = [[word for i in row for word in self.names[i].lower().split()] for row in rows]
        return [tuple(row) if shown else () for row, shown in zip(named, found.present.tolist(), strict=True)]


@cache
def noun_or_adjective(word: str) -> str | None:
    """The base form of an English word that by itself is most likely a noun or an adjective ("dogs": dog), or None."""
    lemma, tag = _tagger().analyze(word)
    return lemma.lower() if tag.startswith(NOUN_OR_ADJECTIVE) else None


@cache
def _tagger():
    from HanTa.HanoverTagger import HanoverTagger  # slow to load; its model comes with it

    return HanoverTagger("morphmodel_en.pgz")


def attributes_in(captions: Iterable[str]) -> set[str]:
    """The nouns and adjectives of some captions, in their base form."""
    found = {noun_or_adjective(word) for caption in captions for word in set(words(caption))}
    return found - {None}


def commonest(captions: Iterable[str], count: int) -> list[str]:
    """The `count` commonest nouns and adjectives, the commonest first."""
    counts = Counter(attribute for caption in captions for attribute in attributes_in([caption]))
    return sorted(counts, key=lambda attribute: (-counts[attribute], attribute))[:count]
