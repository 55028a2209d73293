"""Runs: a paper's variant with a seed, trained once, kept, and found again by all that decides its result."""

import ast
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from filelock import FileLock
from safetensors.torch import load_file

from lib import workers
from lib.files import write_json, write_tensors
from lib.names import require_known
from lib.precision import device
from lib.provenance import provenance
from lib.setup import ROOT
from lib.training import fit, remove_checkpoints

RUNS = ROOT / "runs"
NOT_DECIDING = {"data_dir", "word_vectors"}  # where files lie; what is in them is in the data's fingerprint


@dataclass(frozen=True)
class Result:
    """A finished run: `scores` maps "dev" and "test" to flat metric dicts; `history` holds a record an epoch, whose
    `seconds` are those of the training so far, with its dev scores."""

    folder: Path
    paper: str
    variant: str
    seed: int
    scores: dict[str, dict[str, float]]
    history: list[dict]
    seconds: float
    provenance: dict

    def predictions(self) -> dict:
        """What the model said about the test split."""
        return predictions(self.folder)


def predictions(folder: Path) -> dict:
    """What the model of a finished run's folder said about the test split."""
    rest = json.loads((Path(folder) / "predictions.json").read_text(encoding="utf-8"))
    return {**load_file(Path(folder) / "predictions.safetensors"), **rest}


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
    module, chosen, name = paper_module(paper), resolve(paper, variant, settings), f"{variant} seed {seed}"
    data = module.load(chosen)
    identity = _identity(paper, chosen, seed, data)
    target = _target(folder, paper, variant, identity)
    target.mkdir(parents=True, exist_ok=True)
    with _turn(target / "lock") as state:
        if not (target / "result.json").exists():
            said = {"paper": paper, "variant": variant, "seed": seed}
            if state.is_main_process:
                log(f"{paper} {name}")
                write_json(target / "settings.json", {**said, **dataclasses.asdict(chosen)})
                write_json(target / "context.json", module.context(data))
            with state.main_process_first():
                module.prepare(data)
            epoch_log = lambda line: log(f"{name}: {line}")  # noqa: E731
            model, history = _trained(module, data, chosen, seed, target, epoch_log, checkpoint_seconds)
            if state.is_main_process:
                _finish(module, data, model, history, target, {**said, "provenance": {"identity": identity}})
    return read(target)


def _identity(paper: str, settings, seed: int, data) -> dict:
    """All that decides a run's result."""
    deciding = {name: value for name, value in dataclasses.asdict(settings).items() if name not in NOT_DECIDING}
    return {**deciding, "seed": seed, "data": data.fingerprint, "code": code_fingerprint(paper)}


def _target(folder: Path, paper: str, variant: str, identity: Mapping) -> Path:
    return Path(folder) / paper / f"{variant}-seed{identity['seed']}-{fingerprint(identity)}"


@contextmanager
def _turn(path: Path) -> Iterator[PartialState]:
    """One at a time: of the processes that `accelerate launch` starts, the main one holds the lock for all."""
    state = PartialState(cpu=device().type == "cpu")
    with FileLock(path) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        yield state
        state.wait_for_everyone()


def _trained(module, data, settings, seed, folder, log, checkpoint_seconds) -> tuple[torch.nn.Module, list[dict]]:
    set_seed(seed)
    context = module.context(data)
    model = module.build(context, settings)
    module.initialise(model, context, settings)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model, []
    evaluate = lambda model: module.score(module.predict(model, data.dev))  # noqa: E731
    return model, fit(model, data.train, settings, seed, folder, evaluate, module.MONITOR, checkpoint_seconds, log)


