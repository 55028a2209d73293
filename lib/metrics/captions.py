"""Captions: CIDEr-D and BLEU as coco-caption has them, over integer n-gram ids, whole batches at a time.

A sentence is a string, split at spaces, or a sequence of word ids, positive integers; several may also be a tensor of
ids [N, T], zeros after the last word. What is a word, and whether an end mark is one, is the caller's choice.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.precision import one_thread

Sentences = Sequence[str] | Sequence[Sequence[int]] | Tensor

SIGMA = 6.0  # of CIDEr-D's length penalty, in bigrams
TINY, SMALL = 1e-15, 1e-9  # what coco-caption's BLEU adds above and below the line: 0 of 0 n-grams is 1e-6
LAST = 2**62  # ends every table of codes, greater than all


class NGrams(NamedTuple):
    """All n-grams of one length of some sentences, by the word where they begin."""

    real: Tensor  # (N, W), bool: the others reach into the padding
    tf: Tensor  # (N, W), how often its sentence has it
    ids: Tensor  # (N, W)


class Level(nn.Module):
    """What is counted of the n-grams of one length; G distinct ones, and E pairs of an image and one of its n-grams.

    `codes` [G + 1], sorted: an n-gram without its last word, and that word, as one number; its id is its place here,
    and all unknown ones are the last. `idf` [G + 1]. `pairs` [E + 1], sorted: an image and an id as one number.
    `counts` [E + 1, R]: how often each of the image's references has the n-gram, none in the last row.
    """

    def __init__(self, found: NGrams, codes: Tensor, image: Tensor, slot: Tensor, shape: Sequence[int]):
        super().__init__()
        pairs = image[:, None] * len(codes) + found.ids  # (S, W)
        distinct = _table(pairs[found.real])
        counts = torch.zeros(len(distinct), shape[1], dtype=torch.int16)
        row, slot = _find(distinct, pairs), slot[:, None].expand_as(pairs)
        counts[row[found.real], slot[found.real]] = found.tf[found.real].short()
        df = torch.bincount(distinct[:-1] % len(codes), minlength=len(codes)).clamp(min=1)  # unknown ones: once
        idf = np.log(shape[0]) - df.double().log()
        for name, table in {"codes": codes, "idf": idf, "pairs": distinct, "counts": counts}.items():
            self.register_buffer(name, table, persistent=False)

    def counts_of(self, image: Tensor, ids: Tensor) -> Tensor:
        """How often each reference of an image has each of some n-grams: [N], [N, W] -> [N, W, R], double."""
        return self.counts[_find(self.pairs, image[:, None] * len(self.codes) + ids)].double()


class References(nn.Module):
    """The references of I images, at most R each, their n-grams counted once; `.to(device)` moves the tables.

    references: of each image its sentences, at least one; n: the longest n-grams; words: {word: id} to go on from.
    Raises ValueError for no images, an image without sentences, strings beside ids, ids that are not positive.
    """

    def __init__(self, references: Sequence[Sequence], n: int = 4, words: dict[str, int] | None = None):
        super().__init__()
        number = _numbers(references)  # (I,)
        flat = list(chain.from_iterable(references))
        self.words = dict(words or {}) if isinstance(flat[0], str) else None
        tokens = _padded(self._ids(flat, self.words), n)  # (S, T)
        image = torch.arange(len(number)).repeat_interleave(number)  # (S,)
        slot = torch.arange(len(flat)) - (number.cumsum(0) - number)[image]  # (S,)
        lengths = torch.full((len(number), int(number.max())), -1)  # (I, R), -1 where there is none
        lengths[image, slot] = (tokens > 0).sum(1)
        self.register_buffer("number", number, persistent=False)
        self.register_buffer("lengths", lengths, persistent=False)
        self.register_buffer("vocabulary", _table(tokens[tokens > 0]), persistent=False)
        walk = _walk(tokens, self.vocabulary, [None] * n)
        self.levels = nn.ModuleList(Level(found, codes, image, slot, lengths.shape) for found, codes in walk)

    def __len__(self) -> int:
        return len(self.number)

    def tokens(self, sentences: Sentences) -> Tensor:
        """Sentences as ids [N, T] where the tables are; words that no reference has get ids of their own."""
        if isinstance(sentences, Tensor):
            self._check(sentences)
            return F.pad(sentences, (0, max(0, len(self.levels) - sentences.shape[1]))).to(self.number.device)
        words = None if self.words is None else dict(self.words)
        return _padded(self._ids(sentences, words), len(self.levels)).to(self.number.device)

    def ngrams(self, tokens: Tensor) -> Iterator[NGrams]:
        """The n-grams of sentences [N, T], n = 1, 2, ..., with the ids that they have here."""
        tables = [level.codes for level in self.levels]
        return (found for found, _ in _walk(tokens, self.vocabulary, tables))

    def owners(self, owner: Sequence[int] | Tensor | None, count: int) -> Tensor:
        """The image that each of `count` candidates is judged by [N], in order if None; checked unless on a GPU."""
        if owner is None and count != len(self):
            raise ValueError(
                f"there are {count} candidates for {len(self)} images, expected owner to say whose each is"
            )
        owner = torch.arange(count) if owner is None else torch.as_tensor(owner, dtype=torch.long)
        if owner.shape != (count,):
            raise ValueError(f"expected owner as {count} integers, one a candidate, got {[*owner.shape]}")
        if owner.device.type == "cpu" and ((owner < 0) | (owner >= len(self))).any():
            raise ValueError(f"found owner from {owner.min()} to {owner.max()}, expected 0 to {len(self) - 1}")
        return owner.to(self.number.device)

    def _ids(self, sentences: Sequence, words: dict[str, int] | None) -> list[Sequence[int]]:
        """Sentences as lists of ids; words that are new go into `words`."""
        if any(isinstance(sentence, str) != (words is not None) for sentence in sentences):
            expected = "word ids" if words is None else "strings"
            raise ValueError(f"found strings beside word ids, expected {expected} as in the first reference")
        if words is None:
            return list(sentences)
        return [[words.setdefault(word, len(words) + 1) for word in sentence.split()] for sentence in sentences]

    def _check(self, sentences: Tensor) -> None:
        if self.words is not None or sentences.ndim != 2 or sentences.dtype != torch.long:
            expected = "int64 [N, T]" if self.words is None else "strings, as in the references"
            raise ValueError(f"found sentences as {sentences.dtype} {[*sentences.shape]}, expected {expected}")


class CiderD(nn.Module):
    """CIDEr-D of candidates (Vedantam et al. 2015, section 7), on coco-caption's scale: at most 10, good captioners
    reach about 1.

    references: of each image its sentences, or `References`; df: those of another corpus, in whose images document
    frequencies are counted (for a reward: the training split), these if None. Frequencies and ids of words must fit:
    `References` that were counted before begin with `df.words`.
    Raises ValueError as `References` does, and for references and df whose words have different ids.
    """

    def __init__(self, references: Sequence[Sequence] | References, df: Sequence[Sequence] | References | None = None):
        super().__init__()
        df = references if df is None else df
        self.df = df if isinstance(df, References) else References(df)
        if references is df:
            self.references = self.df
        else:
            self.references = _counted(references, 4, self.df.words)
        _require_same_words(self.references, self.df)
        for n, norm in enumerate(_norms(self.references, self.df)):
            self.register_buffer(f"norm{n}", norm, persistent=False)  # (I, R)

    @torch.no_grad()
    @one_thread()
    def score(self, candidates: Sentences, owner: Sequence[int] | Tensor | None = None) -> Tensor:
        """The score of each candidate [N], single precision, on the device of the candidates.

        owner [N]: the image by whose references each is judged, in order if None. An empty candidate scores 0.
        Raises ValueError for candidates unlike the references, or an owner that is no image.
        """
        tokens = self.references.tokens(candidates)  # (N, T)
        owner = self.references.owners(owner, len(tokens))
        total = torch.zeros_like(self.references.lengths[owner], dtype=torch.double)  # (N, R)
        ngrams = list(self.references.ngrams(tokens))
        there = ngrams if self.df is self.references else self.df.ngrams(tokens)
        for n, (found, known) in enumerate(zip(ngrams, there, strict=True)):
            idf = self.df.levels[n].idf[known.ids]  # (N, W)
            once = found.real * idf**2 / found.tf  # (N, W): an n-gram counts once, however often it is there
            norm = (once * found.tf**2).sum(1, keepdim=True).sqrt() * getattr(self, f"norm{n}")[owner]  # (N, R)
            theirs = self.references.levels[n].counts_of(owner, found.ids)  # (N, W, R)
            clipped = torch.minimum(found.tf[..., None], theirs) * theirs
            total += torch.einsum("nw,nwr->nr", once, clipped) / norm.masked_fill(norm == 0, 1)
        score = 10 / 4 * (total * self._length_penalty(tokens, owner)).sum(1) / self.references.number[owner]
        return score.float().to(candidates.device if isinstance(candidates, Tensor) else "cpu")

    def _length_penalty(self, tokens: Tensor, owner: Tensor) -> Tensor:
        """Of each candidate and reference (N, R), from the numbers of their bigrams: none has as many as one word."""
        ours, theirs = (tokens > 0).sum(1, keepdim=True), self.references.lengths[owner]  # (N, 1), (N, R)
        gap = (ours - 1).clamp(min=0) - (theirs - 1).clamp(min=0)
        return torch.exp(-(gap.double() ** 2) / (2 * SIGMA**2))


def bleu(candidates: Sentences, references: Sequence[Sequence] | References, n: int = 4) -> list[float]:
    """BLEU-1 to BLEU-n of a corpus, each from 0 to 1 (Papineni et al. 2002), the i-th candidate for the i-th image.

    As coco-caption has it: of an image's references the one closest in length counts, the shorter of two as close.
    Raises ValueError as `CiderD` does.
    """
    return bleu_of(bleu_statistics(candidates, references, n=n).sum(0)).tolist()


def bleu_statistics(
    candidates: Sentences,
    references: Sequence[Sequence] | References,
    owner: Sequence[int] | Tensor | None = None,
    n: int = 4,
) -> np.ndarray:
    """What BLEU adds up over candidates [N, 2n + 2]: n-grams that are right, for 1 to n, n-grams in all, for 1 to n,
    words of the candidate, and words of its closest reference. Sums over any rows are what `bleu_of` takes.
    """
    right, total, ours, closest = _bleu_counts(candidates, _counted(references, n), owner)
    return torch.cat([right, total, ours[:, None], closest[:, None]], 1).cpu().numpy()


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-n [..., n] from sums of `bleu_statistics` [..., 2n + 2]."""
    n = sums.shape[-1] // 2 - 1
    right, total, ours, closest = np.split(sums.astype(float), [n, 2 * n, 2 * n + 1], -1)
    precision = np.cumprod((right + TINY) / (total + SMALL), -1) ** (1 / np.arange(1, n + 1))
    return precision * np.exp(np.minimum(0, 1 - (closest + SMALL) / (ours + TINY)))


