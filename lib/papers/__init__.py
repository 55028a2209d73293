"""One module a paper: its settings, profiles and variants, and how its corpus, model and metric fit together.

`lib.experiment` and `lib.report` rely on these names of each:

- `Settings`, a frozen dataclass on top of TrainingSettings; `PROFILES` and `VARIANTS`, changes to it by name;
- `load(settings) -> data` with `.train`, `.dev`, `.test` and `.fingerprint`; `prepare(data)` computes its features;
- `context(data)`, what a trained model needs of the data, as JSON; `build(context, settings)`, the model, and
  `initialise(model, context, settings)`, its pretrained parts where it has any;
- `evaluate(model, split)`, flat scores, of which `MONITOR` is maximised on dev; `predictions(model, data)`, tensors;
- `OUTCOMES` and `outcomes(result, metric)`, query by query, for intervals; `Predictor`, for anybody's own input.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """A row of an ablation table: what it shows, the settings that make it, and the paper's row it answers to."""

    title: str
    changes: dict = field(default_factory=dict)
    trained: bool = True
