"""Where runs are kept, and the records of them that a report carries: found by key, verified when read.

`runs/<paper>/<variant>-seed<seed>-<key>/` holds a run; `reports/<corpus>/<paper>/records/` holds, under the same names,
records: result.json and statistics.npz of finished runs, without weights and predictions. The key is the hash of the
`identity` that result.json stores, so a result cannot pass for another run's, whatever its folder is called.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lib.files import replacing, write_json, write_tensors
from lib.run.fingerprint import fingerprint
from lib.run.paper import find_paper, task_of
from lib.setup import ROOT

RUNS, REPORTS = ROOT / "runs", ROOT / "reports"
RECORD = ("result.json", "statistics.npz")
OTHERS = ("settings.json", "context.json", "predictions.json", "predictions.safetensors", "model.safetensors")
SUMS = "sums.json"  # the sizes and hashes of these
_roots = [RUNS]  # where runs that serve others as encoders are looked for, before the shipped ones


class DamagedRun(ValueError):
    """A stored result that is not what it was when its run finished."""


@dataclass(frozen=True)
class Result:
    """A finished run, or the record of one. `scores` maps "dev" and "test" to flat metric dicts, those of `output`
    where a run has several; `history` holds a record an evaluation, whose `seconds` are those of the training so far,
    with its losses and dev scores; `identity` is all that decided the run, `settings` all that it was given but for the
    folder of its data."""

    folder: Path
    paper: str
    variant: str
    seed: int
    scores: dict[str, dict[str, float]]
    history: list[dict]
    seconds: float
    identity: dict
    provenance: dict
    statistics_sha256: str
    settings: dict = field(default_factory=dict)
    output: str | None = None

    @property
    def key(self) -> str:
        return fingerprint(self.identity)

    @property
    def has_weights(self) -> bool:
        """Whether this is the run itself, not only a record."""
        return (self.folder / "model.safetensors").exists()

    def predictions(self) -> dict:
        """What the model said about the test split. Raises FileNotFoundError for a record."""
        return predictions(self.folder)

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's weights by name. Raises FileNotFoundError for a record."""
        return _tensors(self.folder / "model.safetensors")

    def stored_settings(self) -> dict:
        """All settings of the run by name, with its paper, variant and seed. Raises FileNotFoundError for a record."""
        return _json(self.folder / "settings.json")

    @cached_property
    def context(self) -> dict:
        """What the model needs of its corpus."""
        return _json(self.folder / "context.json")

    def check(self, whole: bool = False) -> "Result":
        """This result, if its files are what its run wrote: the statistics, and the sizes of those of its other files
        that are here; `whole`: all of them, byte by byte. Raises DamagedRun for the first that is not."""
        _ = self._arrays
        written = _json(self.folder / SUMS) if (self.folder / SUMS).exists() else {}  # older runs have none
        for name, said in written.items():
            path = self.folder / name
            found = _summed(path, whole)
            if not found.items() <= said.items() or (whole and not found):
                raise DamagedRun(f"{path}: found other bytes than the run wrote, train it again")
        return self

    @cached_property
    def _arrays(self) -> Mapping[str, np.ndarray]:
        path = self.folder / "statistics.npz"
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != self.statistics_sha256:
            raise DamagedRun(f"{path}: found other bytes than the run wrote, train it again")
        return dict(np.load(io.BytesIO(content), allow_pickle=False))

    def statistics(self, metric: str) -> np.ndarray:
        """The summands of each test unit [N, k] of a metric, or of "group/metric", where other units have zeros.

        Raises KeyError for a metric that is no function of sums over units.
        """
        if (plain := self.without_group(metric)) == metric:
            return self._arrays[self._stored(metric)].astype(float)
        mask = self._arrays[f"group {metric.removesuffix(f'/{plain}')}"]
        return self.statistics(plain) * mask[:, None]

    @property
    def units(self) -> int:
        """How many test units there are."""
        return len(next(iter(self._arrays.values()), ()))

    def without_group(self, metric: str) -> str:
        """The metric that "group/metric" is of some units; a name that is a metric itself stays as it is."""
        return metric if self._stored(metric) in self._arrays else metric.partition("/")[2]

    def _stored(self, metric: str) -> str:
        return metric if self.output is None else f"{self.output}:{metric}"


def predictions(folder: Path) -> dict:
    """What the model of a finished run's folder said about the test split."""
    rest = _json(Path(folder) / "predictions.json")
    return {**_tensors(Path(folder) / "predictions.safetensors"), **rest}


def _json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedRun(f"{path}: found no JSON object ({error}), train this run again") from error


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DamagedRun(f"{path}: found no tensors ({error}), train this run again") from error


