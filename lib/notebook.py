"""What the notebooks share: the check of their parameters, and `python -m lib.notebook report|store|student`."""

import argparse
import ast
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from traitlets.config import Config

from lib.names import require_known
from lib.progress import EVERY
from lib.setup import ROOT, Later

nbformat = Later("nbformat")  # four seconds, which no notebook that imports this should wait for

EXECUTED = ROOT / "runs" / "notebooks"
INJECTED = "# Parameters\n"  # how papermill begins the cell that it puts behind the parameters cell
LITERALS = {"int": int, "float": (int, float), "bool": bool, "str": str, "List": list, "Optional": object}


def check_parameters(cells: Sequence[str], values: Mapping) -> dict:
    """The notebook's parameters and their values; `cells` is IPython's `In`, `values` the kernel's `globals()`.

    Papermill runs a notebook with its defaults when a parameter's name is misspelt: here it stops, with a ValueError
    that names the nearest valid name, or the type that was expected. The parameters are the annotated variables; what
    papermill set is read from `cells`, which nbval leaves empty.
    """
    declared = {name: _spelled(kind) for name, kind in values["__annotations__"].items()}
    for cell in cells:
        if cell.startswith(INJECTED):
            for name in _assigned(cell):
                require_known("parameter", name, list(declared))
    chosen = {name: values[name] for name in declared}
    for name, value in chosen.items():
        _require_type(name, value, declared[name])
    return chosen


def _spelled(kind) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _assigned(cell: str) -> list[str]:
    return [target.id for node in ast.parse(cell).body if isinstance(node, ast.Assign) for target in node.targets]


def _require_type(name: str, value, annotation: str) -> None:
    optional = re.fullmatch(r"Optional\[(.*)\]", annotation)
    if optional and value is None:
        return
    outer, _, item = (optional[1] if optional else annotation).removesuffix("]").partition("[")
    if not _is(value, LITERALS[outer]) or (item and not all(_is(each, LITERALS[item]) for each in value)):
        raise ValueError(f"parameter {name!r} is {value!r}, expected {annotation}")
    if value == []:
        raise ValueError(f"parameter {name!r} is empty, expected at least one of {item}")


def _is(value, kind: type | tuple) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


# The kernel's line of its own is encrypted, or it warns of eavesdroppers each time.
KERNEL = Config({"KernelManager": {"transport_encryption": "auto"}})


def report(path: Path, parameters: Mapping) -> None:
    """Run a notebook with papermill from the project's root; the executed copy stays, also if a cell fails."""
    import papermill

    EXECUTED.mkdir(parents=True, exist_ok=True)
    quiet = {"cwd": ROOT, "progress_bar": False, "log_output": True, "config": KERNEL}
    with _telling(path.stem):
        papermill.execute_notebook(path, EXECUTED / path.name, parameters, **quiet)


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """A context in which papermill's log, what cells print included, is printed, and silence for longer than
    `progress.EVERY` seconds is broken by a line that says which cell is at work."""
    told, ended = _Told(name), Event()
    logging.getLogger("papermill").addHandler(told)
    logging.getLogger("papermill").setLevel(logging.INFO)
    watch = Thread(target=told.break_silence, args=(ended,), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()
        logging.getLogger("papermill").removeHandler(told)


class _Told(logging.Handler):
    """Prints what a notebook's cells print."""

    def __init__(self, name: str):
        super().__init__()
        self.notebook, self.cell, self.begun, self.at = name, "", time.monotonic(), time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().rstrip()
        if message.startswith("Executing Cell"):
            self.cell, self.begun = message.split()[2].strip("-"), time.monotonic()
        elif message and not message.startswith(("Ending Cell", "Executing notebook", "Input Notebook", "Output", "<")):
            self.say(message)

    def break_silence(self, ended: Event) -> None:
        while not ended.wait(0.5):
            if time.monotonic() - self.at > EVERY:
                self.say(f"cell {self.cell}, {time.monotonic() - self.begun:.0f} s")

    def say(self, message: str) -> None:
        self.at = time.monotonic()
        print("\n".join(f"{self.notebook}: {line}" for line in message.splitlines()), flush=True)


def store(path: Path) -> None:
    """Run a notebook as it stands and keep its outputs in it, without stamps of when, where and by whom."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": path.parent}}, config=KERNEL).execute()
    nbformat.write(clean(notebook), path)


def clean(notebook: "nbformat.NotebookNode") -> "nbformat.NotebookNode":
    """The notebook with nothing in its metadata but the kernel, the language and the cells' tags."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    return notebook


def student(path: Path, folder: Path = ROOT / "student") -> Path:
    """A copy of a notebook in `folder` without outputs, with an empty cell to answer in for each tagged `solution`."""
    notebook = clean(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.cell_type, cell.source, cell.metadata.tags = "code", "", ["answer"]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.notebook", description=__doc__)
    parser.add_argument("action", choices=("report", "store", "student"))
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    chosen = parser.parse_args(arguments)
    for path in chosen.notebooks:
        print(f"{chosen.action} {path}", flush=True)
        if chosen.action == "report":
            report(path, {"profile": chosen.profile, "seeds": chosen.seeds})
        else:
            {"store": store, "student": student}[chosen.action](path)


if __name__ == "__main__":
    main(sys.argv[1:])
