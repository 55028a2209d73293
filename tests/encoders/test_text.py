"""Text encoders: the packaged MiniLM, and any other BERT-like model from a folder."""

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from lib.corpora import DataError
from lib.encoders.text import SentenceEncoder, pretrained

SENTENCES = ["a dog runs on the beach", "a puppy plays in the sand", "the stock market fell on tuesday"]


def save_tiny_bert(folder, seed: int):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=8, **sizes)).save_pretrained(folder)
    folder.joinpath("vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs"])
    )
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def test_minilm_knows_what_sentences_mean():
    dog, puppy, market = torch.nn.functional.normalize(SentenceEncoder("minilm").encode(SENTENCES), dim=1)
    assert dog @ puppy > 0.4 > dog @ market


def test_padding_does_not_reach_a_sentence():
    encoder = SentenceEncoder("minilm")
    together, alone = encoder.encode(SENTENCES), torch.cat([encoder.encode([s]) for s in SENTENCES])
    assert torch.allclose(together, alone, atol=2e-2)  # of numbers around 0.3, rounded as bf16


def test_features_are_kept_and_in_order(tmp_path, monkeypatch):
    encoder = SentenceEncoder("minilm")
    first = encoder.features(SENTENCES, tmp_path)
    monkeypatch.setattr(encoder, "encode", lambda sentences: pytest.fail("encoded again"))
    again = encoder.features(SENTENCES[::-1], tmp_path)
    assert torch.equal(again[[0, 1, 2]], first[[2, 1, 0]])


def test_any_bert_serves_and_other_weights_are_another_encoder(tmp_path):
    one, two = (SentenceEncoder(save_tiny_bert(tmp_path / f"{seed}/bert", seed)) for seed in (1, 2))
    assert one.width == one.encode(["a dog"]).shape[1] == 16
    assert one.features(["a dog"], tmp_path / "cache")[[0]].shape == (1, 16)
    assert one.identity != two.identity and one.identity.startswith("bert-mean-64-")


def test_an_encoder_that_does_not_load_is_named(tmp_path):
    with pytest.raises(DataError, match="text encoder .*nowhere.* did not load"):
        pretrained(str(tmp_path / "nowhere"))
