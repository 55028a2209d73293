"""IconWorld entities (MAF): posts with ambiguous names whose type the picture settles, if it is the post's own.

Of each pair of neighbours in a split both show their own picture, or each shows the other's. A post also says where it
was made and with what, and only its own picture shows that: so a reader can tell whom to believe.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from random import Random

from lib.corpora.iconworld import Split, captions, fingerprint, grammar, names
from lib.corpora.iconworld.backgrounds import VARIANTS
from lib.corpora.iconworld.captions import COLOURS, _choose, _lay_out
from lib.corpora.iconworld.draw import Scene
from lib.corpora.iconworld.grammar import PLACES
from lib.corpora.iconworld.names import AMBIGUOUS, PRIOR, TYPES, UNAMBIGUOUS, Facts, Mention, tell
from lib.corpora.types import Corpus, TaggedPost

# Of twenty pairs of posts: what decides the types of the two, and whether both have their own pictures
PAIRS = {(("picture", "picture"), True): 9, (("text", "text"), True): 6, (("neither", "text"), False): 5}
TWO_NAMES = 0.25  # of the posts
SAYS_PLACE, SAYS_COMPANION, HAS_BYSTANDER = 0.9, 0.6, 0.25  # a bystander only where there is no companion
SHOWS_COMPANY = SAYS_COMPANION + (1 - SAYS_COMPANION) * HAS_BYSTANDER
SHOWS_LOGO = 0.5  # of the firms that have one
_PATTERN = [pair for pair, count in PAIRS.items() for _ in range(count)]

# What a picture shows of a name of that type, in any colour
EVIDENCE = {
    "PER": "user user-graduate user-nurse user-astronaut person child-reaching".split(),
    "LOC": "mountain mountain-sun location-dot map-location-dot earth-americas torii-gate".split(),
    "ORG": "building industry building-columns store warehouse briefcase".split(),
    "MISC": "film music gamepad ticket headphones masks-theater".split(),
}
# The mark of the very firm. (The noun "apple" is the fruit, so that firm shows its other mark.)
LOGOS = {"Amazon": "amazon", "Apple": "apple-pay", "Blackberry": "blackberry"}
LOGOS |= {name: name.lower() for name in ("Google", "Microsoft", "Airbnb")}
TYPE_SHOWN = {icon: label for label, icons in EVIDENCE.items() for icon in icons} | dict.fromkeys(LOGOS.values(), "ORG")
COMPANIONS = "dog cat horse fish bird spider umbrella bicycle car sailboat burger carrot".split()

# how many names, how many for company -> (centres, range of sizes) of what shows the names, and of the company
NOBODY = ((), (0, 0))
LAYOUTS = {
    (1, 0): ((((0.5, 0.5),), (0.6, 0.72)), NOBODY),
    (1, 1): ((((0.39, 0.4),), (0.53, 0.6)), (((0.8, 0.78),), (0.33, 0.37))),
    (2, 0): ((((0.27, 0.38), (0.73, 0.62)), (0.44, 0.48)), NOBODY),
    (2, 1): ((((0.26, 0.31), (0.74, 0.31)), (0.41, 0.45)), (((0.5, 0.79),), (0.33, 0.37))),
}


# ---- the corpus ----


@dataclass(frozen=True)
class Entities(Split):
    """Posts with tagged names, id `train-17`."""

    def example(self, index: int) -> TaggedPost:
        """The words of `facts(index)`, the picture `scene(index)`."""
        tokens, tags = zip(*tell(self.facts(index), self.stream(index, "words")), strict=True)
        return TaggedPost(f"{self.name}-{index}", self.scene(index), tokens, tags)

    def facts(self, index: int) -> Facts:
        """What is true of the post."""
        rng = self.stream(index, "facts")
        kinds, matched = _PATTERN[index // 2 * 7 % len(_PATTERN)]  # 7: a walk through all of it, the kinds mixed
        mentions = _mentions(kinds[index % 2], rng)
        place = self.background(index) if rng.random() < SAYS_PLACE else None
        companion = rng.choice(COMPANIONS) if rng.random() < SAYS_COMPANION else None
        return Facts(kinds[index % 2], matched, mentions, place, companion)

    def scene(self, index: int) -> Scene:
        """The picture that the post shows. The one exchanged is the neighbour's, so every picture is shown once."""
        return self.own_scene(index if self.facts(index).matched else index ^ 1)

    def own_scene(self, index: int) -> Scene:
        """The picture that belongs to the post: a thing of each name's type, some company, the place."""
        facts, rng = self.facts(index), self.stream(index, "scene")
        evidence = [_evidence(mention, rng) for mention in facts.mentions]
        rng.shuffle(evidence)  # which thing shows which name is for the reader to find out
        company = _company(facts, rng)
        groups = zip(LAYOUTS[len(evidence), len(company)], (evidence, company), strict=True)
        things = [thing for layout, nouns in groups for thing in _lay_out(layout, _paint(nouns, rng), rng).objects]
        if rng.random() < 0.5:
            things = [replace(thing, x=round(1 - thing.x, 3)) for thing in things]
        return Scene(tuple(things), self.background(index), rng.randrange(VARIANTS))

    def background(self, index: int) -> str:
        """Where the post was made; never where its neighbour was."""
        elsewhere = {self.background(index - 1)} if index % 2 else set()
        return self.stream(index, "background").choice([place for place in PLACES if place not in elsewhere])


