"""What the MAF notebook reports of its runs: tables, figures, and the words of the page."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch

from lib.analysis import modalities
from lib.corpora.iconworld.entities import ceiling
from lib.papers import maf
from lib.report import plots, tables
from lib.report.claims import published
from lib.report.evidence import Evidence
from lib.report.pages import Report
from lib.report.tables import ablation_table, evident
from lib.run import experiment, store
from lib.tasks import tagging
from lib.tasks.tagging import TaggingData

TITLES = {name: variant.title for name, variant in maf.VARIANTS.items()}
KINDS = {"picture": "picture decides", "text": "text decides", "neither": "neither decides",
         "own picture": "its own picture", "another's picture": "another's picture"}  # fmt: skip


def ceilings(data: TaggingData) -> pd.DataFrame:
    """F1 of perfect readers on the test posts, all and by what decides them; elsewhere than on IconWorld nobody knows,
    and it is empty."""
    if not tagging.groups(data):
        return pd.DataFrame()
    return pd.DataFrame(ceiling(data.corpus.test)).T.rename_axis("F1 of a perfect reader")


def ceilings_table(data: TaggingData) -> pd.DataFrame:
    """`ceilings` as people read them, or that nobody knows them."""
    best = ceilings(data).round(1)
    return best if len(best) else pd.DataFrame({"F1 of a perfect reader": ["nobody knows"]})


# ---- rows of the table ----


def what_changes(rows: Sequence[str]) -> pd.DataFrame:
    """Each variant and the settings that make it."""
    return tables.what_changes("maf", rows)


def metrics(data: TaggingData) -> list[str]:
    """The columns of the ablation table: a lenient F1 a type, and the strict scores."""
    return ["P", "R", "F1", *(f"F1 {label[2:]}" for label in data.labels if label[0] == "B"), "strict F1"]


def report(runs: pd.DataFrame, parameters: Mapping, data: TaggingData) -> Report:
    """The report of some runs; where most pictures are missing, nothing is said of the rows that need them."""
    out = Report("maf", runs, parameters)
    if most_are_missing(data):
        blind = [name for name in TITLES if name.startswith("text")]
        out.numbers = out.numbers[out.numbers["variant"].isin(blind)] if len(out.numbers) else out.numbers
        sides = out.comparisons[["above", "below"]].isin(blind).all(axis=1) if len(out.comparisons) else None
        out.comparisons = out.comparisons if sides is None else out.comparisons[sides]
    return out


def most_are_missing(data: TaggingData) -> bool:
    """Whether the corpus lies here without most of its pictures."""
    return present(data).float().mean().item() < 0.5


def present(data: TaggingData) -> torch.Tensor:
    """Which of all posts have a picture that can be read."""
    return torch.cat([split.features.present for split in (data.train, data.dev, data.test)])


def judged(out: Report | Evidence) -> pd.DataFrame:
    """The verdicts of a report, new or read again: published numbers, or else comparisons; those of old as written."""
    return evident(out, "comparisons") if isinstance(out, Evidence) else out.judged()


def f1_figure(runs: pd.DataFrame, data: TaggingData) -> plt.Figure:
    """F1 of all rows, lenient and strict, beside what was published and the best that can be."""
    known, best = published("maf", data.corpus.name), ceilings(data)
    known = None if most_are_missing(data) or known.empty else known
    limits = {"F1": best.loc["both, knowing which picture is its own", "all"]} if len(best) else None
    title = "Names found on test"
    return plots.dots(runs, ["F1", "strict F1"], title, TITLES, maf.PAPER.main, known, limits, share=True)


def kinds_table(runs: pd.DataFrame, data: TaggingData) -> pd.DataFrame:
    """F1 on each kind of post, mean ± std over seeds; empty where nobody knows what decides a post."""
    wide = _by_kind(runs, data)
    if wide.empty:
        return wide
    table = ablation_table(wide, "maf", [*KINDS.values()], data.corpus.name)
    return table.drop(columns="seconds").rename(columns={"variant": "F1 on test posts"})


def kinds_figure(runs: pd.DataFrame, data: TaggingData) -> plt.Figure:
    """F1 on each kind of post, with a perfect reader beside it."""
    best = ceilings(data).loc["both, judging the match", ["picture", "text", "neither"]].rename(KINDS)
    title = "F1 by what decides a post, and by whose picture it shows"
    options = dict(limits=dict(best), share=True)
    return plots.dots(_by_kind(runs, data), [*KINDS.values()], title, TITLES, maf.PAPER.main, **options)


def _by_kind(runs: pd.DataFrame, data: TaggingData) -> pd.DataFrame:
    """Each run's F1 on each kind of post, a column a kind."""
    scores = modalities.by_kind(runs, data).pivot(index=["variant", "seed"], columns="kind", values="F1")
    return runs[["variant", "seed", "seconds"]].merge(scores.rename(columns=KINDS).reset_index(), sort=False)


