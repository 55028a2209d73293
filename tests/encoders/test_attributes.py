"""Attributes: base forms of nouns and adjectives, the encoder's class names, the posts' own."""

import pytest

from lib.corpora.iconworld import captions
from lib.corpora.types import Post
from lib.encoders.attributes import ClassNames, FromFile, attributes_in, commonest, noun_or_adjective
from lib.encoders.images import ImageEncoder, pixels


@pytest.mark.parametrize("word, base", [
    ("dogs", "dog"), ("women", "woman"), ("children", "child"), ("red", "red"), ("the", None), ("running", None),
    ("two", None), ("after", None),
])  # fmt: skip
def test_base_forms_of_nouns_and_adjectives(word, base):
    assert noun_or_adjective(word) == base


def test_the_commonest_come_first_and_count_once_a_caption():
    said = ["Two dogs, a dog and a dog!", "a red car", "the red cars", "a red dog"]
    assert attributes_in(said[:2]) == {"dog", "red", "car"}
    assert commonest(said, 10) == ["red", "car", "dog"] and commonest(said, 1) == ["red"]


def test_class_names_are_those_of_the_network_and_kept(tmp_path, monkeypatch):
    pictures = [example.image for example in captions.load(train=3).train]
    posts = [Post(str(i), picture, "", ()) for i, picture in enumerate([*pictures, None])]
    source = ClassNames("lite0", 64)
    features = source.features
    monkeypatch.setattr(source, "features", lambda asked: features(asked, cache=tmp_path))
    found = source(posts)
    for post, words in zip(posts[:3], found, strict=False):
        names = ImageEncoder("lite0", size=64).class_names(pixels(post.image, size=64)[None], 5)[0]
        assert words == tuple(" ".join(names).lower().split())
    assert found[3] == ()
    monkeypatch.setattr(source, "encode", lambda pixels: pytest.fail("computed again"))
    assert source(posts) == found
    assert source.identity != ImageEncoder("lite0", size=64).identity


def test_a_file_has_its_own():
    assert FromFile()([Post("", None, "", (), "", ("sky",)), Post("", None, "", ())]) == [("sky",), ()]