def _mentions(kind: str, rng: Random) -> tuple[Mention, ...]:
    count = 2 if rng.random() < TWO_NAMES else 1
    if kind == "text":
        return tuple(_settled_mention(rng) for _ in range(count))
    first = _drawn(rng.choice(list(AMBIGUOUS)), "picture" if kind == "picture" else "nothing", rng)
    if count == 1:
        return (first,)
    # With two types or more in common, two names could change places in the picture
    apart = [name for name, types in AMBIGUOUS.items() if len({*types} & {*AMBIGUOUS[first.name]}) < 2]
    second = _unmistakable(rng) if rng.random() < 0.5 else _drawn(rng.choice(apart), first.settled_by, rng)
    return tuple(rng.sample([first, second], 2))


def _settled_mention(rng: Random) -> Mention:
    if rng.random() < 0.5:
        return _drawn(rng.choice(list(AMBIGUOUS)), "cue", rng)
    return replace(_unmistakable(rng), settled_by=rng.choice(("name", "cue")))


def _drawn(name: str, settled_by: str, rng: Random) -> Mention:
    return Mention(name, _choose(PRIOR[name], rng), settled_by)


def _unmistakable(rng: Random) -> Mention:
    name = rng.choice(list(UNAMBIGUOUS))
    return Mention(name, UNAMBIGUOUS[name], "name")


def _evidence(mention: Mention, rng: Random) -> str:
    if mention.type == "ORG" and mention.name in LOGOS and rng.random() < SHOWS_LOGO:
        return LOGOS[mention.name]
    return rng.choice(EVIDENCE[mention.type])


def _company(facts: Facts, rng: Random) -> list[str]:
    """The companion; without one sometimes a bystander, of whom the words say nothing."""
    if facts.companion:
        return [facts.companion]
    return [rng.choice(COMPANIONS)] if rng.random() < HAS_BYSTANDER else []


def _paint(nouns: list[str], rng: Random) -> list[tuple[str, str]]:
    return [(rng.choice(COLOURS), noun) for noun in nouns]


def load(train: int = 6000, dev: int = 300, test: int = 800, seed: int = 0, limit: int | None = None) -> Corpus:
    """The corpus `iconworld-entities` with so many posts a split, made on demand.

    `limit` keeps the first posts of the training split, as it does for files.
    """
    options = {"train": min(train, limit or train), "dev": dev, "test": test, "seed": seed}
    splits = {name: Entities(name, options[name], seed) for name in ("train", "dev", "test")}
    sources = (module.__file__ for module in (captions, grammar, names))
    notes = {"ambiguous names": len(AMBIGUOUS), "unambiguous names": len(UNAMBIGUOUS)}
    return Corpus("iconworld-entities", **splits, fingerprint=fingerprint(options, __file__, *sources), notes=notes)


def evidence_shown(scene: Scene) -> Counter[str]:
    """The types that a picture shows something of, and of each how many things."""
    return Counter(TYPE_SHOWN[thing.noun] for thing in scene.objects if thing.noun in TYPE_SHOWN)


def company_shown(scene: Scene) -> str | None:
    """The companion or bystander in a picture, if any."""
    return next((thing.noun for thing in scene.objects if thing.noun in COMPANIONS), None)


# ---- the perfect readers ----


def decided_by(split: Entities) -> list[str]:
    """For each post what tells the types of its names: `picture` (an ambiguous name in a neutral sentence, the post's
    own picture), `text` (every name is told by itself or by a cue) or `neither` (the picture is another post's)."""
    return [split.facts(index).kind for index in range(len(split))]