@torch.no_grad()
@one_thread()
def sentence_bleu(
    candidates: Sentences,
    references: Sequence[Sequence] | References,
    owner: Sequence[int] | Tensor | None = None,
    n: int = 4,
) -> Tensor:
    """BLEU-n of each candidate by itself [N], from 0 to 1, on the device of the candidates: a reward.

    One is added to the n-grams that are right and to all of them, but for single words (Lin and Och 2004, BLEU+1);
    otherwise one missing 4-gram makes 0 of it. `owner` and errors as in `CiderD.score`.
    """
    right, total, ours, closest = _bleu_counts(candidates, _counted(references, n), owner)
    more = (torch.arange(n, device=right.device) > 0).double()  # (n,)
    precision = ((right + more) / (total + more).clamp(min=1)).log().mean(1).exp()  # (N,)
    brevity = (1 - closest / ours.clamp(min=1)).clamp(max=0).exp()
    score = (precision * brevity).float()
    return score.to(candidates.device if isinstance(candidates, Tensor) else "cpu")


def _bleu_counts(candidates: Sentences, references: References, owner) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each candidate: n-grams right (N, n) and in all (N, n), its length (N,), the closest reference's (N,)."""
    tokens = references.tokens(candidates)  # (N, T)
    owner, right, total = references.owners(owner, len(tokens)), [], []
    for level, found in zip(references.levels, references.ngrams(tokens), strict=True):
        most = level.counts_of(owner, found.ids).amax(-1)  # (N, W)
        right.append((found.real * torch.minimum(found.tf, most) / found.tf).sum(1).round())
        total.append(found.real.sum(1).double())
    ours, theirs = (tokens > 0).sum(1), references.lengths[owner]  # (N,), (N, R)
    gap = 2 * (theirs - ours[:, None]).abs() + (theirs > ours[:, None])
    nearest = gap.masked_fill(theirs < 0, LAST).argmin(1, keepdim=True)
    return torch.stack(right, 1), torch.stack(total, 1), ours.double(), theirs.gather(1, nearest)[:, 0].double()


