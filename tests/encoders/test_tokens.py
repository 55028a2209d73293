"""Tokens as pieces: each in exactly one window, labels on first pieces, long posts cut behind sentences."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, ElectraConfig, ElectraModel

from lib.corpora import DataError
from lib.encoders.text import load_tokenizer, pretrained
from lib.encoders.tokens import CHARACTERS, TokenReader, characters_of, cuts, token_encoder
from tests.encoders.test_text import save_tiny_bert

POSTS = [["RT", "@user", ":", "Supercalifragilistic", "Jordan", "!"], ["我", "在", "巴黎", "。"], ["\u200d"]]


def plain_cuts(lengths, ends, longest):
    """Token by token: when one does not fit any more, go back to behind the last sentence."""
    ranges, start, i = [], 0, 0
    while i < len(lengths):
        if sum(lengths[start : i + 1]) <= longest:
            i += 1
            continue
        sentences = [j + 1 for j in range(start, i) if ends[j]]
        i = sentences[-1] if sentences else i
        ranges.append((start, i))
        start = i
    return [*ranges, (start, i)] if start < i else ranges


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=30), st.integers(5, 12))
def test_cuts_keep_every_token_and_prefer_sentence_ends(tokens, longest):
    lengths, ends = [length for length, _ in tokens], [end for _, end in tokens]
    assert cuts(lengths, ends, longest) == plain_cuts(lengths, ends, longest)


@pytest.mark.parametrize("longest", [8, 16, 64])
def test_every_token_stands_in_one_window_with_its_first_piece(longest):
    reader, posts = TokenReader("minilm", longest), [["Paris", "is", "nice", "."] * 9, *POSTS]
    found = {i: [] for i in range(len(posts))}
    for window in reader.windows(posts):
        assert len(window.pieces) <= longest and len(window.first_pieces) == window.stop - window.start
        found[window.post] += range(window.start, window.stop)
        for token, first in zip(posts[window.post][window.start : window.stop], window.first_pieces, strict=True):
            alone = reader.tokenizer.tokenize(token) or ["[UNK]"]
            assert reader.tokenizer.convert_ids_to_tokens(window.pieces[first]) == alone[0]
    assert [found[i] for i in found] == [list(range(len(post))) for post in posts]


def test_pieces_are_those_of_the_whole_sentence():
    tokenizer = load_tokenizer("minilm")
    (window,) = TokenReader("minilm").windows(POSTS[:1])
    assert list(window.pieces) == tokenizer(POSTS[0], is_split_into_words=True)["input_ids"]


def test_a_batch_masks_padding_of_pieces_and_of_tokens():
    reader = TokenReader("minilm")
    windows = reader.windows(POSTS)
    batch, wide = reader.batch(windows), reader.batch(windows, 32)
    assert batch["mask"].sum(1).tolist() == [len(window.pieces) for window in windows]
    assert batch["token_mask"].sum(1).tolist() == [6, 4, 1]
    assert wide["pieces"].shape == wide["mask"].shape == (3, 32)
    assert torch.equal(wide["pieces"][:, : batch["pieces"].shape[1]], batch["pieces"])
    assert not wide["mask"][:, batch["pieces"].shape[1] :].any()


def test_characters_serve_any_script_without_an_encoder():
    characters = characters_of(POSTS * 2)
    reader = TokenReader(CHARACTERS, 32, characters)
    windows = reader.windows([["巴黎", "在", "火星"]])
    spelled = [characters[i] for i in windows[0].pieces]
    assert spelled == ["<begin>", "巴", "黎", "在", "<unk>", "<unk>", "<end>"]
    assert windows[0].first_pieces == (1, 3, 4)
    states = token_encoder(CHARACTERS, characters)(input_ids=torch.tensor([windows[0].pieces])).last_hidden_state
    assert states.shape == (1, 7, 192)


def test_rare_characters_are_not_learned():
    assert characters_of([["aab"], ["b", "c"]])[4:] == ("a", "b")


def test_an_encoder_can_be_its_first_layers():
    whole, part = token_encoder("minilm"), token_encoder("minilm", layers=2)
    assert len(part.encoder.layer) == 2 and len(whole.encoder.layer) == 6
    part.load_state_dict({k: v for k, v in pretrained("minilm")[1].state_dict().items() if k in part.state_dict()})
    with pytest.raises(ValueError, match="text_layers is 7, expected 1 to 6, those of 'minilm'"):
        token_encoder("minilm", layers=7)


SMALL = {"vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize("config, kind", [
    (BertConfig(**SMALL, intermediate_size=32, dtype="float16"), BertModel),
    (ElectraConfig(**SMALL, intermediate_size=32, embedding_size=16), ElectraModel),
    (DistilBertConfig(vocab_size=8, dim=16, n_layers=1, n_heads=2, hidden_dim=32), DistilBertModel),
])  # fmt: skip
def test_berts_kin_serve_too(config, kind, tmp_path):
    folder = save_tiny_bert(tmp_path, 0)
    kind(config).save_pretrained(folder)
    reader, encoder = TokenReader(folder, 16), token_encoder(folder)
    encoder.load_state_dict({k: v for k, v in pretrained(folder)[1].state_dict().items() if k in encoder.state_dict()})
    batch = reader.batch(reader.windows([["a", "dog"], ["runs"]]))
    states = encoder(input_ids=batch["pieces"], attention_mask=batch["mask"]).last_hidden_state
    assert states.shape == (2, 8, 16) and states.dtype == torch.float32 and encoder.config.hidden_size == 16


def test_a_window_without_room_is_refused():
    with pytest.raises(ValueError, match="longest is 2, expected 3, a piece between the two special ones, to 512"):
        TokenReader(CHARACTERS, 2)
    with pytest.raises(ValueError, match="longest is 600, expected 3, .*, to 512"):
        TokenReader("minilm", 600)


def test_a_token_that_looks_special_is_text():
    (window,) = TokenReader("minilm").windows([["[SEP]", "[PAD]"]])
    assert len(window.pieces) > 4 and set(window.pieces[1:-1]).isdisjoint({window.pieces[0], window.pieces[-1], 0})


def test_an_unknown_encoder_is_named(tmp_path):
    with pytest.raises(DataError, match="text encoder .*nowhere"):
        TokenReader(str(tmp_path / "nowhere"))


def test_an_encoder_whose_tokenizer_names_no_maximal_length_has_its_positions(tmp_path):
    folder = save_tiny_bert(tmp_path, 1)
    load_tokenizer.cache_clear()
    assert load_tokenizer(folder).model_max_length > 1e9
    TokenReader(folder, 512)
    with pytest.raises(ValueError, match="longest is 513, expected 3, a piece between the two special ones, to 512"):
        TokenReader(folder, 513)
