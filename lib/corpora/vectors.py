"""Files of word vectors as they are published: GloVe's, whose words may hold spaces, and word2vec's and fastText's,
which begin with a header and may end each line with a space."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from lib.corpora.files import malformed

HEADER = re.compile(r"\d{1,9} (\d{1,6})")  # how many words, and how many numbers each has
NOT_FINITE = re.compile(r"(?<!\S)[+-]?(?:nan|inf(?:inity)?)(?!\S)")
SPACE = "\xa0"  # in place of the spaces in a word; no word of a vocabulary has one


@contextmanager
def plain_lines(path: Path, encoding: str = "utf-8") -> Iterator[Iterator[str]]:
    """The lines of such a file, each a word without spaces and the numbers of its vector, with one space between; a
    header becomes a line that is no word's.

    A line whose word is not in the `encoding` is nobody's either: one warning says how many there are, and where.
    Raises DataError for a file that cannot be read, and for a line whose vector is not as long as the first one's, or
    not finite.
    """
    try:
        with open(path, "rb") as file:
            yield _lines(file, path, encoding)
    except OSError as error:
        raise malformed(path, f"no readable file ({error.strerror})", "word vectors") from error


def _lines(file: BinaryIO, path: Path, encoding: str) -> Iterator[str]:
    width, unread = 0, []
    for number, content in enumerate(file, start=1):
        line = content.removeprefix(b"\xef\xbb\xbf" * (number == 1)).decode(encoding, "replace").rstrip(" \r\n")
        if "\ufffd" in line and b"\xef\xbf\xbd" not in content:
            unread.append(number)
        heads = number == 1 and HEADER.fullmatch(line)
        width = int(heads[1]) if heads else width or _width(line)
        if heads or not line and width:
            line = SPACE + " 0" * width
        more = line.count(" ") - width
        if more < 0 or not width:
            raise malformed(f"{path}:{number}", f"{line.count(' ')} numbers", str(width or "at least one"))
        line = line.replace(" ", SPACE, more)
        if "n" in (numbers := line.partition(" ")[2].lower()) and NOT_FINITE.search(numbers):
            raise malformed(f"{path}:{number}", NOT_FINITE.search(numbers)[0], "finite numbers")
        yield line
    if unread:
        found = f"{len(unread)} words that are not {encoding}, the first in line {unread[0]}"
        warnings.warn(f"{path}: found {found}; they are left out", stacklevel=4)


def _width(line: str) -> int:
    """How many numbers the first vector has: all that stand at the line's end, behind a word."""
    words = line.split(" ")[1:]
    numbers = list(takewhile(_is_number, reversed(words)))
    return len(numbers or words)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
