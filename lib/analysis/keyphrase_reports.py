"""What the CMKP notebook reports of its runs: which rows, tables, figures, and the words of the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lib.corpora.iconworld.posts import ceiling
from lib.corpora.types import Post
from lib.metrics.keyphrases import combine, is_present
from lib.papers import cmkp
from lib.report import plots, tables
from lib.report.claims import published
from lib.report.evidence import Evidence
from lib.report.pages import Report
from lib.report.tables import ablation_table
from lib.run import experiment, store
from lib.run.paper import find_variant
from lib.tasks import keyphrases
from lib.tasks.keyphrases import KeyphraseData

TITLES = {name: variant.title for name, variant in cmkp.VARIANTS.items()}
QUICK = ["gen-copy", "gen-m3h-wordings"]  # what a minute has time for
COLUMNS = ["F1@1", "F1@3", "MAP@5", "present/F1@1", "absent/F1@1"]
KINDS = {"text": "in the text", "context": "hinted at", "picture": "in the picture", "drawn": "drawn on it",
         "seen": "seen in training", "unseen": "never seen"}  # fmt: skip


# ---- what is asked for ----


def at_hand(settings: Mapping) -> dict:
    """The settings and, where nobody says otherwise, what a corpus of files has: its pictures, the wordings that came
    with it, or else those that tesseract and the image network can make of its pictures."""
    if settings["dataset"].startswith("iconworld"):
        return dict(settings)
    corpus = experiment.plan("cmkp", "gen-copy", 0, settings).data.corpus  # which is remembered for all rows
    posts = [*corpus.train, *corpus.dev, *corpus.test]
    pictures = any(post.image is not None for post in posts)
    made = {"ocr": "tesseract", "attributes": "classes"} if pictures else {"ocr": "none", "attributes": "none"}
    found = {name: "file" if any(getattr(post, name) for post in posts) else made[name] for name in made}
    if pictures and settings.get("captions_dir"):
        found["attributes"] = "run:cmkp/attributes"
    chosen = {name: settings.get(name) or value for name, value in found.items()}
    return dict(settings) | chosen | {"image": None if pictures else False}


def rows(settings: Mapping) -> list[str]:
    """The rows that are trained where nobody asks for others; without pictures those that need none."""
    names = QUICK if settings["profile"] == "smoke" else [name for name in TITLES if name != "attributes"]
    if settings.get("image") is False:
        names = [name for name in names if _is_blind(cmkp.VARIANTS[name].changes, settings.get("attributes") != "none")]
    return experiment.distinct("cmkp", names, settings)


def _is_blind(changes: Mapping, attributes: bool) -> bool:
    """Whether a row can do without pictures: its text asks nobody, or attributes."""
    fusion, wordings = changes.get("fusion", "m3h"), changes.get("wordings", ("attributes",))
    return fusion in ("none", "text") or (fusion == "m3h" and attributes and "attributes" in wordings)


def ready(variant: str, settings: Mapping) -> cmkp.Settings:
    """The full settings of a row, the run that names its attributes made, if one does."""
    asked = experiment.plan("cmkp", variant, 0, settings)
    for needed in asked.encoders:
        experiment.make(needed)
    return asked.settings


def what_changes(names: Sequence[str]) -> pd.DataFrame:
    """Each row, the settings that make it, and whose second stage it is."""
    parents = [TITLES.get(cmkp.VARIANTS[name].parent, "") for name in names]
    return tables.what_changes("cmkp", names).assign(**{"goes on from": parents})


# ---- the data ----


def counted(data: KeyphraseData) -> str:
    """How many test posts are of which kind, and how far labels and copying can reach."""
    groups = [f"{mask.sum()} {KINDS[kind]}" for kind, mask in keyphrases.groups(data).items()]
    return f"test posts by where the evidence of their keyphrases is: {', '.join(groups)}" if _drawn(data) else (
        f"test posts with a keyphrase {groups[0]}: {groups[1]}")  # fmt: skip


def reachable(data: KeyphraseData) -> pd.DataFrame:
    """Which share of the test keyphrases can be named at all, in percent: by a classifier that knows those of training,
    by copying from what the post says (or what is drawn on its picture), by either."""
    known = {phrase.lower() for post in data.train.examples for phrase in post.keyphrases}
    both = zip(data.test.examples, data.test.sources, strict=True)
    asked = [(phrase.lower() in known, is_present(phrase, " ".join(source)))
             for post, source in both for phrase in post.keyphrases]  # fmt: skip
    found = pd.DataFrame(asked, columns=["by the keyphrases of training", "by copying"])
    found["by either"] = found.any(axis=1)
    return (100 * found.mean()).rename("test keyphrases within reach, %").rename_axis("named").to_frame()


def wordings(data: KeyphraseData) -> pd.DataFrame:
    """How many posts of each split have words read on their pictures, and have attributes, in percent; and examples."""
    splits = {"train": data.train, "dev": data.dev, "test": data.test}
    shares = {name: {"with OCR words, %": 100 * pd.Series(map(bool, posts.ocr)).mean(),
                     "with attributes, %": 100 * pd.Series(map(bool, posts.attributes)).mean(),
                     "OCR words, such as": next(filter(None, posts.ocr), ""),
                     "attributes, such as": " ".join(next(filter(None, posts.attributes), ()))}
              for name, posts in splits.items()}  # fmt: skip
    return pd.DataFrame(shares).T.rename_axis("split")


def ceilings_table(data: KeyphraseData) -> pd.DataFrame:
    """Scores of perfect readers on the test posts; elsewhere than on IconWorld nobody knows them."""
    if not _drawn(data):
        return pd.DataFrame({"F1@1 of a perfect reader": ["nobody knows"]})
    return pd.DataFrame(ceiling(data.corpus.test)).T.rename_axis("a perfect reader of").round(1)


def _drawn(data: KeyphraseData) -> bool:
    return data.corpus.name.startswith("iconworld")


# ---- tables and figures of runs ----


def report(runs: pd.DataFrame, parameters: Mapping, data: KeyphraseData) -> Report:
    """The report of some runs, under the name that the corpus has for itself."""
    return Report("cmkp", runs, dict(parameters) | {"dataset": data.corpus.name})


def histories(runs: pd.DataFrame) -> pd.DataFrame:
    """What happened in each epoch, with the score of the output that a row is."""
    found = experiment.histories(runs)
    for variant in found["variant"].unique() if len(found) else ():
        if output := cmkp.VARIANTS[variant].output:
            mine = found["variant"] == variant
            found.loc[mine, "MAP@5"] = found.loc[mine, f"{output}:MAP@5"]
    return found


def other_evidence(dataset: str) -> pd.DataFrame:
    """The table of a report on real posts, by kind of post beside all of them; or that there is none yet."""
    evidence = Evidence("cmkp", dataset)
    if not evidence.story:
        return pd.DataFrame({"variant": [f"no report on {dataset} yet"]})
    by_kind = evidence.table("kinds").rename(columns={"F1@1 by evidence": "variant"}).drop(columns="seeds")
    return evidence.table("ablation").drop(columns="seconds").merge(by_kind, on="variant", how="left")


def ablation(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The table people read; present and absent: the keyphrases that the post's text contains, and the others."""
    return ablation_table(runs, "cmkp", COLUMNS, dataset)


