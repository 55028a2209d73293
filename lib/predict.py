"""Try a trained run on your own words and pictures."""

import json
from pathlib import Path

from safetensors.torch import load_file

from lib.run.paper import find_paper
from lib.run.store import predictions, read


def load(run_dir: str | Path):
    """The Predictor of a finished run: call it with `text=...`, `image=...` or both.

    Raises FileNotFoundError if the folder holds no finished run, or only the record of one.
    """
    folder = Path(run_dir)
    if not (folder / "result.json").exists():
        raise FileNotFoundError(f"{folder}: found no result.json, expected the folder of a finished run")
    result = read(folder)
    if not result.has_weights:
        raise FileNotFoundError(f"{folder}: found the record of a run without its weights; train it with lib.run")
    stored = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    paper = find_paper(stored.pop("paper"))
    del stored["variant"], stored["seed"]
    settings = paper.Settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()})
    model = paper.build(result.context, settings).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return paper.predictor(model, result.context, settings, predictions(folder))