def _finish(module, data, model, history, folder, said) -> None:
    write_tensors(folder / "model.safetensors", model.state_dict())
    test = module.predict(model, data.test)
    tensors = {name: value for name, value in test.items() if isinstance(value, torch.Tensor)}
    write_tensors(folder / "predictions.safetensors", tensors)
    write_json(folder / "predictions.json", {name: value for name, value in test.items() if name not in tensors})
    scores = {"dev": module.score(module.predict(model, data.dev)), "test": module.score(test)}
    said["provenance"] |= provenance()
    seconds = history[-1]["seconds"] if history else 0.0
    write_json(folder / "result.json", {**said, "scores": scores, "history": history, "seconds": seconds})
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
    """Every variant with every seed: one row a run, with its test scores, dev score, seconds and folder.

    On CPU, runs train side by side. The threads of each follow from the runs asked for, not from those still to be
    trained: the same call, made again after a kill, ends with the same numbers.
    """
    asked = [(variant, seed) for variant in variants for seed in seeds]
    at_once, threads = workers.shares(len(asked))
    if at_once > 1:
        jobs = _unfinished(paper, asked, settings, folder)
        # Tables grow heavier downwards: begun with the longest, the workers end at about the same time.
        workers.train(jobs[::-1], min(at_once, len(jobs)), threads, log)
    results = [run(paper, variant, seed, settings, folder, log) for variant, seed in asked]
    monitor = paper_module(paper).MONITOR
    return pd.DataFrame([_row(result, monitor) for result in results])


def _unfinished(paper: str, asked: Sequence[tuple[str, int]], settings: Mapping | None, folder: Path) -> list[dict]:
    """The runs without a result, as arguments of `run`, with their features in the cache."""
    module, jobs = paper_module(paper), []
    for variant, seed in asked:
        chosen = resolve(paper, variant, settings)
        data = module.load(chosen)
        if not (_target(folder, paper, variant, _identity(paper, chosen, seed, data)) / "result.json").exists():
            module.prepare(data)
            said = {"paper": paper, "variant": variant, "seed": seed}
            jobs.append({**said, "settings": settings and dict(settings), "folder": str(folder)})
    return jobs


def _row(result: Result, monitor: str) -> dict:
    chosen_by = {f"dev {monitor}": result.scores["dev"][monitor], "seconds": result.seconds}
    return {
        **{"variant": result.variant, "seed": result.seed},
        **result.scores["test"],
        **chosen_by,
        "folder": str(result.folder),
    }


def distinct(paper: str, variants: Sequence[str], settings: Mapping | None = None) -> list[str]:
    """The variants without those that `settings` make equal to an earlier one."""
    found = {}
    for variant in variants:
        found.setdefault(resolve(paper, variant, settings), variant)
    return list(found.values())


def histories(runs: pd.DataFrame) -> pd.DataFrame:
    """What happened in each epoch of some runs (rows of `ablate`): variant, seed, epoch, losses and dev scores."""
    results = [read(Path(folder)) for folder in runs["folder"]]
    return pd.DataFrame([{"variant": r.variant, "seed": r.seed, **epoch} for r in results for epoch in r.history])


def fingerprint(content: Mapping) -> str:
    """Twelve characters that change with any value of a JSON-able mapping, whatever its order."""
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()[:12]


def code_fingerprint(paper: str) -> str:
    """A hash of the modules that a paper's runs pass through, blind to comments, docstrings and layout.

    Corpora are left out, and so are the paper's profiles and variants, the dictionaries of its module: a run's key
    holds the fingerprint of the data that the ones gave, and the settings that the others made.
    """
    own = f"lib.papers.{paper}"
    meanings, todo = {}, [own, "lib.experiment"]
    while todo:
        name = todo.pop()
        if name not in meanings and not name.startswith("lib.corpora") and (path := _source(name)):
            meanings[name], imports = _meaning(path.read_text(encoding="utf-8"), name == own)
            todo += imports
    return hashlib.sha256("".join(meanings[name] for name in sorted(meanings)).encode()).hexdigest()[:16]


@lru_cache(maxsize=256)
def _meaning(source: str, is_paper: bool) -> tuple[str, list[str]]:
    """What decides a run in a module's source, and the modules that it imports; each source is parsed only once."""
    tree = ast.parse(source)
    imports = _imports(tree)
    if is_paper:
        tree.body = [node for node in tree.body if not _is_dictionary(node)]
    return ast.dump(_without_docstrings(tree)), imports


def _is_dictionary(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)


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
