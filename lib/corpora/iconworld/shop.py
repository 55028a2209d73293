"""What IconWorld's shop sells, by which brands, and the words and triples that say it."""

from collections.abc import Iterator
from random import Random

# Department, then its categories: their words, their icons, and a property that only their things have, with its
# values. Names of properties are shared (a capacity, a screen): it takes name and value to tell a category.
_GOODS = """
kitchen:
mugs | mug, cup | mug-hot, mug-saucer | capacity: 200 ml, 300 ml, 400 ml
bottles | bottle, flask | bottle-water, wine-bottle | capacity: half litre, one litre, two litres
glasses | glass, goblet | wine-glass, martini-glass | capacity: 5 cl, 10 cl, 20 cl
blenders | blender, mixer | blender | power: 300 watts, 500 watts, 900 watts
clothing:
shirts | shirt, tee | shirt | sleeves: long sleeves, short sleeves, no sleeves
socks | socks, stockings | socks | length: ankle, calf, knee
hats | hat, stetson | hat-cowboy, hat-cowboy-side | brim: wide brim, narrow brim, curved brim
vests | vest, waistcoat | vest, vest-patches | closure: zip, buttons, hooks
electronics:
cameras | camera, compact camera | camera, camera-retro | zoom: three times, five times, ten times
headphones | headphones, headset | headphones, headset | connection: bluetooth, cable, usb
phones | phone, smartphone | mobile-screen-button, mobile-retro | screen: five inches, six inches, seven inches
laptops | laptop, notebook computer | laptop, laptop-code | screen: 13 inches, 15 inches, 17 inches
sports:
dumbbells | dumbbell, hand weight | dumbbell | weight: two kilos, five kilos, ten kilos
bicycles | bicycle, bike | bicycle | power: three gears, seven gears, motor
balls | ball, match ball | basketball, volleyball, futbol | size: size three, size four, size five
rackets | table tennis bat, paddle | table-tennis-paddle-ball | surface: smooth, pimpled, sponge
music:
guitars | guitar, ukulele | guitar | strings: four strings, six strings, twelve strings
drums | drum, snare | drum, drum-steelpan | size: ten inch, twelve inch, fourteen inch
microphones | microphone, mic | microphone, microphone-lines | connection: plug, clip, stand
records | record, album | record-vinyl, compact-disc | length: 30 minutes, 45 minutes, 60 minutes
toys:
rockets | rocket, spaceship | rocket, shuttle-space | stages: one stage, two stages, three stages
robots | robot, android | robot | power: battery, clockwork, solar cell
puzzles | puzzle, jigsaw | puzzle-piece | pieces: 50 pieces, 100 pieces, 500 pieces
dice | dice set, dice | dice-d6, dice-d20 | pieces: two pieces, five pieces, seven pieces"""


def _rows() -> Iterator[tuple[str, str, list[str]]]:
    for line in _GOODS.strip().splitlines():
        if line.endswith(":"):
            department = line.removesuffix(":")
        else:
            category, *cells = line.split(" | ")
            yield department, category, cells


DEPARTMENT = {category: department for department, category, _ in _rows()}
CATEGORIES = tuple(DEPARTMENT)
WORDS = {category: tuple(words.split(", ")) for _, category, (words, _, _) in _rows()}
MODELS = {category: tuple(icons.split(", ")) for _, category, (_, icons, _) in _rows()}  # what its things look like
_OWN = {category: own.split(": ") for _, category, (_, _, own) in _rows()}
OWN = {category: (name, tuple(values.split(", "))) for category, (name, values) in _OWN.items()}

# What a title calls a thing where it says no more: anything, or anything of a department
VAGUE = ("item", "article", "product", "thing", "bargain")
OF_DEPARTMENT = {
    "kitchen": ("kitchenware", "kitchen helper"),
    "clothing": ("garment", "outfit"),
    "electronics": ("gadget", "device"),
    "sports": ("sports gear", "training gear"),
    "music": ("music gear", "studio gear"),
    "toys": ("toy", "plaything"),
}
PACKAGES = ("box", "box-open", "gift", "bag-shopping", "suitcase")  # what a picture shows where it shows no more

# brand -> the badge by which pictures show it
BRANDS = {
    "Corvo": "crow", "Astra": "star", "Lunette": "moon", "Fulmin": "bolt", "Folia": "leaf", "Ankora": "anchor",
    "Regalia": "crown", "Pyra": "fire", "Nivo": "snowflake", "Gemma": "gem", "Felis": "cat", "Otto": "otter",
    "Hippolyt": "hippo", "Kiwano": "kiwi-bird", "Ranina": "frog", "Drako": "dragon", "Clovery": "clover",
    "Amora": "heart", "Goutte": "droplet", "Solis": "sun", "Arachne": "spider", "Pinna": "fish", "Cavallo": "horse",
    "Tanne": "tree",
}  # fmt: skip

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
# What is true of any product, whatever its category; a brand's badge has the colour `trim`. Most have many values, or
# the right answer to a question would stand among the first ten for whoever knows which values a property has
GENERAL = {
    "brand": tuple(BRANDS),
    "colour": COLOURS,
    "trim": COLOURS,
    "series": tuple(
        "Nova Atlas Echo Pico Vega Lyra Orion Delta Mira Quanta Rondo Tempo Ultra Zenit Aero Bolero Cadenza Domino"
        " Fresco Gala Halo Iris Juno Karma Largo Maestro Nimbus Opal Presto Quasar Riva Sonata Tango Umbra Vivace"
        " Waltz".split()
    ),
    "origin": tuple(
        "Norway Japan Mexico Kenya Italy Peru Canada India Greece Korea Chile Poland Brazil Egypt France Ghana Hungary"
        " Iceland Jordan Latvia Malta Nepal Morocco Portugal Qatar Spain Turkey Uganda Vietnam Wales Austria Belgium"
        " Cuba Denmark Estonia Finland".split()
    ),
    "edition": tuple(
        "spring summer autumn winter holiday wedding carnival jubilee museum heritage classic vintage modern premium"
        " travel party city desert forest island mountain river sunrise midnight".split()
    ),
    "audience": tuple(
        "women men kids everybody students teachers travellers gardeners campers dancers runners sailors artists"
        " bakers climbers collectors commuters doctors farmers hikers nurses painters pilots writers".split()
    ),
}

# How often a title, and how often a triple, says each. Pictures show the colour always, brand and trim by the badge.
SAYS = {"brand": 0.6, "colour": 0.5, "trim": 0.1, "series": 0.6, "origin": 0.3, "edition": 0.3, "audience": 0.3}
HAS_TRIPLE, HAS_BADGE, SAYS_OWN = 0.6, 0.6, 0.5

FLUFF = ("new", "hot sale", "free shipping", "best price", "limited offer", "top quality", "original")
PHRASES = {
    "brand": ("{}", "by {}"),
    "colour": ("{}", "in {}"),
    "trim": ("{} trim", "with {} trim"),
    "series": ("{}", "{} series"),
    "origin": ("made in {}", "from {}"),
    "edition": ("{} edition", "{} collection"),
    "audience": ("for {}",),
}


def title(noun: str, said: dict[str, str], own: str | None, rng: Random) -> str:
    """A seller's title: the thing, what is `said` of it by attribute, its own property's value, some noise."""
    before, after = [], []
    for name, value in said.items():
        phrase = rng.choice(PHRASES[name])
        (before if phrase == "{}" else after).append(phrase.format(value))
    after += [own] * (own is not None) + [rng.choice(FLUFF)] * (rng.random() < 0.4)
    rng.shuffle(after)
    return " ".join([*before, noun, *after])
