"""Runs that are asked for: a paper's variant with a seed and all its settings, what it needs before, and its key."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from lib import precision
from lib.corpora.files import quote
from lib.encoders.words import vectors_file
from lib.names import require_known
from lib.run import fresh, pool
from lib.run.fingerprint import code_fingerprint, fingerprint
from lib.run.paper import Task, find_paper, owned

# Where files lie: what is in them is in the data's fingerprint. And how it is computed, which has entries of its own.
FOLDERS = {"data_dir", "captions_dir"}
NOT_DECIDING = {*FOLDERS, "word_vectors", "precision", "threads"}

MACHINES = (("cpu", "bf16"), ("cpu", "fp32"), ("cuda", "fp32"))  # kinds of them: the device, and what "auto" is there


@dataclass(frozen=True)
class Run:
    """What is asked for: a variant with a seed and its full settings, and the runs that it needs before."""

    paper: str
    variant: str
    seed: int
    settings: Any
    output: str | None = None
    parent: "Run | None" = None
    encoders: tuple["Run", ...] = ()
    overrides: Mapping = field(default_factory=dict, compare=False)  # the settings it was asked with

    @property
    def name(self) -> str:
        return f"{self.variant}-seed{self.seed}"

    @property
    def needs(self) -> tuple["Run", ...]:
        return (self.parent, *self.encoders) if self.parent else self.encoders

    @cached_property
    def task(self) -> Task:
        return find_paper(self.paper).task(self.settings)

    @cached_property
    def data(self):
        return self.task.load(self.settings)

    @cached_property
    def identity(self) -> dict:
        """All that decides the result."""
        return self._identity_on()

    @cached_property
    def key(self) -> str:
        return fingerprint(self.identity)

    @property
    def keys(self) -> Iterator[str]:
        """The key, and those of the same run on other machines: other bits, an answer to the same question."""
        yield self.key
        for machine in MACHINES:
            if (key := fingerprint(self._identity_on(machine))) != self.key:
                yield key

    def _identity_on(self, machine: tuple[str, str] | None = None) -> dict:
        """On this machine, or on one that computes on such a device and whose "auto" is such a precision."""
        counted = {name: v for name, v in dataclasses.asdict(self.settings).items() if name not in NOT_DECIDING}
        device, auto = machine or (precision.device().type, precision.resolved("auto"))
        bits = {"precision": auto if self.settings.precision == "auto" else self.settings.precision}
        bits |= {"threads": self.settings.threads} if device == "cpu" else {}
        processes = 1 if machine else pool.processes().num_processes
        bits |= {"processes": processes} if processes > 1 else {}
        parent = {"parent": fingerprint(self.parent._identity_on(machine))} if self.parent else {}
        asked = {"paper": self.paper, "seed": self.seed, "settings": counted, "data": self.data.fingerprint}
        return {**asked, "code": _code(self.paper), **bits, **parent}


@lru_cache
def _code(paper: str) -> str:
    return code_fingerprint(find_paper(paper))


# ---- what is asked for ----


def resolve(paper: str, variant: str, settings: Mapping | None = None):
    """The full Settings of a run: defaults, then the profile's, then the variant's, then `settings`.

    `settings` may hold "profile" and any field of the paper's Settings; None stands for "not said". Raises
    ValueError naming the nearest valid name for an unknown one, or what was expected in place of a value.
    """
    chosen = _settings(paper, variant, settings)
    fresh.look_at(_folders(chosen))
    return chosen


def _settings(paper: str, variant: str, settings: Mapping | None):
    found = find_paper(paper)
    if not isinstance(settings, Mapping | None):
        raise ValueError(f"settings is {quote(settings)}, expected a dict such as {{'epochs': 2}}")
    overrides = {name: value for name, value in (settings or {}).items() if value is not None}
    profile = overrides.pop("profile", "smoke")
    require_known("profile", profile, found.PROFILES)
    require_known("variant", variant, found.VARIANTS)
    fields = [field.name for field in dataclasses.fields(found.Settings)]
    for name in overrides:
        require_known("setting", name, fields)
    overrides = {name: plain(value) for name, value in overrides.items()}
    if isinstance(vectors := overrides.get("word_vectors"), str):
        overrides["word_vectors"] = vectors_file(vectors)
    return found.Settings(**{**found.PROFILES[profile], **found.VARIANTS[variant].changes, **overrides})


def plain(value):
    """NumPy's numbers as Python's, lists as tuples."""
    if isinstance(value, list):
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def look_at_data(paper: str, variants: Iterable[str], settings: Mapping | None) -> None:
    """See, once for all these variants, whether the data that they read were changed; errors as in `resolve`."""
    fresh.look_at(folder for variant in variants for folder in _folders(_settings(paper, variant, settings)))


def _folders(settings) -> list[str]:
    return [folder for name in sorted(FOLDERS) if (folder := getattr(settings, name, None))]


def plan(paper: str, variant: str, seed: int = 0, settings: Mapping | None = None) -> Run:
    """The run of a variant and the runs that it needs; errors as in `resolve`, and for a seed that is none.

    A setting "run:paper/variant" names a run that serves as an encoder: its key becomes part of the setting.
    """
    seed = plain(seed)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}, expected a whole number from 0 on")
    chosen, found = _settings(paper, variant, settings), find_paper(paper).VARIANTS[variant]
    profile = {"profile": (settings or {}).get("profile")}
    parent, encoders, references = None, [], {}
    if found.parent:
        passed = {name: getattr(chosen, name) for name in found.passes}
        handed_on = profile | passed | dict(found.parent_changes)
        parent = plan(*owned(paper, found.parent), 0 if found.shared else seed, handed_on)
    for name, value in dataclasses.asdict(chosen).items():
        if isinstance(value, str) and value.startswith("run:"):
            of_paper, of_variant = owned(paper, value.removeprefix("run:"))
            handed = {name: getattr(chosen, name) for name in find_paper(of_paper).VARIANTS[of_variant].hands}
            encoders.append(plan(of_paper, of_variant, 0, profile | handed))
            references[name] = f"run:{of_paper}/{of_variant}@{encoders[-1].key}"
    chosen = dataclasses.replace(chosen, **references)
    return Run(paper, variant, seed, chosen, found.output, parent, tuple(encoders), dict(settings or {}))


def in_order(asked: Iterable[Run]) -> list[Run]:
    """The runs and all that they need, each once, parents before children, later rows before earlier ones: tables grow
    heavier downwards, and what begins with the longest ends at about the same time."""
    found: dict[str, Run] = {}
    for one in reversed(list(asked)):
        for each in (*in_order(one.needs), one):
            found.setdefault(each.key, each)
    return list(found.values())
