"""K3M: knowledge perceived multi-modal pretraining in e-commerce (Zhu et al., ACM MM 2021), and what it is compared to.

An item c has a title t, a picture i of objects, and triples <c, p, v> of a knowledge graph; any of them may be missing.

    h_t, h_i = Transformer(t), Transformer(i)                               each modality by itself     modal encoding
    p_x, v_x = mean of Transformer(property or value), that of the titles
    h_t^I, h_i^T = co-attention(h_t, h_i)                                   image-text interactor    modal interaction
    h = fusion(h_t, h_t^I),  fusion(h_i, h_i^T)                             what is kept of each by itself        IIFM
    c = mean(h_t1 .. h_tM1, W_0 h_i1 .. W_0 h_iM2)
    t_x = W_1 [c ; p_x ; v_x],  a = softmax(LeakyReLU(W_2 t_x)),  c* = c + W_3 sum_x a_x t_x     structure aggregation
    L = L_MLM + L_MOM + L_LPM                                               modal task

L_MLM tells masked words and L_MOM what masked objects are, both from the fused h; L_LPM is, over an item's triples,
the mean of max(S(c*, p, v) - S(c*, p, v~) + margin, 0), where v~ is a wrong value and S(c, p, v) = |c + p - v|.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.encoders.regions import distribution
from lib.encoders.text import new_encoder
from lib.layers.graph import TripleAttention
from lib.layers.transformer import CoAttention, Transformer, masked_mean

Batch = dict[str, Tensor]


class K3M(nn.Module):
    """The model in one of its stages, `settings` a `lib.papers.k3m.Settings`: with the heads of its pretraining, or of
    the tasks it is tuned for. `sizes` says how many `pieces`, `labels` and region `classes` there are and how wide a
    `region` is; `inner` is the width inside a Transformer's small network.

    A batch of B listings: `text` (B, T) and `text_mask`; `regions` (B, R, F), their `boxes` (B, R, 5) and
    `region_mask`; each distinct property and value once in `spans` (S, L) with `span_mask`, and of each item's triples
    the rows of these, `properties` and `values` (B, X), with `triple_mask`. Three streams also read the triples as a
    sequence, `graph` (B, P) with `graph_mask`. What the losses take is said there.
    """

    def __init__(self, sizes: dict, settings, inner: int):
        super().__init__()
        s, d = settings, settings.width
        self.settings, self.sizes = settings, sizes
        self.backbone = {"one": OneStream, "lxmert": Lxmert}.get(s.streams, Streams)(sizes, s, inner)
        self.W_0 = nn.Linear(d, d)
        if s.graph == "attention":
            self.structure = TripleAttention(d, s.graph_heads, s.activation == "before")
        make = {"pretraining": self._pretraining_heads, "tuning": self._tuning_heads}[s.stage]
        self.heads = nn.ModuleDict(make(d))

    def _pretraining_heads(self, d: int) -> dict[str, nn.Module]:
        s, width, heads = self.settings, self.backbone.words.shape[1], {}
        targets = {"classes": self.sizes["classes"], "features": self.sizes["region"], "colours": 3}
        if "mlm" in s.objectives:
            heads["word"] = nn.Sequential(nn.Linear(d, width), nn.GELU(), nn.LayerNorm(width))
        if "mom" in s.objectives:
            heads["object"] = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, targets[s.objects]))
        if "lpm" in s.objectives and s.graph == "attention" and s.structure == "next":
            heads["own"] = nn.Linear(d, 2)
        return heads

    def _tuning_heads(self, d: int) -> dict[str, nn.Module]:
        inputs = {"classification": d, "alignment": 2 * d, "questions": d}
        outputs = {"classification": self.sizes["labels"], "alignment": 1, "questions": d}
        return {task: nn.Sequential(nn.Linear(inputs[task], d), nn.GELU(), nn.Dropout(self.settings.dropout),
                                    nn.Linear(d, outputs[task])) for task in self.settings.tasks}  # fmt: skip

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """A pretrained text encoder learns at a tenth of the rate, as in the released code."""
        slow = [w for name, w in self.named_parameters() if name.startswith("backbone.text.published")]
        rest = [w for name, w in self.named_parameters() if not name.startswith("backbone.text.published")]
        return [{"params": rest}] + ([{"params": slow, "lr": 0.1 * learning_rate}] if slow else [])

    def forward(self, **batch) -> dict[str, Tensor]:
        """The losses of one batch, in the model's stage."""
        found, tuning = self.encode(**batch), self.settings.stage == "tuning"
        losses = self.tuning_losses(found, **batch) if tuning else self.pretraining_losses(found, **batch)
        name, loss = next(iter(losses.items()))
        return {**losses, name: loss + 0 * found["c_star"].sum()}  # processes wait for the gradient of every weight

    # ---- an item's representation ----

    def encode(self, **batch) -> dict:
        """`c` (B, d) and `c_star` (B, d); the fused `states` of each modality (B, T, d), and where there are gates how
        much each position takes of each source, `gates` (B, T, sources); `vectors` (S, d) of the spans; `attention`
        (B, X, heads) over triples, None without."""
        states, gates = self.backbone(batch)
        c, attention = self.pool(states, batch), None
        vectors = self.read_spans(batch["spans"], batch["span_mask"])
        c_star, added = c, torch.zeros_like(c)
        if self.settings.graph == "attention":
            p, v = vectors[batch["properties"]], vectors[batch["values"]]  # (B, X, d)
            shown = batch.get("triple_shown", batch["triple_mask"])
            added, attention = self.structure(c, p, v, shown)
            c_star = c + added
        found = {"c": c, "c_star": c_star, "added": added, "vectors": vectors, "attention": attention}
        return {**found, "states": states, "gates": gates}

    def pool(self, states: dict[str, Tensor], batch: Batch) -> Tensor:
        """c (B, d): the mean of all real positions, regions mapped by W_0; zeros of an item that shows nothing.

        Pooled over "all" it is, as released, the mean over modalities of their means with all paddings.
        """
        mapped = {name: self.W_0(h) if name == "image" else h for name, h in states.items()}
        if self.settings.pooling == "all":
            return torch.stack([h.mean(1) for h in mapped.values()]).mean(0)
        masks = [batch[MASKS[name]] for name in mapped]
        return masked_mean(torch.cat(list(mapped.values()), 1), torch.cat(masks, 1))

    def read_spans(self, spans: Tensor, mask: Tensor) -> Tensor:
        """p_x or v_x (S, d) of each property or value: the mean of its pieces' states, or of the first and last."""
        h = self.backbone.read(spans, mask)  # (S, L, d)
        if self.settings.span_pooling == "mean":
            return masked_mean(h, mask)
        last = (mask.sum(1) - 1).clamp(min=0)[:, None, None].expand(-1, 1, h.shape[-1])
        return (h[:, 0] + h.gather(1, last)[:, 0]) / 2

    # ---- pretraining ----

    def pretraining_losses(self, found: dict, **batch) -> dict[str, Tensor]:
        """The losses of the settings' `objectives`, L_LPM where there is a graph; and that of values, where masked."""
        s, states, losses = self.settings, found["states"], {}
        if "mlm" in s.objectives:
            losses["mlm"] = self.word_loss(states["text"], batch["masked_words"], batch["words"])
            if s.masked_values:
                losses["values"] = self.word_loss(states["graph"], batch["masked_values"], batch["value_words"])
        if "mom" in s.objectives:
            losses["mom"] = self.object_loss(states["image"], **batch)
        if "lpm" in s.objectives and s.graph == "attention":
            losses["lpm"] = self.next_item_loss(found) if s.structure == "next" else self.link_loss(found, **batch)
        return losses

    def word_loss(self, h: Tensor, positions: Tensor, words: Tensor) -> Tensor:
        """Cross-entropy of the `words` (M,) that stood at `positions` (M,) among the B x T."""
        logits = self.heads["word"](h.flatten(0, 1)[positions]) @ self.backbone.words.T  # (M, V)
        return F.cross_entropy(logits.float(), words, reduction="sum") / max(len(words), 1)

    def object_loss(self, h, masked_regions, target_classes, target_probabilities, targets, **_) -> Tensor:
        """What the `masked_regions` (M,) among the B x R are: the divergence from the distribution over classes that
        was seen there, or the mean squared error of its features or mean colour, `targets` (M, F) or (M, 3)."""
        found = self.heads["object"](h.flatten(0, 1)[masked_regions]).float()  # (M, classes, F or 3)
        if self.settings.objects != "classes":
            return F.mse_loss(found, targets, reduction="none").mean(1).sum() / max(len(targets), 1)
        goal = distribution(target_classes, target_probabilities, self.sizes["classes"])  # (M, classes)
        return F.kl_div(found.log_softmax(-1), goal, reduction="sum") / max(len(goal), 1)

    def link_loss(self, found: dict, properties, values, wrong, triple_mask, **_) -> Tensor:
        """L_LPM: `wrong` (B, X) are rows of the spans that hold other values; its mean over items with triples."""
        vectors = found["vectors"].float()
        c_p = found["c_star"].float()[:, None] + vectors[properties]  # (B, X, d)
        right, false = ((c_p - vectors[rows]).abs().mean(-1) for rows in (values, wrong))  # (B, X)
        loss = masked_mean((right - false + self.settings.margin).clamp(min=0)[..., None], triple_mask)  # (B, 1)
        return loss.sum() / triple_mask.any(1).sum().clamp(min=1)

    def next_item_loss(self, found: dict) -> Tensor:
        """As released, in place of L_LPM: whether the triples' aggregate was added to its own item's c or to the next
        one's."""
        other = found["c"].roll(-1, 0) + found["added"]  # (B, d)
        logits = self.heads["own"](torch.cat([found["c_star"], other])).float()  # (2B, 2)
        return F.cross_entropy(logits, (torch.arange(len(logits), device=logits.device) < len(other)).long())

    # ---- tuning ----

    def tuning_losses(self, found: dict, **batch) -> dict[str, Tensor]:
        """The losses of the settings' `tasks`: the `labels` (n,) of the `items` (n,), rows of the batch; whether
        `left` and `right` (m,) are the `same` (m,) product; which of the `candidates` (C,), rows of the spans, are the
        `answers` (q,) for what is `asked` (q,), rows of the batch. A batch may have none of a kind; each is divided by
        the number of all."""
        c, losses = found["c_star"], {}
        if "classification" in self.heads:
            logits = self.classify(c[batch["items"]])
            losses["classification"] = F.cross_entropy(logits, batch["labels"], reduction="sum")
        if "alignment" in self.heads:
            logits = self.compare(c[batch["left"]], c[batch["right"]])
            same = batch["same"].to(logits.dtype)
            losses["alignment"] = F.binary_cross_entropy_with_logits(logits, same, reduction="sum")
        if "questions" in self.heads:
            logits = self.answer(c[batch["asked"]], found["vectors"][batch["candidates"]])
            losses["questions"] = F.cross_entropy(logits, batch["answers"], reduction="sum")
        count = sum(len(batch[kind]) for kind in ("items", "left", "asked"))
        return {name: loss / count for name, loss in losses.items()}

    def classify(self, c: Tensor) -> Tensor:
        """Logits (N, labels) of items (N, d)."""
        return self.heads["classification"](c).float()

    def compare(self, left: Tensor, right: Tensor) -> Tensor:
        """Logits (M,) of two items (M, d) each being one product, whichever stands left."""
        left, right = (F.layer_norm(c, c.shape[-1:]) for c in (left, right))  # means of many states are small
        return self.heads["alignment"](torch.cat([(left - right).abs(), left * right], -1))[:, 0].float()

    def answer(self, c: Tensor, values: Tensor) -> Tensor:
        """Scores (Q, C) of candidate values (C, d) for items with a question (Q, d): how near to each the head moves
        c*. It starts at c* itself, which link prediction has brought into the space of the values."""
        asked, values = (F.layer_norm(x, x.shape[-1:]) for x in (c + self.heads["questions"](c), values))
        return (asked @ values.T).float() / self.settings.width**0.5