def f1_figure(runs: pd.DataFrame, data: KeyphraseData) -> plt.Figure:
    """F1@1 and MAP@5 of all rows, beside what was published and a perfect reader of everything."""
    known, best = published("cmkp", data.corpus.name), ceiling(data.corpus.test)["all"] if _drawn(data) else None
    options = dict(claimed=None if known.empty else known, limits=best)
    return plots.dots(runs, ["F1@1", "MAP@5"], "Keyphrases found on test", TITLES, cmkp.PAPER.main, **options)


def kinds(runs: pd.DataFrame) -> pd.DataFrame:
    """F1@1 of each run by where the evidence of its posts' keyphrases is (elsewhere, by whether training has seen
    one of them): a column a kind."""
    table = runs[["variant", "seed", "seconds"]].copy()
    for i, run in runs.iterrows():
        result = store.read(Path(run["folder"]), find_variant("cmkp", run["variant"]).output)
        for kind, name in KINDS.items():
            if (sums := _sums(result, f"{kind}/F1@1")) is not None:
                table.loc[i, name] = float(combine("F1@1", sums))
    return table


def _sums(result: store.Result, metric: str):
    try:
        return result.statistics(metric).sum(0)
    except KeyError:  # a corpus without this kind
        return None


def kinds_table(runs: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """F1@1 on each kind of post, mean ± std over seeds."""
    wide = kinds(runs)
    names = [name for name in KINDS.values() if name in wide]
    table = ablation_table(wide, "cmkp", names, dataset)
    return table.drop(columns=["seconds", "published"], errors="ignore").rename(columns={"variant": "F1@1 by evidence"})


def kinds_figure(runs: pd.DataFrame) -> plt.Figure:
    """F1@1 on each kind of post."""
    wide = kinds(runs)
    names = [name for name in KINDS.values() if name in wide]
    title = "F1@1 by where the evidence is" if "in the text" in wide else "F1@1 by whether training had the keyphrase"
    return plots.dots(wide, names, title, TITLES, cmkp.PAPER.main, share=True)


def attributes_table(settings: Mapping) -> pd.DataFrame:
    """How good the words are that a predictor trained on captions gives to their pictures; empty where the attributes
    come from elsewhere. Its run is trained if it is not kept."""
    asked = experiment.plan("cmkp", "full", 0, settings)
    rows = [experiment.make(one).scores["test"] | {"captions": one.settings.captions} for one in asked.encoders]
    return pd.DataFrame(rows, columns=["captions", "P@5", "R@5", "F1@5"]) if rows else pd.DataFrame()


# ---- the report's words ----


def deviations(settings: cmkp.Settings, data: KeyphraseData) -> list[str]:
    """Where a run with these settings differs from the paper, a line each."""
    s = settings
    vectors = s.word_vectors or "none, all random at first"
    seen = f"{s.image_encoder} at {s.image_size} px, {s.regions}" if s.image else "none"
    return [
        f"corpus: {data.corpus.name} with {len(data.train.examples)} training posts (the paper: 42,959 tweets)",
        f"word vectors: {vectors} (the paper: GloVe of tweets, 200 numbers a word)",
        f"pictures: {seen} (the paper: VGG-16 at 224 px, 49 regions)",
        f"OCR: {s.ocr} (the paper: tesseract); attributes: {s.attributes.partition('@')[0]}, the five likeliest "
        "(the paper: five of 1,000 words, by a network trained on COCO)",
        f"width {s.dim}, {s.text_layers} layers of the text encoder, {s.heads} heads of {s.head_dim} (the released "
        "code: 300, two, four of 128); a classifier of two layers (the paper: an MLP; the released one has one layer)",
        f"each memory's question is its {s.pool} (the released code: the maximum of text and attributes, the mean of "
        "regions)",
        f"{s.epochs} epochs of batches of {s.batch_size} at {s.learning_rate:g}, of which dev chooses one by MAP@5 "
        "(the released code: up to 15 at 0.001, halved by dev's loss); stage 2 goes on from the epoch that was chosen",
        "OCR words count if the training split has them; the released code took the test posts' words too",
        "left out: its 36 objects, TOPIC, TMN and BAN (see lib/papers/cmkp.py)",
    ]


def why(data: KeyphraseData) -> list[str]:
    """What the verdicts come from, a sentence or two each."""
    if _drawn(data):
        return [
            "On IconWorld it is known where the evidence of each keyphrase is: the table by evidence shows that "
            "pictures help where only the picture decides, and OCR where it is drawn on it. What holds on all posts "
            "together depends on how many there are of each.",
            "A classifier can name only what it has learned as a class: it fails at the keyphrases of many "
            "combinations, which a generator copies or spells.",
        ]
    if "small" in data.corpus.name:
        return [
            "Training had a tenth of the paper's posts and no pictures: the published numbers are context.",
            "EXT-ORACLE needs no training, and what is published of it is found again. Its published F1@3 is another "
            "quantity: what is right is divided by three where it names fewer phrases too, and by what it names in all "
            f"other rows. Divided by three ours is {_oracle_by_three(data.test.examples):.1f}.",
        ]
    return [
        "The training split is small, and most keyphrases of the test posts never occur in it. So the classifier has "
        "next to nothing to learn from, and a second stage that copies from its phrases gains nothing.",
    ]


def _oracle_by_three(posts: Sequence[Post]) -> float:
    """F1@3 of EXT-ORACLE if its precision is over three phrases, however few it names."""
    right = np.array([min(3, sum(is_present(phrase, post.text) for phrase in post.keyphrases)) for post in posts])
    precision, recall = right.mean() / 3, np.mean(right / [len(post.keyphrases) for post in posts])
    return 200 * precision * recall / max(precision + recall, 1e-9)


def headline(runs: pd.DataFrame, data: KeyphraseData) -> str:
    """The last row, in one sentence."""
    return tables.headline(runs, "cmkp", ["F1@1"], data.corpus.name)
