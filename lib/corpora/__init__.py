"""Where examples come from. `load(name)` knows every corpus by the name that notebooks use."""

from collections.abc import Collection, Mapping
from importlib import import_module
from inspect import signature
from numbers import Integral
from pathlib import Path

from lib.corpora.files import malformed, quote, require_path
from lib.corpora.types import CaptionedImage, Corpus, DataError, Post, Product, TaggedPost, open_picture, picture_key

# name -> module:function, imported only when asked for
CORPORA = {
    "iconworld-captions": "lib.corpora.iconworld.captions:load",
    "iconworld-entities": "lib.corpora.iconworld.entities:load",
    "iconworld-posts": "lib.corpora.iconworld.posts:load",
    "iconworld-products": "lib.corpora.iconworld.products:load",
    "flickr8k": "lib.corpora.flickr:load",
    "flickr30k": "lib.corpora.flickr:load",
    "coco": "lib.corpora.flickr:load",
    "captions": "lib.corpora.flickr:load",  # for anybody's own captioned pictures
    "twitter2015": "lib.corpora.tweets:load",
    "twitter2017": "lib.corpora.tweets:load",
    "conll-images": "lib.corpora.tweets:load",
    "cmkp": "lib.corpora.posts:load",
    "cmkp-small": "lib.corpora.posts:load",  # where there is no train file: a part of the valid file
    "tweets": "lib.corpora.posts:load",  # for anybody's own posts in the form of cmkp's
    "k3m": "lib.corpora.products:load",
    "fashion": "lib.corpora.products:load",
}

CAPTIONED = ("iconworld-captions", "flickr8k", "flickr30k", "coco", "captions")


def require_captioned(name: str) -> None:
    """DataError for a name that is not that of a corpus of captioned pictures."""
    if name not in CAPTIONED:
        raise DataError(f"corpus {name!r} has no captions, expected one of {', '.join(CAPTIONED)}")


def load(name: str, root: str | Path | None = None, **options) -> Corpus:
    """The corpus called `name`; `root` is the folder of its files (IconWorld needs none). Of the `options` all know
    `limit`: only the first so many training examples.

    Raises DataError for an unknown name or option, a limit below one, a missing folder or a malformed file.
    """
    if name not in list(CORPORA):  # whatever was given, unhashable things too
        raise DataError(f"corpus {quote(name)} is unknown, expected one of {', '.join(sorted(CORPORA))}")
    module, function = CORPORA[name].split(":")
    loader = getattr(import_module(module), function)
    _check(options, signature(loader).parameters.keys() - {"name", "root"})
    if root is not None:
        require_path("root", root)
    return loader(**options) if name.startswith("iconworld") else loader(name, root, **options)


def _check(options: Mapping, known: Collection[str]) -> None:
    for name, value in options.items():
        if name not in known:
            raise malformed(name, "an option that this corpus does not know", f"one of {', '.join(sorted(known))}")
        if name == "images" and value is not None:
            require_path(name, value)
        elif value is not None and (not isinstance(value, Integral) or isinstance(value, bool)):
            raise malformed(name, quote(value), "a whole number")
        elif value is not None and value < 1 and name != "seed":
            raise malformed(name, str(value), f"at least 1 {'training ' if name == 'limit' else ''}example")


__all__ = [
    "CaptionedImage",
    "Corpus",
    "DataError",
    "Post",
    "Product",
    "TaggedPost",
    "load",
    "open_picture",
    "picture_key",
    "require_captioned",
]