# ---- what reads a batch: states {"text": (B, T, d), "image": (B, R, d), ...} and gates of it ----

MASKS = {"text": "text_mask", "image": "region_mask", "graph": "graph_mask"}


class Streams(nn.Module):
    """Each modality by itself, in pairs, and fused: K3M's encoders, interactor and IIFM; without fusion ViLBERT's two
    streams (Lu et al. 2019). Three streams are the released ones: title, picture, and triples as a sequence."""

    def __init__(self, sizes: dict, settings, inner: int):
        super().__init__()
        s = self.settings = settings
        block = (s.width, s.heads, inner, s.dropout)
        self.text = PublishedText(s) if s.text_encoder != "wordpiece" else TextEncoder(sizes, s, s.text_layers, inner)
        self.embed_regions = RegionEmbedding(sizes["region"], s)
        self.image = Transformer(s.image_layers, *block)
        pairs = (("text", "image"), ("graph", "image"), ("graph", "text"))
        self.pairs = pairs if s.streams == "three" else pairs[:1]
        self.interact = nn.ModuleDict({"-".join(pair): CoAttention(s.co_layers, *block) for pair in self.pairs})
        names = dict.fromkeys(name for pair in self.pairs for name in pair)
        self.fuse = nn.ModuleDict({name: Fusion(s, 1 + sum(name in pair for pair in self.pairs)) for name in names})

    @property
    def words(self) -> Tensor:
        return self.text.words

    def read(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Text alone: tokens (S, L) -> (S, L, d)."""
        return self.text(tokens, mask)[1]

    def forward(self, batch: Batch) -> tuple[dict, dict]:
        masks = {name: batch[MASKS[name]] for name in self.fuse}
        embedded = self.embed_regions(batch["regions"], batch["boxes"])
        each = {"image": (embedded, self.image(embedded, masks["image"]))}
        each |= {name: self.text(batch[name], masks[name]) for name in ("text", "graph") if name in masks}
        sources = {name: [each[name][self.settings.initial == "encoder"]] for name in self.fuse}
        for a, b in self.pairs:
            seen = self.interact[f"{a}-{b}"](each[a][1], each[b][1], masks[a], masks[b])
            sources[a], sources[b] = [*sources[a], seen[0]], [*sources[b], seen[1]]
        fused = {name: fuse(sources[name]) for name, fuse in self.fuse.items()}
        states = {name: h for name, (h, _) in fused.items()}
        return states, {name: gate for name, (_, gate) in fused.items() if gate is not None}


class Fusion(nn.Module):
    """IIFM: what is kept of a modality by itself and of what it saw in others, for each position and dimension.

    forward(h, h', ..., each (B, T, d)) -> (fused (B, T, d), gates (B, T, sources) or None). "mean" of them; "soft": a
    map of all, each times its gate; "hard": one of them, chosen by Gumbel-softmax in training and by the higher score
    at evaluation; "residual": their sum; "none": what was seen in the others alone.
    """

    def __init__(self, settings, sources: int):
        super().__init__()
        d, self.settings = settings.width, settings
        if settings.fusion in ("soft", "hard"):
            self.W_g = nn.Linear(sources * d, sources * d)
        if settings.fusion == "soft":
            self.W_s = nn.Linear(sources * d, d)

    def forward(self, sources: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        kind, squashed = self.settings.fusion, self.settings.gates == "squashed"
        if kind in ("mean", "none", "residual"):
            stacked = torch.stack(sources if kind != "none" else sources[1:])
            return (stacked.sum(0) if kind == "residual" else stacked.mean(0)), None
        h = torch.stack(sources, -2)  # (B, T, n, d)
        h = F.relu(h) if squashed else h
        g = self.W_g(h.flatten(-2)).unflatten(-1, h.shape[-2:]).float()  # (B, T, n, d)
        if kind == "soft":
            g = g.sigmoid()
            return self.W_s((g * h).flatten(-2)), g.mean(-1)
        chosen = self.choose(g.sigmoid() if squashed else g)
        return (chosen * h).sum(-2).to(h.dtype), chosen.mean(-1)

    def choose(self, g: Tensor) -> Tensor:
        """One of the sources in each dimension, as ones and zeros (B, T, n, d)."""
        if not (self.training or self.settings.sampling == "always"):
            return highest(g)
        y = (g - (-torch.rand_like(g).clamp_min(1e-9).log()).log()).softmax(-2)  # F.gumbel_softmax, but drawn faster
        return highest(y.detach()) - y.detach() + y  # ones and zeros, with the gradient of y


def highest(scores: Tensor) -> Tensor:
    """One where a source has the highest of the scores (B, T, n, d), zero elsewhere. (argmax is slow across rows.)"""
    return torch.zeros_like(scores).scatter(-2, scores.max(-2, keepdim=True).indices, 1.0)


class OneStream(nn.Module):
    """Words and regions in one sequence from the first layer on, as in VL-BERT (Su et al. 2020)."""

    def __init__(self, sizes: dict, settings, inner: int):
        super().__init__()
        self.text = TextEncoder(sizes, settings, settings.text_layers + settings.co_layers, inner)
        self.embed_regions = RegionEmbedding(sizes["region"], settings)

    @property
    def words(self) -> Tensor:
        return self.text.words

    def read(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.text(tokens, mask)[1]

    def forward(self, batch: Batch) -> tuple[dict, dict]:
        h = torch.cat([self.text.embed(batch["text"]), self.embed_regions(batch["regions"], batch["boxes"])], 1)
        h = self.text.encoder(h, torch.cat([batch["text_mask"], batch["region_mask"]], 1))
        T = batch["text"].shape[1]
        return {"text": h[:, :T], "image": h[:, T:]}, {}


class Lxmert(nn.Module):
    """LXMERT (Tan and Bansal 2019) as transformers has it, from a small configuration."""

    def __init__(self, sizes: dict, settings, inner: int):
        from transformers import LxmertConfig, LxmertModel

        super().__init__()
        s = settings
        self.model = LxmertModel(LxmertConfig(
            vocab_size=sizes["pieces"], hidden_size=s.width, num_attention_heads=s.heads, intermediate_size=inner,
            l_layers=s.text_layers, r_layers=s.image_layers, x_layers=s.co_layers, visual_feat_dim=sizes["region"],
            visual_pos_dim=5, max_position_embeddings=s.longest, hidden_dropout_prob=s.dropout,
            attention_probs_dropout_prob=s.dropout, type_vocab_size=1,
        ))  # fmt: skip
        self.model.pooler = nn.Identity()  # nobody asks it

    @property
    def words(self) -> Tensor:
        return self.model.embeddings.word_embeddings.weight

    def read(self, tokens: Tensor, mask: Tensor) -> Tensor:
        nothing = self.words.new_zeros(len(tokens), 1, self.model.config.visual_feat_dim)
        return self._run(tokens, mask, nothing, nothing[..., :5], mask[:, :1] & False)[0]

    def forward(self, batch: Batch) -> tuple[dict, dict]:
        text, image = self._run(*(batch[name] for name in ("text", "text_mask", "regions", "boxes", "region_mask")))
        return {"text": text, "image": image}, {}

    def _run(self, text, text_mask, regions, boxes, region_mask) -> tuple[Tensor, Tensor]:
        masks = {"attention_mask": not_empty(text_mask), "visual_attention_mask": not_empty(region_mask)}
        said = self.model(input_ids=text, visual_feats=regions, visual_pos=boxes, **masks)
        return said.language_output, said.vision_output


class TextEncoder(nn.Module):
    """forward(tokens (B, T), mask (B, T)) -> (their embeddings (B, T, d), their states (B, T, d))."""

    def __init__(self, sizes: dict, settings, layers: int, inner: int):
        super().__init__()
        d = settings.width
        self.W_e, self.positions = nn.Embedding(sizes["pieces"], d), nn.Embedding(settings.longest, d)
        self.norm, self.drop = nn.LayerNorm(d), nn.Dropout(settings.dropout)
        self.encoder = Transformer(layers, d, settings.heads, inner, settings.dropout)
        for table in (self.W_e, self.positions):
            nn.init.normal_(table.weight, std=0.02)  # BERT's

    @property
    def words(self) -> Tensor:
        return self.W_e.weight

    def embed(self, tokens: Tensor) -> Tensor:
        return self.drop(self.norm(self.W_e(tokens) + self.positions.weight[: tokens.shape[1]]))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embed(tokens)
        return embedded, self.encoder(embedded, mask)


class PublishedText(nn.Module):
    """The first layers of a pretrained BERT-like encoder, as the released code starts from one, mapped to width d."""

    def __init__(self, settings):
        super().__init__()
        self.published = new_encoder(settings.text_encoder, settings.text_layers)
        self.W = nn.Linear(self.published.config.hidden_size, settings.width)

    @property
    def words(self) -> Tensor:
        return self.published.get_input_embeddings().weight

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        seen = not_empty(mask)[:, None, None].expand(-1, 1, mask.shape[1], -1)  # laid out, or a GPU is asked about it
        states = self.published(input_ids=tokens, attention_mask=seen, output_hidden_states=True)
        return self.W(states.hidden_states[0]), self.W(states.last_hidden_state)


class RegionEmbedding(nn.Module):
    """Features (B, R, F) and boxes (B, R, 5) -> (B, R, d)."""

    def __init__(self, region: int, settings):
        super().__init__()
        d = settings.width
        self.W_f, self.W_b = nn.Linear(region, d), nn.Linear(5, d)
        self.norm_f, self.norm, self.drop = nn.LayerNorm(region), nn.LayerNorm(d), nn.Dropout(settings.dropout)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        return self.drop(self.norm(self.W_f(self.norm_f(features)) + self.W_b(boxes)))


def not_empty(mask: Tensor) -> Tensor:
    """The mask (B, T) with its first position shown: transformers' encoders have no answer for empty rows."""
    return mask | (torch.arange(mask.shape[1], device=mask.device) == 0)