def matching_table(runs: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """The AUC in per cent of the runs that judge pictures, mean and std over seeds a variant. Of runs of which only
    the record is here nobody knows what they said."""
    rows = []
    for run in runs.to_dict("records"):
        asked = experiment.resolve("maf", run["variant"], settings)
        known = asked.matching and store.read(run["folder"]).has_weights
        found = modalities.judged(run["folder"], tagging.load(asked)) if known else ()
        if len(found):
            auc = 100 * modalities.auc(found["matching"], found["own"])
            rows.append({"variant": TITLES[run["variant"]], "AUC": auc})
    if not rows:
        return pd.DataFrame({"variant": ["none of these rows has CM"]})
    scores = pd.DataFrame(rows)
    return scores.groupby("variant", sort=False)["AUC"].agg(["mean", "std"]).reset_index().dropna(axis=1, how="all")


# ---- the report's words ----


def deviations(settings: maf.Settings, data: TaggingData) -> list[str]:
    """Where a run with these settings differs from the paper, a line each."""
    s, absent = settings, int((~present(data)).sum())
    trained = "trained" if s.train_embeddings or s.text_encoder == "characters" else "left as they are"
    return [
        f"text: {s.text_encoder}, {s.text_layers or 'all'} layers, its word embeddings {trained} "
        "(the paper: BERT-base cased, all trained)",
        f"pictures: {s.image_encoder} at {s.image_size} px (the paper: ResNet-152, 49 regions of 224 px); {absent} "
        "pictures are missing or unreadable and shown as a learned vector",
        f"CA reads the text's {s.sentence} (the paper: [CLS]) and the mean of the projected regions; CM is one linear "
        "layer on the flattened pair, as in the released code (the paper: an MLP), equal for all pieces at first",
        "tags on tokens, by their first pieces; the released code tags pieces, with tags for continuations and "
        "special pieces",
        f"the loss is NER + {s.alpha:g} CM + {s.beta:g} CA (the paper: 0.2 and 0.2, in a sum that could not be "
        f"checked); {s.swap_share:.0%} of a batch's posts are swapped (the released code: a quarter); temperature "
        f"{s.temperature} and lambda_c {s.lambda_c} are the released code's",
        f"{s.epochs} epochs of batches of {s.batch_size}, AdamW at {s.learning_rate:g} for the encoder and "
        f"{s.head_rate:g} for new parts (the released code: 24 of 64, 5e-5)",
        "'as released' takes over that code's losses, swaps, paddings and batch-norm (statistics of fixed batches of "
        "64 pictures, computed once), not its training length and rates, its pooler for CA, its own head on raw image "
        "features, a random crop drawn once for all, nor the picture 17_06_4705.jpg for missing ones",
    ]


def why(data: TaggingData) -> list[str]:
    """What the verdicts come from, a sentence each."""
    if most_are_missing(data):
        return ["Most pictures of this corpus were not at hand: only the rows that read text alone say something here."]
    if not tagging.groups(data):
        return []
    return [
        "Pictures help where an ambiguous name stands in a sentence that fits every type: the table by kind of post "
        "shows it. They mislead where they are another post's, and CM is there to notice that.",
        "CM, CA and the gate each give little on all posts together: what they give on some kinds of posts is small "
        "beside what the seeds scatter.",
    ]


def headline(runs: pd.DataFrame, data: TaggingData) -> str:
    """The last row, in one sentence."""
    return tables.headline(runs, "maf", ["F1"], data.corpus.name)
