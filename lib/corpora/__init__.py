"""Where examples come from. `load(name)` knows every corpus by the name that notebooks use."""

from importlib import import_module
from pathlib import Path

from lib.corpora.files import malformed
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

    Raises DataError for an unknown name, a limit below one, a missing folder or a malformed file.
    """
    limit = options.get("limit")
    if limit is not None and limit < 1:
        raise malformed("limit", str(limit), "at least 1 training example")
    if name not in CORPORA:
        raise DataError(f"corpus {name!r} is unknown, expected one of {', '.join(sorted(CORPORA))}")
    module, function = CORPORA[name].split(":")
    loader = getattr(import_module(module), function)
    return loader(**options) if name.startswith("iconworld") else loader(name, root, **options)


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