def _norms(references: References, df: References) -> Iterator[Tensor]:
    """The length of each reference's tf-idf vector (I, R), for n = 1, 2, ..."""
    for level, idf in zip(references.levels, _idf_there(references, df), strict=True):
        image, ids = level.pairs[:-1] // len(level.codes), level.pairs[:-1] % len(level.codes)  # (E,)
        squares = (level.counts[:-1] * idf[ids, None]) ** 2  # (E, R)
        yield squares.new_zeros(references.lengths.shape).index_add(0, image, squares).sqrt()


def _idf_there(references: References, df: References) -> Iterator[Tensor]:
    """The idf that the n-grams of `references` have in `df` (G,), for n = 1, 2, ..."""
    base, base_there = len(references.vocabulary), len(df.vocabulary)
    words = _find(df.vocabulary, references.vocabulary[:-1])  # (V,)
    ids = torch.zeros_like(words[:1])  # of the n-gram without words
    for here, there in zip(references.levels, df.levels, strict=True):
        prefix, word = here.codes[:-1] // base, here.codes[:-1] % base  # (G,)
        ids = _find(there.codes, ids[prefix] * base_there + words[word])
        yield there.idf[ids]


# ---- n-grams as numbers ----


def _walk(tokens: Tensor, vocabulary: Tensor, tables: Iterable[Tensor | None]) -> Iterator[tuple[NGrams, Tensor]]:
    """The n-grams of sentences [N, T], n = 1, 2, ..., and the table in which their ids are places: the one given for n,
    or that of all that are here where it is None.

    The code of an n-gram is made of the id of what stands before its last word and of that word's place in the
    vocabulary, so it is exact, and one number however long it is. How often a sentence has it is found by sorting
    within the sentence, where unknown ones differ too.
    """
    words, (word_place, _) = _find(vocabulary, tokens), _place_and_number(tokens)
    real = torch.ones_like(F.pad(tokens, (0, 1)), dtype=torch.bool)  # (N, T + 1), at first of n-grams without words
    ids = place = torch.zeros_like(real, dtype=torch.long)
    for n, table in enumerate(tables):
        real = real[:, :-1] & (tokens[:, n:] > 0)
        codes = ids[:, :-1] * len(vocabulary) + words[:, n:]
        place, tf = _place_and_number(place[:, :-1] * tokens.shape[1] + word_place[:, n:])
        table = _table(codes[real]) if table is None else table
        ids = _find(table, codes)
        yield NGrams(real, tf, ids), table


