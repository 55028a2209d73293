"""What VSE and GXN share: sentences and pictures as batches, embedding in any order, scores under flat names."""

import numpy as np
import pytest
import torch

from lib.papers.vse import RandomRanking
from lib.tasks import retrieval
from lib.tasks.retrieval import RetrievalSettings

RANDOM = np.random.default_rng(0)
SMALL = RetrievalSettings(train_limit=30, image_size=64)


@pytest.fixture(scope="module")
def data():
    return retrieval.load(SMALL)


def test_a_batch_pairs_each_sentence_with_its_picture(data):
    indices = np.array([0, 7, 149])
    batch = data.train.batch(indices, RANDOM)
    assert batch["owner"].tolist() == [0, 1, 29]
    assert torch.equal(batch["image"], data.train.features[[0, 1, 29]])
    for row, index in enumerate(indices):
        sentence = data.train.captions[index]
        assert batch["words"][row][: batch["lengths"][row]].tolist() == data.vocabulary.encode(sentence)


def test_the_vocabulary_knows_training_captions_only(data):
    training = {word for caption in data.train.captions for word in caption.split()}
    assert set(data.vocabulary.words[3:]) == training
    assert any(word not in training for caption in data.test.captions for word in caption.split())


def test_training_draws_views_and_embedding_averages_them():
    views = retrieval.load(RetrievalSettings(train_limit=30, image_size=64, views=("full", "full-flip")))
    random = np.random.default_rng(0)
    drawn = torch.stack([views.train.batch(np.array([15]), random)["image"][0] for _ in range(20)])
    full, flip = (views.train.features.gather([3], view)[0] for view in (0, 1))
    assert {tuple(row[:9].tolist()) for row in drawn} == {tuple(full[:9].tolist()), tuple(flip[:9].tolist())}

    class Identity(RandomRanking):
        def encode_images(self, q):
            return torch.nn.functional.normalize(q, dim=-1)

    images, _ = retrieval.embed(Identity(1280), views.dev)
    both = sum(torch.nn.functional.normalize(views.dev.features.gather([5], view), dim=-1) for view in (0, 1))
    assert torch.allclose(images[5], torch.nn.functional.normalize(both, dim=-1)[0], atol=1e-6)


def test_embedding_returns_sentences_in_their_order(data):
    class Lengths(RandomRanking):
        def encode_sentences(self, words, lengths):
            return torch.stack([lengths.float(), words[:, 0].float()], dim=1)

    _, sentences = retrieval.embed(Lengths(2), data.dev, batch=16)
    assert sentences[:, 0].tolist() == data.dev.lengths.tolist()
    assert sentences[:, 1].tolist() == [data.vocabulary.encode(caption)[0] for caption in data.dev.captions]


def test_sentence_vectors_stand_in_for_words():
    vectors = retrieval.load(RetrievalSettings(train_limit=30, image_size=64, text_encoder="minilm"))
    batch = vectors.train.batch(np.array([4, 9]), RANDOM)
    assert batch["words"].shape == (2, 384)
    same = retrieval.SentenceEncoder("minilm").encode([vectors.train.captions[9]])[0]
    assert torch.nn.functional.cosine_similarity(batch["words"][1], same, 0) > 0.999


def test_scores_have_flat_names(data):
    torch.manual_seed(0)
    scores = retrieval.score(retrieval.predict(RandomRanking(64), data.test))
    assert {"i2t R@1", "t2i R@10", "i2t median", "t2i mean", "rsum"} <= set(scores)
    assert scores["t2i R@10"] == pytest.approx(100 * 10 / 500, abs=1.0)  # chance


def test_published_word_vectors_start_the_words_they_know(tmp_path, data):
    from lib.corpora import DataError
    from lib.papers import vse

    (tmp_path / "glove.txt").write_text("red 1 2 3\nblue 4 5 6\n")
    context = {"words": list(data.vocabulary.words), "picture_dim": 1280, "sentence_dim": len(data.vocabulary)}
    settings = vse.Settings(sentence="lstm", word_dim=3, joint_dim=4, word_vectors=str(tmp_path / "glove.txt"))
    model = vse.build(context, settings)
    before = model.sentence.embed.weight.detach().clone()
    vse.initialise(model, context, settings)
    after, red = model.sentence.embed.weight, data.vocabulary.index["red"]
    assert after[red].tolist() == [1, 2, 3]
    assert (after != before).any(1).sum() == 2
    wide = vse.Settings(sentence="lstm", word_dim=5, joint_dim=4, word_vectors=str(tmp_path / "glove.txt"))
    with pytest.raises(DataError, match="found vectors of 3 numbers, expected 5"):
        vse.initialise(vse.build(context, wide), context, wide)
