"""`picture - word + word`, measured: what each picture shows, the queries that follow, how often they are right."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import pandas as pd
import torch
from torch.nn.functional import normalize

from lib.corpora.iconworld.captions import HELD_OUT, colour_noun_pairs
from lib.corpora.types import CaptionedImage
from lib.models.vse import regularity_query, rerank_by_centroid
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


def measure(gallery: Gallery, asked: Sequence[Query]) -> pd.DataFrame:
    """Precision at 1 and at 4, in percent, of each way to search, and of chance; held-out answers apart.

    "... re-ranked" shows the 4 of the best 8 that lie nearest to their centroid. Where fewer than 4 pictures are right,
    P@4 cannot reach 100: "best possible" says how far it can go.
    """
    right = torch.zeros(len(asked), len(gallery.images), dtype=torch.bool)  # (Q, N)
    for row, query in enumerate(asked):
        right[row, list(query.targets)] = True
    found = {"chance": right.float().mean(1, keepdim=True).expand(-1, SHOWN)}
    for by in ("picture", "words", "picture - word + word"):
        scores = gallery.search(asked, by)
        found[by] = right.gather(1, scores.topk(SHOWN, dim=1).indices).float()  # (Q, 4)
    best = rerank_by_centroid(scores, gallery.images, SHOWN, TOP)
    found["picture - word + word, re-ranked"] = right.gather(1, best).float()
    found["best possible"] = (torch.arange(SHOWN) < right.sum(1, keepdim=True)).float()
    unseen = torch.tensor([query.held_out for query in asked], dtype=torch.bool)
    groups = {name: unseen == held_out for name, held_out in (("seen", False), ("never seen", True))}
    rows = [_row(name, way, hits[mine]) for name, mine in groups.items() if mine.any() for way, hits in found.items()]
    return pd.DataFrame(rows)


def _row(group: str, way: str, hits: torch.Tensor) -> dict:
    scores = {"P@1": 100 * hits[:, 0].mean().item(), "P@4": 100 * hits.mean().item()}
    return {"answer's pair in training": group, "search by": way, "queries": len(hits), **scores}


def over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of `measure` over runs with different seeds and, of several, the standard deviation of P@1."""
    keys = ["answer's pair in training", "search by", "queries"]
    groups = pd.concat(tables).groupby(keys, sort=False)
    means = groups[["P@1", "P@4"]].mean()
    return (means.assign(**{"std of P@1": groups["P@1"].std()}) if len(tables) > 1 else means).reset_index()
