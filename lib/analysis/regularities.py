"""`picture - word + word`, measured: what each picture shows, the queries that follow, how often they are right."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import pandas as pd
import torch
from torch.nn.functional import normalize, pad

from lib import predict
from lib.corpora.iconworld.captions import HELD_OUT, colour_noun_pairs
from lib.corpora.types import CaptionedImage
from lib.models.vse import regularity_query, rerank_by_centroid
from lib.report.plots import NEUTRAL, RIGHT, WRONG
from lib.run.store import read
from lib.tasks.retrieval import RetrievalData

Pair = tuple[str, str]  # (colour, noun)
COLOURS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow")
WORN_OR_RUNNING = """ball cap coat dog dress hat helmet jacket jersey outfit pants scarf shirt shorts sweater top
uniform""".split()  # what Flickr8k's captions give colours to
SHOWN, TOP = 4, 8


@dataclass(frozen=True)
class Query:
    """Picture number `image` shows a `noun` in colour `minus`; any of `targets`, which show it in `plus`, is right."""

    image: int
    noun: str
    minus: str
    plus: str
    targets: frozenset[int]
    held_out: bool  # (plus, noun) was never seen in training


def said_pairs(example: CaptionedImage) -> set[Pair]:
    """The (colour, noun) pairs that stand side by side in a picture's captions."""
    text = " . ".join(example.captions).lower().replace("gray", "grey")
    return set(re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(WORN_OR_RUNNING)})\b", text))


def queries(
    shows: Sequence[set[Pair]], held_out: Collection[Pair] = (), fewest: int = 1, alone: bool = False
) -> list[Query]:
    """Every query whose answer is among the pictures: `shows` says what each shows.

    A pair counts as an answer if at least `fewest` pictures show it, whatever else they show. A picture that shows
    both colours is no query, nor, with `alone`, one that shows anything else.
    """
    pictures = defaultdict(set)
    for index, pairs in enumerate(shows):
        for pair in pairs:
            pictures[pair].add(index)
    targets = {pair: frozenset(found) for pair, found in pictures.items() if len(found) >= fewest}
    return [
        Query(image, noun, minus, plus, targets[plus, noun], (plus, noun) in held_out)
        for minus, noun in sorted(pictures)
        for plus, other in sorted(targets)
        if other == noun and plus != minus
        for image in sorted(pictures[minus, noun] - targets[plus, noun])
        if not alone or len(shows[image]) == 1
    ]


def corpus_queries(data: RetrievalData) -> list[Query]:
    """The queries of a corpus's test split: true by construction on IconWorld, by the captions elsewhere."""
    if data.corpus.name.startswith("iconworld"):
        return queries([colour_noun_pairs(example.image) for example in data.test.examples], HELD_OUT, alone=True)
    return queries([said_pairs(example) for example in data.test.examples], fewest=5)


def examples(asked: Sequence[Query], count: int = 4) -> list[Query]:
    """A few queries to look at: answers seen and never seen in turn, other nouns, the most right pictures."""
    most_first = sorted(asked, key=lambda query: -len(query.targets))
    turns = []
    for held_out in (False, True):
        mine = [query for query in most_first if query.held_out == held_out]
        turns.append([query for i, query in enumerate(mine) if query.noun not in {q.noun for q in mine[:i]}])
    mixed = [query for pair in zip_longest(*turns) for query in pair if query]
    return mixed[:count]


class Gallery:
    """Test pictures and single words in the joint space of a trained run, `predictor`."""

    def __init__(self, predictor):
        self.words, self.images = predictor.embed_sentences, predictor.predictions["images"]  # images (N, D), unit norm

    def search(self, asked: Sequence[Query], by: str) -> torch.Tensor:
        """Scores [Q, N] of all pictures but the query's own: by "picture - word + word", "words" or "picture"."""
        pictures = self.images[[query.image for query in asked]]
        noun, minus, plus = (self.words([getattr(q, part) for q in asked]) for part in ("noun", "minus", "plus"))
        vectors = {
            "picture - word + word": lambda: regularity_query(pictures, minus, plus),
            "words": lambda: normalize(plus + noun, dim=-1),
            "picture": lambda: pictures,
        }[by]()
        scores = vectors @ self.images.T  # (Q, N)
        scores[torch.arange(len(asked)), [query.image for query in asked]] = -torch.inf
        return scores

    def best(self, asked: Sequence[Query], by: str = "picture - word + word") -> torch.Tensor:
        """The SHOWN best pictures [Q, n] of those that are not the query's own, fewer where there are fewer."""
        return self.search(asked, by).topk(min(SHOWN, len(self.images) - 1), dim=1).indices

    def reranked(self, asked: Sequence[Query]) -> torch.Tensor:
        """Of the TOP best pictures those nearest to their centroid [Q, n], nearest first."""
        others = len(self.images) - 1
        scores = self.search(asked, "picture - word + word")
        return rerank_by_centroid(scores, self.images, min(SHOWN, others), min(TOP, others))


