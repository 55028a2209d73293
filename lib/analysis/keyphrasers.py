"""Models of keyphrases (CMKP), looked at: the tables and figures of its notebook, a call each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from lib.analysis.keyphrase_reports import KINDS
from lib.corpora.iconworld.signs import SignedScene
from lib.corpora.types import Picture, Post
from lib.layers.pointer import log_distribution
from lib.metrics.keyphrases import evaluate, stem
from lib.models.cmkp import CMKP, ROOM, START
from lib.papers.cmkp import SHARES, Predictor
from lib.report import plots
from lib.run import experiment
from lib.tasks import keyphrases
from lib.tasks.keyphrases import KeyphraseData, Posts, Split

# ---- the data ----


def gallery(posts: Sequence[Post]) -> plt.Figure:
    """Posts with their pictures, texts and keyphrases."""
    return plots.pictures([[_cell(post, None) for post in posts]], side=2.4)


def _cell(post: Post, said: Sequence[str] | None) -> tuple[Picture, str, str]:
    answer = f" → {'; '.join(post.keyphrases)}" if said is None else f" → {'; '.join(said[:2])}"
    frame = plots.NEUTRAL if said is None else plots.RIGHT if is_right(post, said) else plots.WRONG
    return post.image, post.text + answer, frame


def is_right(post: Post, said: Sequence[str]) -> bool:
    """Whether the first phrase that was said is one of the post's, by stems."""
    stems = lambda phrase: [stem(word) for word in phrase.split()]  # noqa: E731
    return bool(said) and stems(said[0]) in [stems(phrase) for phrase in post.keyphrases]


# ---- one batch by hand ----


def with_own_words(split: Split) -> list[str]:
    """The source of the first post that has words which the vocabulary has not: these in angle quotes."""
    is_own = [[word not in split.vocabulary for word in source] for source in split.posts.sources]
    post = next((i for i, row in enumerate(is_own) if any(row)), 0)
    both = zip(split.posts.sources[post], is_own[post], strict=True)
    return [f"‹{word}›" if own else word for word, own in both]


def asked_by_text(model: CMKP, batch: Mapping[str, torch.Tensor]) -> tuple[str, torch.Tensor, torch.Tensor]:
    """What the text asks first, the picture's regions or else the attributes: the branch, (B, R, d), (B, R)."""
    if "image" in batch:
        regions = torch.where(batch["present"][:, None, None], model.W_v(batch["image"]), model.missing)
        return "text-vision", regions, torch.ones(regions.shape[:2], dtype=torch.bool)
    return "text-attributes", model.W_a(model.W_e(batch["attributes"])), batch["attributes"] != 0


@torch.no_grad()
def sums_of_probabilities(model: CMKP, split: Split, posts: Sequence[int]) -> list[tuple[float, float]]:
    """For the first word of some posts' phrases the sum of the probabilities of all words, and lambda."""
    memory = model.read(**split.read(list(posts)))
    inputs = torch.full((len(posts), 1), START)
    hidden, switch, weights, ids = model.given(memory, inputs, torch.arange(len(posts)))
    logits = F.pad(model.W_o(hidden), (0, ROOM), value=-torch.inf)  # (B, V + room)
    total = log_distribution(logits, switch, weights, ids).exp().sum(1)
    return list(zip(total.tolist(), switch.sigmoid().tolist(), strict=True))


def said_of(model: CMKP, split: Split, posts: Sequence[int]) -> pd.DataFrame:
    """What a model says of some posts of a split, beside what is right."""
    model = model.eval()
    memory = model.read(**split.read(list(posts)))
    found = model.generate(memory, 5, 3, split.posts.settings.longest_phrase)
    rows = zip(posts, found.tokens, found.lengths, found.kept["looks"], strict=True)
    said = [[phrase for phrase, _ in keyphrases.spelled(split, post, *row)] for post, *row in rows]
    examples = [split.posts.examples[post] for post in posts]
    return pd.DataFrame({"text": [post.text for post in examples], "right": ["; ".join(p.keyphrases) for p in examples],
                         "said": ["; ".join(phrases) for phrases in said]})  # fmt: skip


# ---- a trained model ----


