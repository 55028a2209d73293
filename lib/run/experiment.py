"""Runs: a paper's variant with a seed, trained once, kept, and found again by all that decides its result."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, set_seed

from lib import precision
from lib.files import locked, remove_unfinished, write_json, write_tensors, writing
from lib.progress import told_to
from lib.run import pool, store
from lib.run.checkpoints import remove_checkpoints
from lib.run.paper import find_paper
from lib.run.planning import FOLDERS, Run, in_order, look_at_data, plain, plan, resolve
from lib.run.provenance import provenance
from lib.run.store import RUNS, DamagedRun, Result
from lib.run.training import fit

# ---- a run is made ----


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

    What it needs (a parent, encoders) is made first. Two processes that want the same run take turns: the second finds
    the first one's result.
    """
    resolve(paper, variant, settings)  # and see whether its data were changed
    return make(plan(paper, variant, seed, settings), folder, log, checkpoint_seconds)


def make(
    asked: Run,
    folder: Path = RUNS,
    log: Callable[[str], None] = print,
    checkpoint_seconds: float = 60,
    whole: bool = False,
) -> Result:
    """The result of what is asked for, as `run` makes it; `whole` says that its weights will be used."""
    store.remember(Path(folder))
    target = store.home(folder, asked.paper, asked.name, asked.key)
    if finished(target, log, whole) is None:
        made = {needed.key: make(needed, folder, log, checkpoint_seconds, True) for needed in asked.needs}
        target.mkdir(parents=True, exist_ok=True)
        with told_to(log), _turn(target / "lock") as state:
            if finished(target, lambda line: None, whole) is None:  # nor has another process finished it meanwhile
                if state.is_main_process:
                    log(f"{asked.paper} {asked.variant} seed {asked.seed}")
                parent = made[asked.parent.key] if asked.parent else None
                _train(asked, parent, target, state, _both(log, target, asked), checkpoint_seconds)
    return store.read(target, asked.output)


def finished(folder: Path, log: Callable[[str], None] = print, whole: bool = False) -> Result | None:
    """The result in a run's folder, None where there is none; a damaged one is named and made again."""
    try:
        return store.read(folder).check(whole)
    except FileNotFoundError:
        return None
    except DamagedRun as error:
        log(str(error))
        return None


@contextmanager
def _turn(path: Path) -> Iterator[PartialState]:
    """One at a time: of the processes that `accelerate launch` starts, the main one holds the lock for all."""
    state = pool.processes()
    with locked(path) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        yield state
        state.wait_for_everyone()


def _both(log: Callable[[str], None], folder: Path, asked: Run) -> Callable[[str], None]:
    """A log that also keeps its lines in the run's folder."""

    def tell(line: str) -> None:
        with writing(folder / "log.txt"), open(folder / "log.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")
        log(f"{asked.variant} seed {asked.seed}: {line}")

    return tell


def _train(asked: Run, parent: Result | None, target: Path, state, log, checkpoint_seconds: float) -> None:
    task, settings = asked.task, asked.settings
    with told_to(log), state.main_process_first():
        task.prepare(asked.data)
    context = task.context(asked.data, parent.context if parent else None)
    data = task.bind(asked.data, context)
    if state.is_main_process:
        remove_unfinished(target)
        write_json(target / "settings.json", _named_run(asked) | dataclasses.asdict(settings))
        write_json(target / "context.json", context)
    with told_to(log), precision.threads(settings.threads):
        model, history = _fitted(asked, parent, data, context, target, log, checkpoint_seconds)
        if state.is_main_process:
            write_tensors(target / "model.safetensors", model.state_dict())
            _finish(asked, data, model, history, target)


def _named_run(asked: Run) -> dict:
    return {"paper": asked.paper, "variant": asked.variant, "seed": asked.seed}


def _fitted(asked, parent, data, context, folder, log, checkpoint_seconds) -> tuple[torch.nn.Module, list[dict]]:
    paper, task, settings = find_paper(asked.paper), asked.task, asked.settings
    set_seed(asked.seed)
    model = paper.build(context, settings)
    paper.initialise(model, context, settings, parent)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model.to(precision.device()), []

    def evaluate(model: torch.nn.Module) -> dict:
        with torch.random.fork_rng():  # a judge that is first loaded here draws its weights, and training's are others
            return _agreed(task.score(task.predict(model, data.dev, quick=True)))

    where = (asked.seed, folder, evaluate, task.monitor, task.mode, checkpoint_seconds, log)
    history = fit(model, data.train, settings, *where)
    if len(history) > 1 and len({record[task.monitor] for record in history}) == 1:
        log(f"dev tells none of {len(history)} evaluations from another, so the first was kept: it needs more examples")
    return model, history


