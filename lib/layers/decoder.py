"""A sentence decoder: a GRU that says what a vector stands for, word by word; and how a reward trains it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.layers.attention import CrossAttention

PAD, UNKNOWN, END = 0, 1, 2  # as in every vocabulary; END also stands before the first word
HEADS = 4


class SentenceDecoder(nn.Module):
    """RNN_Dec of Gu et al. 2018: p(w_t | w_0:t-1, v), with the word and the vector side by side at each step.

    x = relu(W_x v),   h_0 = W_0 x,   h_t = GRU([W_e w_t-1 ; x], h_t-1),   p(w_t) = softmax(W_p h_t)

    With `memory_dim` it also looks at memory [B, R, M], such as the regions of a picture: h_t asks them before W_p
    (Xu et al. 2015 ask before h_t, which allows no parallel teacher forcing). Sentences are word ids [B, T] that end
    with END and go on with PAD. Where the decoder speaks, PAD and UNKNOWN have no probability.
    """

    def __init__(
        self, vocabulary: int, source_dim: int, word_dim: int, dim: int, dropout: float, memory_dim: int | None = None
    ):
        super().__init__()
        self.W_e = nn.Embedding(vocabulary, word_dim, padding_idx=PAD)
        self.W_x, self.W_0 = nn.Linear(source_dim, dim), nn.Linear(dim, dim)
        self.rnn = nn.GRU(word_dim + dim, dim, batch_first=True)
        self.W_p = nn.Linear(dim, vocabulary)
        self.drop = nn.Dropout(dropout)
        if memory_dim is not None:
            self.W_m, self.attend = nn.Linear(memory_dim, dim), CrossAttention(dim, HEADS, dropout)
        silent = torch.zeros(vocabulary).index_fill(0, torch.tensor([PAD, UNKNOWN]), -torch.inf)
        self.register_buffer("silent", silent, persistent=False)
        nn.init.uniform_(self.W_e.weight[1:], -0.1, 0.1)

    def start(self, v: Tensor, memory: Tensor | None = None) -> dict[str, Tensor]:
        """The state before the first word, tensors with one row a sentence: v [B, D], memory [B, R, M]."""
        x = self.drop(F.relu(self.W_x(v)))  # (B, H)
        state = {"source": x, "hidden": self.W_0(x)}
        return state if memory is None else {**state, "memory": self.drop(F.relu(self.W_m(memory)))}

    def forward(self, sentences: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Logits [B, T, V] of each word of given sentences [B, T], each after the true ones (teacher forcing)."""
        return self._run(F.pad(sentences[:, :-1], (1, 0), value=END), state)[0]

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Log-probabilities [N, V] of what follows one word each [N] where the decoder speaks, and the state then."""
        logits, hidden = self._run(tokens[:, None], state)
        return self._speaking(logits[:, 0]), {**state, "hidden": hidden}

    def log_probabilities(self, sentences: Tensor, state: dict[str, Tensor]) -> Tensor:
        """log p(w_t | w_0:t-1) [B, T] of sentences that the decoder spoke, zero after their end."""
        found = self._speaking(self(sentences, state)).gather(2, sentences[..., None])[..., 0]  # (B, T)
        return found.masked_fill(sentences == PAD, 0)

    @torch.no_grad()
    def generate(self, state: dict[str, Tensor], longest: int, sample: bool = False) -> Tensor:
        """Sentences [B, T] of at most `longest` words, END counted: the likeliest word each time, or one drawn."""
        words, said = state["hidden"].new_full(state["hidden"].shape[:1], END, dtype=torch.long), []
        ended = torch.zeros_like(words, dtype=torch.bool)
        for _ in range(longest):
            scores, state = self.step(words, state)
            if sample:  # the maximum of log-probabilities with Gumbel's noise is a draw from them
                scores = scores - torch.empty_like(scores).exponential_().log()
            words = scores.argmax(-1).masked_fill(ended, PAD)
            said.append(words)
            ended = ended | (words == END)
            if ended.device.type == "cpu" and ended.all():  # another device would have to be waited for
                break
        return torch.stack(said, 1)

    def _run(self, words: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] after each word [B, T], and the last hidden state [B, H]."""
        x = state["source"][:, None].expand(-1, words.shape[1], -1)  # (B, T, H)
        inputs = torch.cat([self.drop(self.W_e(words)).to(x.dtype), x], dim=-1)
        h, last = self.rnn(inputs, state["hidden"][None].contiguous())  # (B, T, H), (1, B, H)
        if "memory" in state:
            h = self.attend(h, state["memory"])
        return self.W_p(self.drop(h)), last[0]

    def _speaking(self, logits: Tensor) -> Tensor:
        return (_at_least_single(logits) + self.silent).log_softmax(-1)


def cross_entropy_loss(logits: Tensor, sentences: Tensor) -> Tensor:
    """L_xe = -sum_t log p(w_t | w_0:t-1, v) over a batch, divided by its words: [B, T, V], [B, T] -> scalar."""
    total = F.cross_entropy(
        _at_least_single(logits).flatten(0, 1), sentences.flatten(), ignore_index=PAD, reduction="sum"
    )
    return total / (sentences != PAD).sum().clamp(min=1)


def reinforce_loss(log_probabilities: Tensor, sentences: Tensor, advantage: Tensor) -> Tensor:
    """A loss whose gradient is that of L_rl by one sample each, -(r(c) - r_b) grad log p(c), divided by the words.

    log_probabilities [B, T] of the words of sampled sentences [B, T]; advantage r - r_b [B] -> scalar.
    """
    total = -(advantage.detach()[:, None] * log_probabilities * (sentences != PAD)).sum()
    return total / (sentences != PAD).sum().clamp(min=1)


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """A context in which nothing is dropped; unlike in `eval`, cuDNN's recurrent networks can go backward."""
    dropping = [m for m in module.modules() if m.training and isinstance(m, (nn.Dropout, nn.MultiheadAttention))]
    for part in dropping:
        part.training = False
    try:
        yield
    finally:
        for part in dropping:
            part.training = True


def _at_least_single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
