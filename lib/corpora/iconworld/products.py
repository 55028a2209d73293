"""IconWorld products (K3M): listings of a shop, two of each product, photographed and worded twice.

Title, picture and triples each tell a listing's category in a known share of the listings: by themselves, several of
them alike, or two only together (a picture of two things, and a word for the department of the one that is sold).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from lib.corpora.iconworld import Split, fingerprint, shop
from lib.corpora.iconworld.backgrounds import VARIANTS
from lib.corpora.iconworld.draw import Scene, Thing, icon_mask
from lib.corpora.iconworld.grammar import PLACES
from lib.corpora.types import Corpus, Product, Question

MODALITIES = ("title", "picture", "properties")

# Of twenty listings: what tells the category, and whether it takes all of these together
KINDS = {
    (MODALITIES, False): 3,
    (("title", "properties"), False): 3,
    (("title", "picture"), False): 1,
    (("picture", "properties"), False): 1,
    (("title",), False): 5,
    (("picture",), False): 2,
    (("properties",), False): 2,
    (("title", "picture"), True): 1,
    (("picture", "properties"), True): 1,
    ((), False): 1,
}
_BLOCK = [kind for kind, count in KINDS.items() for _ in range(count)]

# (centre, range of sizes) of the things for sale; then of the badge, wherever it is free
ONE = (((0.5, 0.5),), (0.56, 0.66))
TWO = (((0.27, 0.38), (0.73, 0.38)), (0.38, 0.42))
BADGE_SIZE = (0.22, 0.27)
CORNERS = ((0.16, 0.16), (0.84, 0.16), (0.16, 0.84), (0.84, 0.84))
BELOW = ((0.3, 0.8), (0.5, 0.8), (0.7, 0.8))


@dataclass(frozen=True)
class Facts:
    """What is true of a listing, and who says it: `tells` the category, `together` or each alone; `said` in the title
    and `triples` are attributes; `badge` is whether the picture shows the brand."""

    category: str
    model: str
    values: tuple[tuple[str, str], ...]  # attribute -> value, the category's own one last
    tells: tuple[str, ...]
    together: bool
    said: tuple[str, ...]
    triples: tuple[str, ...]
    badge: bool

    @property
    def kind(self) -> str:
        """What decides the category: one modality, `several` alike, two `together`, or `nothing`."""
        if self.together or len(self.tells) != 1:
            return "together" if self.together else "several" if self.tells else "nothing"
        return self.tells[0]

    def names_it(self, modality: str) -> bool:
        """Whether that modality tells the category by itself."""
        return modality in self.tells and not self.together

    def hints(self, modality: str) -> bool:
        """Whether it tells the department, for another one to tell the rest."""
        return modality in self.tells and self.together and modality != "picture"


# ---- the corpus ----


@dataclass(frozen=True)
class Listings(Split):
    """Listings, id `train-17`; those of 16 and 17 are of one product."""

    def example(self, index: int) -> Product:
        """The words and triples of `facts(index)`, the picture `scene(index)`."""
        facts, rng = self.facts(index), self.stream(index, "words")
        triples = _triples(facts, rng)
        name = f"{self.name}-{index}"
        return Product(name, self.scene(index), _title(facts, rng), triples, facts.category, self.product(index))

    def product(self, index: int) -> str:
        """Which product a listing is of."""
        return f"{self.name}-product-{index // 2}"

    def facts(self, index: int) -> Facts:
        """What is true of the listing; of the two of a product, only who says it differs."""
        category, model, values = _product(self.stream(index // 2, "product"))
        tells, together = self.stream(index // len(_BLOCK), "kinds").sample(_BLOCK, len(_BLOCK))[index % len(_BLOCK)]
        rng, own = self.stream(index, "facts"), shop.OWN[category][0]
        said = [name for name in shop.GENERAL if rng.random() < shop.SAYS[name]]
        triples = [name for name in shop.GENERAL if rng.random() < shop.HAS_TRIPLE]
        if not together:  # its own property is said only where the category is: the value gives that away
            said += [own] * ("title" in tells and rng.random() < shop.SAYS_OWN)
            triples += [own] * ("properties" in tells)
        badge = rng.random() < shop.HAS_BADGE
        return Facts(category, model, values, tells, together, tuple(said), tuple(triples), badge)

    def scene(self, index: int) -> Scene:
        """The photograph: the thing, or its package, or two things of which one is for sale; perhaps a badge."""
        facts, rng = self.facts(index), self.stream(index, "scene")
        values, icons = dict(facts.values), _icons(facts, rng)
        centres, sizes = ONE if len(icons) == 1 else TWO
        things = [_put(icon, values["colour"], at, sizes, rng) for icon, at in zip(icons, centres, strict=True)]
        if facts.badge:
            place = rng.choice(CORNERS if len(icons) == 1 else BELOW)
            things.append(_put(shop.BRANDS[values["brand"]], values["trim"], place, BADGE_SIZE, rng))
        return Scene(tuple(things), rng.choice(list(PLACES)), rng.randrange(VARIANTS))


def _product(rng: Random) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Category, looks, and the value of each attribute; all independent, but for the category's own property."""
    category = rng.choice(shop.CATEGORIES)
    values = {name: rng.choice(values) for name, values in shop.GENERAL.items()}
    values["trim"] = rng.choice([colour for colour in shop.COLOURS if colour != values["colour"]])
    name, own = shop.OWN[category]
    return category, rng.choice(shop.MODELS[category]), (*values.items(), (name, rng.choice(own)))


