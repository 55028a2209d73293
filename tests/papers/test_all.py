"""What holds for every paper: explicit, checked, and run from corpus to predictor by the same code."""

import dataclasses
import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from lib import predict
from lib.layers import crf
from lib.run import experiment
from lib.run.paper import PAPERS, Paper, Variant, find_paper
from lib.run.settings import TrainingSettings
from lib.run.training import Progress, _parts

TINY = {"profile": "smoke", "epochs": 1, "train_limit": 40, "batch_size": 16}


@pytest.fixture(params=PAPERS)
def paper(request) -> Paper:
    return find_paper(request.param)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run of a paper's main variant, made once."""
    made = {}

    def run(paper: Paper):
        if paper.name not in made:
            asked = experiment.plan(paper.name, paper.main, 0, TINY)
            made[paper.name] = asked, experiment.make(asked, tmp_path_factory.mktemp(paper.name), lambda line: None)
        return made[paper.name]

    return run


def test_it_is_explicit(paper):
    assert issubclass(paper.Settings, TrainingSettings) and paper.Settings.__dataclass_params__.frozen
    assert {"smoke", "small", "paper"} <= set(paper.PROFILES) and paper.main in paper.VARIANTS
    names = {field.name for field in dataclasses.fields(paper.Settings)}
    for variant in paper.VARIANTS.values():
        assert isinstance(variant, Variant) and {*variant.changes, *variant.passes, *variant.hands} <= names
    titles = [variant.title for variant in paper.VARIANTS.values()]
    assert len(set(titles)) == len(titles)


def test_every_row_of_every_profile_is_a_setting_that_fits(paper):
    for profile in paper.PROFILES:
        for variant in paper.VARIANTS:
            hash(experiment.resolve(paper.name, variant, {"profile": profile}))


def test_each_metric_is_what_its_statistics_add_up_to(paper, finished):
    asked, result = finished(paper)
    units = {len(result.statistics(metric.removeprefix(f"{asked.output}:"))) for metric in _metrics(asked)}
    assert len(units) <= 2  # of tests and, where they are others, of pairs
    for metric in _metrics(asked):
        name = metric.removeprefix(f"{asked.output}:")
        if name in result.scores["test"]:
            found = asked.task.combine(name, result.statistics(name).sum(0))
            assert float(found) == pytest.approx(result.scores["test"][name], abs=1e-4), name
    assert all(np.isfinite(value) for scores in result.scores.values() for value in scores.values())


def _metrics(asked) -> list[str]:
    return [metric for metric in asked.task.metrics if metric.startswith(f"{asked.output}:" if asked.output else "")]


def test_what_a_trained_model_needs_is_json_and_gives_the_same_answers(paper, finished):
    asked, result = finished(paper)
    assert json.loads(json.dumps(result.context)) == result.context
    model = predict.load(result.folder).model
    data = asked.task.bind(asked.data, result.context)
    again, stored = asked.task.predict(model, data.test), result.predictions()
    for name, value in again.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            assert torch.allclose(value.float(), stored[name].float(), atol=2e-2, equal_nan=True), name


UNREADABLE = {
    "": [
        ({"image": np.zeros((8, 8, 3), np.uint8)}, "image is of type ndarray, expected a path or a PIL image, as PIL"),
        ({"image": torch.zeros(3, 8, 8)}, "image is of type Tensor, expected a path or a PIL image, as PIL"),
        ({"image": b"\xff\xd8"}, "image is of type bytes, expected a path or a PIL image$"),
        ({"image": ["a.jpg"]}, "image is of type list, expected a path or a PIL image$"),
        ({"image": 7}, "image is 7, expected a path or a PIL image$"),
        ({"text": ["a red car", "two dogs in the snow"]}, "text is .*, expected one"),
        ({"text": 7}, "text is 7, expected one"),
        ({"text": [1, 2]}, "text is of type list, expected one"),
        ({"text": b"a dog"}, "text is of type bytes, expected one"),
    ],
    "maf": [
        ({"text": None}, "text is None, expected one sentence, or a list of its tokens"),
        ({"text": {"a": 1}}, "text is of type dict, expected one sentence"),
    ],
    "cmkp": [
        ({"ocr": 3}, "ocr is 3, expected one text"),
        ({"attributes": "dog"}, "attributes is of type str, expected a list of texts"),
        ({"text": None}, "found no word in None and no picture"),
    ],
    "k3m": [
        ({"properties": ["red"]}, "properties is of type list, expected a dict of texts such as"),
        ({"properties": {"size": 3}}, "properties is of type dict, expected a dict of texts such as"),
    ],
}


def test_what_a_predictor_cannot_read_is_named(paper, finished):
    predictor = predict.load(finished(paper)[1].folder)
    for given, message in UNREADABLE[""] + UNREADABLE.get(paper.name, []):
        with pytest.raises(ValueError, match=message) as error:
            predictor(**{"text": "a red car"} | given)
        assert "\n" not in str(error.value)


def test_a_step_waits_for_nothing_and_makes_nothing_on_the_cpu(paper, finished, monkeypatch):
    """On the device "meta" tensors have no values: whoever asks for one, or mixes in a tensor of the CPU, fails. One
    wait is left: the CRF asks whether its weights have become too small for the fast way."""
    asked, result = finished(paper)
    model = paper.build(result.context, asked.settings)
    paper.initialise(model, result.context, asked.settings)
    model.to("meta").train()
    data = asked.task.bind(asked.data, result.context)
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())  # "meta" has none
    monkeypatch.setattr(crf, "_log_likelihood", lambda *arguments: crf._Scaled.apply(*arguments)[0])
    for part in _parts(model, asked.settings):
        plan = data.train.plan(0, 0, part) if hasattr(data.train, "plan") else [np.arange(12)]
        batch = data.train.batch(plan[0], np.random.default_rng(0), part)
        batch = {name: v.to("meta") if isinstance(v, torch.Tensor) else v for name, v in batch.items()}
        progress = Progress(5, 1, 0.5)
        losses = model.losses(part, batch, progress) if hasattr(model, "losses") else model(**batch)
        sum(losses.values()).backward()


def test_a_batch_is_a_pure_function_of_its_step(paper, finished):
    asked, result = finished(paper)
    data = asked.task.bind(asked.data, result.context)
    model = paper.build(result.context, asked.settings)
    for part in _parts(model, asked.settings):
        plan = data.train.plan(0, 0, part) if hasattr(data.train, "plan") else [np.arange(12)]
        torch.manual_seed(1)
        first = data.train.batch(plan[0], np.random.default_rng(3), part)
        torch.manual_seed(2)
        again = data.train.batch(plan[0], np.random.default_rng(3), part)
        assert all(torch.equal(first[name], again[name]) for name in first if isinstance(first[name], torch.Tensor))
