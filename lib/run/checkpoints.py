"""Checkpoints that lose nothing: whole before they get their name, verified before they are used."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from lib.files import publish, replacing, write_json, write_tensors, writing

KEPT = 2  # checkpoints: if the newest is damaged, the one before it serves
UNFINISHED, DAMAGED = ".unfinished-", "damaged-"
COST = 0.05  # at most this share of the time goes into saving


class Checkpoints:
    """The checkpoints of one `fit`, of which every process of `accelerate launch` has a part.

    `seconds` lie between two of them, or more where saving takes long.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, seconds: float, log: Callable[[str], None]):
        self.folder, self.accelerator, self.seconds, self.log = folder, accelerator, seconds, log
        self.saved_at, self.took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether it is time for the next one, by the main process's clock."""
        ago = time.monotonic() - self.saved_at
        decision = ago >= max(self.seconds, self.took / COST if self.seconds else 0.0)
        if self.accelerator.num_processes == 1:
            return decision
        agreed = torch.tensor(int(decision), device=self.accelerator.device)
        torch.distributed.broadcast(agreed, 0)
        return bool(agreed)

    def save(self, name: str, tensors: Mapping[str, Mapping[str, torch.Tensor]], progress: Mapping) -> None:
        """A new checkpoint: the state of models, optimizers and random numbers, named tensors, and the progress."""
        started = time.monotonic()
        fresh, main = self.folder / f"{UNFINISHED}{name}", self.accelerator.is_main_process
        if main:
            fresh.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        # Not as safetensors, which refuse what cuDNN does to recurrent weights: it lays them into one block.
        with writing(fresh):
            self.accelerator.save_state(str(fresh), safe_serialization=False)  # each process leaves its random numbers
        self.accelerator.wait_for_everyone()
        if main:
            for part, named in tensors.items():
                write_tensors(fresh / f"{part}.safetensors", named)
            write_json(fresh / "progress.json", progress)
            write_json(fresh / "manifest.json", {path.name: _sha256(path) for path in fresh.iterdir()})
            publish(fresh, self.folder / name)
            _remove(self._found()[:-KEPT])
        self.saved_at = time.monotonic()
        self.took = self.saved_at - started

    def record(self, history: list[dict]) -> None:
        """Keep what happened so far, a line an evaluation, for whoever watches."""
        if self.accelerator.is_main_process:
            with replacing(self.folder / "metrics.jsonl") as path:
                path.write_text("".join(json.dumps(record) + "\n" for record in history), encoding="utf-8")

    def resume(self) -> tuple[dict, dict[str, dict[str, torch.Tensor]]] | None:
        """Load the newest checkpoint that is whole; returns its progress and named tensors, None without one.

        A damaged one is set aside with a sentence.
        """
        if self.accelerator.is_main_process:
            _remove(self.folder.glob(f"{UNFINISHED}*"))
            self._set_damaged_aside()
        self.accelerator.wait_for_everyone()
        if not (found := self._found()):
            return None
        newest = found[-1]
        self.accelerator.load_state(str(newest))
        tensors = {path.stem: load_file(path) for path in newest.glob("*.safetensors")}
        return json.loads((newest / "progress.json").read_text(encoding="utf-8")), tensors

    def _set_damaged_aside(self) -> None:
        for path in reversed(self._found()):
            if (problem := _damage(path)) is None:
                return
            aside = path.with_name(f"{DAMAGED}{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
            self.log(f"{path.name} was set aside as {aside.name}: {problem}")

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("checkpoint-*") if path.is_dir())


def remove_checkpoints(folder: Path) -> None:
    """Once the result is safe, nobody needs them."""
    found = [path for start in ("checkpoint-", UNFINISHED, DAMAGED) for path in folder.glob(f"{start}*")]
    _remove(path for path in found if path.is_dir())


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing is."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        changed = [name for name, sha256 in manifest.items() if _sha256(folder / name) != sha256]
    except (OSError, ValueError, AttributeError) as error:
        return f"found no readable manifest or file ({error})"
    return f"found {changed[0]} other than it was written" if changed else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(folders: Iterable[Path]) -> None:
    for path in folders:
        shutil.rmtree(path)