def matched(split: Entities) -> list[bool]:
    """For each post whether it shows its own picture."""
    return [split.facts(index).matched for index in range(len(split))]


def match_chances(split: Entities) -> list[float]:
    """For each post how likely the picture is its own, to a reader who compares all that is said with all shown."""
    return [_match_chance(split.facts(index), split.scene(index)) for index in range(len(split))]


def ceiling(split: Entities) -> dict[str, dict[str, float]]:
    """Expected lenient micro F1 in per cent of perfect readers, over all posts and by what decides them.

    They find every name, so that F1 is the share of right types. What a reader cannot see, the type that an ambiguous
    name has by chance, counts as its expectation.
    """
    posts = [(split.facts(index), split.scene(index)) for index in range(len(split))]
    return {reader: _scores(posts, weigh, reader != "text only") for reader, weigh in READERS.items()}


def _scores(posts: list[tuple[Facts, Scene]], weigh: Callable, looks: bool) -> dict[str, float]:
    right = {kind: [] for kind in ("all", "picture", "text", "neither")}
    for facts, scene in posts:
        guesses = _guess(facts.mentions, weigh(facts, scene))
        for mention, guess in zip(facts.mentions, guesses, strict=True):
            chance = float(guess == mention.type) if looks and facts.matched else mention.candidates[guess]
            right["all"].append(chance)
            right[facts.kind].append(chance)
    return {kind: 100 * sum(chances) / max(1, len(chances)) for kind, chances in right.items()}


def _readings(mentions: tuple[Mention, ...]) -> list[tuple[tuple[str, ...], float]]:
    """The types that the names can have together, and how usual that is."""
    readings = product(*(mention.candidates.items() for mention in mentions))
    return [(tuple(label for label, _ in reading), prod(usual for _, usual in reading)) for reading in readings]


def _guess(mentions: tuple[Mention, ...], weight: Callable[[Counter], float]) -> list[str]:
    """The likeliest type of each name, where `weight` says how well types fit the picture."""
    beliefs = [Counter() for _ in mentions]
    for types, usual in _readings(mentions):
        for belief, label in zip(beliefs, types, strict=True):
            belief[label] += usual * weight(Counter(types))
    return [belief.most_common(1)[0][0] for belief in beliefs]


def _ignore(facts: Facts, scene: Scene) -> Callable[[Counter], float]:
    return lambda types: 1.0


def _believe(facts: Facts, scene: Scene) -> Callable[[Counter], float]:
    shown = evidence_shown(scene)
    return lambda types: 1000.0 ** (types & shown).total()  # the more is seen the better, then the more usual


def _know(facts: Facts, scene: Scene) -> Callable[[Counter], float]:
    return (_believe if facts.matched else _ignore)(facts, scene)


def _judge(facts: Facts, scene: Scene) -> Callable[[Counter], float]:
    (own, other), shown = _likelihoods(facts, scene), evidence_shown(scene)
    return lambda types: own * (types == shown) + other


READERS = {
    "text only": _ignore,
    "both, believing every picture": _believe,
    "both, judging the match": _judge,
    "both, knowing which picture is its own": _know,
}


def _match_chance(facts: Facts, scene: Scene) -> float:
    (own, other), shown = _likelihoods(facts, scene), evidence_shown(scene)
    own *= sum(usual for types, usual in _readings(facts.mentions) if Counter(types) == shown)
    return own / (own + other)


def _likelihoods(facts: Facts, scene: Scene) -> tuple[float, float]:
    """How likely a post shows this picture as its own if the names' types are the ones shown, and as another's."""
    own = sum(is_own for _, is_own in _PATTERN) / len(_PATTERN)
    other = (1 - own) * _evidence_chance(evidence_shown(scene))
    if facts.place:
        own *= scene.background == facts.place
        other *= (scene.background != facts.place) / (len(PLACES) - 1)
    company = company_shown(scene)
    own *= company == facts.companion if facts.companion else _company_chance(company, HAS_BYSTANDER)
    other *= _company_chance(company, SHOWS_COMPANY)
    return own, other


def _company_chance(company: str | None, often: float) -> float:
    return often / len(COMPANIONS) if company else 1 - often


def _evidence_chance(shown: Counter[str]) -> float:
    """How likely any picture shows these types: all types are as usual, two different ones come in two orders."""
    count = shown.total()
    return (TWO_NAMES if count == 2 else 1 - TWO_NAMES) * len(shown) / len(TYPES) ** count
