"""MAF from corpus to predictor: every row of the ablation table trains, is kept, and can be tried."""

import json

import pytest
import torch

from lib import predict
from lib.analysis import modalities
from lib.papers import maf
from lib.run import experiment
from lib.tasks import tagging
from tests.tasks.test_tagging import write_corpus

pytestmark = pytest.mark.filterwarnings("ignore:12 of 36 pictures are missing")
TINY = {"text_layers": 1, "longest": 20, "image_size": 64, "epochs": 1, "batch_size": 6, "train_limit": None}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return {"dataset": "conll-images", "data_dir": write_corpus(tmp_path_factory.mktemp("conll")), **TINY}


def run(variant: str, settings: dict, folder) -> experiment.Result:
    return experiment.run("maf", variant, 0, settings, folder, log=lambda line: None)


@pytest.mark.parametrize("variant", maf.VARIANTS)
def test_every_variant_trains_and_can_be_tried(variant, settings, tmp_path):
    result = run(variant, settings, tmp_path)
    said = result.predictions()
    assert tagging.score(said) == result.scores["test"] and {"F1", "strict F1"} <= set(result.scores["dev"])
    judges = maf.VARIANTS[variant].changes.get("matching", True)
    assert (said["matching"] == 1).all() != judges
    predictor = predict.load(result.folder)
    post = tagging.load(experiment.resolve("maf", variant, settings)).test.examples[1]
    found = predictor.inspect(post.tokens, post.image)
    assert found["tags"] == said["predicted"][1]  # the same as in the report
    assert (found["matching"] is not None) == judges
    if judges:
        assert found["matching"] == pytest.approx(said["matching"][1].item(), abs=0.02)


@pytest.mark.parametrize("variant", ["text", "full"])
def test_characters_are_learned_from_nothing_and_kept_with_the_run(variant, settings, tmp_path):
    result = run(variant, {**settings, "text_encoder": "characters"}, tmp_path)
    stored = json.loads((result.folder / "context.json").read_text())
    assert {"A", "R", "."} < set(stored["characters"]) and stored["labels"][0] == "O"
    assert predict.load(result.folder).inspect("Rio!")["tokens"] == ["Rio", "!"]


def test_the_text_encoder_starts_from_its_published_weights(settings):
    from lib.encoders.text import pretrained

    chosen = experiment.resolve("maf", "full", settings)
    data = tagging.load(chosen)
    model = maf.build(tagging.context(data), chosen)
    maf.initialise(model, tagging.context(data), chosen)
    published = pretrained("minilm")[1].state_dict()
    mine = model.text.state_dict()
    assert mine and all(torch.equal(weight, published[name]) for name, weight in mine.items())
    assert not model.text.get_input_embeddings().weight.requires_grad


def test_pictures_are_judged_beside_those_of_other_posts(settings, tmp_path):
    result = run("full", settings, tmp_path)
    data = tagging.load(experiment.resolve("maf", "full", settings))
    judged = modalities.judged(result.folder, data)
    assert judged["own"].tolist() == [True] * 8 + [False] * 8  # four of twelve have no picture
    assert judged["matching"].between(0, 1).all() and judged["matching"].nunique() > 8
    assert tagging.groups(data) == {} and modalities.by_kind(_row(result), data).empty


def _row(result):
    import pandas as pd

    return pd.DataFrame([{"variant": result.variant, "seed": result.seed, "folder": str(result.folder)}])


def test_on_iconworld_scores_are_told_by_what_decides(tmp_path):
    settings = {**TINY, "train_limit": 24}
    data = tagging.load(experiment.resolve("maf", "text", settings))
    kinds = tagging.groups(data)
    assert sum(kinds[kind] for kind in ("picture", "text", "neither")).tolist() == [1] * len(data.test.examples)
    result = run("text", settings, tmp_path)
    table = modalities.by_kind(_row(result), data).set_index("kind")["F1"]
    said = result.predictions()
    assert modalities.f1_by_kind(said, {}) == {"all": pytest.approx(tagging.score(said)["F1"])}
    own = [i for i, shown in enumerate(kinds["own picture"]) if shown]
    part = {name: [said[name][i] for i in own] for name in ("gold", "predicted")}
    assert table["own picture"] == pytest.approx(tagging.score(part)["F1"])
