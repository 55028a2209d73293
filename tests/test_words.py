"""Words: English as it always was, and every other script with its marks, by characters where it has no spaces."""

import re
import string
from unicodedata import normalize

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.words import tokens, words

# How English was split before other scripts were thought of: the vocabularies of trained models rest on it.
OLD_WORDS = re.compile(r"\w+(?:['’]\w+)?")
OLD_TOKENS = regex.compile(r"https?://\S+|[@#]?\w+(?:['’-]\w+)*|[^\w\s]")

LETTERS = string.ascii_letters + string.digits + "éüßñÅ"
MARKS = string.punctuation + "’‘“”–—…€£°½²© \t\n"
pieces = st.one_of(
    st.text(LETTERS, min_size=1, max_size=6),
    st.text(LETTERS + MARKS, max_size=8),
    st.sampled_from(["don't", "rock’n’roll", "@joe_b", "#tag", "e-mail", "3-0", "1½", "m²", "snake_case", "U.S."]),
    st.sampled_from(["https://t.co/a-b?c=d,", "http://x.y/@z", "https://", "''", "--", "-a", "a-", "it's-a", "$5.20"]),
)
english = st.lists(pieces, max_size=12).flatmap(
    lambda parts: st.lists(st.sampled_from(["", " ", "  "]), min_size=len(parts), max_size=len(parts)).map(
        lambda gaps: "".join(part + gap for part, gap in zip(parts, gaps, strict=True))
    )
)


@settings(deadline=None, max_examples=300)
@given(english)
def test_english_is_split_as_it_always_was(text):
    assert words(text) == OLD_WORDS.findall(text.lower())
    assert tokens(text) == OLD_TOKENS.findall(text)


@pytest.mark.parametrize("text, expected", [
    ("A dog's RED ball, isn't it? 3d", "a dog's red ball isn't it 3d"),
    ("Größe, Ærø; naïve", "größe ærø naïve"),
    ("Ελλάδα, Москва й", "ελλάδα москва й"),
    ("कुत्ता बर्फ में दौड़ रहा है।", "कुत्ता बर्फ में दौड़ रहा है"),
    ("தமிழ் நாய்", "தமிழ் நாய்"),
    ("مَرْحَبًا بالعالم،", "مَرْحَبًا بالعالم"),
    ("שָׁלוֹם עולם", "שָׁלוֹם עולם"),
    ("می\u200cخواهم", "می\u200cخواهم"),
    ("강아지가 눈 위를", "강아지가 눈 위를"),
    ("一只狗，3个人。", "一 只 狗 3 个 人"),
    ("二〇〇八年", "二 〇 〇 八 年"),
    ("犬が雪のボール", "犬 が 雪 の ボ ー ル"),
    ("東京3d", "東 京 3d"),
    ("น้ำใน ๒๕๖๓", "น้ ำ ใ น ๒๕๖๓"),
    ("ကျွန်တော် စက္ကူ", "ကျွ န် တော် စ က္ကူ"),
    ("ឆ្កែរត់", "ឆ្កែ រ ត់"),
    ("ໝາແລ່ນ", "ໝ າ ແ ລ່ ນ"),
    ("❤️ 1️⃣ 👍🏽 !!", "1"),
])  # fmt: skip
def test_words_of_every_script(text, expected):
    assert words(text) == normalize("NFC", expected).split(" ")


@pytest.mark.parametrize("text, expected", [
    ("Don't @joe_b #Chicago-style https://t.co/a, wow!!", "Don't @joe_b #Chicago-style https://t.co/a, wow ! !"),
    ("शिकागो में #कुत्ता, @नाम!", "शिकागो में #कुत्ता , @नाम !"),
    ("我在北京看Apple-Watch。", "我 在 北 京 看 Apple-Watch 。"),
    ("#东京 @李", "# 东 京 @ 李"),
    ("น้ำแข็ง!", "น้ ำ แ ข็ ง !"),
    ("مَرْحَبًا، شيكاغو؟", "مَرْحَبًا ، شيكاغو ؟"),
    ("❤️ 1️⃣ 👍🏽 👨\u200d👩\u200d👧x", "❤️ 1️⃣ 👍🏽 👨\u200d👩\u200d👧 x"),
])  # fmt: skip
def test_tokens_of_every_script(text, expected):
    assert tokens(text) == normalize("NFC", expected).split(" ")


any_text = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(deadline=None, max_examples=200)
@given(any_text)
def test_accents_may_stand_apart(text):
    for split in (words, tokens):
        assert split(normalize("NFD", text)) == split(normalize("NFC", text))


@settings(deadline=None, max_examples=200)
@given(any_text)
def test_tokens_lose_nothing_but_spaces(text):
    assert "".join(tokens(text)) == regex.sub(r"\s", "", normalize("NFC", text))


@pytest.mark.parametrize("split", [words, tokens])
def test_nothing_of_nothing(split):
    assert split("") == split(" \n") == []
