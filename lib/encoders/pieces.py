"""Texts as pieces by a tokenizer that is kept as JSON, and ragged lists of numbers as padded arrays."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SPECIAL = ("[PAD]", "[UNK]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Iterable[str], settings) -> str:
    """A WordPiece tokenizer as JSON, of at most `settings.vocabulary` pieces learned from training texts, Chinese by
    characters; or, where `settings.text_encoder` names a pretrained one, its own.

    All single characters that occur twice are pieces before anything is learned: the trainer itself numbers them in an
    order that changes from process to process.
    """
    if settings.text_encoder != "wordpiece":
        from lib.encoders.text import load_tokenizer

        return load_tokenizer(settings.text_encoder).backend_tokenizer.to_str()
    texts, normalizer = list(texts), normalizers.BertNormalizer()
    counts = Counter(character for text in texts for character in normalizer.normalize_str(text))
    known = sorted(c for c, count in counts.items() if count > 1 and not c.isspace())
    alphabet = [*SPECIAL, *known, *(f"##{c}" for c in known if not _han(c))]
    tokenizer = _wordpiece(None)
    size = max(settings.vocabulary, len(alphabet))
    options = dict(special_tokens=alphabet, limit_alphabet=len(alphabet), show_progress=False)
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=size, **options))
    return _wordpiece(tokenizer.get_vocab()).to_str()


def _wordpiece(vocabulary: dict[str, int] | None) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff"


class Pieces:
    """A tokenizer from its JSON: `pieces[text]` are the pieces of a text that it was told to learn."""

    def __init__(self, stored: str):
        self.tokenizer = Tokenizer.from_str(stored)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.count = self.tokenizer.get_vocab_size()
        self.unknown, self.separator, self.mask = (self.tokenizer.token_to_id(name) for name in SPECIAL[1:])
        self.known: dict[str, list[int]] = {"": []}

    def learn(self, texts: Iterable[str]) -> None:
        """Split these texts; each distinct one once."""
        fresh = sorted(set(texts) - self.known.keys())
        split = self.tokenizer.encode_batch(fresh, add_special_tokens=False)
        self.known |= {text: found.ids for text, found in zip(fresh, split, strict=True)}

    def __getitem__(self, text: str) -> list[int]:
        return self.known[text]

    def sequence(self, triples: Sequence[tuple[str, str]], longest: int) -> tuple[list[int], list[int]]:
        """Triples as one text, "[SEP] property value [SEP] property value", and for each piece whether it is of a value
        behind the first (the released code masks these)."""
        ids, later = [], []
        for i, (name, value) in enumerate(triples):
            before, said = [self.separator, *self[name]], self[value]
            ids += before + said
            later += [0] * len(before) + [int(i > 0)] * len(said)
        return ids[:longest], later[:longest]


class Ragged:
    """Lists of numbers of different lengths, some of them empty, stored as one array."""

    def __init__(self, lists: Sequence[Sequence[int]]):
        self.lengths = np.array([len(one) for one in lists], int)
        self.flat = np.array([number for one in lists for number in one] + [0], int)  # the last stands for nothing
        self.starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(
        self, rows: np.ndarray, multiple: int = 1, longest: int | None = None, width: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Some of them padded with 0, [n, T], and the mask [n, T] of what is real; T is `width`, or a multiple, at
        least one, or `longest` where that is less."""
        lengths = self.lengths[rows]
        if width is None:
            width = max(multiple, -(-int(lengths.max(initial=0)) // multiple) * multiple)
            width = min(width, longest or width)
        mask = np.arange(width) < lengths[:, None]
        places = np.where(mask, self.starts[rows][:, None] + np.arange(width), len(self.flat) - 1)
        return self.flat[places], mask
