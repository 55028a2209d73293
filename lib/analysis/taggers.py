"""Taggers of posts (MAF), looked at: the tables and figures of its notebook, a call each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from lib import predict
from lib.analysis import modalities
from lib.analysis.tagger_reports import TITLES
from lib.corpora.iconworld.entities import match_chances, matched
from lib.corpora.types import Picture, TaggedPost
from lib.metrics.entities import confusion
from lib.papers import maf
from lib.report import plots
from lib.report.pages import Report, keep_drawn
from lib.report.shipping import shipped
from lib.run import experiment, store
from lib.tasks import tagging
from lib.tasks.tagging import Split, TaggingData

# ---- the data ----


def pictures(split: Split) -> list[Picture]:
    """The posts' pictures; None for those that are missing, and for those that cannot be read."""
    readable = split.features.present.tolist()
    return [post.image if there else None for post, there in zip(split.examples, readable, strict=True)]


def gallery(split: Split, indices: Sequence[int]) -> plt.Figure:
    """Some posts with their pictures, their gold tags in the words."""
    shown = [(split.examples[i], pictures(split)[i]) for i in indices if i < len(split.examples)]
    cells = [(picture, caption(post.tokens, post.tags, picture), plots.NEUTRAL) for post, picture in shown]
    return plots.pictures([cells], side=2.4)


def caption(tokens: Sequence[str], tags: Sequence[str], picture: Picture, p: float | None = None) -> str:
    """A post under its picture: its words with its names, and how likely the picture is its own."""
    said = plots.tagged(tokens, tags)
    return f"{said} · p\u00a0{p:.2f}" if p is not None and picture is not None else said


def kinds_counted(data: TaggingData) -> str:
    """How many test posts are of which kind."""
    counted = [f"{mask.sum()} {kind}" for kind, mask in tagging.groups(data).items()]
    return f"test posts: {', '.join(counted) or 'what decides them is not known'}"


# ---- one batch by hand ----


def one_batch(split: Split, count: int = 8) -> tuple[list[TaggedPost], dict[str, torch.Tensor]]:
    """Some posts, and the batch of them; each has another picture, as far as there are so many, else a blank one."""
    posts = np.array([window.post for window in split.windows])
    picture = split.features.positions[posts, 0]
    having = {row: i for i, row in reversed(list(enumerate(picture.tolist()))) if row >= 0}  # the first of each
    others = [i for i in range(len(posts)) if i not in having.values()]
    chosen = [*sorted(having.values()), *others][:count]
    rows, random = np.arange(len(chosen)), np.random.default_rng(0)
    swapped = tagging.swap(rows, split.settings.swap_share, "pictures", random)
    shown = {"picture": torch.from_numpy(rows), "present": torch.ones(len(chosen), dtype=torch.bool)}
    return [_part(split, i) for i in chosen], split.batch(chosen) | shown | swapped


def _part(split: Split, i: int) -> TaggedPost:
    """What a window holds of its post, with the picture if it can be read."""
    window = split.windows[i]
    post, inside = split.examples[window.post], slice(window.start, window.stop)
    image = post.image if split.features.present[window.post] else None
    return replace(post, image=image, tokens=post.tokens[inside], tags=post.tags[inside])


def word_pieces(data: TaggingData) -> tuple[list[str], list[str]]:
    """The pieces of the first post that has more of them than tokens, and of these the first of each token."""
    windows, reader = data.train.windows, data.train.reader
    window = next((w for w in windows if len(w.pieces) > len(w.first_pieces) + 2), windows[0])
    spelled = [data.characters[piece] for piece in window.pieces] if data.characters else None
    pieces = spelled or reader.tokenizer.convert_ids_to_tokens(window.pieces)
    return pieces, [pieces[i] for i in window.first_pieces]


def before_and_after(posts: Sequence[TaggedPost], batch: Mapping, labels: Sequence[str], models: Mapping) -> plt.Figure:
    """A row a model (its title -> it): what it says of the first posts of a batch, and how likely their pictures are
    their own."""
    rows = []
    for model in models.values():
        told = model.eval().tag(**batch)
        said = [[labels[tag] for tag in row] for row in told["tags"]]
        chances = told["p"].tolist() if "p" in told else [None] * len(posts)
        shown = list(zip(posts, said, chances, strict=True))[:5]
        rows.append([cell(post, post.image, tags, p) for post, tags, p in shown])
    return plots.pictures(rows, list(models), side=2.2)


