"""What decides a run, as a key; and of that the code, as far as it computes numbers."""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from lib.run.paper import Paper
from lib.sources import normalised, only_speaks

# Code that no number depends on, or whose numbers have a fingerprint of their own: a corpus is in the data's, and an
# image encoder in the identity of its features.
LEFT_OUT = ("lib.corpora", "lib.encoders.images", "lib.encoders.cache", "lib.files", "lib.names", "lib.progress",
            "lib.setup", "lib.sources", "lib.report", "lib.analysis", "lib.run")  # fmt: skip
COUNTED = "lib.run.training"


def fingerprint(content: Mapping) -> str:
    """Twelve characters that change with any value of a JSON-able mapping, whatever its order."""
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()[:12]


def code_fingerprint(paper: Paper) -> str:
    """16 hex digits that change with the code that a paper's runs compute with: the training loop, the paper's `task`,
    `build` and `initialise`, and of all modules what these use, definition by definition.

    Classes of settings hold only values, and these are in the key.
    """
    own = paper.Settings.__module__
    roots = [(root.__module__, root.__name__) for root in (paper.task, paper.build, paper.initialise)]
    todo: list[tuple[str, str | None]] = [(COUNTED, None), *roots]
    seen, used = set(), {}
    while todo:
        module, name = wanted = todo.pop()
        if wanted not in seen and (path := _counted(module, own)):
            code = _Code.of(path.read_text(encoding="utf-8"))
            fresh = code.statements(name) - used.setdefault(module, (code, set()))[1]
            used[module][1].update(fresh)
            todo += code.imported(name)
            for i in fresh:
                todo += [(module, other) for other in code.names[i]] + code.inner_imports[i]
        seen.add(wanted)
    texts = [code.texts[i] for _, (code, picked) in sorted(used.items()) for i in sorted(picked)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _counted(module: str, own: str) -> Path | None:
    """The source file of a module whose code counts: of ours, or beside a paper that lives elsewhere."""
    ours = module.split(".")[0] in ("lib", own.split(".")[0])
    left_out = any(module == name or module.startswith(f"{name}.") for name in LEFT_OUT) and module != COUNTED
    return _source(module) if ours and not left_out else None


@lru_cache(maxsize=512)
def _source(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # a name in a module, not a module
        return None
    return Path(spec.origin) if spec and spec.origin else None


class _Code:
    """A module's top-level statements: what each defines, which names it uses, and what it computes as text."""

    @classmethod
    @lru_cache(maxsize=512)
    def of(cls, source: str) -> "_Code":
        """A source is taken apart only once."""
        return cls(source)

    def __init__(self, source: str):
        body = [node for node in ast.parse(source).body if not _is_settings(node) and not only_speaks(node)]
        importing = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
        self.imports = {name: target for node in importing for name, target in _targets(node)}
        self.nodes = [node for node in body if node not in importing]
        self.texts = [normalised(node) for node in self.nodes]
        parts = [list(ast.walk(node)) for node in self.nodes]
        self.names = [{part.id for part in walk if isinstance(part, ast.Name)} for walk in parts]
        inside = [[part for part in walk if isinstance(part, (ast.Import, ast.ImportFrom))] for walk in parts]
        self.inner_imports = [[target for part in found for _, target in _targets(part)] for found in inside]

    def statements(self, name: str | None) -> set[int]:
        """Those that define `name`, or all of them; what defines nothing (a loop, say) always counts."""
        defined = [_defined(node) for node in self.nodes]
        return {i for i, names in enumerate(defined) if name is None or not names or name in names}

    def imported(self, name: str | None) -> list[tuple[str, str | None]]:
        """Where `name` comes from if it is imported, or where all that is imported does."""
        return [target for local, target in self.imports.items() if name in (None, local)]


def _is_settings(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and node.name.endswith("Settings")


def _targets(node: ast.Import | ast.ImportFrom) -> list[tuple[str, tuple[str, str | None]]]:
    """The local names of an import, each with the module and what it takes of it, None for the whole module."""
    if isinstance(node, ast.Import):
        return [((alias.asname or alias.name).split(".")[0], (alias.name, None)) for alias in node.names]
    names = [(alias.asname or alias.name, f"{node.module}.{alias.name}", alias.name) for alias in node.names]
    return [(local, (whole, None) if _source(whole) else (node.module, name)) for local, whole, name in names]


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement gives a meaning to, none for a statement that does something else."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
