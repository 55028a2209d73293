"""Names and what they can be, and posts that say them, in the words and with the noise of Twitter."""

import re
import string
from dataclasses import dataclass
from random import Random

from lib.corpora.iconworld.grammar import NOUNS, PLACES

TYPES = ("PER", "LOC", "ORG", "MISC")

# Types from the most usual on. Each pair of types comes in both orders, three names each, and each triple in all six,
# so no type is usual by itself.
_AMBIGUOUS = """
PER LOC: Jordan, Charlotte, Madison          LOC PER: Paris, Florence, Brooklyn
PER ORG: Tiffany, Morgan, Tommy Hilfiger     ORG PER: Ford, Disney, Hermes
PER MISC: Oscar, Matilda, Billie Jean        MISC PER: Harry Potter, Peter Pan, Zelda
LOC ORG: Barcelona, Oxford, Liverpool        ORG LOC: Amazon, Patagonia, Crystal Palace
LOC MISC: Java, Manhattan, Notting Hill      MISC LOC: Casablanca, Fargo, Abbey Road
ORG MISC: Jaguar, Nike, Lego                 MISC ORG: Vogue, Blackberry, Rolling Stone
PER LOC ORG: Lincoln    LOC PER ORG: Washington    ORG PER LOC: Hilton
PER ORG LOC: Jackson    LOC ORG PER: Orlando       ORG LOC PER: Chelsea
PER LOC MISC: Victoria  LOC PER MISC: Georgia      MISC PER LOC: Selma
PER MISC LOC: Carmen    LOC MISC PER: Phoenix      MISC LOC PER: Avalon
PER ORG MISC: Mercedes  ORG PER MISC: Tesla        MISC PER ORG: Alexa
PER MISC ORG: Mercury   ORG MISC PER: Apple        MISC ORG PER: Jack Daniels
LOC ORG MISC: Dallas    ORG LOC MISC: Oasis        MISC LOC ORG: Silicon Valley
LOC MISC ORG: Chicago   ORG MISC LOC: Pandora      MISC ORG LOC: Titanic
"""
_CELLS = [cell.split(": ") for line in _AMBIGUOUS.strip().splitlines() for cell in line.split("  ") if cell.strip()]
AMBIGUOUS = {name: tuple(types.split()) for types, names in _CELLS for name in names.split(", ")}
USUAL = {2: (0.72, 0.28), 3: (0.68, 0.2, 0.12)}  # how often a name of so many types is each of them
PRIOR = {name: dict(zip(types, USUAL[len(types)], strict=True)) for name, types in AMBIGUOUS.items()}

_UNAMBIGUOUS = {
    "PER": """Maria Lopez, Anna Schmidt, Kevin Brown, Priya Patel, James Miller, Sofia Rossi, Ahmed Khan, Emily,
        Daniel, Yuki Tanaka, Lucas Meyer, Nina, Grandma Rose, Uncle Bob, Carlos, Doctor Evans""",
    "LOC": """New York, Tokyo, Berlin, Rio de Janeiro, Lake Tahoe, Cape Town, Mount Fuji, Iceland, Vienna, Hong Kong,
        Kenya, Grand Canyon, Lisbon, Peru, Niagara Falls, Bavaria""",
    "ORG": """Red Cross, Google, Microsoft, Airbnb, Unicef, World Bank, Toyota, Ikea, Netflix, Nasa, Samsung,
        Bank of America, Goldman Sachs, Manchester United, Siemens, Greenpeace""",
    "MISC": """Star Wars, Game of Thrones, Tetris, Super Mario, World Cup, Nobel Prize, Pac Man, Super Bowl,
        Lord of the Rings, Bohemian Rhapsody, Moby Dick, Swan Lake, Eurovision, Candy Crush, Toy Story, Macbeth""",
}
UNAMBIGUOUS = {" ".join(name.split()): kind for kind, names in _UNAMBIGUOUS.items() for name in names.split(",")}

# In sentences X is a name, or two; of [a|b|] one is said. Neutral ones fit every type.
NEUTRAL = """[still|always|] thinking about X [today|lately|]
X again [and again|]
[so much|all my] love for X
can't stop talking about X
[everybody|everyone] is talking about X
[this is|that's] why i love X
what do [you|we] think of X ?
X never gets old
i will [never forget|always remember] X
nothing beats X [today|]
more X please
X made my [day|week|morning]
[ok|wow] X , you win
who else [likes|loves] X ?
[today|this one] is all about X
X forever
[it's|it is] X o'clock
[finally|at last] X
this [really|] reminds me of X
no [day|week] without X""".splitlines()
CUES = {
    "PER": """happy birthday [dear|] X
[so|very] proud of my friend X
X just got married
[dinner|lunch] with X and her mom
X and his brother [came over|say hi]
X [is sleeping|fell asleep] already
my [sister|cousin] X turned [five|twenty] today
X told me a [joke|secret]
[met|hugged] X , what a nice [guy|girl]
get well soon X
X is [dancing|singing|laughing]
my new classmate X""".splitlines(),
    "LOC": """[cheap|] flights to X
[just|finally] landed in X
road trip across X
the streets of X are [empty|crowded]
[great|awful] weather in X
moving to X [soon|next month]
two weeks in X
[greetings|postcards] from X
[driving|cycling] through X
the way [back|home] from X
our hotel in X
born and raised in X""".splitlines(),
    "ORG": """X shares [fell|rose] [sharply|again|]
X is hiring [engineers|]
my [new|first] job at X
the ceo of X [spoke|resigned]
X opens a new [office|branch]
[working|interning] for X
X reports [record|lower] profits
X moves its [headquarters|factory]
X customer service [is great|never answers]
the [shareholders|employees] of X
X buys a [rival|startup]
our meeting with X 's lawyers""".splitlines(),
    "MISC": """just finished watching X
[listening|dancing] to X on repeat
the [new|last] X trailer
season [two|three] of X
the [ending|plot] of X
the X soundtrack
X [premieres|airs] tonight
[crying|laughing] at X , best scene ever
level nine of X
a [sequel|remake] of X
rewatching X for the [third|tenth] time
nominated for the X""".splitlines(),
}
PLACED = "[|here|now|still|live] X"
ACCOMPANIED = """with my X
me and my X
together with my X
, my X next to me
, my X is here too
, look at that X""".splitlines()
BETWEEN_NAMES, BETWEEN_CLAUSES = ("and", "&", "or", "+"), (",", ".", "and", "...")

