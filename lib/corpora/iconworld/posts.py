"""IconWorld posts (CMKP): each keyphrase has its evidence in one known place, and the text tells where to look.

Said in the text (what is said may be in the picture too), hinted at in the text, shown only in the picture, or
written only on a sign in the picture. A picture also shows things that nobody means; words point to the one that is
meant ("look at this", "the red one", "what a view", "as the sign says").
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

from lib.corpora.iconworld import Split, captions, fingerprint, signs, telling, topics
from lib.corpora.iconworld.backgrounds import VARIANTS
from lib.corpora.iconworld.captions import COLOURS, _choose, _lay_out
from lib.corpora.iconworld.signs import LOOKS, Sign, SignedScene
from lib.corpora.iconworld.telling import DETAILS, Mention, tell
from lib.corpora.iconworld.topics import EVENTS, PLACES, THINGS, TOWNS, Topic
from lib.corpora.types import Corpus, Post

EVIDENCE = ("text", "context", "picture", "drawn")
# Of eighty posts: where the evidence of the keyphrases is. As in CMKP's tweets 37 % of the keyphrases are in the text,
# and about as many posts have readable words on the picture (16.5 %) and a second or third keyphrase.
_POSTS = {
    "text": 16,
    "picture": 24,
    "context": 13,
    "drawn": 7,
    "text text": 3,
    "text picture": 3,
    "text context": 2,
    "text drawn": 2,
    "picture drawn": 2,
    "context picture": 1,
    "context drawn": 1,
    "picture picture": 1,
    "text text context": 2,
    "text text picture": 1,
    "text text text": 1,
    "text context drawn": 1,
}
_PATTERN = [tuple(kinds.split()) for kinds, count in _POSTS.items() for _ in range(count)]
TOPICS = {**{thing: 0.85 * often for thing, often in THINGS.items()}, **{p: 0.15 * w for p, w in PLACES.items()}}
SAYS_EVENT = {"text": 0.5, "drawn": 0.7, "context": 0.0, "picture": 0.0}  # else a topic
BY_COLOUR = 0.4  # of the posts that mean one thing: there are two, and the colour tells which
SHOWS_SAID, SHOWS_TWO = 0.5, 0.4  # where nothing in the picture is meant: a thing that the text says, and two things


# ---- the corpus ----


@dataclass(frozen=True)
class Facts:
    """The truth behind a post: its keyphrases; what its picture shows, as (colour, thing) and the background; what
    the text says of them is meant (`telling.tell`), None for nothing; the sign, or None."""

    mentions: tuple[Mention, ...]
    things: tuple[tuple[str, Topic], ...]
    background: str
    pointer: str | None
    sign: Sign | None


@dataclass(frozen=True)
class Posts(Split):
    """Posts with keyphrases, id `train-17`; `ocr` has the words of the sign as they stand there."""

    def example(self, index: int) -> Post:
        """The words of `facts(index)`, the picture `scene(index)`."""
        facts = self.facts(index)
        text = tell(facts.mentions, facts.pointer, self.stream(index, "words"))
        phrases = tuple(mention.topic.phrase for mention in facts.mentions)
        return Post(f"{self.name}-{index}", self.scene(index), text, phrases, facts.sign.words if facts.sign else "")

    def facts(self, index: int) -> Facts:
        """What is true of the post."""
        rng = self.stream(index, "facts")
        mentions = _mentions(_PATTERN[index * 37 % len(_PATTERN)], rng)  # 37: a walk through all of it, kinds mixed
        meant = [mention.topic for mention in mentions if mention.evidence == "picture"]
        by_colour = len(meant) == 1 and bool(meant[0].icon) and rng.random() < BY_COLOUR
        shown = _shown(mentions, meant, by_colour, rng)
        things = tuple(zip(rng.sample(COLOURS, len(shown)), shown, strict=True))
        background = next((topic.background for topic in meant if topic.background), _elsewhere(mentions, rng))
        pointer = things[0][0] if by_colour else _pointer(meant)
        return Facts(mentions, things, background, pointer, _sign(mentions, rng))

    def scene(self, index: int) -> SignedScene:
        """The picture as data."""
        facts, rng = self.facts(index), self.stream(index, "scene")
        pairs = [(colour, topic.icon) for colour, topic in facts.things]
        rng.shuffle(pairs)
        things = _lay_out(_layout(len(pairs), facts.sign), pairs, rng).objects
        return SignedScene(things, facts.background, rng.randrange(VARIANTS), facts.sign)


def _mentions(kinds: tuple[str, ...], rng: Random) -> tuple[Mention, ...]:
    allowed = THINGS if kinds.count("picture") > 1 else TOPICS  # a picture has only one place
    mentions = ()
    for kind in kinds:
        known = {mention.topic for mention in mentions}
        mentions += (Mention(_new_topic(kind, allowed, known, rng), kind),)
    return mentions


def _new_topic(kind: str, allowed: dict[Topic, float], known: set[Topic], rng: Random) -> Topic:
    """An event or one of `allowed`, as usual where the evidence is of that kind, and none of `known`."""
    while True:
        event = rng.random() < SAYS_EVENT[kind]
        topic = Topic(f"{_choose(TOWNS, rng)} {_choose(EVENTS, rng)}") if event else _choose(allowed, rng)
        if topic not in known:
            return topic


def _shown(mentions: tuple[Mention, ...], meant: list[Topic], by_colour: bool, rng: Random) -> list[Topic]:
    """The things in the picture, those that are meant first."""
    shown = [topic for topic in meant if topic.icon]
    count = len(shown) + by_colour
    if not shown:
        said = [mention.topic for mention in mentions if mention.evidence == "text" and mention.topic.icon]
        shown = [topic for topic in said if rng.random() < SHOWS_SAID][:1]
        count = 2 if rng.random() < SHOWS_TWO else 1
    while len(shown) < count:
        others = {*shown, *(mention.topic for mention in mentions)}
        shown.append(_new_topic("picture", THINGS, others, rng))
    return shown


def _elsewhere(mentions: tuple[Mention, ...], rng: Random) -> str:
    """A background that shows none of the places that the post is about."""
    about = {mention.topic for mention in mentions}
    return rng.choice([place.background for place in PLACES if place not in about])


def _pointer(meant: list[Topic]) -> str | None:
    if not meant:
        return None
    return "place" if meant[0].background else "pair" if len(meant) > 1 else "one"


def _sign(mentions: tuple[Mention, ...], rng: Random) -> Sign | None:
    drawn = [mention.topic.phrase for mention in mentions if mention.evidence == "drawn"]
    return Sign(drawn[0], rng.choice(DETAILS), rng.choice(list(LOOKS)), rng.random() < 0.5) if drawn else None


def _layout(count: int, sign: Sign | None) -> tuple:
    """(centres, range of sizes) of one or two things, as large as the sign leaves room for."""
    y = 0.52 if sign is None else 0.73 if sign.top else 0.27
    if count == 1:
        return ((0.5, y),), (0.62, 0.74) if sign is None else (0.40, 0.44)
    return ((0.27, y), (0.73, y)), (0.38, 0.43) if sign is None else (0.35, 0.38)


def load(train: int = 6000, dev: int = 400, test: int = 1200, seed: int = 0, limit: int | None = None) -> Corpus:
    """The corpus `iconworld-posts` with so many posts a split, made on demand.

    `limit` keeps the first posts of the training split, as it does for files.
    """
    options = {"train": min(train, limit or train), "dev": dev, "test": test, "seed": seed}
    splits = {name: Posts(name, options[name], seed) for name in ("train", "dev", "test")}
    sources = (module.__file__ for module in (captions, signs, telling, topics))
    notes = {"topics": len(TOPICS), "events": len(TOWNS) * len(EVENTS)}
    return Corpus("iconworld-posts", **splits, fingerprint=fingerprint(options, __file__, *sources), notes=notes)


# ---- the perfect readers ----

# What each reads. Who reads no text does not know what in the picture is meant.
READERS = {
    "chance": (),
    "picture": ("picture",),
    "text": ("text",),
    "text + drawn text": ("text", "drawn"),
    "text + picture": ("text", "picture"),
    "all": ("text", "picture", "drawn"),
}


def evidence(split: Posts) -> list[tuple[str, ...]]:
    """For each post where the evidence of each of its keyphrases is, in their order: one of EVIDENCE."""
    return [tuple(mention.evidence for mention in split.facts(index).mentions) for index in range(len(split))]


def decided_by(split: Posts) -> list[str]:
    """For each post the place where the evidence of all its keyphrases is, or `several`."""
    return [kinds[0] if len({*kinds}) == 1 else "several" for kinds in evidence(split)]


def read(split: Posts, reader: str) -> list[list[str]]:
    """For each post the phrases that a perfect reader, one of READERS, names, the surest first.

    It names all whose evidence it sees, and only where it sees none the five most usual ones that fit.
    """
    return [_read(split.facts(index), READERS[reader]) for index in range(len(split))]


def ceiling(split: Posts) -> dict[str, dict[str, float]]:
    """F1@1, F1@3 and MAP@5 in per cent of what each of READERS names."""
    from lib.metrics.keyphrases import evaluate

    posts = split[:]
    targets, sources = [list(post.keyphrases) for post in posts], [post.text for post in posts]
    scores = {reader: evaluate(read(split, reader), targets, sources) for reader in READERS}
    return {reader: {name: found[name] for name in ("F1@1", "F1@3", "MAP@5")} for reader, found in scores.items()}


def _read(facts: Facts, senses: tuple[str, ...]) -> list[str]:
    if "text" in senses:
        known = [mention.topic for mention in facts.mentions if mention.evidence in ("context", *senses)]
        fitting = PLACES if facts.pointer == "place" else THINGS if facts.pointer else TOPICS
        return [topic.phrase for topic in known or _most_usual(fitting)]
    if "picture" in senses:
        place = [topic for topic in PLACES if topic.background == facts.background]
        return [topic.phrase for topic in [topic for _, topic in facts.things] + place]
    return [topic.phrase for topic in _most_usual(TOPICS)]


def _most_usual(topics: dict[Topic, float]) -> list[Topic]:
    return [topic for topic, _ in Counter(topics).most_common(5)]