def cell(post: TaggedPost, picture: Picture, tags: Sequence[str], p: float | None = None) -> tuple[Picture, str, str]:
    """A picture with what was said of its post, framed by whether all of that is right."""
    frame = plots.RIGHT if list(tags) == list(post.tags) else plots.WRONG
    return picture, caption(post.tokens, tags, picture, p), frame


# ---- a trained tagger ----


@dataclass(frozen=True)
class Tagger:
    """A trained tagger beside the test posts, as it sees them. `folder` is its run's or the shipped model's."""

    title: str
    folder: Path
    predictor: Any
    data: TaggingData

    @property
    def judges(self) -> bool:
        """Whether it says how likely a picture belongs to its post."""
        return self.predictor.settings.matching

    @property
    def posts(self) -> list[TaggedPost]:
        return self.data.test.examples

    @cached_property
    def pictures(self) -> list[Picture]:
        return pictures(self.data.test)

    @cached_property
    def kinds(self) -> dict[str, np.ndarray]:
        return tagging.groups(self.data)

    @property
    def said(self) -> list[list[str]]:
        """The tags that it gave to the test posts."""
        return self.predictor.predictions["predicted"]

    def right(self, i: int) -> bool:
        return self.said[i] == list(self.posts[i].tags)

    def of_kind(self, kind: str) -> list[int]:
        """The test posts of a kind; all of them where kinds are not known."""
        return np.flatnonzero(self.kinds[kind]).tolist() if self.kinds else list(range(len(self.posts)))

    def cell(self, i: int) -> tuple[Picture, str, str]:
        """A test post with what was said of it."""
        p = float(self.predictor.predictions["matching"][i]) if self.judges else None
        return cell(self.posts[i], self.pictures[i], self.said[i], p)

    def telling(self, most: int = 3) -> list[int]:
        """Posts worth looking into: with a picture, tagged right, decided by the picture where that is known."""
        shown = [i for i in self.of_kind("picture") if self.pictures[i] is not None]
        return ([i for i in shown if self.right(i)] or shown or [0])[:most]

    @cached_property
    def inside(self) -> list[tuple[Picture, dict]]:
        """The pictures of these posts, and how it came to its tags."""
        return [(self.pictures[i], self.predictor.inspect(self.posts[i].tokens, self.pictures[i]))
                for i in self.telling()]  # fmt: skip

    def keep(self, out: Report, name: str, title: str, figure: plt.Figure | None) -> None:
        """Put a figure of posts into a report, if its pictures may be shown."""
        keep_drawn(out, self.data.corpus.name, name, f"{self.title}: {title}", figure)


def looked_at(runs: pd.DataFrame, settings: Mapping) -> Tagger:
    """MAF, if it is among the runs, of its seeds the best on dev; else the trained model that the report ships, where
    the corpus is the one it was trained on; else the last row that was run. Of runs of which only the record is here
    there is nothing to look into."""
    here = runs[[store.read(folder).has_weights for folder in runs["folder"]]]
    mine = here[here["variant"] == maf.PAPER.main]
    if mine.empty and settings["dataset"].startswith("iconworld"):
        folder, title = shipped("maf"), "the MAF that ships with the report"
    else:
        best = (mine if len(mine) else here[here["variant"] == here["variant"].iloc[-1]]).sort_values("dev F1").iloc[-1]
        folder, title = Path(best["folder"]), f"{TITLES[best['variant']]}, seed {best['seed']}"
    predictor = predict.load(folder)
    asked = experiment.resolve("maf", "full", settings)
    seen = replace(predictor.settings, data_dir=asked.data_dir, train_limit=asked.train_limit)
    return Tagger(title, folder, predictor, tagging.load(seen))


# ---- does it know which pictures match? ----


def judgements(tagger: Tagger) -> pd.DataFrame:
    """How likely it finds pictures to be their posts' own, `p`, and `whose` they are; empty where it does not judge."""
    if not tagger.judges:
        return pd.DataFrame({"p": [], "whose": []})
    found = modalities.judged(tagger.folder, tagger.data)
    return pd.DataFrame({"p": found["matching"], "whose": np.where(found["own"], "its own picture", "another's")})


