"""Words: the one way in which all papers split a sentence, at two levels, in any script."""

from unicodedata import normalize

import regex

# Letters of scripts that put no space between words; SA are Thai, Lao, Burmese, Khmer and their neighbours, where
# only a dictionary finds the words. The signs that lengthen and voice a Japanese letter are letters of no script.
_SPACELESS = r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Line_Break=SA}\u30fc\uff70\uff9e\uff9f]&&[\p{L}\p{Nl}]]"
# What belongs to the letter before it: vowels, tones, accents, the joiners of Persian and Hindi; no emoji's selector.
_MARK = r"[[\p{Mn}\p{Mc}\u200c\u200d]--\p{Variation_Selector}]"
_STACKED = rf"(?<=[\u1039\u17d2]){_SPACELESS}"  # Burmese and Khmer write a letter below the one before
_CHARACTER = rf"{_SPACELESS}(?:{_MARK}|{_STACKED})*"


def _word(letters: str) -> str:
    return rf"(?:[[{letters}_]--{_SPACELESS}]{_MARK}*)+"


_WORD = _word(r"\p{L}\p{N}")
_TOKEN = _word(r"\p{L}\p{Nl}\p{Nd}")  # a fraction or a power is a token by itself
_KEYCAP = r"[\d#*]\ufe0f?\u20e3"  # the emoji that begin with a digit
_WORDS = regex.compile(rf"{_CHARACTER}|{_WORD}(?:['’]{_WORD})?", regex.VERSION1)
_TOKENS = regex.compile(
    rf"https?://\S+|{_KEYCAP}|{_CHARACTER}|[@#]?{_TOKEN}(?:['’-]{_TOKEN})*|(?!\s)\X", regex.VERSION1
)


def words(sentence: str) -> list[str]:
    """Lower-case words without punctuation, one apostrophe kept ("isn't"): what the vocabulary of captions counts.

    Where a script leaves no spaces (Chinese, Japanese, Thai, Burmese, Khmer, Lao) each character with its marks is a
    word. Accents that stand apart from their letters are put to them (NFC).
    """
    return _WORDS.findall(normalize("NFC", sentence.lower()))


def tokens(text: str) -> list[str]:
    """All of a text, as posts are tagged: addresses, @names and #tags whole; words, as they are written, with hyphens
    and apostrophes inside; characters where a script leaves no spaces; each other mark, symbol or emoji by itself."""
    return _TOKENS.findall(normalize("NFC", text))
