"""Runs: a paper's variant with a seed, trained once, kept, and found again by all that decides its result."""

import ast
import dataclasses
import difflib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pandas as pd
import torch
from accelerate.utils import set_seed
from filelock import FileLock
from safetensors.torch import load_file

from lib.files import write_json, write_tensors
from lib.provenance import provenance
from lib.setup import ROOT
from lib.training import fit, remove_checkpoints

RUNS = ROOT / "runs"
NOT_DECIDING = {"data_dir"}  # where files lie does not change a result; what is in them is in the fingerprint


@dataclass(frozen=True)
class Result:
    """A finished run: `scores` maps "dev" and "test" to flat metric dicts; `history` holds a record an epoch."""

    folder: Path
    paper: str
    variant: str
    seed: int
    scores: dict[str, dict[str, float]]
    history: list[dict]
    seconds: float
    provenance: dict

    def predictions(self) -> dict[str, torch.Tensor]:
        """What the model said about the test split."""
        return load_file(self.folder / "predictions.safetensors")


def paper_module(paper: str) -> ModuleType:
    """The module of a paper; ValueError for one that does not exist."""
    known = sorted(path.stem for path in (ROOT / "lib/papers").glob("[a-z]*.py"))
    known = [name for name in known if (ROOT / f"lib/models/{name}.py").exists()]
    require_known("paper", paper, known)
    return import_module(f"lib.papers.{paper}")


def resolve(paper: str, variant: str, settings: Mapping | None = None):
    """The full Settings of a run: defaults, then the profile's, then the variant's, then `settings`.

    `settings` may hold "profile" and any field of the paper's Settings; None stands for "not said". Raises
    ValueError naming the nearest valid name for an unknown one.
    """
    module = paper_module(paper)
    said = {name: value for name, value in (settings or {}).items() if value is not None}
    profile = said.pop("profile", "smoke")
    require_known("profile", profile, module.PROFILES)
    require_known("variant", variant, module.VARIANTS)
    fields = [field.name for field in dataclasses.fields(module.Settings)]
    for name in said:
        require_known("setting", name, fields)
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    return module.Settings(**{**module.PROFILES[profile], **module.VARIANTS[variant].changes, **said})


def run(
    paper: str,
    variant: str,
    seed: int = 0,
    settings: Mapping | None = None,
    folder: Path = RUNS,
    log: Callable[[str], None] = print,
    checkpoint_seconds: float = 60,
) -> Result:
    """The run's result: read if it is finished, continued if it was killed, else trained; test is scored once.

    Two processes that want the same run take turns: the second finds the first one's result.
    """
    module, chosen = paper_module(paper), resolve(paper, variant, settings)
    data = module.load(chosen)
    identity = {**_deciding(chosen), "seed": seed, "data": data.fingerprint, "code": code_fingerprint(paper)}
    target = Path(folder) / paper / f"{variant}-seed{seed}-{fingerprint(identity)}"
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(target / "lock"):
        if not (target / "result.json").exists():
            log(f"{paper} {variant} seed {seed}")
            _train(module, data, chosen, seed, target, log, checkpoint_seconds, (paper, variant, identity))
    return read(target)


def _train(module, data, settings, seed, folder, log, checkpoint_seconds, name) -> None:
    paper, variant, identity = name
    started = time.monotonic()
    context = module.context(data)
    write_json(folder / "settings.json", {"paper": paper, "variant": variant, **dataclasses.asdict(settings)})
    write_json(folder / "context.json", context)
    module.prepare(data)
    set_seed(seed)
    model = module.build(context, settings)
    module.initialise(model, context, settings)
    history = []
    if any(parameter.requires_grad for parameter in model.parameters()):
        evaluate = lambda model: module.evaluate(model, data.dev)  # noqa: E731
        history = fit(model, data.train, settings, seed, folder, evaluate, module.MONITOR, checkpoint_seconds, log)
    model.cpu()
    write_tensors(folder / "model.safetensors", model.state_dict())
    write_tensors(folder / "predictions.safetensors", module.predictions(model, data))
    scores = {"dev": module.evaluate(model, data.dev), "test": module.evaluate(model, data.test)}
    trained = history[-1]["seconds"] if history else 0.0
    write_json(
        folder / "result.json",
        {
            **{"paper": paper, "variant": variant, "seed": seed, "scores": scores, "history": history},
            **{"seconds": round(trained or time.monotonic() - started, 2)},
            "provenance": {**provenance(), "identity": identity},
        },
    )
    remove_checkpoints(folder)


def read(folder: Path) -> Result:
    """The result of a finished run's folder; FileNotFoundError if it is not finished."""
    stored = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
    return Result(folder=Path(folder), **stored)


def ablate(
    paper: str,
    variants: Sequence[str],
    seeds: Sequence[int],
    settings: Mapping | None = None,
    folder: Path = RUNS,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Every variant with every seed: one row a run, with its test scores, dev score, seconds and folder."""
    results = [run(paper, variant, seed, settings, folder, log) for variant in variants for seed in seeds]
    monitor = paper_module(paper).MONITOR
    return pd.DataFrame([_row(result, monitor) for result in results])


def _row(result: Result, monitor: str) -> dict:
    chosen_by = {f"dev {monitor}": result.scores["dev"][monitor], "seconds": result.seconds}
    return {
        **{"variant": result.variant, "seed": result.seed},
        **result.scores["test"],
        **chosen_by,
        "folder": str(result.folder),
    }


def histories(runs: pd.DataFrame) -> pd.DataFrame:
    """What happened in each epoch of some runs (rows of `ablate`): variant, seed, epoch, losses and dev scores."""
    results = [read(Path(folder)) for folder in runs["folder"]]
    return pd.DataFrame([{"variant": r.variant, "seed": r.seed, **epoch} for r in results for epoch in r.history])


def fingerprint(content: Mapping) -> str:
    """Twelve characters that change with any value of a JSON-able mapping, whatever its order."""
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()[:12]


def code_fingerprint(paper: str) -> str:
    """A hash of the modules that a paper's runs pass through, blind to comments, docstrings and layout."""
    trees, todo = {}, [f"lib.papers.{paper}", "lib.training"]
    while todo:
        if (name := todo.pop()) not in trees and (path := _source(name)):
            trees[name] = ast.parse(path.read_text(encoding="utf-8"))
            todo += _imports(trees[name])
    meanings = [ast.dump(_without_docstrings(trees[name])) for name in sorted(trees)]
    return hashlib.sha256("".join(meanings).encode()).hexdigest()[:16]


def _source(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if module.startswith("lib.") and file.exists()), None)


def _imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                docstring.value.value = ""
    return tree


def _deciding(settings) -> dict:
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in NOT_DECIDING}


def require_known(kind: str, name: str, known: Sequence[str]) -> None:
    """ValueError with the nearest valid name, if `name` is not one."""
    if name in known:
        return
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0)
    raise ValueError(f"{kind} {name!r} is unknown, did you mean {near[0]!r}? Known: {', '.join(sorted(known))}")