def matching_figure(judged: pd.DataFrame) -> plt.Figure | None:
    """p for pictures that are their posts' own, and for others."""
    if judged.empty:
        return None
    auc = 100 * modalities.auc(judged["p"], judged["whose"] == "its own picture")
    return plots.two_histograms(judged, "p", "whose", f"CM tells own pictures from others: AUC {auc:.0f}")


def perfect_judge(data: TaggingData) -> str:
    """The AUC of a perfect reader on IconWorld; elsewhere nobody knows which pictures match."""
    if not tagging.groups(data):
        return "nobody knows which pictures match: each post was judged with its own picture and with the next post's"
    return f"AUC of a perfect reader, who compares all that is said with all that is shown: {_perfect_auc(data):.1f}"


def _perfect_auc(data: TaggingData) -> float:
    return 100 * modalities.auc(match_chances(data.corpus.test), matched(data.corpus.test))


# ---- what it says of posts ----


def told_figure(tagger: Tagger) -> plt.Figure:
    """What it says of posts that only the picture decides, and of posts with another's picture; elsewhere of any."""
    rows = {"picture": "only the picture decides", "another's picture": "another post's picture"}
    rows = rows if tagger.kinds else {"": "some posts"}
    cells = [[tagger.cell(i) for i in tagger.of_kind(kind)[:5]] for kind in rows]
    return plots.pictures(cells, list(rows.values()), side=2.3)


def overruled_table(tagger: Tagger) -> pd.DataFrame:
    """F1 on the test posts with CM's p as it is, and with it always 1 or 0."""
    if not tagger.judges or not tagger.data.test.features.present.any():
        return pd.DataFrame({"CM": ["none in this tagger, or no picture to judge"]})
    return modalities.overruled(tagger.predictor, tagger.data.test, tagger.kinds)


def same_words_figure(tagger: Tagger) -> plt.Figure:
    """One post's words with other pictures, and what is said of them now."""
    i = modalities.ambiguous_post(tagger.data, tagger.telling(len(tagger.posts)))
    cells = []
    for title, picture in modalities.other_pictures(tagger.data, i, tagger.pictures).items():
        found = tagger.predictor.inspect(tagger.posts[i].tokens, picture)
        said = caption(found["tokens"], found["tags"], picture, found["matching"])
        cells.append((picture, f"{title}: {said}", plots.NEUTRAL))
    return plots.pictures([cells], ["the same words, other pictures"], side=2.3)


def gates_figure(tagger: Tagger) -> plt.Figure | None:
    """The mean gate of each token of some posts; None for a tagger without gate."""
    found = [one for _, one in tagger.inside if one["gate"] is not None]
    rows = [(one["tokens"], one["gate"].tolist(), one["tags"]) for one in found]
    return plots.shaded_tokens(rows, "the gate's mean, token by token") if rows else None


def attention_figure(tagger: Tagger) -> plt.Figure | None:
    """Where in the picture some tokens look, names first; None for a tagger that does not look."""
    rows = []
    for picture, found in tagger.inside:
        if found["attention"] is not None:
            picked = _names_and_others(found["tokens"], found["tags"])
            rows.append((picture, [found["tokens"][k] for k in picked], found["attention"][picked].numpy()))
    return plots.attention_maps(rows) if rows else None


def _names_and_others(tokens: Sequence[str], tags: Sequence[str]) -> list[int]:
    """Two tokens of names, and two other words."""
    names = [k for k, tag in enumerate(tags) if tag != "O"][:2]
    return names + [k for k, token in enumerate(tokens) if token.isalpha() and k not in names][-2:]


def confusion_table(tagger: Tagger) -> pd.DataFrame:
    """Which types are taken for which, the span being right."""
    return confusion(tagger.predictor.predictions["gold"], tagger.said)


def mistakes(tagger: Tagger, most: int = 5) -> str:
    """Some posts that went wrong: of which kind they are, what is right, what was said."""
    wrong = [i for i in range(len(tagger.posts)) if not tagger.right(i)]
    lines = [f"{len(wrong)} of {len(tagger.posts)} posts went wrong"]
    for i in wrong[:most]:
        kinds = [kind for kind, mask in tagger.kinds.items() if mask[i]]
        gold, said = (plots.tagged(tagger.posts[i].tokens, tags) for tags in (tagger.posts[i].tags, tagger.said[i]))
        lines += ["", *([", ".join(kinds)] if kinds else []), f"gold: {gold}", f"said: {said}"]
    return "\n".join(lines)
