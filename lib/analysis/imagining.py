"""Looking inside GXN: what a trained model says of pictures and draws of sentences, and who finds what."""

from collections.abc import Iterator, Sequence
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from PIL import Image

from lib.analysis.searches import readable
from lib.corpora.iconworld.captions import COLOURS, HELD_OUT
from lib.corpora.types import open_picture
from lib.encoders.images import pixels
from lib.layers.order import order_similarity
from lib.metrics.captions import CiderD
from lib.metrics.retrieval import evaluate
from lib.report import plots
from lib.report.plots import NEUTRAL, RIGHT, TRUE, WRONG
from lib.tasks import imagination, judging
from lib.tasks.retrieval import RetrievalData

Cell = tuple[Image.Image, str, str]  # a picture, what stands below it, the colour of its frame: see `plots.pictures`
BATCH = 64  # pictures that `imagination.imagined` draws at once, with one noise
KINDS = ("clock", "bus", "fish", "dog", "tree", "mug", "hat", "horse")  # of the grid of samples


def draws(predictor) -> bool:
    """Whether a trained model imagines pictures."""
    return predictor.settings.pictures


def speaks(predictor) -> bool:
    """Whether a trained model imagines captions."""
    return predictor.settings.captions


# ---- pictures that are imagined ----


def imagined(predictor, sentence: str, count: int = 5) -> list[Cell]:
    """Pictures that a model imagines for a sentence; none from a model that does not draw."""
    pictures = predictor.imagine(sentence, count) if draws(predictor) else []
    return [(picture, "imagined", NEUTRAL) for picture in pictures]


def strip(predictor, data: RetrievalData, most: int = 8) -> plt.Figure:
    """How a model's pictures of a few dev captions changed from one evaluation of its training to the next, beside the
    real picture."""
    frames = [frame for frame in getattr(predictor.model, "strip", ()) if frame.any()]
    dev = data.dev.few  # as where an epoch is chosen
    asked = imagination.asked(dev, quick=True)
    chosen = np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int)) if frames else []
    rows = []
    for row, caption in enumerate(asked[: len(frames[0])] if frames else []):
        cells = [(_image(frames[i][row]), "last" if i == chosen[-1] else "", NEUTRAL) for i in chosen]
        rows.append([*cells, (dev.examples[dev.owner[caption]].image, "real", RIGHT)])
    return plots.pictures(rows, [dev.captions[i] for i in asked], side=1.3)


def grid(predictor) -> plt.Figure:
    """Samples in a grid: kinds of things in all colours; held-out pairs, which training never showed, are framed."""
    if not draws(predictor):
        return plots.pictures([])
    t_l = predictor.grounded([f"a {colour} {kind}" for kind in KINDS for colour in COLOURS])
    title = "imagined; framed: pairs never seen in training"
    framed = [(COLOURS[x], KINDS[y]) in HELD_OUT for y in range(len(KINDS)) for x in range(len(COLOURS))]
    return mosaic(predictor.draw(t_l), COLOURS, KINDS, title, framed)


def between(predictor, pairs: Sequence[tuple[str, str]], steps: int = 8) -> plt.Figure:
    """What is imagined on the way from one sentence to another, t_l moving in equal steps, the noise held."""
    if not draws(predictor):
        return plots.pictures([])
    share = torch.linspace(0, 1, steps)[:, None]  # (S, 1)
    drawn = []
    for start, end in (predictor.grounded(pair) for pair in pairs):
        drawn += predictor.draw((1 - share) * start + share * end, same_noise=True)
    names = [f"{start} → {end}" for start, end in pairs]
    return mosaic(drawn, [f"{100 * float(part):.0f} %" for part in share], names, "from one sentence to another")


