"""What people hand to a trained model, looked at before it is used."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image


def require_text(text: object, name: str = "text") -> None:
    """ValueError for what is no single text; None stands for none."""
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{name} is {_shown(text)}, expected one text")


def require_texts(texts: object, name: str) -> None:
    """ValueError for what is no list of texts."""
    if not _are_texts(texts):
        raise ValueError(f"{name} is {_shown(texts)}, expected a list of texts")


def require_tokens(text: object) -> None:
    """ValueError for what is neither a sentence nor the list of its tokens: for a list of sentences, say."""
    if isinstance(text, str):
        return
    if not _are_texts(text):
        raise ValueError(f"text is {_shown(text)}, expected one sentence, or a list of its tokens")
    if text and sum(len(token.split()) for token in text) >= 2 * len(text):  # a token or two may hold a space
        raise ValueError(f"text is a list of texts such as {text[0][:40]!r}, expected one sentence, or its tokens")


def require_properties(properties: object) -> None:
    """ValueError for what does not map names to values, all of them texts; None stands for none."""
    if properties is None:
        return
    if not isinstance(properties, Mapping) or not _are_texts([*properties, *properties.values()]):
        raise ValueError(f"properties is {_shown(properties)}, expected a dict of texts such as {{'colour': 'red'}}")


def require_picture(image: object) -> None:
    """ValueError for what is no picture; None stands for none. Corpora hold paths and drawings."""
    drawn = hasattr(image, "draw") and hasattr(image, "key")
    if image is not None and not drawn and not isinstance(image, (str, Path, Image.Image)):
        hint = ", as PIL.Image.fromarray makes one of an array" if hasattr(image, "shape") else ""
        raise ValueError(f"image is {_shown(image)}, expected a path or a PIL image{hint}")


def _are_texts(texts: object) -> bool:
    return isinstance(texts, Sequence) and not isinstance(texts, str) and all(isinstance(text, str) for text in texts)


def _shown(thing: object) -> str:
    """A thing in an error message: itself where it is short, else its type."""
    plain = thing is None or isinstance(thing, (bool, int, float))
    return repr(thing) if plain else f"of type {type(thing).__name__}"
