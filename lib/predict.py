"""Try a trained run on your own words and pictures."""

import json
from pathlib import Path

from safetensors.torch import load_file

from lib.experiment import paper_module, predictions


def load(run_dir: str | Path):
    """The Predictor of a finished run: call it with `text=...`, `image=...` or both.

    Raises FileNotFoundError if the folder holds no finished run.
    """
    folder = Path(run_dir)
    if not (folder / "result.json").exists():
        raise FileNotFoundError(f"{folder}: found no result.json, expected the folder of a finished run")
    stored = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    context = json.loads((folder / "context.json").read_text(encoding="utf-8"))
    module = paper_module(stored.pop("paper"))
    del stored["variant"], stored["seed"]
    settings = module.Settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()})
    model = module.build(context, settings).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return module.Predictor(model, context, settings, predictions(folder))