def galleries(runs: pd.DataFrame, variant: str = "sum") -> list[Gallery]:
    """The galleries of the runs (rows of `experiment.ablate`) whose sentences are sums of words, a seed each; a record
    without weights gives none."""
    folders = runs.loc[runs["variant"] == variant, "folder"]
    return [Gallery(predict.load(folder)) for folder in folders if read(folder).has_weights]


def answers(gallery: Gallery, data: RetrievalData, query: Query) -> list[tuple]:
    """The query's picture and the best that arithmetic finds, as a row of `plots.pictures`."""
    found = gallery.reranked([query])[0].tolist()
    examples = data.test.examples
    cells = [(examples[i].image, "", RIGHT if i in query.targets else WRONG) for i in found]
    return [(examples[query.image].image, "the query", NEUTRAL), *cells]


def asks(query: Query) -> str:
    """A query in words."""
    never = " (never seen in training)" if query.held_out else ""
    return f"− {query.minus} + {query.plus}: {query.plus} {query.noun}{never}"


def measure(gallery: Gallery, asked: Sequence[Query]) -> pd.DataFrame:
    """Precision at 1 and at 4, in percent, of each way to search, and of chance; held-out answers apart.

    "... re-ranked" shows the 4 of the best 8 that lie nearest to their centroid. Where fewer than 4 pictures are right,
    P@4 cannot reach 100: "best possible" says how far it can go. Empty where nothing is asked.
    """
    if not asked:
        return pd.DataFrame()
    right = torch.zeros(len(asked), len(gallery.images), dtype=torch.bool)  # (Q, N)
    for row, query in enumerate(asked):
        right[row, list(query.targets)] = True
    found = {"chance": right.float().mean(1, keepdim=True).expand(-1, SHOWN)}
    for by in ("picture", "words", "picture - word + word"):
        found[by] = _hits(right, gallery.best(asked, by))  # (Q, 4)
    found["picture - word + word, re-ranked"] = _hits(right, gallery.reranked(asked))
    found["best possible"] = (torch.arange(SHOWN) < right.sum(1, keepdim=True)).float()
    unseen = torch.tensor([query.held_out for query in asked], dtype=torch.bool)
    groups = {name: unseen == held_out for name, held_out in (("seen", False), ("never seen", True))}
    rows = [_row(name, way, hits[mine]) for name, mine in groups.items() if mine.any() for way, hits in found.items()]
    return pd.DataFrame(rows)


def _hits(right: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Whether each of the best pictures [Q, n] is right [Q, N] -> [Q, SHOWN]; what a small gallery lacks is wrong."""
    return pad(right.gather(1, best).float(), (0, SHOWN - best.shape[1]))


def _row(group: str, way: str, hits: torch.Tensor) -> dict:
    scores = {"P@1": 100 * hits[:, 0].mean().item(), "P@4": 100 * hits.mean().item()}
    return {"answer's pair in training": group, "search by": way, "queries": len(hits), **scores}


def over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of `measure` over runs with different seeds and, of several, the standard deviation of P@1; empty where
    nothing was measured."""
    if not any(len(table) for table in tables):
        return pd.DataFrame()
    keys = ["answer's pair in training", "search by", "queries"]
    groups = pd.concat(tables).groupby(keys, sort=False)
    means = groups[["P@1", "P@4"]].mean()
    return (means.assign(**{"std of P@1": groups["P@1"].std()}) if len(tables) > 1 else means).reset_index()


def told(precision: pd.DataFrame, asked: Sequence[Query], found: Sequence[Gallery]) -> str:
    """What `over_seeds` says, in a sentence a group of answers; or why there is nothing to say."""
    if not asked:
        return "Nothing to ask: no two test pictures show one thing in two colours, as far as their captions say."
    if not found:
        return f"{len(asked)} questions, but no run of yours has sentences that are sums of words: see the evidence."
    lines = []
    for group, rows in precision.groupby("answer's pair in training", sort=False):
        first = rows.set_index("search by")["P@1"]
        ways = ", ".join(f"{way} {first[way]:.0f} %" for way in ("picture - word + word", "words", "picture", "chance"))
        asking = f"{rows['queries'].iloc[0]} questions, their answers {group} in training"
        lines.append(f"{asking}. First picture right: {ways}.")
    return "\n".join(lines)
