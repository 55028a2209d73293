"""CMKP: cross-media keyphrase prediction (Wang, Li, Lyu and King, EMNLP 2020, arXiv 2011.01565).

A post is a text x with the picture's drawn words after it, the picture's regions, and attributes, words for what it
shows. Each modality is a memory bank, asks the others with one query, and what they answer is c_fuse:

    M_text = BiGRU(E(x)),  M_vis = W_v V,  M_attr = W_a E(attributes)                              section 3.1
    M3H(q, M) = the block below, L times: multi-head attention, a small network, each with add & norm    section 3.2
    c_fuse = W_f sum over (q, M) of M3H(pool(M_q), M):  text asks vision and attributes, and each of them asks text
    P_cls = softmax(MLP(c_fuse))                       over the keyphrases of training             section 3.3
    s_t = GRU(u_t, s_t-1),  c_t = sum_i alpha_t,i M_text,i                 u_t: the embedded word before
    P_gen = softmax(W_o W_h [u_t ; s_t ; c_t + c_fuse]),  lambda_t = sigmoid(w [u_t ; s_t ; c_t + c_fuse])
    P_unf(y) = lambda P_gen(y) + (1 - lambda) (a sum_{i: x_i = y} alpha_i + b sum_{j: w_j = y} beta_j)   section 3.4
    L = -sum_n [log P_cls(y^n) + gamma sum_t log P_unf(y_t^n)]

with w the words of the K likeliest phrases of the classifier. Stage 1 trains both parts with a = 1, b = 0; stage 2
has a = b = 1/2, the classifier fixed, and the second sum of L alone.
"""

from functools import partial
from math import sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.layers import beam
from lib.layers.pointer import (
    NEVER,
    AdditiveAttention,
    ExtendedOutput,
    candidates,
    log_distribution,
    log_likelihood,
    origins,
)

PAD, UNKNOWN, END, START, SEP = range(5)  # ids of words
ROOM = 15  # words of its own that a source may add to the vocabulary
CERTAIN = 1e4  # the logit of lambda = 1, where nothing is copied
BRANCHES = ("text-vision", "text-attributes", "attributes-text", "vision-text")  # who asks whom

Bank = tuple[Tensor, Tensor]  # a memory (B, R, d) and which of its rows are no padding (B, R)


class Memory(NamedTuple):
    """What was read of B posts. `scores` are the classifier's logits; `beta`, logarithms, and `words` what it hands to
    the generator; `looks` the heads' attention of each branch's last block. None is what a model has not."""

    text: Tensor  # (B, S, d)
    mask: Tensor  # (B, S)
    copy: Tensor  # (B, S), ids in the vocabulary extended by the source
    start: Tensor  # (B, d), s_0
    c_fuse: Tensor | None  # (B, d)
    scores: Tensor | None  # (B, C)
    beta: Tensor | None  # (B, J)
    words: Tensor | None  # (B, J)
    looks: dict[str, Tensor]  # (B, h, R)


