"""One module a paper: its settings, profiles and variants, and how its corpus, model and metric fit together.

`lib.experiment` relies on these names of each: `Settings`, `PROFILES`, `VARIANTS`, `MONITOR`, `load(settings)`,
`build(context, settings)`, `context(data)`, `evaluate(model, split)`, `predictions(model, data)`, `Predictor`.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """A row of an ablation table: what it shows, the settings that make it, and the paper's row it answers to."""

    title: str
    changes: dict = field(default_factory=dict)
    trained: bool = True
