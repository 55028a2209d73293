"""VSE: unifying visual-semantic embeddings (Kiros, Salakhutdinov and Zemel 2014, arXiv 1411.2539), its encoder.

A sentence and a picture become unit vectors of one space, where a pair is close and every other pair is not:

    v = LSTM(w_1 ... w_N)         the state after the last word                     section 2.1
    x = W_I q                     one linear map of the frozen picture feature q    section 2.2
    s(x, v) = x . v               both of unit norm: the cosine                     section 2.2
    min  sum_x sum_k max(0, a - s(x, v) + s(x, v_k)) + sum_v sum_k max(0, a - s(v, x) + s(v, x_k))
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.layers.distributed import gather
from lib.layers.projection import ResidualMLP
from lib.layers.ranking import contrastive_loss, pairwise_ranking_loss
from lib.layers.sentences import BagOfWords, FrozenSentence, RecurrentEncoder


def sentence_encoder(sentence_dim: int, settings) -> nn.Module:
    """What reads a sentence: "lstm" (the paper), "gru" (the released code), "sum" of words (the regularities model),
    "mean" (DeViSE), or "frozen", a small network on top of a frozen text encoder's vector."""
    dim, kind = settings.joint_dim, settings.sentence
    if kind in ("lstm", "gru"):
        return RecurrentEncoder(kind, sentence_dim, settings.word_dim, dim, settings.dropout)
    if kind in ("sum", "mean"):
        return BagOfWords(kind, sentence_dim, dim)
    return FrozenSentence(sentence_dim, dim, settings.dropout)


class VSE(nn.Module):
    """The joint space of pictures and sentences.

    `settings` is a `lib.papers.vse.Settings`; `picture_dim` the width of the feature q; `sentence_dim` the number of
    words in the vocabulary, or the width of the frozen encoder's vectors.
    """

    def __init__(self, picture_dim: int, sentence_dim: int, settings):
        super().__init__()
        self.settings = settings
        dim = settings.joint_dim
        self.sentence = sentence_encoder(sentence_dim, settings)
        self.drop = nn.Dropout(settings.dropout)
        if settings.image_head == "mlp":
            self.W_I = ResidualMLP(picture_dim, dim, dim, settings.dropout)
        else:
            self.W_I = nn.Linear(picture_dim, dim)  # with a bias, as in the released code
            nn.init.xavier_uniform_(self.W_I.weight)
        if settings.loss == "contrastive":
            self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))

    def project(self, q: Tensor) -> Tensor:
        """x = W_I q, not yet of unit norm: (B, Q) -> (B, D)."""
        if self.settings.unit_features:
            q = normalize(q, dim=-1)
        return self.W_I(self.drop(q)).float()

    def encode_images(self, q: Tensor) -> Tensor:
        """Pictures in the joint space: (B, Q) -> (B, D), unit norm."""
        return normalize(self.project(q), dim=-1)

    def encode_sentences(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Sentences in the joint space: word indices (B, T), or frozen vectors (B, S) -> (B, D), unit norm."""
        return normalize(self.sentence(words, lengths).float(), dim=-1)

    def forward(self, image, words, lengths, owner) -> tuple[Tensor, Tensor]:
        """s(x, v) (B, B) of one batch of pairs, and what is no negative (B, B): q (B, Q), words (B, T), lengths (B,),
        owner (B,) the picture's number."""
        x = self.encode_images(image) if self.settings.normalise_images else self.project(image)  # (B, D)
        x, v, owner = gather(x), gather(self.encode_sentences(words, lengths)), gather(owner)
        same = owner[:, None] == owner[None, :]  # (B, B)
        if self.settings.same_picture_negatives:  # the released code's habit
            same = torch.eye(len(owner), dtype=torch.bool, device=owner.device)
        with torch.autocast(x.device.type, enabled=False):  # a margin needs more than bf16's three digits
            return x @ v.T, same

    def losses(self, part: str, batch: Mapping[str, Tensor], progress) -> dict[str, Tensor]:
        """The mean loss over the pairs of a batch. The hardest negative alone teaches nothing to a fresh model: all of
        them come first."""
        scores, same = self(**batch)
        s = self.settings
        if s.loss == "contrastive":
            return {"contrastive": contrastive_loss(scores, same, (-self.log_scale).exp().clamp(min=0.01))}
        warming_up = s.negatives == "hardest" and progress.epoch < s.hardest_after
        negatives, directions = "all" if warming_up else s.negatives, "images" if s.loss == "devise" else "both"
        return {s.loss: pairwise_ranking_loss(scores, same, s.margin, negatives, directions, s.reduction)}


def regularity_query(q: Tensor, minus: Tensor, plus: Tensor) -> Tensor:
    """`picture - word + word` as a unit vector: (..., D) each, all of unit norm.

    x* = argmax_x (q - w_n + w_p) . x / ||q - w_n + w_p||        section 3.2
    """
    return normalize(q - minus + plus, dim=-1)


def rerank_by_centroid(scores: Tensor, gallery: Tensor, shown: int = 4, top: int = 8) -> Tensor:
    """The `shown` of the `top` best pictures that lie nearest to their centroid: scores (Q, N) -> indices (Q, shown).

    A picture that matches only by chance lies apart from the others (section 3.2).
    """
    best = scores.topk(top, dim=1).indices  # (Q, top)
    found = gallery[best]  # (Q, top, D)
    distance = (found - found.mean(1, keepdim=True)).norm(dim=-1)  # (Q, top)
    return best.gather(1, distance.argsort(dim=1, stable=True)[:, :shown])
