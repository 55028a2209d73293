"""A run's key sees what decides it and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from lib.papers import maf, vse
from lib.run import experiment, fingerprint, training
from lib.run.fingerprint import code_fingerprint
from lib.setup import ROOT
from lib.sources import hash_of, normalised
from tests import toy


@pytest.fixture
def edited(monkeypatch):
    """Code fingerprints of the papers as if a file had been edited: edited(path, old, new) -> {paper: fingerprint}."""
    read_text, edits = Path.read_text, {}
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: edits.get(path, lambda s: s)(read_text(path, *a, **k)))

    def fingerprints(path: str, old: str, new: str) -> dict[str, str]:
        source = read_text(ROOT / path, encoding="utf-8")
        assert old in source, f"{path} does not hold {old!r}"
        edits.clear()
        edits[ROOT / path] = lambda text: text.replace(old, new)
        return {paper.name: code_fingerprint(paper) for paper in (vse.PAPER, maf.PAPER, toy.PAPER)}

    return fingerprints


BEFORE = {paper.name: code_fingerprint(paper) for paper in (vse.PAPER, maf.PAPER, toy.PAPER)}


@pytest.mark.parametrize("path, old, new", [
    ("lib/run/training.py", '"""The one training loop', '"""Another docstring'),
    ("lib/run/training.py", "BUCKET = 32  # batches", "BUCKET = 32  # other words"),
    ("lib/run/training.py", 'self.log(f"resumed at', 'self.log(f"went on at'),
    ("lib/run/training.py", "expected a finite number", "which no number is"),
    ("lib/run/experiment.py", "_finish(asked, data", "_finished(asked, data"),
    ("lib/run/checkpoints.py", "KEPT = 2", "KEPT = 3"),
    ("lib/report/tables.py", "mean ± std", "mean"),
    ("lib/papers/vse.py", '"small": dict(epochs=8', '"small": dict(epochs=9'),  # a profile is in the settings
    ("lib/papers/vse.py", "margin=0.2, dropout=0.0, reduction", "margin=0.2, dropout=0.1, reduction"),  # and a variant
    ("lib/papers/vse.py", "k: int = 5", "k: int = 6"),  # the predictor
    ("lib/encoders/cache.py", "KEY_BYTES, SUM_BYTES = 32, 4", "KEY_BYTES, SUM_BYTES = 31, 4"),
])  # fmt: skip
def test_what_computes_no_number_changes_no_key(edited, path, old, new):
    assert edited(path, old, new) == BEFORE


@pytest.mark.parametrize("path, old, new, changed", [
    ("lib/models/vse.py", "clamp(min=0.01)", "clamp(min=0.02)", {"vse"}),
    ("lib/models/maf.py", "losses[\"matching\"] = s.alpha", "losses[\"matching\"] = 2 * s.alpha", {"maf"}),
    ("lib/papers/maf.py", "requires_grad_(settings", "requires_grad_(not settings", {"maf"}),
    ("lib/layers/ranking.py", "relu()", "relu().square()", {"vse"}),
    ("lib/layers/ranking.py", "(scores / temperature)", "(scores * temperature)", {"vse", "maf"}),
    ("lib/encoders/tokens.py", "tokens), self.longest - 2", "tokens), self.longest - 3", {"maf"}),
    ("lib/run/training.py", "BUCKET = 32", "BUCKET = 33", {"vse", "maf", "toy"}),
    ("tests/toy.py", "nn.Tanh()", "nn.ReLU()", {"toy"}),
])  # fmt: skip
def test_what_computes_numbers_changes_the_keys_of_those_that_use_it(edited, path, old, new, changed):
    after = edited(path, old, new)
    assert {name for name in BEFORE if after[name] != BEFORE[name]} == changed


@pytest.mark.parametrize("one, other, same", [
    ("x = 1", "x = 1  # a comment", True),
    ("def f():\n    'words'\n    return 1", "def f():\n\n    return 1", True),
    ("def f():\n    log('a')\n    return 1", "def f():\n    log('b', 2)\n    return 1", True),
    ("raise ValueError('a')", "raise ValueError(f'b {1}')", True),
    ("raise ValueError('a')", "raise KeyError('a')", False),
    ("y = log('a')", "y = log('b')", False),
    ("x = 1", "x = 2", False),
    ("x = [1, 2]", "x = [2, 1]", False),
])  # fmt: skip
def test_code_is_what_it_computes(one, other, same):
    import ast

    assert (normalised(ast.parse(one)) == normalised(ast.parse(other))) == same


def test_functions_and_files_have_hashes():
    assert hash_of(training.batch_plan) == hash_of(training.batch_plan) != hash_of(training.turns)
    assert hash_of(Path(training.__file__)) != hash_of(Path(fingerprint.__file__))


def test_image_features_know_the_code_that_computed_them(monkeypatch):
    from lib.encoders import images

    before = images.ImageEncoder().identity
    images._code.cache_clear()
    monkeypatch.setattr(images, "pixels", lambda picture, view="full", size=224: None)
    assert images.ImageEncoder().identity != before
    images._code.cache_clear()


def test_threads_and_precision_are_in_the_key_as_resolved(monkeypatch):
    asked = experiment.plan("tests.toy", "pretrain", 0, {"precision": "fp32"})
    assert asked.identity["precision"] == "fp32" and asked.identity["threads"] == 1
    two = replace(asked, settings=replace(asked.settings, threads=2))
    assert two.key != asked.key
    auto = replace(asked, settings=replace(asked.settings, precision="auto"))
    for fast in ("fp32", "bf16"):
        monkeypatch.setattr("lib.precision.fast_precision", lambda fast=fast: fast)
        assert replace(auto).identity["precision"] == fast
