"""Sentence encoders: word indices in, one vector a sentence out. The words are padded at the end with index 0."""

import torch
from torch import nn

from lib.layers.projection import ResidualMLP


class RecurrentEncoder(nn.Module):
    """Word vectors -> LSTM or GRU -> the state after the last word (Kiros et al. 2014, section 2.1).

    forward(words [B, T], lengths [B]) -> [B, dim].
    """

    def __init__(self, cell: str, vocabulary: int, word_dim: int, dim: int, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, word_dim, padding_idx=0)
        self.drop = nn.Dropout(dropout)
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](word_dim, dim, batch_first=True)
        nn.init.uniform_(self.embed.weight[1:], -0.1, 0.1)
        for name, weight in self.rnn.named_parameters():
            if "weight_hh" in name:
                for gate in weight.data.chunk(weight.shape[0] // dim):
                    nn.init.orthogonal_(gate)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        # What follows the last word cannot reach its state, so the padding needs no packing.
        states, _ = self.rnn(self.drop(self.embed(words)))  # (B, T, D)
        return states[torch.arange(len(words), device=words.device), lengths - 1]  # (B, D)


class BagOfWords(nn.Module):
    """The sum of the word vectors (Kiros et al., section 3.2: regularities), or their mean (DeViSE as they ran it).

    forward(words [B, T], lengths [B]) -> [B, dim].
    """

    def __init__(self, mode: str, vocabulary: int, dim: int):
        super().__init__()
        self.embed = nn.EmbeddingBag(vocabulary, dim, mode=mode, padding_idx=0)
        nn.init.uniform_(self.embed.weight[1:], -0.1, 0.1)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.embed(words)


class FrozenSentence(nn.Module):
    """A frozen text encoder's vector of the whole sentence, moved into the joint space.

    forward(vectors [B, width], lengths [B]) -> [B, dim].
    """

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.head = ResidualMLP(width, dim, dim, dropout)

    def forward(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(vectors)