class CMKP(nn.Module):
    """The model. `vocabulary` is how many words it knows, `phrases` (C, L) the words of each keyphrase of training,
    padded with 0, `picture_dim` a region's width, `settings` a `lib.papers.cmkp.Settings`.

    A post: `source` (B, S) word ids, `copy` (B, S) ids in the extended vocabulary; where there are pictures `image` (B,
    R, Q) and `present` (B,), and which of its rows are `objects` (B, R), if not all; where there are attributes
    `attributes` (B, A) word ids. A training batch of pairs: posts, `phrase` (B,) the keyphrase's class, -1 for none,
    `inputs` (B, T) its words after START, and of the N places that are no padding, `rows` (N,) among B x T, the
    `target` (N,), an extended id.
    """

    def __init__(self, vocabulary: int, phrases: Tensor, picture_dim: int, settings):
        super().__init__()
        self.settings, s, d = settings, settings, settings.dim
        self.size = vocabulary
        self.register_buffer("phrases", phrases, persistent=False)
        self.W_e = nn.Embedding(vocabulary, s.word_dim, padding_idx=PAD)
        nn.init.normal_(self.W_e.weight[1:], std=0.1)
        self.drop = nn.Dropout(s.dropout)
        if s.fusion != "image":
            self.RNN = TextEncoder(s.word_dim, d, s.text_layers, s.dropout)
        if s.image:
            self.W_v, self.missing = nn.Linear(picture_dim, d), nn.Parameter(0.02 * torch.randn(d))
        if s.attributes != "none":
            self.W_a = nn.Linear(s.word_dim, d)
        if s.fusion != "none":
            self.fuse = FUSIONS[s.fusion](s)
        if s.classifier:
            self.MLP = self.classifier(d, len(phrases))
        if s.generator:
            self.add_decoder()
        if s.stage == 2:
            self.freeze()

    def classifier(self, d: int, classes: int) -> nn.Module:
        if self.settings.classifier_layers == 1:
            return nn.Linear(d, classes)
        return nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Dropout(self.settings.dropout), nn.Linear(d, classes))

    def add_decoder(self) -> None:
        s, d, word = self.settings, self.settings.dim, self.settings.word_dim
        self.GRU = nn.GRU(word, d, batch_first=True)
        self.attend = AdditiveAttention(d, d, d)
        if s.merge_context:
            self.W_c = nn.Linear(2 * d, d)
        if s.copy:
            self.w = nn.Linear(word + 2 * d, 1)
        self.W_h = nn.Linear((word if s.word_in_output else 0) + 2 * d, d)
        self.W_o = nn.Linear(d, self.size)

    def freeze(self) -> None:
        """What stage 2 leaves as it is: the classifier, or with it all that reads the post."""
        decoder = ("GRU", "attend", "W_c", "w", "W_h", "W_o")
        for name, parameter in self.named_parameters():
            root = name.split(".")[0]
            fixed = root == "MLP" if self.settings.frozen == "classifier" else root not in decoder
            parameter.requires_grad_(not fixed)

    # ---- training ----

    def forward(self, phrase: Tensor, inputs: Tensor, target: Tensor, rows: Tensor, **post) -> dict[str, Tensor]:
        """The losses of a batch of pairs, per pair (or their sum), weighted."""
        s, losses, memory = self.settings, {}, self.read(**post)
        count = 1 if s.reduction == "sum" else len(phrase)
        if s.classifier and s.stage == 1:
            nll = F.cross_entropy(memory.scores, phrase, ignore_index=-1, reduction="sum")
            losses["classifier"] = nll / count
        if s.generator:
            losses["generator"] = -s.gamma * self.log_likelihood(memory, inputs, target, rows).sum() / count
        return losses

    def log_likelihood(self, memory: Tensor, inputs: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        """log P_unf of each target (N,), all words before it given."""
        hidden, *ways = self.given(memory, inputs, rows)
        return log_likelihood(self.W_o(hidden), *ways, self.makable(target))

    def given(self, memory: Memory, inputs: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """`ways` at `rows` of B x T, where the words before are `inputs` (B, T)."""
        u = self.drop(self.W_e(inputs))  # (B, T, e)
        states, _ = self.GRU(u, memory.start[None].to(u.dtype).contiguous())  # (B, T, d)
        found = self.attend(states, memory.text, self.attend.keys(memory.text), memory.mask)
        chosen = (x.flatten(0, 1).index_select(0, rows) for x in (u, states, *found))  # (N, ...)
        return self.ways(*chosen, memory, rows // inputs.shape[1])

    def makable(self, target: Tensor) -> Tensor:
        """Words beyond the vocabulary can only be copied."""
        return target if self.settings.copy else target.masked_fill(target >= self.size, UNKNOWN)

    # ---- reading ----

    def read(self, source: Tensor, copy: Tensor, image=None, present=None, objects=None, attributes=None) -> Memory:
        """The memory banks, what they have to say to each other, and the classifier's opinion."""
        s, mask, banks, text, start = self.settings, source != PAD, {}, None, None
        if s.fusion != "image":
            text, start = self.RNN(self.drop(self.W_e(source)), mask)  # (B, S, d), (B, d)
            banks["text"] = text, mask
        if s.image:
            V = torch.where(present[:, None, None], self.W_v(image), self.missing)  # (B, R, d)
            banks["vision"] = V, torch.ones_like(V[..., 0], dtype=torch.bool) if objects is None else objects
        if s.attributes != "none":
            banks["attributes"] = self.W_a(self.W_e(attributes)), attributes != PAD
        c_fuse, looks = self.fuse(banks) if s.fusion != "none" else (None, {})  # (B, d)
        scores = self.MLP(self.drop(c_fuse)).float() if s.classifier else None  # (B, C)
        beta, words = self.class_words(scores) if s.b else (None, None)
        return Memory(text, mask, copy, start, c_fuse, scores, beta, words, looks)

    def class_words(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """beta, as logarithms (B, J), of the words (B, J) of the K likeliest phrases: a softmax of their phrases'
        logits. A word that occurs in several has a share of each, or as one of "distinct" words that of the likeliest.
        The classifier does not learn from it."""
        best, which = scores.detach().topk(min(self.settings.top_k, len(self.phrases)))  # (B, K)
        words = self.phrases[which]  # (B, K, L)
        logits, words = best[:, :, None].expand(words.shape).flatten(1), words.flatten(1)  # (B, J)
        out = words == PAD
        if self.settings.beta == "distinct":
            out = out | (words[:, :, None] == words[:, None]).tril(-1).any(2)  # it came before
        return logits.masked_fill(out, NEVER).log_softmax(1).masked_fill(out, NEVER), words

    # ---- writing ----

    def ways(
        self, u: Tensor, s_t: Tensor, c_t: Tensor, alpha: Tensor, memory: Memory, of: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What makes the next word in N places, each `of` (N,) one of the posts: what W_o makes P_gen of (N, d), the
        logit of lambda (N,), and the candidates, their log-weights and ids (N, S + J)."""
        s = self.settings
        if s.merge_context:
            c_t = self.W_c(torch.cat([c_t, s_t], -1))
        if memory.c_fuse is not None:
            c_t = c_t + memory.c_fuse[of]
        x = torch.cat([s_t, c_t, u], -1)  # (N, 2 d + e)
        hidden = self.drop(self.W_h(x if s.word_in_output else x[:, : 2 * s.dim]))
        switch = self.w(x)[:, 0] if s.copy else torch.full_like(x[:, 0], CERTAIN)
        places = [(s.a, alpha, memory.copy[of])]
        if s.b:
            places.append((s.b, memory.beta[of], memory.words[of]))
        return hidden, switch, *candidates(*places)

    @torch.no_grad()
    def generate(self, memory: Memory, beams: int, n_best: int, longest: int) -> beam.Hypotheses:
        """The n best phrases of each post, of at most `longest` words, END included; `kept["looks"]` [B, n, longest]
        has at its end where in the source each of a phrase's words looked most."""
        keys, output = self.attend.keys(memory.text), ExtendedOutput(self.W_o, ROOM)
        of = torch.arange(len(keys) * beams, device=keys.device) // beams  # (N,)

        def step(tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            u = self.W_e(tokens.masked_fill(tokens >= self.size, UNKNOWN))  # (N, e)
            s_t = self.GRU(u[:, None], state["hidden"][None].contiguous())[1][0]  # (N, d)
            found = self.attend(s_t.unflatten(0, (-1, beams)), memory.text, keys, memory.mask)
            c_t, alpha = (x.flatten(0, 1) for x in found)  # (N, d), (N, S)
            hidden, *ways = self.ways(u, s_t, c_t, alpha, memory, of)
            looks = torch.cat([state["looks"][:, 1:], alpha.argmax(1, keepdim=True)], 1)  # (N, longest)
            return log_distribution(output(hidden), *ways), {"hidden": s_t, "looks": looks}

        looks = torch.zeros(len(keys), longest, dtype=torch.long, device=keys.device)
        sizes = dict(beams=beams, n_best=n_best, longest=longest, length_power=1.0)
        state = {"hidden": memory.start, "looks": looks}
        return beam.search(step, state, start=START, end=END, keep=("looks",), **sizes)

    @torch.no_grad()
    def trace(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How each word of a phrase (B, T) came about: which share was generated, and which copied from each candidate
        (B, T, 1 + S + J), which sums to one; lambda (B, T); and log P_unf (B, T)."""
        inputs = F.pad(tokens.masked_fill(tokens >= self.size, UNKNOWN), (1, -1), value=START)  # (B, T)
        rows = torch.arange(tokens.numel(), device=tokens.device)
        hidden, switch, *places = self.given(memory, inputs, rows)
        asked = self.W_o(hidden), switch, *places, self.makable(tokens.flatten())
        found = origins(*asked), switch.sigmoid(), log_likelihood(*asked)
        return tuple(x.unflatten(0, tokens.shape) for x in found)


class TextEncoder(nn.Module):
    """A GRU in each direction, layer on layer: forward(x [B, S, e], mask [B, S]) -> M [B, S, d], s_0 [B, d], which is
    the last states of the last layer, the backward one's first.

    Right to left begins with the last word, not with the padding: a turn of each row, where packing waits for a GPU.
    """

    def __init__(self, inside: int, d: int, layers: int, dropout: float):
        super().__init__()
        gru = partial(nn.GRU, hidden_size=d // 2, batch_first=True)
        widths = [inside] + [d] * (layers - 1)
        self.forwards = nn.ModuleList(gru(width) for width in widths)
        self.backwards = nn.ModuleList(gru(width) for width in widths)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(x.shape[1], device=x.device)  # (S,)
        last = mask.sum(1, keepdim=True) - 1  # (B, 1)
        turned = torch.where(mask, last - places, places)  # (B, S)
        for i, (right, left) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            x = self.drop(x) if i else x
            x = torch.cat([right(x)[0], _rows(left(_rows(x, turned))[0], turned)], -1)  # (B, S, d)
        ahead, back = _rows(x, last)[:, 0], x[:, 0]  # (B, d)
        half = x.shape[-1] // 2
        return x, torch.cat([back[:, half:], ahead[:, :half]], -1)


class Block(nn.Module):
    """One query asks a memory: multi-head attention and a small network, each added and normalised (Vaswani et al.
    2017, section 3). forward(q [B, d], memory [B, R, d], mask [B, R]) -> [B, d] and the heads' weights [B, h, R].

    Because there is one query only, W_k and W_v need not map the memory: q W_q W_k^T meets it as it is, and W_v maps
    what was gathered. The result is the same, for an R-th of the work.
    """

    def __init__(self, d: int, heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.W_q, self.W_v = nn.Linear(d, heads * head_dim), nn.Linear(d, heads * head_dim)
        self.W_k = nn.Linear(d, heads * head_dim, bias=False)  # a bias would change no softmax
        self.W_o = nn.Linear(heads * head_dim, d)
        self.network = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        self.norm_attended, self.norm_out = nn.LayerNorm(d), nn.LayerNorm(d)
        self.drop = nn.Dropout(dropout)

    def forward(self, q: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        W_k, W_v = (W.weight.unflatten(0, (self.heads, -1)) for W in (self.W_k, self.W_v))  # (h, k, d)
        Q = self.W_q(q).unflatten(-1, (self.heads, -1))  # (B, h, k)
        asking = torch.einsum("bhk,hkd->bhd", Q, W_k) / sqrt(Q.shape[-1])
        scores = (asking @ memory.transpose(1, 2)).float()  # (B, h, R)
        weights = scores.masked_fill(~mask[:, None], NEVER).softmax(-1)
        gathered = self.drop(weights).to(memory.dtype) @ memory  # (B, h, d)
        values = torch.einsum("bhd,hkd->bhk", gathered, W_v).flatten(1) + self.W_v.bias  # (B, h k)
        x = self.norm_attended(q + self.drop(self.W_o(values)))
        return self.norm_out(x + self.drop(self.network(x))), weights


# ---- ways to c_fuse: forward({name: bank}) -> c_fuse (B, d) and {branch: weights (B, h, R)} ----


class M3H(nn.Module):
    """The multi-modality multi-head attention: of each branch, such as "text-vision", the first asks the second."""

    def __init__(self, s):
        super().__init__()
        sizes = (s.dim, s.heads, s.head_dim, s.dropout)
        self.blocks = nn.ModuleDict({
            branch: nn.ModuleList(Block(*sizes) for _ in range(s.blocks)) for branch in s.heard
        })  # fmt: skip
        self.W_f = nn.Linear(s.dim, s.dim) if s.fuse_linear else nn.Identity()
        self.pool = s.pool

    def forward(self, banks: dict[str, Bank]) -> tuple[Tensor, dict[str, Tensor]]:
        answers, looks = [], {}
        for branch, blocks in self.blocks.items():
            asking, asked = branch.split("-")
            q = pooled(*banks[asking], self.pool)  # (B, d)
            for block in blocks:
                q, looks[branch] = block(q, *banks[asked])
            answers.append(q)
        return self.W_f(sum(answers)), looks


class Pooled(nn.Module):
    """One modality alone: CLS-AVG and CLS-MAX."""

    def __init__(self, s, bank: str):
        super().__init__()
        self.bank, self.pool = bank, s.pool

    def forward(self, banks: dict[str, Bank]) -> tuple[Tensor, dict[str, Tensor]]:
        return pooled(*banks[self.bank], self.pool), {}


class ImageAttention(nn.Module):
    """CLS-IMG-ATT: the text asks the picture by additive attention. With `back` (CLS-CO-ATT, co-attention) what was
    found asks the text again."""

    def __init__(self, s, back: bool = False):
        super().__init__()
        self.pool, self.W_f = s.pool, nn.Linear(2 * s.dim, s.dim)
        self.to_vision = AdditiveAttention(s.dim, s.dim, s.dim)
        self.to_text = AdditiveAttention(s.dim, s.dim, s.dim) if back else None

    def forward(self, banks: dict[str, Bank]) -> tuple[Tensor, dict[str, Tensor]]:
        text = pooled(*banks["text"], self.pool)
        vision, look = ask(self.to_vision, text, banks["vision"])
        if self.to_text:
            text, _ = ask(self.to_text, vision, banks["text"])
        return self.W_f(torch.cat([text, vision], -1)), {"text-vision": look}


FUSIONS = {
    "m3h": M3H,
    "text": partial(Pooled, bank="text"),
    "image": partial(Pooled, bank="vision"),
    "image-attention": ImageAttention,
    "co-attention": partial(ImageAttention, back=True),
}


def pooled(memory: Tensor, mask: Tensor, how: str) -> Tensor:
    """The "mean" or "max" of the rows of a bank: (B, R, d), (B, R) -> (B, d)."""
    if how == "mean":
        return (memory * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return memory.masked_fill(~mask[..., None], -torch.inf).amax(1)


def ask(attention: AdditiveAttention, query: Tensor, bank: Bank) -> tuple[Tensor, Tensor]:
    """One query (B, d) to a bank: the answer (B, d) and the weights (B, 1, R)."""
    found, weights = attention(query[:, None], bank[0], attention.keys(bank[0]), bank[1])
    return found[:, 0], weights.exp()


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """The rows of x (B, S, d) at places (B, P) -> (B, P, d)."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


class AttributePredictor(nn.Module):
    """Which of C labels, words of captions, a picture has: a linear map of its pooled feature."""

    def __init__(self, picture_dim: int, labels: int):
        super().__init__()
        self.W = nn.Linear(picture_dim, labels)

    def forward(self, image: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The cross-entropy of every label with the truth (B, C), summed over labels: (B, Q) -> scalar."""
        scores = self.W(image).float()
        return {"labels": F.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / len(labels)}


class Extractor(nn.Module):
    """EXT-ORACLE, which has nothing to learn: it names the keyphrases that the text contains."""

    def __init__(self):
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1), requires_grad=False)
