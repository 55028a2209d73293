"""IconWorld, the embedded corpus: pictures drawn from icons, examples that are a pure function of their index."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lib.corpora.iconworld.draw import RENDERER
from lib.sources import hash_of


@dataclass(frozen=True)
class Split(Sequence):
    """`size` examples made on demand: random access, nothing stored. A view says what `example(index)` is."""

    name: str
    size: int
    seed: int

    def example(self, index: int):
        """The example at 0 <= index < size, the same in every process and in any order of access."""
        raise NotImplementedError

    def stream(self, index: int, purpose: str) -> Random:
        """Random numbers of their own for each example and purpose: new wording never moves a pixel."""
        return Random(f"{type(self).__qualname__}/{self.seed}/{self.name}/{index}/{purpose}")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int | slice):
        """An example, or a list of them for a slice. Raises IndexError outside the split."""
        where = range(self.size)[index]
        return [self.example(i) for i in where] if isinstance(where, range) else self.example(where)


def fingerprint(options: dict, *sources: str) -> str:
    """16 hex digits that change with the options, the code of the view, or anything that decides a pixel."""
    code = hash_of(*(Path(file) for file in (__file__, *sources)))
    parts = [repr(sorted(options.items())), RENDERER, code]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
