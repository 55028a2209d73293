"""What Python code does, without what it says: blind to comments, docstrings, log lines, messages and layout."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

SPEAKING = {"log", "print", "warn", "tell"}  # a statement that only calls one of these computes nothing


def normalised(tree: ast.AST) -> str:
    """The tree as text, the same for each Python version and for all code that computes the same in the same way."""
    if isinstance(tree, ast.Raise):  # that something stops counts, the words it stops with do not
        return f"Raise({_called(tree.exc)})"
    body = getattr(tree, "body", None)
    dropped = [node for node in body if only_speaks(node)] if isinstance(body, list) else []
    parts = []
    for name, value in ast.iter_fields(tree):
        value = [node for node in value if node not in dropped] if isinstance(value, list) else value
        if value not in (None, []):
            parts.append(f"{name}={_text(value)}")
    return f"{type(tree).__name__}({', '.join(parts)})"


def _text(value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return normalised(value) if isinstance(value, ast.AST) else repr(value)


def only_speaks(node: ast.stmt) -> bool:
    """Whether a statement is a docstring or a line for a log."""
    if not isinstance(node, ast.Expr):
        return False
    docstring = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return docstring or _called(node.value) in SPEAKING


def _called(node: ast.AST | None) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


def hash_of(*parts: Callable | Path) -> str:
    """16 hex digits that change with what any of some functions, classes or source files (paths) compute."""
    sources = [part.read_text("utf-8") if isinstance(part, Path) else inspect.getsource(part) for part in parts]
    texts = [normalised(ast.parse(textwrap.dedent(source))) for source in sources]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
