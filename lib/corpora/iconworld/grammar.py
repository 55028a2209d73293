"""What can be said of a scene, how likely it is said, and in which words."""

from itertools import permutations, product
from math import prod
from random import Random
from typing import NamedTuple

from lib.corpora.iconworld.draw import Scene, Thing

_NOUNS = """car automobile, truck lorry, bus coach, bicycle bike, plane airplane, helicopter chopper, rocket spaceship,
sailboat yacht, tractor, train, dog puppy, cat kitten, horse pony, cow, fish, bird, frog toad, hippo hippopotamus,
spider, dragon, tree fir, house home, umbrella parasol, guitar, drum, apple, carrot, burger hamburger, mug cup, bell,
key, clock, camera, book, chair, sofa couch, gift present, hat, robot, crown"""
NOUNS = {words.split()[0]: tuple(words.split()) for words in _NOUNS.split(",")}  # noun -> the words for it
PLACES = {
    "meadow": ("on the grass", "in a meadow", "in a field"),
    "beach": ("on the beach", "on the sand", "by the sea"),
    "night": ("at night", "under the stars", "in the dark"),
    "snow": ("in the snow", "in winter"),
    "sunset": ("at sunset", "in the evening"),
    "ocean": ("under water", "in the ocean"),
    "city": ("in the city", "in town", "on a street"),
    "room": ("in a room", "indoors"),
    "sky": ("in the sky", "among the clouds"),
    "plain": ("on a plain background", "in front of an empty wall"),
}
OPENINGS = ("", "a picture of", "a photo of", "an image of", "this is", "look at", "there is", "you can see", "we see")
AFTER_PLACE = OPENINGS[-3:]  # "at night there is ..."


class Meaning(NamedTuple):
    """What a caption says: a relation of one to three (colour or None, noun), at a background or None."""

    relation: str
    mentions: tuple[tuple[str | None, str], ...]
    background: str | None


def is_left_of(a: Thing, b: Thing) -> bool:
    """Clearly more to the left than up or down."""
    return b.x - a.x > max(0.2, abs(b.y - a.y))


def is_above(a: Thing, b: Thing) -> bool:
    """Clearly more above than beside."""
    return b.y - a.y > max(0.2, abs(b.x - a.x))


def is_next_to(a: Thing, b: Thing) -> bool:
    """Left or right of it with room for nothing between."""
    return (is_left_of(a, b) or is_left_of(b, a)) and abs(a.x - b.x) < 0.55


def is_between(a: Thing, b: Thing, c: Thing) -> bool:
    """On a line with b and c, in the middle."""
    return any(f(b, a) and f(a, c) or f(c, a) and f(a, b) for f in (is_left_of, is_above))


# relation -> (how many things it is about, when it holds, its words)
RELATIONS = {
    "one": (1, lambda a: True, ("",)),
    "two": (2, lambda a, b: True, ("and", "with")),
    "three": (3, lambda a, b, c: True, ("and", "with")),
    "left of": (2, is_left_of, ("to the left of", "on the left of", "left of")),
    "right of": (2, lambda a, b: is_left_of(b, a), ("to the right of", "on the right of", "right of")),
    "above": (2, is_above, ("above", "over")),
    "below": (2, lambda a, b: is_above(b, a), ("below", "beneath", "under")),
    "next to": (2, is_next_to, ("next to", "beside")),
    "between": (3, is_between, ("between", "in between")),
}
SAYS_COLOUR, SAYS_PLACE = 0.75, 0.4


def meanings(scene: Scene) -> dict[Meaning, float]:
    """All that is true of a scene and can be said in one caption -> the chance that a caption says it (sum 1).

    Every relation that holds is as likely, then every choice of things; colours and background drop out at random.
    """
    found = {}
    for relation, (count, holds, _) in RELATIONS.items():
        if choices := [things for things in permutations(scene.objects, count) if holds(*things)]:
            found[relation] = choices
    table = {}
    for relation, choices in found.items():
        for things in choices:
            for *coloured, placed in product((True, False), repeat=len(things) + 1):
                mentions = tuple((t.colour if said else None, t.noun) for t, said in zip(things, coloured, strict=True))
                details = [SAYS_COLOUR if said else 1 - SAYS_COLOUR for said in coloured]
                chance = prod(details, start=SAYS_PLACE if placed else 1 - SAYS_PLACE)
                meaning = Meaning(relation, mentions, scene.background if placed else None)
                table[meaning] = chance / len(choices) / len(found)
    return table


def say(meaning: Meaning, opening: str, rng: Random) -> str:
    """A meaning in lower-case words, by a grammar with synonyms; `opening` is one of OPENINGS."""
    first, *others = (_noun_phrase(colour, noun, rng) for colour, noun in meaning.mentions)
    core = f"{first} {rng.choice(RELATIONS[meaning.relation][2])} {' and '.join(others)}"
    place = rng.choice(PLACES[meaning.background]) if meaning.background else ""
    place_first = opening in AFTER_PLACE and rng.random() < 0.4
    words = (place, opening, core) if place_first else (opening, core, place)
    return " ".join(" ".join(words).split())


def _noun_phrase(colour: str | None, noun: str, rng: Random) -> str:
    word = rng.choice(NOUNS[noun])
    if colour and rng.random() < 0.1:
        return f"{_with_article(word)} that is {colour}"
    return _with_article(f"{colour} {word}" if colour else word)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