def _summed(path: Path, whole: bool) -> dict:
    """A file's size, and if `whole` its hash; nothing for one that is not there."""
    if not path.is_file():
        return {}
    size = {"bytes": path.stat().st_size}
    if not whole:
        return size
    with open(path, "rb") as file:
        return size | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_predictions(folder: Path, said: Mapping) -> None:
    """Keep what a model said of the test split: tensors, and whatever JSON holds."""
    tensors = {name: value for name, value in said.items() if isinstance(value, torch.Tensor)}
    write_tensors(folder / "predictions.safetensors", tensors)
    write_json(folder / "predictions.json", {name: value for name, value in said.items() if name not in tensors})


def write_result(folder: Path, statistics: Mapping[str, np.ndarray], **content) -> None:
    """Keep a finished run's result and its test units' statistics; once result.json stands, the run is finished."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **{name: _narrow(array) for name, array in statistics.items()})
    with replacing(folder / "statistics.npz") as path:
        path.write_bytes(packed.getvalue())
    write_json(folder / SUMS, {name: found for name in OTHERS if (found := _summed(folder / name, True))})
    content["statistics_sha256"] = hashlib.sha256(packed.getvalue()).hexdigest()
    write_json(folder / "result.json", content | {"seal": _seal(content)})


def _narrow(array: np.ndarray) -> np.ndarray:
    """The same numbers in less space, where they are whole."""
    array = np.asarray(array)
    if array.dtype == bool or not np.array_equal(array, np.round(array)) or np.abs(array).max(initial=0) >= 2**31:
        return array
    return array.astype(np.int32)


def _seal(content: Mapping) -> str:
    """A hash of all of a result: who edits a score breaks it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read(folder: Path, output: str | None = None) -> Result:
    """The result in a folder, a finished run's or a record's.

    Raises FileNotFoundError if there is none, and DamagedRun if it is not as its run wrote it.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        seal = stored.pop("seal")
        result = Result(folder=folder, **stored)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedRun(f"{folder / 'result.json'}: found no result ({error}), train this run again") from error
    if seal != _seal(stored) or not folder.name.endswith(result.key):
        found = "a result that was edited" if seal != _seal(stored) else f"the result of run {result.key}"
        raise DamagedRun(f"{folder}: found {found}, expected the one that this run wrote; train it again")
    return result if output is None else _of_output(result, output)


def on_dev(result: Result) -> float:
    """The score by which a whole run was chosen on dev, greater where it is better."""
    task = task_of(result.paper, result.variant)
    return (1 if task.mode == "max" else -1) * result.scores["dev"][task.monitor]


def _of_output(result: Result, output: str) -> Result:
    """The row of a table that one output of a run is."""
    start = f"{output}:"
    scores = {
        split: {name.removeprefix(start): value for name, value in flat.items() if name.startswith(start)}
        for split, flat in result.scores.items()
    }
    return replace(result, scores=scores, output=output)


def home(root: Path, paper: str, name: str, key: str) -> Path:
    """The folder of a run under `root`: the one that holds it, whatever row it was first made for, else a new one."""
    parent = Path(root) / paper
    found = sorted(path for path in parent.glob(f"*-{key}") if path.is_dir())
    return next(iter(found), parent / f"{name}-{key}")


def records(paper: str, root: Path = REPORTS) -> Iterator[Path]:
    """The folders of all records of a paper's runs."""
    yield from sorted(root.glob(f"*/{find_paper(paper).name}/records/*-seed*-*"))


def find_record(paper: str, key: str, root: Path = REPORTS) -> Path | None:
    """The record of a run, if a report carries it."""
    return next((folder for folder in records(paper, root) if folder.name.endswith(key)), None)


def keep_records(results: Sequence[Result], folder: Path) -> None:
    """Write the records of some runs into a report's folder; those of other runs stay."""
    for result in results:
        target = folder / result.folder.name
        for name in RECORD if target != result.folder else ():
            with replacing(target / name) as path:
                shutil.copyfile(result.folder / name, path)


def remember(root: Path) -> None:
    """Look for runs that serve as encoders under `root` too."""
    if root not in _roots:
        _roots.append(root)


def locate(reference: str) -> Path:
    """The folder of the run that a setting names as an encoder, "run:paper/variant@key": among the runs, or as a report
    ships it.

    Raises FileNotFoundError where no such run is kept.
    """
    paper, key = reference.removeprefix("run:").partition("/")[0], reference.partition("@")[2]
    for root in _roots:
        if (folder := home(root, paper, "", key)).exists():
            return folder
    for folder in REPORTS.glob(f"*/{paper}/model/*-{key}"):
        return folder
    raise FileNotFoundError(f"{reference}: found no such run, expected it in {', '.join(map(str, _roots))}")