def mosaic(
    drawn: Sequence[Image.Image],
    columns: Sequence[str],
    rows: Sequence[str],
    title: str,
    framed: Sequence[bool] | None = None,
) -> plt.Figure:
    """Pictures side by side in rows with names at the edges; some may be framed."""
    side, wide = drawn[0].width, len(columns)
    lines = [np.concatenate([np.asarray(p) for p in drawn[i : i + wide]], 1) for i in range(0, len(drawn), wide)]
    figure, axes = plt.subplots(figsize=(0.95 * wide + 2, 0.95 * len(rows) + 0.8), layout="constrained")
    axes.imshow(np.concatenate(lines), interpolation="nearest")
    at = lambda count: side * (np.arange(count) + 0.5) - 0.5  # noqa: E731
    axes.set_xticks(at(wide), columns)
    axes.set_yticks(at(len(rows)), rows)
    axes.set_title(title)
    axes.grid(False)
    for i in np.flatnonzero(framed) if framed is not None else ():
        corner = (side * (i % wide), side * (i // wide))
        axes.add_patch(plt.Rectangle(corner, side - 2, side - 2, fill=False, ec=TRUE, lw=2.5))
    return figure


def judged(predictor, data: RetrievalData, count: int = 24) -> plt.Figure:
    """Pictures imagined for test captions, and what the judges said of them: green the right colour and, among five,
    the right kind; yellow the right colour alone; red neither."""
    cells = list(_judged(predictor, data, count))
    return plots.pictures([cells[i : i + 6] for i in range(0, len(cells), 6)], side=1.8)


def _judged(predictor, data: RetrievalData, count: int) -> Iterator[Cell]:
    said = predictor.predictions
    if "kind" not in said:
        return
    asked = np.array_split(said["asked"].numpy(), -(-len(said["asked"]) // BATCH))[0]
    drawn = predictor.draw(predictor.grounded([data.test.captions[caption] for caption in asked]))  # as it was judged
    for picture, caption, colour, rank in zip(drawn, asked, said["colour"], said["kind"], strict=False):
        frame = WRONG if not colour else RIGHT if rank < 5 else TRUE
        yield picture, f"{data.test.captions[caption]} (kind: {int(rank) + 1})", frame
        if (count := count - 1) == 0:
            return


def real_judged(data: RetrievalData) -> dict[str, float]:
    """What the judges find right, in per cent, in the real pictures of the captions that are drawn, made as small and
    blurred as drawn ones: where they fail here, no generator is to blame. Empty where nobody knows what is shown."""
    split, s = data.test, data.test.settings
    pictures, of_caption = np.unique(split.owner[imagination.asked(split)], return_inverse=True)  # each drawn once
    shown = [split.examples[i].image for i in pictures]
    if not (groups := imagination.groups(data)) or not all(judging.alone(split.examples[i]) for i in pictures):
        return {}
    probe = judging.probe(s.image_encoder, s.image_layer, s.image_size, s.picture_size, s.probe_scenes)
    seen = judging.features(split.encoder, [judging.Treated(scene, s.picture_size) for scene in shown])
    colour = judging.colours_right(torch.stack([pixels(scene, size=s.picture_size) for scene in shown]), shown)
    colour, rank = colour.numpy()[of_caption], probe.ranks(seen, shown).numpy()[of_caption]
    masks = {f", {name}": mask[pictures[of_caption]] for name, mask in groups.items()}
    found = {"colour": colour, "kind@1": rank < 1, "kind@5": rank < 5}
    masks[""] = np.ones_like(of_caption, bool)
    return {name + group: 100 * right[mask].mean() for name, right in found.items() for group, mask in masks.items()}


def real_and_small(data: RetrievalData, size: int, count: int = 6) -> list[Cell]:
    """Pictures of the training split as they are to be imagined, `size` pixels wide, each with a caption."""
    known = (data.train.examples[i] for i in dict.fromkeys(data.train.owner[data.train.drawable].tolist()))
    chosen = islice((example for example in known if any(readable([example]))), count)
    return [(open_picture(one.image).resize((size, size)), one.captions[0], NEUTRAL) for one in chosen]


def _image(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())


# ---- captions that are imagined ----


def said_of(predictor, data: RetrievalData) -> pd.DataFrame:
    """What a model says of each test picture, from best to worst by CIDEr-D (a hundred times coco-caption's scale):
    picture, caption, one of its own captions, the caption of the nearest training picture. Empty where it says nothing.
    """
    said = predictor.predictions
    if "beam" not in said:
        return pd.DataFrame()
    score = 100 * CiderD(said["references"]).score(said["beam"]).numpy()
    columns = {"picture": range(len(score)), "imagined": said["beam"], "CIDEr-D": score}
    columns |= {"one of its own": [own[0] for own in said["references"]], "nearest picture's": said["nearest"]}
    return pd.DataFrame(columns).sort_values("CIDEr-D", ascending=False, kind="stable", ignore_index=True)


def best_and_worst(said: pd.DataFrame, data: RetrievalData, count: int = 5) -> plt.Figure:
    """Test pictures whose imagined captions (`said_of`) are best, and those whose are worst."""
    if said.empty:
        return plots.pictures([])
    ends = {"best": (said.head(count), RIGHT), "worst": (said.tail(count), WRONG)}
    rows = [[(data.test.examples[row.picture].image, row.imagined, frame) for row in rows.itertuples()]
            for rows, frame in ends.values()]  # fmt: skip
    return plots.pictures(rows, [f"{name} by CIDEr-D" for name in ends])


# ---- who finds what ----


def by_level(predictor) -> pd.DataFrame:
    """Recalls on the test split by the abstract level alone, by the grounded level alone, and by both, in per cent."""
    said, settings = predictor.predictions, predictor.settings
    s = lambda v, t: order_similarity(v, t, settings.direction, settings.squared)  # noqa: E731
    sides = said["images"], said["sentences"]
    levels = [side.chunk(2, dim=1) for side in sides] if settings.levels == "both" else []
    looks = {"abstract (h)": ([side[0] for side in levels], s), "grounded (l)": ([side[1] for side in levels], s)}
    looks = looks if levels else {}
    scores = {name: evaluate(*pair, said["owner"], similarity) for name, (pair, similarity) in looks.items()}
    scores["both (s*)" if levels else "abstract (h)"] = evaluate(*sides, said["owner"], predictor.model.similarity)
    rows = [{"level": name} | {f"{way} R@{k}": found[way][f"R@{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)}
            for name, found in scores.items()]  # fmt: skip
    return pd.DataFrame(rows)


# ---- one batch by hand ----


def one_batch(data: RetrievalData, count: int = 8) -> dict[str, dict[str, torch.Tensor]]:
    """The first captions of a few pictures that may be imagined, as a batch of each part: "match", "discriminator" and
    "generator"."""
    train, random = data.train, np.random.default_rng(0)
    first = np.unique(train.owner[train.drawable], return_index=True)[1][:count]
    return {part: train.batch(train.drawable[first], random, part) for part in ("match", "discriminator", "generator")}


@torch.no_grad()
def drawn_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> list[Image.Image]:
    """What a model that is being trained imagines for the captions of a batch, the same noise each time."""
    model.eval()
    t_l = model.look_at_text(batch["words"], batch["lengths"], levels=("l",))["l"]  # (B, D)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = imagination.as_bytes(model.imagine(t_l))
    model.train()
    return [_image(picture) for picture in drawn]


def by_heart(frames: dict[str, list[Image.Image]], batch: dict[str, torch.Tensor], captions: Sequence[str]):
    """A batch learned by heart: what was imagined at some steps, a column each, beside the real pictures."""
    columns = {**frames, "real": [_image(picture) for picture in batch["picture"]]}
    drawn = [columns[name][row] for row in range(len(captions)) for name in columns]
    return mosaic(drawn, [*columns], captions, "imagined while one batch is learned by heart")
