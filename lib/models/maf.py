"""MAF: a general matching and alignment framework for multimodal named entity recognition (Xu et al., WSDM 2022).

A post's text T and its picture's 49 regions become one representation of each token, which a CRF tags:

    H = BERT(T)                                   (n + 2) x d, with [CLS] and [SEP]
    V = attention(query H, keys and values U)     what each token sees; U: the regions, projected        interaction
    L_c = l_c L(text -> image) + (1 - l_c) L(image -> text)    on T_c = MLP(T_s), V_c = MLP(mean region)          CA
    p = P(text and image belong together | flattened [H ; V]),  V' = p V                                          CM
    g = sigmoid(W_t H + W_v V')                   how much of the picture each token takes                      gate
    H~ = [H ; g * V'],  y = CRF(H~)
    L = L_ner + alpha L_cm + beta L_ca

Labels live on the first piece of each token: other pieces are read, never tagged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.encoders.text import last_states
from lib.layers.attention import CrossAttention
from lib.layers.crf import LinearChainCRF
from lib.layers.distributed import gather
from lib.layers.ranking import contrastive_loss


class MAF(nn.Module):
    """The tagger. `text` is a BERT-like encoder, `picture_dim` a region's width, `labels` how many tags there are,
    `settings` a `lib.papers.maf.Settings`.

    A batch: `pieces` (B, T) with the `mask` of the real ones, the tokens' `first_pieces` (B, W) with the `token_mask`,
    `image` (B, R, P) the regions, `present` (B,) which posts have a picture, `tags` (B, W); for training also `picture`
    (B,), which one that is (the parts of a long post have the same, and posts may share one), and for CM `swapped` and
    `givers` (2k,): posts, and those whose picture they get.
    Raises ValueError for a number of heads that the encoder's width cannot be shared among.
    """

    def __init__(self, text: nn.Module, picture_dim: int, labels: int, settings):
        super().__init__()
        d = text.config.hidden_size
        self.settings, self.text, self.drop = settings, text, nn.Dropout(settings.dropout)
        if settings.image:
            if d % settings.heads:
                raise ValueError(f"heads is {settings.heads}, expected a divisor of {d}, the text encoder's width")
            self.W_u = nn.Linear(picture_dim, d)
            self.missing = nn.Parameter(0.02 * torch.randn(d))  # stands for each region of a picture that is not there
            self.interaction = CrossAttention(d, settings.heads, settings.dropout)
        if settings.alignment:
            self.text_head, self.image_head = projection_head(d), projection_head(d)
        if settings.matching:
            self.W_m = nn.Linear(settings.longest * 2 * d, 2)
            # Alike for all pieces at first, or V is pulled another way at each of them and nothing is learned.
            self.W_m.weight.data = (0.1 * torch.randn(2, 2 * d) / (2 * d) ** 0.5).repeat(1, settings.longest)
        if settings.gate:
            self.W_t, self.W_v = nn.Linear(d, d), nn.Linear(d, d)
        self.W_y = nn.Linear(2 * d if settings.image else d, labels)
        self.crf = LinearChainCRF(labels) if settings.tagger == "crf" else None

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """The pretrained encoder learns at `learning_rate`, what starts from nothing at `head_rate`; CM's classifier at
        `matching_rate`, because it adds up tens of thousands of numbers, and Adam moves the weight of each."""
        rates = {"text": learning_rate, "W_m": self.settings.matching_rate}
        groups = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(rates.get(name.split(".")[0], self.settings.head_rate), []).append(parameter)
        return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]

    def forward(self, tags: Tensor, **batch) -> dict[str, Tensor]:
        """The weighted losses of one batch."""
        s, losses = self.settings, {}
        H, U, V = self.encode(**batch)
        seen = V  # what the tagger sees
        if s.matching:
            V_all = self.swap(H, U, V, **batch)
            losses["matching"] = s.alpha * self.matching_loss(H, V_all, **batch)
            seen = V_all if s.tag_swapped else V
        if s.alignment:
            losses["alignment"] = s.beta * self.alignment_loss(H, U, **batch)
        emissions = self.emissions(H, seen, **batch)["emissions"]
        return {"ner": s.ner_weight * self.tagging_loss(emissions, tags, batch["token_mask"]), **losses}

    def encode(self, pieces, mask, image, present, **_) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """H (B, T, d), the regions U (B, R, d), and what each piece sees of them, V (B, T, d)."""
        H = self.drop(last_states(self.text, pieces, mask))
        if not self.settings.image:
            return H, None, None
        U = torch.where(present[:, None, None], self.W_u(image), self.missing.to(H.dtype))
        return H, U, self.interaction(H, U)

    # ---- CA ----

    def summary(self, H: Tensor, mask: Tensor) -> Tensor:
        """T_s (B, d): the state of [CLS], or the mean of all states, whichever the encoder was made to be read by."""
        if self.settings.sentence == "cls":
            return H[:, 0]
        return (H * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def alignment_loss(self, H: Tensor, U: Tensor, mask: Tensor, present: Tensor, picture: Tensor, **_) -> Tensor:
        """Both ways, each post's text among all texts and its picture among all pictures, by cosine."""
        T_c = normalize(self.text_head(self.summary(H, mask)).float(), dim=-1)  # (B, d)
        V_c = normalize(self.image_head(U.mean(1)).float(), dim=-1)  # (B, d)
        T_c, V_c, present, picture = gather(T_c), gather(V_c), gather(present), gather(picture)
        same = picture[:, None] == picture  # (B, B), no picture is the negative of itself
        with torch.autocast(T_c.device.type, enabled=False):
            return contrastive_loss(T_c @ V_c.T, same, self.settings.temperature, self.settings.lambda_c, present)

    # ---- CM ----

    def swap(self, H: Tensor, U: Tensor, V: Tensor, swapped: Tensor, givers: Tensor, **_) -> Tensor:
        """V (B, T, d) where the `swapped` posts have seen their givers' pictures, or have what those have seen."""
        if not len(swapped):  # no two pictures in the batch: attention over nothing is None on some GPUs
            return V
        V_swapped = self.interaction(H[swapped], U[givers]) if self.settings.swap == "pictures" else V[givers]
        return V.index_copy(0, swapped, V_swapped.to(V.dtype))

    def match(self, H: Tensor, V: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, 2) of "another's picture" and "its own", from the flattened pair [H ; V].

        The flattened pair is as long as the longest text that can be; where a batch is shorter the rest is zero, and
        so are the paddings unless `pad_pairs`: leaving the zeros out changes nothing.
        """
        T, d = H.shape[1:]
        W_h, W_v = self.W_m.weight.view(2, -1, 2 * d)[:, :T].split(d, dim=-1)  # (2, T, d)
        if not self.settings.pad_pairs:
            H, V = H * mask[..., None], V * mask[..., None]
        return torch.einsum("btd,ktd->bk", H, W_h) + torch.einsum("btd,ktd->bk", V, W_v) + self.W_m.bias

    def matching_loss(self, H: Tensor, V: Tensor, mask: Tensor, present: Tensor, swapped: Tensor, **_) -> Tensor:
        """Cross-entropy: the `swapped` rows of V saw another post's picture, the others their own."""
        own = torch.ones_like(present).index_fill(0, swapped, False)
        loss = F.cross_entropy(self.match(H, V, mask).float(), own.long(), reduction="none")  # (B,)
        counted = present | ~own
        return (loss * counted).sum() / counted.sum().clamp(min=1)

    # ---- fusion and tagging ----

    def emissions(self, H: Tensor, V: Tensor | None, mask, first_pieces, present, **_) -> dict[str, Tensor]:
        """`emissions` (B, W, K) of the tokens; with a picture also `p` (B,), and with a gate `g` (B, W, d)."""
        H_first, found = _take(H, first_pieces), {}
        if V is None:
            return {"emissions": self.W_y(H_first)}
        if self.settings.matching:
            p = self.match(H, V, mask).float().softmax(-1)[:, 1]
            found["p"] = p = torch.where(present, p, 1.0)  # a missing picture's vector belongs to every post
            V = V * p[:, None, None].to(V.dtype)  # V' = p V
        V = _take(V, first_pieces)
        if self.settings.gate:
            found["g"] = torch.sigmoid(self.W_t(H_first) + self.W_v(V))
            V = found["g"] * V
        return {"emissions": self.W_y(torch.cat([H_first, V], dim=-1)), **found}

    def tagging_loss(self, emissions: Tensor, tags: Tensor, token_mask: Tensor) -> Tensor:
        """Minus the log-likelihood of a post's tags, averaged over the posts."""
        if self.crf:
            return -self.crf.log_likelihood(emissions, tags, token_mask).mean()
        loss = F.cross_entropy(emissions.float().transpose(1, 2), tags, reduction="none")  # (B, W)
        return (loss * token_mask).sum() / len(tags)

    @torch.no_grad()
    def tag(self, **batch) -> dict:
        """The best `tags` of each post, a list of lists; `p` (B,) and `g` (B, W, d) as in `emissions`."""
        H, _, V = self.encode(**batch)
        found = self.emissions(H, V, **batch)
        emissions, token_mask = found.pop("emissions"), batch["token_mask"]
        if self.crf:
            return {"tags": self.crf.decode(emissions, token_mask), **found}
        best, lengths = emissions.argmax(-1).tolist(), token_mask.sum(1).tolist()
        return {"tags": [row[:length] for row, length in zip(best, lengths, strict=True)], **found}

    @torch.no_grad()
    def look(self, pieces, mask, first_pieces, image, present, **_) -> Tensor:
        """Where in the picture each token looks: (B, W, R), rows sum to one."""
        H, U, _ = self.encode(pieces, mask, image, present)
        return _take(self.interaction.weights(H, U), first_pieces)


def projection_head(d: int) -> nn.Module:
    """CA's own small network for each modality."""
    return nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))


def _take(states: Tensor, first_pieces: Tensor) -> Tensor:
    """The states of the tokens' first pieces: (B, T, d), (B, W) -> (B, W, d)."""
    return states.gather(1, first_pieces[..., None].expand(-1, -1, states.shape[-1]))
