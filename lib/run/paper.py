"""What a paper and a task are: explicit objects, which `lib.run` runs without knowing more of any paper.

A run, as data sees it: `task.load` reads a corpus, `task.prepare` computes its features once, `task.context` says what
a trained model needs of it, `task.bind` shows the corpus as such a model sees it, `paper.build` makes the model,
`training.fit` trains it on `data.train`, `task.predict` and `task.score` judge it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np

from lib.names import require_known

PAPERS = ("vse", "maf", "cmkp", "gxn", "k3m")  # modules of lib.papers


@dataclass(frozen=True)
class Variant:
    """A row of a table: its title and the settings that make it.

    A stage has a `parent`, the variant it starts from ("name", or "paper/name" for another paper's). Of the child's
    settings only those in `passes` reach the parent, and `parent_changes` on top (another corpus, say); so whatever
    else the child sets leaves the parent alone. The parent has the child's seed; a `shared` one has seed 0 for all.
    `hands` names the settings that reach this run when another uses it as an encoder (a setting "run:paper/variant").
    Where a run has several outputs, a row is one `output` of it.
    """

    title: str
    changes: Mapping = field(default_factory=dict)
    parent: str | None = None
    passes: tuple[str, ...] = ()
    parent_changes: Mapping = field(default_factory=dict)
    shared: bool = False
    hands: tuple[str, ...] = ()
    output: str | None = None


def ratio(metric: str, sums: np.ndarray) -> np.ndarray:
    """Of sums [..., 2] the first in per cent of the second; nothing of nothing is nothing."""
    return 100 * sums[..., 0] / np.maximum(sums[..., 1], 1)


def as_it_is(data: Any, context: Mapping) -> Any:
    """The data: a model with any context sees it so."""
    return data


@dataclass(frozen=True)
class Task:
    """What a model is asked, and how its answers are judged.

    load(settings) -> data with `train`, `dev`, `test` and `fingerprint`, which changes with all that a run could see.
    prepare(data): compute whatever features are not in the cache yet.
    context(data, parent_context) -> what a trained model needs of its corpus, as JSON (a vocabulary, class labels).
    bind(data, context) -> the data as a model with this context sees it.
    predict(model, split, quick=False) -> a dict of tensors and of whatever JSON holds; `quick`, for choosing epochs,
        may be cheaper.
    score(predictions) -> flat scores; where a run has several outputs, each name begins with "output:".
    metrics: the names of scores that are a function of sums over units of the test split.
    statistics(predictions, metric) -> the summands of each unit [N, k]; combine(metric, sums [..., k]) -> the score.
    groups(data) -> {name: mask [N]} of test units; "name/metric" is then the metric on these alone.
    monitor, mode: the dev score by which an epoch is chosen, and whether "max" or "min" of it is best.
    unit: what N counts, such as "post".
    """

    load: Callable
    prepare: Callable
    context: Callable
    predict: Callable
    score: Callable
    monitor: str
    unit: str
    metrics: tuple[str, ...] = ()
    statistics: Callable | None = None
    combine: Callable = ratio
    groups: Callable = lambda data: {}
    bind: Callable = as_it_is
    mode: str = "max"


@dataclass(frozen=True)
class Paper:
    """A paper as experiments. `task(settings)` says what its model is asked; `build(context, settings)` makes it with
    random weights, and `initialise(model, context, settings, parent)` starts it from what is pretrained and, in a
    stage, from `parent.weights()`; `predictor(model, context, settings, predictions)` answers anybody's own input."""

    name: str
    Settings: type
    PROFILES: Mapping[str, Mapping]
    VARIANTS: Mapping[str, Variant]
    task: Callable[[Any], Task]
    build: Callable
    initialise: Callable
    predictor: Callable
    main: str = ""  # the variant that is the paper's own
    on_show: str = ""  # the one whose trained model is shown and shipped, where that is not the main one

    @property
    def shown(self) -> str:
        """The variant whose trained model is shown and shipped."""
        return self.on_show or self.main


def find_paper(name: str) -> Paper:
    """The paper of that name, or of a module elsewhere whose dotted name is given, which defines PAPER.

    Raises ValueError for one that does not exist.
    """
    if not isinstance(name, str) or "." not in name:
        require_known("paper", name, PAPERS)
    return import_module(name if "." in name else f"lib.papers.{name}").PAPER


def owned(paper: str, name: str) -> tuple[str, str]:
    """Of "variant" this paper and the variant, of "paper/variant" that paper and its variant."""
    other, _, variant = name.rpartition("/")
    return other or paper, variant


def find_variant(paper: str, name: str) -> Variant:
    """A paper's variant, or another paper's that is called "paper/variant", whose title then says whose it is and, of
    a relative of the main one ("best-linear" of "best"), of what; ValueError for one that does not exist."""
    owner, variant = owned(paper, name)
    known, main = find_paper(owner).VARIANTS, find_paper(owner).main
    require_known("variant", variant, known)
    if owner == paper:
        return known[variant]
    of = f"{known[main].title}, " if variant.startswith(f"{main}-") else ""
    return replace(known[variant], title=f"{owner.upper()}: {of}{known[variant].title}")


def task_of(paper: str, name: str) -> Task:
    """What such a variant is asked to do."""
    variant, found = find_variant(paper, name), find_paper(owned(paper, name)[0])
    return found.task(found.Settings(**variant.changes))