@dataclass(frozen=True)
class Keyphraser:
    """A trained model beside the test posts, as it sees them."""

    title: str
    predictor: Predictor
    data: KeyphraseData  # bound to the model's words

    @property
    def split(self) -> Split:
        return self.data.test

    @property
    def posts(self) -> list[Post]:
        return self.split.posts.examples

    @property
    def said(self) -> list[list[str]]:
        """The phrases that it gave to the test posts."""
        return _phrases(self.predictor.predictions)

    @cached_property
    def kinds(self) -> dict[str, np.ndarray]:
        """Masks of the test posts, by the name of where their evidence is."""
        return {KINDS[kind]: mask for kind, mask in keyphrases.groups(self.data).items()}

    def some(self, kind: str, count: int = 4, right: bool | None = None) -> list[int]:
        """The first test posts of a kind, all kinds where it is not known, those with pictures before others; with
        `right` only those of which it is true."""
        among = np.flatnonzero(self.kinds.get(kind, np.ones(len(self.posts), bool))).tolist()
        chosen = [i for i in among if right in (None, is_right(self.posts[i], self.said[i]))]
        return sorted(chosen, key=lambda i: self.posts[i].image is None)[:count]

    def telling(self, kind: str) -> int:
        """A test post of a kind that it gets right, if there is one."""
        return (self.some(kind, 1, right=True) or self.some(kind, 1) or [0])[0]

    def one_of_each(self) -> list[int]:
        """Such a post of each kind."""
        return list(dict.fromkeys(self.telling(kind) for kind in self.kinds))

    def seen(self, posts: Sequence[int], **changes) -> Split:
        """Some test posts as a split of their own, with `changes`: the same `image`, `ocr`, `attributes` or
        `keyphrases` for all of them."""
        whole, fields = self.split.posts, {name: changes.pop(name) for name in ("ocr", "attributes") if name in changes}
        some = Posts([replace(whole.examples[i], **changes) for i in posts], whole.settings, whole.known)
        for name in ("ocr", "attributes"):
            kept = [getattr(whole, name)[i] for i in posts]
            setattr(some, name, [fields[name]] * len(posts) if name in fields else kept)
        return Split(some, self.predictor.context)

    def phrases(self, posts: Sequence[int], **changes) -> list[list[str]]:
        """What it says of some test posts, with changes as in `seen`."""
        return _phrases(keyphrases.predict(self.predictor.model, self.seen(posts, **changes)))

    def looks(self, i: int) -> dict[str, torch.Tensor]:
        """The heads' attention of each branch for a test post (h, R)."""
        with torch.no_grad():
            return {name: heads[0] for name, heads in self.predictor.model.read(**self.split.read([i])).looks.items()}


def _phrases(said: Mapping) -> list[list[str]]:
    return said["generator" if "generator" in said else "classifier"]


def looked_at(found: tuple[Predictor, str], settings: Mapping) -> Keyphraser:
    """A predictor and its title, as `trained.to_look_into` finds them, beside the test posts of its corpus."""
    predictor, title = found
    asked = experiment.resolve("cmkp", "full", settings)
    here = dict(dataset=asked.dataset, data_dir=asked.data_dir, captions_dir=asked.captions_dir, train_limit=None)
    data = keyphrases.load(replace(predictor.settings, **here))
    return Keyphraser(title, predictor, keyphrases.bind(data, predictor.context))


def told_figure(model: Keyphraser) -> plt.Figure:
    """What it says of posts of each kind, a row a kind; a green frame: the first phrase is right."""
    chosen = {kind: model.some(kind) for kind in model.kinds}
    cells = [[_cell(model.posts[i], model.said[i]) for i in posts] for posts in chosen.values()]
    return plots.pictures(cells, list(chosen), side=2.3)


def without_table(model: Keyphraser, most: int = 400) -> pd.DataFrame:
    """F1@1 by kind on the first test posts, of all that it reads and without each part of it beside the text."""
    s, first = model.predictor.settings, range(min(most, len(model.posts)))
    parts = {"regions": (s.image, dict(image=None)), "OCR": (s.ocr != "none", dict(ocr="")),
             "attributes": (s.attributes != "none", dict(attributes=()))}  # fmt: skip
    said = {"all that it reads": model.said[: len(first)]}
    said |= {f"without {name}": model.phrases(first, **change) for name, (there, change) in parts.items() if there}
    scores = {name: _by_kind(model, phrases) for name, phrases in said.items()}
    return pd.DataFrame(scores).T.rename_axis("F1@1").reset_index()


def _by_kind(model: Keyphraser, said: Sequence[Sequence[str]]) -> dict[str, float]:
    sources, scores = [" ".join(source) for source in model.split.posts.sources], {}
    for name, mask in {"all posts": np.ones(len(said), bool), **model.kinds}.items():
        chosen = np.flatnonzero(mask[: len(said)])
        targets = [list(model.posts[i].keyphrases) for i in chosen]
        scores[name] = evaluate([said[i] for i in chosen], targets, [sources[i] for i in chosen])["F1@1"]
    return scores