def _title(facts: Facts, rng: Random) -> str:
    values, own = dict(facts.values), shop.OWN[facts.category][0]
    nouns = shop.OF_DEPARTMENT[shop.DEPARTMENT[facts.category]] if facts.hints("title") else shop.VAGUE
    nouns = shop.WORDS[facts.category] if facts.names_it("title") else nouns
    said = {name: values[name] for name in facts.said if name != own}
    return shop.title(rng.choice(nouns), said, values[own] if own in facts.said else None, rng)


def _triples(facts: Facts, rng: Random) -> tuple[tuple[str, str], ...]:
    values = dict(facts.values)
    triples = [(name, values[name]) for name in facts.triples]
    if facts.hints("properties"):
        triples.append(("department", shop.DEPARTMENT[facts.category]))
    return tuple(rng.sample(triples, len(triples)))


def _icons(facts: Facts, rng: Random) -> list[str]:
    if facts.names_it("picture"):
        return [facts.model]
    if not facts.together:
        return [rng.choice(shop.PACKAGES)]
    others = [category for category in shop.CATEGORIES if shop.DEPARTMENT[category] != shop.DEPARTMENT[facts.category]]
    return rng.sample([facts.model, rng.choice(shop.MODELS[rng.choice(others)])], 2)


def _put(icon: str, colour: str, centre: tuple[float, float], sizes: tuple[float, float], rng: Random) -> Thing:
    x, y = (round(at + rng.uniform(-0.03, 0.03), 3) for at in centre)
    return Thing(icon, colour, x, y, round(rng.uniform(*sizes), 3), round(rng.uniform(-15, 15), 1))


def load(train: int = 6000, dev: int = 400, test: int = 1000, seed: int = 0, limit: int | None = None) -> Corpus:
    """The corpus `iconworld-products` with so many listings a split, made on demand.

    `limit` keeps the first listings of the training split, as it does for files.
    """
    options = {"train": min(train, limit or train), "dev": dev, "test": test, "seed": seed}
    splits = {name: Listings(name, options[name], seed) for name in ("train", "dev", "test")}
    notes = {"categories": len(shop.CATEGORIES), "brands": len(shop.BRANDS)}
    sources = (__file__, shop.__file__)
    return Corpus("iconworld-products", **splits, fingerprint=fingerprint(options, *sources), notes=notes)


def boxes(scene: Scene, pixels: int = 128) -> tuple[tuple[float, float, float, float], ...]:
    """Where each thing is, (left, top, right, bottom) as fractions of the picture, tight to a `pixels`-th of it."""
    return tuple(_box(thing, pixels) for thing in scene.objects)


