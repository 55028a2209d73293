"""One module a paper: its settings, profiles and variants, and how its corpus, model and metric fit together.

`lib.experiment` and `lib.report` rely on these names of each:

- `Settings`, a frozen dataclass on top of TrainingSettings; `PROFILES` and `VARIANTS`, changes to it by name;
- `load(settings) -> data` with `.train`, `.dev`, `.test` and `.fingerprint` (of the corpus and all that is pretrained);
  `prepare(data)` computes its features;
- `context(data)`, what a trained model needs of the data, as JSON; `build(context, settings)`, the model, and
  `initialise(model, context, settings)`, its pretrained parts where it has any;
- `predict(model, split)`, a dict of tensors and of whatever JSON holds; `score(said)`, flat scores of such a dict, of
  which `MONITOR` is maximised on dev;
- `OUTCOMES`, the metrics that are a ratio of sums over examples, and `outcomes(result, metric)`, the two summands of
  each example, for intervals;
- `Predictor`, for anybody's own input.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """A row of an ablation table: its title, and the settings that make it."""

    title: str
    changes: dict = field(default_factory=dict)
