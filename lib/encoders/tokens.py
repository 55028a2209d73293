"""A tagger's tokens as the word pieces, or the characters, that a BERT-like encoder reads."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lib.corpora.types import DataError
from lib.encoders.text import encoder_key, load_tokenizer, longest_text, new_encoder
from lib.encoders.words import PAD, UNKNOWN, pad

CHARACTERS = "characters"  # in place of an encoder's name: one that is trained from scratch, for any script
CHARACTER_SIZES = {
    **{"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 768},
    "max_position_embeddings": 512,
}
SENTENCE_ENDS = frozenset(".!?…。！？؟।")


@dataclass(frozen=True)
class Window:
    """As much of a post as the encoder takes: tokens `start` to `stop` of it, their `pieces` between the encoder's
    special ones, and where among these each token's `first_pieces` entry, its first, stands."""

    post: int
    start: int
    stop: int
    pieces: tuple[int, ...]
    first_pieces: tuple[int, ...]


class TokenReader:
    """Posts as windows of at most `longest` pieces, special ones included, for the text encoder called `name`.

    "characters" needs no pretrained encoder: its pieces are the characters of `characters`, index 0 pads, 1 is every
    other one, 2 begins and 3 ends a window. Raises ValueError for a `longest` that has no room for a piece or is more
    than the encoder takes, DataError for an encoder whose texts do not begin and end with special pieces.
    """

    def __init__(self, name: str, longest: int = 128, characters: Sequence[str] = ()):
        self.name, self.longest = name, longest
        self.characters = {character: i for i, character in enumerate(characters)}
        if name == CHARACTERS:
            self.padding, self.unknown, self.begin, self.end = range(4)
            most = CHARACTER_SIZES["max_position_embeddings"]
        else:
            tokenizer = self.tokenizer = load_tokenizer(name)
            self.padding, self.unknown = tokenizer.pad_token_id, tokenizer.unk_token_id
            self.begin, self.end, most = tokenizer.cls_token_id, tokenizer.sep_token_id, longest_text(name)
            if self.begin is None or self.end is None:
                raise DataError(f"text encoder {name!r} has no pieces like [CLS] and [SEP], expected a BERT-like one")
        if not 3 <= longest <= most:
            raise ValueError(f"longest is {longest}, expected 3, a piece between the two special ones, to {most}")

    @property
    def identity(self) -> str:
        """All that decides what the encoder starts from."""
        return CHARACTERS if self.name == CHARACTERS else encoder_key(self.name)

    def windows(self, posts: Sequence[Sequence[str]]) -> list[Window]:
        """Every token of every post in exactly one window; a post that is too long is cut behind a sentence's end.

        A token without pieces becomes one unknown piece; one that is too long for a window keeps its first pieces.
        """
        pieces = self._pieces({token for tokens in posts for token in tokens})
        return [window for i, tokens in enumerate(posts) for window in self._cut(i, tokens, pieces)]

    def _pieces(self, tokens: Iterable[str]) -> dict[str, list[int]]:
        """Each distinct token is split once: its pieces do not depend on its neighbours."""
        tokens, room = sorted(tokens), self.longest - 2
        if self.name == CHARACTERS:
            split = [[self.characters.get(character, self.unknown) for character in token] for token in tokens]
        else:
            words = [[token] for token in tokens]
            as_text = {"add_special_tokens": False, "split_special_tokens": True}  # a token "[SEP]" ends nothing
            split = self.tokenizer(words, is_split_into_words=True, **as_text)["input_ids"]
        return {token: ids[:room] or [self.unknown] for token, ids in zip(tokens, split, strict=True)}

    def _cut(self, post: int, tokens: Sequence[str], pieces: dict[str, list[int]]) -> Iterable[Window]:
        ends = [token[-1:] in SENTENCE_ENDS for token in tokens]
        for start, stop in cuts([len(pieces[token]) for token in tokens], ends, self.longest - 2):
            inside = [pieces[token] for token in tokens[start:stop]]
            first = np.cumsum([1, *map(len, inside[:-1])]).tolist()
            yield Window(post, start, stop, (self.begin, *(i for ids in inside for i in ids), self.end), tuple(first))

    def batch(self, windows: Sequence[Window], length: int | None = None) -> dict[str, torch.Tensor]:
        """Windows as `pieces` [B, T] with the `mask` of the real ones, and the `first_pieces` [B, W] of their tokens
        with the `token_mask`; T is `length`, or has room for the longest window."""
        pieces, count = pad([window.pieces for window in windows], self.longest)
        if length:
            pieces = nn.functional.pad(pieces, (0, length - pieces.shape[1]))
        mask = torch.arange(pieces.shape[1]) < count[:, None]  # (B, T)
        first_pieces, tokens = pad([window.first_pieces for window in windows])
        token_mask = torch.arange(first_pieces.shape[1]) < tokens[:, None]  # (B, W)
        pieces = pieces.masked_fill(~mask, self.padding)
        return {"pieces": pieces, "mask": mask, "first_pieces": first_pieces, "token_mask": token_mask}


def cuts(lengths: Sequence[int], ends: Sequence[bool], longest: int) -> list[tuple[int, int]]:
    """Ranges of tokens of at most `longest` pieces each, cut behind the last sentence end that fits, if any fits.

    `lengths`: pieces of each token, none more than `longest`; `ends`: whether a token ends a sentence.
    """
    upto = np.cumsum([0, *lengths])  # pieces before each token
    ranges, start = [], 0
    while start < len(lengths):
        stop = int(np.searchsorted(upto, upto[start] + longest, side="right")) - 1
        if stop < len(lengths):
            stop = max((i + 1 for i in range(start, stop) if ends[i]), default=stop)
        ranges.append((start, stop))
        start = stop
    return ranges


def characters_of(posts: Iterable[Sequence[str]], min_count: int = 2) -> tuple[str, ...]:
    """The characters that occur often enough to be learned, behind the four special ones; give it training posts."""
    counts = Counter(character for tokens in posts for token in tokens for character in token)
    return PAD, UNKNOWN, "<begin>", "<end>", *sorted(c for c, count in counts.items() if count >= min_count)


def token_encoder(name: str, characters: Sequence[str] = (), layers: int | None = None) -> nn.Module:
    """The encoder that reads a TokenReader's pieces, with random weights and only its first `layers`."""
    if name == CHARACTERS:
        from transformers import BertConfig, BertModel

        return BertModel(BertConfig(vocab_size=len(characters), **CHARACTER_SIZES), add_pooling_layer=False)
    return new_encoder(name, layers)
