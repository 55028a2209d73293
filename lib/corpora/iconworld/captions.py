"""IconWorld captions (VSE, GXN): scenes of one to three coloured things, each told in five sentences.

A scene makes a set of meanings true, and gives each a chance to be said: `meanings(scene)`. Captions are drawn from
this table and put into words; the same table ranks like a perfect reader (`ceiling`).
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from math import comb
from random import Random

from lib.corpora.iconworld import Split, fingerprint, grammar
from lib.corpora.iconworld.backgrounds import VARIANTS
from lib.corpora.iconworld.draw import PALETTE, Scene, Thing
from lib.corpora.iconworld.grammar import NOUNS, OPENINGS, PLACES, Meaning, meanings, say
from lib.corpora.types import CaptionedImage, Corpus

COLOURS = tuple(PALETTE)
# Three nouns a colour: each colour and each noun is seen in training, these pairs never.
HELD_OUT = frozenset((COLOURS[i % len(COLOURS)], noun) for i, noun in enumerate(NOUNS) if i % 5 < 3)

# (centres of the things, range of their size) -> how often a scene is laid out so
LAYOUTS = {
    (((0.5, 0.52),), (0.48, 0.66)): 4,
    (((0.27, 0.52), (0.73, 0.52)), (0.36, 0.42)): 3,
    (((0.5, 0.26), (0.5, 0.75)), (0.36, 0.42)): 2,
    (((0.18, 0.52), (0.5, 0.52), (0.82, 0.52)), (0.26, 0.30)): 1,
    (((0.5, 0.18), (0.5, 0.5), (0.5, 0.83)), (0.25, 0.28)): 0.5,
    (((0.5, 0.26), (0.27, 0.74), (0.73, 0.74)), (0.32, 0.37)): 0.5,
    (((0.27, 0.26), (0.73, 0.26), (0.5, 0.74)), (0.32, 0.37)): 0.5,
}
ALONE = next(iter(LAYOUTS))


# ---- the corpus ----


@dataclass(frozen=True)
class Captions(Split):
    """Captioned scenes, id `train-17`; in `train` no scene shows a held-out pair."""

    def example(self, index: int) -> CaptionedImage:
        """The picture `scene(index)` with five captions that put `told(index)` into words."""
        rng = self.stream(index, "words")
        openings = rng.sample(OPENINGS, 5)  # five different ones, so five different captions
        captions = tuple(say(*told, rng) for told in zip(self.told(index), openings, strict=True))
        return CaptionedImage(f"{self.name}-{index}", self.scene(index), captions)

    def told(self, index: int) -> list[Meaning]:
        """What the five captions of a picture mean, in their order."""
        table = meanings(self.scene(index))
        return self.stream(index, "meanings").choices(list(table), weights=list(table.values()), k=5)

    def scene(self, index: int) -> Scene:
        """The picture as data. Dev and test ask more than training does, in five of every ten pictures."""
        rng = self.stream(index, "scene")
        rare = sorted(HELD_OUT)
        match index % 10 if self.name != "train" else None:
            case 0 | 5:  # just a held-out pair: each comes often enough to be found
                return _lay_out(ALONE, [rare[index // 5 % len(rare)]], rng)
            case 1:  # such a noun in a colour that training knows: where image - word + word starts
                return _lay_out(ALONE, [_painted(rare[index // 10 % len(rare)][1], HELD_OUT, rng)], rng)
            case 2:  # told apart from the next picture by nothing but the relation
                layout = _choose({layout: often for layout, often in LAYOUTS.items() if layout != ALONE}, rng)
            case 3:
                return _changed_over(self.scene(index - 1))
            case _:
                layout = _choose(LAYOUTS, rng)
        never = HELD_OUT if self.name == "train" else frozenset()
        return _lay_out(layout, [_painted(noun, never, rng) for noun in rng.sample(list(NOUNS), len(layout[0]))], rng)


def _choose(weights: dict, rng: Random):
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def _painted(noun: str, never: frozenset[tuple[str, str]], rng: Random) -> tuple[str, str]:
    return rng.choice([colour for colour in COLOURS if (colour, noun) not in never]), noun


def _lay_out(layout: tuple, pairs: list[tuple[str, str]], rng: Random) -> Scene:
    centres, sizes = layout
    things = []
    for (colour, noun), centre in zip(pairs, centres, strict=True):
        x, y = (round(at + rng.uniform(-0.03, 0.03), 3) for at in centre)
        things.append(Thing(noun, colour, x, y, round(rng.uniform(*sizes), 3), round(rng.uniform(-12, 12), 1)))
    return Scene(tuple(things), rng.choice(list(PLACES)), rng.randrange(VARIANTS))


def _changed_over(scene: Scene) -> Scene:
    """The same things in each other's places, the first in the last one's."""
    swapped = zip(scene.objects, reversed(scene.objects), strict=True)
    return replace(scene, objects=tuple(replace(thing, x=other.x, y=other.y) for thing, other in swapped))


def load(train: int = 2000, dev: int = 250, test: int = 500, seed: int = 0, limit: int | None = None) -> Corpus:
    """The corpus `iconworld-captions` with so many pictures a split, five captions each, made on demand.

    `limit` keeps the first pictures of the training split, as it does for files.
    """
    options = {"train": min(train, limit or train), "dev": dev, "test": test, "seed": seed}
    splits = {name: Captions(name, options[name], seed) for name in ("train", "dev", "test")}
    notes = {"held-out pairs": len(HELD_OUT), "pairs": len(COLOURS) * len(NOUNS)}
    return Corpus(
        "iconworld-captions", **splits, fingerprint=fingerprint(options, __file__, grammar.__file__), notes=notes
    )


def colour_noun_pairs(scene: Scene) -> set[tuple[str, str]]:
    """The (colour, noun) pairs that a scene shows."""
    return {(thing.colour, thing.noun) for thing in scene.objects}


# ---- the perfect reader ----


@lru_cache(maxsize=2)
def readings(split: Captions) -> dict[Meaning, dict[int, float]]:
    """Meaning -> the pictures it is true of, each with the chance to be told so."""
    true_of = defaultdict(dict)
    for index in range(len(split)):
        for meaning, chance in meanings(split.scene(index)).items():
            true_of[meaning][index] = chance
    return dict(true_of)


def ceiling(split: Captions) -> dict[str, dict[str, float] | float]:
    """R@1, R@5, R@10 in per cent, both directions, of a reader who knows what each caption is true of.

    It ranks by the chance that the picture was told so (given a picture: that the caption is about it and no other),
    the best ranking there is on average; ties come in random order, and R@k is the expectation.
    """
    true_of = readings(split)
    captions = [(index, meaning) for index in range(len(split)) for meaning in split.told(index)]
    pictures = [[(chance, i == owner) for i, chance in true_of[meaning].items()] for owner, meaning in captions]
    sentences = [[] for _ in range(len(split))]
    for owner, meaning in captions:
        total = sum(true_of[meaning].values())
        for i, chance in true_of[meaning].items():
            sentences[i].append((chance / total, i == owner))
    result = {"i2t": _recalls(sentences), "t2i": _recalls(pictures)}
    return result | {"rsum": sum(sum(recalls.values()) for recalls in result.values())}


def _recalls(rankings: list[list[tuple[float, bool]]]) -> dict[str, float]:
    return {f"R@{k}": 100 * sum(_found(ranking, k) for ranking in rankings) / len(rankings) for k in (1, 5, 10)}


def _found(ranking: list[tuple[float, bool]], k: int) -> float:
    """The chance that a right one is among the first k of (score, right?), ties in random order."""
    best_first = sorted(((round(score, 12), right) for score, right in ranking), reverse=True)
    for _, tied in groupby(best_first, key=lambda entry: entry[0]):
        right = [is_right for _, is_right in tied]
        if len(right) > k:
            return 1 - comb(right.count(False), k) / comb(len(right), k)
        if any(right):
            return 1.0
        k -= len(right)
    return 0.0


def decided_by(split: Captions) -> list[str]:
    """For each caption (five a picture) the hardest detail it needs: without it, other pictures would fit too.

    From hard to easy `relation`, `company` (the other things), `background`, `colour`; `noun` if it needs none of them.
    """
    true_of = readings(split)
    return [_hardest_need(meaning, true_of) for index in range(len(split)) for meaning in split.told(index)]


def _hardest_need(meaning: Meaning, true_of: dict[Meaning, dict[int, float]]) -> str:
    mentions = meaning.mentions
    without = {
        "relation": meaning._replace(relation=("one", "two", "three")[len(mentions) - 1]),
        "company": meaning._replace(relation="one", mentions=mentions[:1]),
        "background": meaning._replace(background=None),
        "colour": meaning._replace(mentions=tuple((None, noun) for _, noun in mentions)),
    }
    needed = (detail for detail, vague in without.items() if len(true_of[vague]) > len(true_of[meaning]))
    return next(needed, "noun")