def _place_and_number(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Of each code [N, W] its place among its sorted row, the same for equal ones, and the number of equal ones."""
    ordered, codes = codes.sort(1).values, codes.contiguous()
    place = torch.searchsorted(ordered, codes)
    return place, torch.searchsorted(ordered, codes, right=True) - place


def _table(codes: Tensor) -> Tensor:
    """The distinct ones, sorted, and LAST."""
    return F.pad(codes.unique(), (0, 1), value=LAST)


def _find(table: Tensor, codes: Tensor) -> Tensor:
    """The place of each code in a `_table`; for those that are not in it the last one."""
    place = torch.searchsorted(table, codes.contiguous())
    return torch.where(table[place] == codes, place, len(table) - 1)


def _padded(sentences: Sequence[Sequence[int]], least: int) -> Tensor:
    """Lists of ids as one tensor [N, T], zeros behind, T at least `least`."""
    lengths = np.array([len(sentence) for sentence in sentences], int)
    flat = np.fromiter(chain.from_iterable(sentences), np.int64, lengths.sum())
    if (flat <= 0).any():
        raise ValueError(f"found word id {flat.min()}, expected positive ones: 0 is what follows the last word")
    tokens = np.zeros((len(lengths), max(least, *lengths, 0)), np.int64)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = flat
    return torch.from_numpy(tokens)


# ---- what comes in ----


def _counted(references: Sequence[Sequence] | References, n: int, words: dict[str, int] | None = None) -> References:
    if not isinstance(references, References):
        return References(references, n, words)
    if len(references.levels) != n:
        raise ValueError(f"references were counted up to n = {len(references.levels)}, expected {n}")
    return references


def _numbers(references: Sequence[Sequence]) -> Tensor:
    """How many sentences each image has (I,)."""
    number = [len(sentences) for sentences in references]
    if not number:
        raise ValueError("there are no references, expected those of at least one image")
    if 0 in number:
        raise ValueError(f"image {number.index(0)} has no reference, expected at least one")
    return torch.tensor(number)


def _require_same_words(references: References, df: References) -> None:
    ours, theirs = references.words, df.words
    if (ours is None) != (theirs is None) or (ours is not None and not theirs.items() <= ours.items()):
        raise ValueError("references and df number their words differently: count the references with words=df.words")