# ---- where it looks, and where words come from ----


def looks_figure(model: Keyphraser, posts: Sequence[int]) -> plt.Figure:
    """Where the heads of the text's query look in each picture, a column a head."""
    looks = {i: model.looks(i).get("text-vision") for i in posts if model.posts[i].image is not None}
    rows = [(model.posts[i].image, [f"head {h + 1}" for h in range(len(heads))], heads.numpy())
            for i, heads in looks.items() if heads is not None]  # fmt: skip
    return plots.attention_maps(rows) if rows else plots.pictures([])


def words_figure(model: Keyphraser, posts: Sequence[int]) -> plt.Figure:
    """Which words the queries of picture and attributes look at, the mean of their heads."""
    rows = []
    for i in posts:
        source, looks = model.split.posts.sources[i], model.looks(i)
        for asking in ("vision", "attributes"):
            if (heads := looks.get(f"{asking}-text")) is not None:
                weights = heads.mean(0)[: len(source)].tolist()  # without the padding
                rows.append(([f"{asking}:", *source], [0.0, *weights], ["O"] * (len(source) + 1)))
    return plots.shaded_tokens(rows, "who looks at which words") if rows else plots.pictures([])


def word_by_word(model: Keyphraser, i: int, phrase: str) -> pd.DataFrame:
    """How each word of a phrase, any phrase, comes about for a test post: the switch λ, the word's log-probability,
    and in which shares it was generated and copied."""
    split = model.seen([i], keyphrases=(phrase,))
    with torch.no_grad():
        memory = model.predictor.model.read(**split.read([0]))
    table = model.predictor.inspect(memory, split, split.batch([0])["target"])
    return table.assign(word=phrase.lower().split()).rename(columns={"lambda": "λ"})


def shares_figure(model: Keyphraser, posts: Sequence[int]) -> plt.Figure:
    """The first phrase that it says of some posts, word by word: which share of its probability came from where."""
    tables = {i: word_by_word(model, i, model.said[i][0]) for i in posts}
    options = dict(figsize=(9, 1.1 * len(tables) + 1), squeeze=False, sharex=True, layout="constrained")
    figure, panels = plt.subplots(len(tables), 1, **options)
    for axes, (i, table) in zip(panels[:, 0], tables.items(), strict=True):
        plots.stacked(axes, table.set_index("word")[SHARES])
        axes.set_title(" ".join(model.split.posts.sources[i])[:90], fontsize=9, loc="left", fontweight="normal")
    panels[-1, 0].set_xlabel("share of the word's probability")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


# ---- what if ----


def other_pictures(model: Keyphraser, i: int) -> plt.Figure:
    """The same words with the pictures of other posts, and what is said now."""
    others = [j for j in model.some("in the picture", 12) if j != i][:4]
    pictures = [model.posts[j].image for j in (i, *others)]
    return _what_if(model, i, [dict(image=picture, ocr="") for picture in pictures])


def other_signs(model: Keyphraser, i: int, headlines: Sequence[str]) -> plt.Figure:
    """The same words and picture with other words drawn on it, and what is said now; nothing where it has no sign."""
    scene = model.posts[i].image
    if not isinstance(scene, SignedScene) or scene.sign is None:
        return plots.pictures([])
    signs = [scene.sign, *(replace(scene.sign, headline=headline) for headline in headlines)]
    return _what_if(model, i, [dict(image=replace(scene, sign=sign), ocr=sign.words) for sign in signs])


def _what_if(model: Keyphraser, i: int, changes: Sequence[Mapping]) -> plt.Figure:
    said = [model.phrases([i], **change)[0][:2] for change in changes]
    told = zip(changes, said, strict=True)
    cells = [(change["image"], "; ".join(phrases), plots.NEUTRAL) for change, phrases in told]
    return plots.pictures([cells], [model.posts[i].text], side=2.3)


def mistakes(model: Keyphraser, most: int = 2) -> pd.DataFrame:
    """Some posts of each kind of which the first phrase is wrong."""
    wrong = [(kind, i) for kind in model.kinds for i in model.some(kind, most, right=False)]
    return pd.DataFrame([{
        "evidence": kind, "text": model.posts[i].text, "OCR": model.split.posts.ocr[i],
        "right": "; ".join(model.posts[i].keyphrases), "said": "; ".join(model.said[i][:3]),
    } for kind, i in wrong])  # fmt: skip