HANDLES = "sunny mike lea jojo tess coolcat rafa nora_b mrfox zoe bigben kiki".split()
HASHTAGS = "#tbt #nofilter #blessed #mood #weekend #goodvibes #love #monday #throwback #instagood".split()
EMOTICONS = ":) :D <3 ;) :P xD !! ^^".split()

Tagged = list[tuple[str, str]]  # (token, tag)


@dataclass(frozen=True)
class Mention:
    """A name in a post and its type. What settles the type is the "name", a "cue" (the words around it), the "picture"
    or "nothing"."""

    name: str
    type: str
    settled_by: str

    @property
    def candidates(self) -> dict[str, float]:
        """The types that the text leaves open, and how usual each is."""
        return PRIOR[self.name] if self.settled_by in ("picture", "nothing") else {self.type: 1.0}


@dataclass(frozen=True)
class Facts:
    """The truth behind a post: what decides it (`entities.decided_by`), whether its picture is its own, and what the
    words say: names, background (a key of PLACES) or None, companion (a key of NOUNS) or None."""

    kind: str
    matched: bool
    mentions: tuple[Mention, ...]
    place: str | None
    companion: str | None


def tell(facts: Facts, rng: Random) -> Tagged:
    """The facts as a post of tagged tokens."""
    start = _plain(f"RT @{rng.choice(HANDLES)}{rng.choice(['', rng.randrange(10, 100)])} :")
    link = f"http://t.co/{''.join(rng.choices(string.ascii_letters + string.digits, k=8))}"
    extras = {rng.choice(HASHTAGS): 0.4, rng.choice(EMOTICONS): 0.35, link: 0.4}
    end = _plain(" ".join(extra for extra, often in extras.items() if rng.random() < often))
    return start * (rng.random() < 0.25) + _cased(_sentence(facts, rng), rng) + end


def _sentence(facts: Facts, rng: Random) -> Tagged:
    clauses, place, company = _clauses(facts.mentions, rng), [], []
    if facts.place:
        place = _filled(PLACED, _plain(rng.choice(PLACES[facts.place])), rng)
    if facts.companion:
        company = _filled(rng.choice(ACCOMPANIED), _plain(rng.choice(NOUNS[facts.companion])), rng)
    if place and rng.random() < 0.25:
        return place + _plain(",") + clauses + company
    return clauses + (company + place if rng.random() < 0.4 else place + company)


def _clauses(mentions: tuple[Mention, ...], rng: Random) -> Tagged:
    """A clause for each name that has a cue, and a neutral one for all others, in any order."""
    clauses = [
        _filled(rng.choice(CUES[mention.type]), _spelled(mention, rng), rng)
        for mention in mentions
        if mention.settled_by == "cue"
    ]
    if others := [_spelled(mention, rng) for mention in mentions if mention.settled_by != "cue"]:
        clauses.append(_filled(rng.choice(NEUTRAL), _joined(others, BETWEEN_NAMES, rng), rng))
    rng.shuffle(clauses)
    return _joined(clauses, BETWEEN_CLAUSES, rng)


def _spelled(mention: Mention, rng: Random) -> Tagged:
    first, *others = mention.name.split()
    mark = "" if others or rng.random() < 0.9 else "#"
    return [(mark + first, f"B-{mention.type}"), *((word, f"I-{mention.type}") for word in others)]


def _filled(template: str, filling: Tagged, rng: Random) -> Tagged:
    """A template in one of its wordings, the filling where it says X."""
    words = re.sub(r"\[(.*?)\]", lambda options: rng.choice(options[1].split("|")), template)
    return [token for word in words.split() for token in (filling if word == "X" else _plain(word))]


def _joined(parts: list[Tagged], links: tuple[str, ...], rng: Random) -> Tagged:
    first, *others = parts
    return first + [token for part in others for token in _plain(rng.choice(links)) + part]


def _plain(words: str) -> Tagged:
    return [(word, "O") for word in words.split()]


def _cased(tagged: Tagged, rng: Random) -> Tagged:
    """Some posts in lower case, a few in capitals, half of the others with a capital first letter."""
    draw = rng.random()
    if draw < 0.16:
        return [(word.lower() if draw < 0.12 else word.upper(), tag) for word, tag in tagged]
    (first, tag), *others = tagged
    return [(first[0].upper() + first[1:] if draw < 0.58 else first, tag), *others]
