"""How IconWorld posts put things: what is meant is said, hinted at, pointed to in the picture, or left to a sign."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lib.corpora.iconworld.topics import TOWNS, Topic

# In sentences X and Y are what is talked about; of [a|b|] one is said.
SAYS_TOPIC = """[today|tonight|this week] is all about X
[so|almost|finally] ready for X
X [is here|is back] [again|]
more X please
who else [likes|needs] X ?
[yes|ok] , X it is
X [made my day|never gets old]
[can not|could not] wait for X
nothing beats X [these days|]
X [with friends|with my sister|with the team]
[i love|i missed] X so much
all i want is X""".splitlines()
SAYS_EVENT = """see you at the X [tomorrow|next week|]
the X was [amazing|a blast|sold out|great fun]
[tickets|volunteers] for the X [are needed|wanted]
[can not|could not] wait for the X
the X [starts|opens] [soon|today]
[off|back] to the X with my [sister|team|friends]
who else is [going to|at] the X ?
the X is back [again|this year]
[my|our] first X , so excited""".splitlines()
HINTS_AT = """X and Y [all day|everywhere|again]
[nothing but|so many thoughts about] X and Y
[my|our] [day|week] : X , Y and [more|no rest]
first X , then Y [as always|of course|]
thanks for the X and the Y
you know it from the X and the Y
[dreaming|thinking] of X and Y
X , Y , what else do you need ?""".splitlines()
POINTS_TO = {
    "one": """look at this [one|]
what do you think of this ?
[this|this one] [just|] made my day
the [pic|photo] says it all
[spotted|found] this [today|on the way home]
guess what i [saw|got] today
yes , this is [mine|new]""".splitlines(),
    "pair": """look at these two
both of them made my day
guess what these two are
i want them both
can not choose between the two
which of the two do you like ? i like both""".splitlines(),
    "place": """what a view [from here|]
look where i am [now|today]
wish you were here
[greetings|hello] from right here
this place is [beautiful|amazing]
could stay here forever
what a place to be""".splitlines(),
    "sign": """[read|see] the [sign|poster]
[found|saw] this [sign|poster] [in town|at work|today]
as the [sign|poster] says
all you need to know is on the [sign|poster]
the [sign|poster] says it all""".splitlines(),
    "colour": """look at the X one
the X one is [mine|my favourite|so good]
i [want|love|need] the X one
which one ? the X one [of course|]
the X one made my day""".splitlines(),
}
DETAILS = """join us every friday night
free entry this weekend
tickets at the town hall
starts monday morning at eight
open every sunday afternoon
more details inside the office
bring your whole family
limited places sign up today""".splitlines()

OPENINGS = "rt <user> :/<user>/<user> <user>/good morning/ok/wow/lol/hey friends/friday mood/day <number>".split("/")
ENDINGS = "!/:)/<emphasis>/haha/love it/have a great day/see you soon/<number>/what a day/thank you <user>/?".split("/")
BETWEEN = ", . and ... ! &".split()
STARTS, ENDS, NAMES_TOWN, INVITES = 0.35, 0.4, 0.1, 0.12  # how often; a town or an invitation tells nothing here


@dataclass(frozen=True)
class Mention:
    """A keyphrase of a post, and where the evidence for it is: in the "text", in the "context" (words that imply it),
    in the "picture", or in words "drawn" on the picture."""

    topic: Topic
    evidence: str


def tell(mentions: Sequence[Mention], pointer: str | None, rng: Random) -> str:
    """The words of a post, tokens with spaces between. `pointer` tells what of the picture is meant: a key of
    POINTS_TO, or the colour of one of two things."""
    clauses = [_clause(mention, rng) for mention in mentions if mention.evidence in ("text", "context")]
    if pointer:
        clauses.append(_filled(rng.choice(POINTS_TO.get(pointer) or POINTS_TO["colour"]), rng, pointer))
    if any(mention.evidence == "drawn" for mention in mentions):
        clauses.append(_filled(rng.choice(POINTS_TO["sign"]), rng))
    rng.shuffle(clauses)
    first, *others = clauses
    words = [first, *(f"{rng.choice(BETWEEN)} {clause}" for clause in others)]
    extras = {f"from {rng.choice(list(TOWNS))}": NAMES_TOWN, rng.choice(DETAILS): INVITES, rng.choice(ENDINGS): ENDS}
    start = [rng.choice(OPENINGS)] if rng.random() < STARTS else []
    return " ".join([*start, *words, *(extra for extra, often in extras.items() if rng.random() < often)])


def _clause(mention: Mention, rng: Random) -> str:
    topic = mention.topic
    if mention.evidence == "context":
        return _filled(rng.choice(HINTS_AT), rng, *rng.sample(topic.hints, 2))
    return _filled(rng.choice(SAYS_TOPIC if topic.hints else SAYS_EVENT), rng, topic.phrase)


def _filled(template: str, rng: Random, *fillings: str) -> str:
    """A template in one of its wordings, the fillings where it says X and Y."""
    words = re.sub(r"\[(.*?)\]", lambda options: rng.choice(options[1].split("|")), template)
    filled = dict(zip("XY", fillings, strict=False))
    return " ".join(filled.get(word, word) for word in words.split())
