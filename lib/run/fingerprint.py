"""What decides a run, as a key; and of that the code, as far as it computes numbers."""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from lib.run.paper import Paper
from lib.sources import normalised

# Code that no number depends on, or whose numbers have a fingerprint of their own: a corpus is in the data's, and an
# image encoder in the identity of its features.
LEFT_OUT = ("lib.corpora", "lib.encoders.images", "lib.encoders.cache", "lib.files", "lib.names", "lib.progress",
            "lib.setup", "lib.sources", "lib.report", "lib.analysis", "lib.run")  # fmt: skip
COUNTED = "lib.run.training"


def fingerprint(content: Mapping) -> str:
    """Twelve characters that change with any value of a JSON-able mapping, whatever its order."""
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()[:12]


def code_fingerprint(paper: Paper) -> str:
    """16 hex digits that change with the code that a paper's runs compute with: the training loop, what the paper's
    `Settings`, `task`, `build` and `initialise` use of its module, and all that they import."""
    roots = (paper.Settings, paper.task, paper.build, paper.initialise)
    own = paper.Settings.__module__
    names = [root.__name__ for root in roots if root.__module__ == own]
    texts, todo = {}, [COUNTED, *(root.__module__ for root in roots)]
    while todo:
        module = todo.pop()
        if module not in texts and (path := _counted(module, own)):
            source = path.read_text(encoding="utf-8")
            texts[module], imports = _computing(source, tuple(names) if module == own else None)
            todo += imports
    return hashlib.sha256("\0".join(texts[name] for name in sorted(texts)).encode()).hexdigest()[:16]


def _counted(module: str, own: str) -> Path | None:
    """The source file of a module whose code counts: of ours, or beside a paper that lives elsewhere."""
    ours = module.split(".")[0] in ("lib", own.split(".")[0])
    left_out = any(module == name or module.startswith(f"{name}.") for name in LEFT_OUT) and module != COUNTED
    if not ours or left_out:
        return None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # a name in a module, not a module
        return None
    return Path(spec.origin) if spec and spec.origin else None


@lru_cache(maxsize=512)
def _computing(source: str, names: tuple[str, ...] | None) -> tuple[str, list[str]]:
    """A module's code, or only what its top-level `names` use of it, and the modules that it imports."""
    tree = ast.parse(source)
    if names is not None:
        tree.body = _used(tree.body, names)
    return normalised(tree), _imports(tree)


def _used(body: list[ast.stmt], names: Iterable[str]) -> list[ast.stmt]:
    """The top-level statements that define `names`, and those that these use, in their order."""
    defining = [(_defined(node), node) for node in body]
    todo, used = list(names), set()
    while todo:
        name = todo.pop()
        for position, (defined, node) in enumerate(defining):
            if name in defined and position not in used:
                used.add(position)
                todo += [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
    return [node for position, (_, node) in enumerate(defining) if position in used]


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node]
    parts = [part for target in targets for part in ast.walk(target)]
    return {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def _imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names