def _box(thing: Thing, pixels: int) -> tuple[float, float, float, float]:
    mask = icon_mask(thing.noun, round(thing.size * pixels)).rotate(thing.tilt)
    left, top, right, bottom = ((side - mask.width / 2) / pixels for side in mask.getbbox())
    found = (thing.x + left, thing.y + top, thing.x + right, thing.y + bottom)
    return tuple(round(min(1.0, max(0.0, side)), 4) for side in found)


# ---- the perfect readers ----


def decided_by(split: Listings) -> list[str]:
    """For each listing what decides its category: `title`, `picture` or `properties` alone, `several` of them alike,
    two only `together`, or `nothing`."""
    return [split.facts(index).kind for index in range(len(split))]


def answered_by(split: Listings, questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """For each question about a listing of `split` which of title and picture say the answer; perhaps neither does."""
    return [_answered_by(split.facts(int(asked.product.id.rpartition("-")[2])), asked) for asked in questions]


def _answered_by(facts: Facts, question: Question) -> tuple[str, ...]:
    left = {name for name, _ in question.product.properties}
    (name,) = {*facts.triples, *["department"] * facts.hints("properties")} - left  # the triple that is asked for
    shown = ("colour", "brand", "trim") if facts.badge else ("colour",)
    return ("title",) * (name in facts.said) + ("picture",) * (name in shown)


def answer_ceiling(split: Listings, questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """Expected Rank@1, Rank@10 and MRR in per cent of readers of the answers, who know which values the asked property
    has, all as likely, and see the right one where what they read says it."""
    said, sizes = answered_by(split, questions), [_values(asked) for asked in questions]
    readers = {"neither": (), "title": ("title",), "picture": ("picture",), "both": ("title", "picture")}
    found = {}
    for reader, seen in readers.items():
        left = [1 if set(seen) & set(by) else size for by, size in zip(said, sizes, strict=True)]
        ranks = {f"Rank@{k}": fmean(min(k, n) / n for n in left) for k in (1, 10)}
        ranks["MRR"] = fmean(fmean(1 / rank for rank in range(1, n + 1)) for n in left)
        found[reader] = {metric: 100 * value for metric, value in ranks.items()}
    return found


def _values(question: Question) -> int:
    """How many values the asked property has."""
    name = question.id.rpartition("?")[2]
    own = {value for known, values in shop.OWN.values() for value in values if known == name}
    return len({"department": shop.OF_DEPARTMENT, **shop.GENERAL}.get(name, own))


DECIDERS = (*MODALITIES, "several", "together", "nothing")
READERS = {
    "title only": ("title",),
    "picture only": ("picture",),
    "properties only": ("properties",),
    "without title": ("picture", "properties"),
    "without picture": ("title", "properties"),
    "without properties": ("title", "picture"),
    "all": MODALITIES,
}


def ceiling(split: Listings) -> dict[str, dict[str, float]]:
    """Expected accuracy in per cent of perfect readers of the category, over all listings and by what decides them.

    A reader knows which categories fit what it sees, and takes one of them; all are as likely.
    """
    listings = [split.facts(index) for index in range(len(split))]
    groups = {"all": listings} | {kind: [facts for facts in listings if facts.kind == kind] for kind in DECIDERS}
    found = {kind: group for kind, group in groups.items() if group}
    return {reader: {kind: _expected(group, seen) for kind, group in found.items()} for reader, seen in READERS.items()}


def _expected(listings: list[Facts], seen: tuple[str, ...]) -> float:
    return 100 * fmean(1 / _fitting(facts, seen) for facts in listings)


def _fitting(facts: Facts, seen: tuple[str, ...]) -> int:
    """How many categories fit what these modalities say of a listing."""
    if any(facts.names_it(modality) for modality in seen):
        return 1
    two_shown = facts.together and "picture" in seen
    if any(facts.hints(modality) for modality in seen):
        return 1 if two_shown else len(shop.CATEGORIES) // len(shop.OF_DEPARTMENT)
    return 2 if two_shown else len(shop.CATEGORIES)