def _agreed(scores: dict) -> dict:
    """The scores, of several processes the main one's: all have to take the same decisions."""
    return broadcast_object_list([scores])[0] if pool.processes().num_processes > 1 else scores


def _finish(asked: Run, data, model, history: list[dict], folder: Path) -> None:
    task = asked.task
    test = task.predict(model, data.test)
    store.write_predictions(folder, test)
    scores = {"dev": task.score(task.predict(model, data.dev)), "test": task.score(test)}
    statistics = {metric: task.statistics(test, metric) for metric in task.metrics}
    groups = {f"group {name}": np.asarray(mask, bool) for name, mask in task.groups(data).items()}
    seconds = history[-1]["seconds"] if history else 0.0
    story = {"scores": scores, "history": history, "seconds": seconds}
    settings = {name: value for name, value in dataclasses.asdict(asked.settings).items() if name not in FOLDERS}
    about = {"identity": asked.identity, "settings": settings, "provenance": provenance()}
    content = {**_named_run(asked), **about, **story}
    store.write_result(folder, statistics | groups, **content)
    remove_checkpoints(folder)


# ---- many runs ----


def distinct(paper: str, variants: Sequence[str], settings: Mapping | None = None) -> list[str]:
    """The variants without those that `settings` make equal to an earlier one."""
    found = {}
    for variant in variants:
        asked = plan(paper, variant, 0, settings)
        found.setdefault((asked.settings, asked.parent, asked.encoders, asked.output), variant)
    return list(found.values())


def ablate(
    paper: str,
    variants: Sequence[str],
    seeds: Sequence[int],
    settings: Mapping | None = None,
    folder: Path = RUNS,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Every variant with every seed: one row a run, with its test scores, dev score, seconds and folder.

    A record of a run that a report carries counts as the run. On CPU, runs train side by side, parents before their
    children. A variant or a seed that is asked for twice counts once. Raises ValueError for none, and as `plan` does.
    """
    variants, seeds = _each_once("variants", variants), _each_once("seeds", seeds)
    look_at_data(paper, variants, settings)
    asked = [plan(paper, variant, seed, settings) for variant in variants for seed in seeds]
    known = [_known(one, folder) for one in asked]
    unknown = [one for one, result in zip(asked, known, strict=True) if result is None]
    missing = [one for one in in_order(unknown) if _known(one, folder) is None]  # with what they start from
    at_once = pool.at_once(len(missing), max((one.settings.threads for one in missing), default=1))
    if at_once > 1:
        for one in missing:
            if not one.needs:
                with told_to(log):
                    one.task.prepare(one.data)  # with all threads, and once for all that share a corpus
        pool.work([_job(one, folder) for one in missing], at_once, log)
    results = [result or make(one, folder, log) for one, result in zip(asked, known, strict=True)]
    return pd.DataFrame([_row(one, result) for one, result in zip(asked, results, strict=True)])


def _each_once(name: str, values: Sequence) -> list:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{name} is {values!r}, expected a list of at least one")
    return list({repr(value): value for value in map(plain, values)}.values())


def _known(asked: Run, folder: Path) -> Result | None:
    """The finished run, or the record of it; one from this machine before one from another kind."""
    for key in asked.keys:
        here = finished(store.home(folder, asked.paper, asked.name, key), lambda line: None)
        if found := here.folder if here else store.find_record(asked.paper, key):
            return store.read(found, asked.output)
    return None


def _job(asked: Run, folder: Path) -> pool.Job:
    return pool.Job(asked.key, command(asked, folder), tuple(needed.key for needed in asked.needs))


def command(asked: Run, folder: Path = RUNS) -> list[str]:
    """The arguments with which `python -m lib.run` makes a run."""
    overrides = {name: value for name, value in asked.overrides.items() if value is not None}
    options = [word for name, value in overrides.items() for word in (f"--{name}", _spelled(value))]
    return [asked.paper, asked.variant, str(asked.seed), "--folder", str(Path(folder).absolute()), *options]


def _spelled(value) -> str:
    """As JSON; text without quotes, unless it would be read as something else."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, default=lambda number: number.item())


def _row(asked: Run, result: Result) -> dict:
    monitor = asked.task.monitor.removeprefix(f"{asked.output}:")
    chosen = {f"dev {monitor}": result.scores["dev"].get(monitor), "seconds": result.seconds}
    scores = {**result.scores["test"], **chosen}
    return {"variant": asked.variant, "seed": asked.seed, **scores, "folder": str(result.folder)}


def histories(runs: pd.DataFrame) -> pd.DataFrame:
    """What happened in each epoch of some runs (rows of `ablate`): variant, seed, epoch, losses and dev scores."""
    rows = runs[["variant", "seed", "folder"]].itertuples(index=False)
    return pd.DataFrame([{"variant": variant, "seed": seed, **record}
                         for variant, seed, folder in rows for record in store.read(folder).history])  # fmt: skip
