"""GXN: look, imagine and match (Gu, Cai, Joty, Niu and Wang, CVPR 2018, arXiv 1711.06420).

A picture i and a caption c are looked at twice, for an abstract meaning h and for grounded details l. The grounded side
learns to imagine the other modality, and both match:

    v_k = P_v^k(CNN_Enc(i)),   t_k = P_t^k(RNN_Enc^k(c)),   k in {h, l}                                            look
    s(t, v) = -||max(0, v - t)||^2,   s*(t, v) = lambda s(t_h, v_h) + (1 - lambda) s(t_l, v_l)                    match
    L_R+ = sum_t' [alpha - s*(t, v) + s*(t', v)]_+  +  sum_v' [alpha - s*(t, v) + s*(t, v')]_+
    L_xe = -sum_t log p(w_t | w_0:t-1, v_l),   L_rl = -E[r(c~)] over c~ ~ p                        imagine a sentence
    L_xe+rl = (1 - gamma) L_xe + gamma L_rl
    i^ = G(z, t_c),   t_c ~ N(mu(phi(t_l)), sigma(phi(t_l)))                                        imagine a picture
    L_D = E[log D(i, t_l)] + beta_f E[log(1 - D(i^, t_l))] + beta_w E[log(1 - D(i, t_l'))]              D maximises it
    L_G = E[log(1 - D(i^, t_l))] + beta_s KL(N(mu, sigma) || N(0, 1))

Imagining trains P_v^l through v_l, and RNN_Enc^l with P_t^l through t_l. What imagines is not used to match.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.layers import adversarial
from lib.layers.adversarial import Conditioning, Discriminator, Generator
from lib.layers.decoder import SentenceDecoder, cross_entropy_loss, reinforce_loss, without_dropout
from lib.layers.distributed import gather
from lib.layers.levels import two_level
from lib.layers.order import order_similarity
from lib.layers.projection import ResidualMLP
from lib.layers.ranking import pairwise_ranking_loss
from lib.run.training import Part

GROUNDED_TEXT = ("RNN_Enc.l.", "P_t.l.")  # the weights behind t_l, but for W_e, which t_h has too
FRAMES, REMEMBERED = 12, 4  # evaluations, and pictures of each, that a strip of what was imagined shows
MEMORY = 0.9  # what the running mean of rewards keeps of itself at each step


class GXN(nn.Module):
    """The model. `settings` is a `lib.papers.gxn.ModelSettings`; `picture_dim` the width of a picture's feature;
    `sentence_dim` the number of words, or the width of a frozen encoder's vectors; `vocabulary` the number of words
    that the decoder knows; `cnn` an image network, where it is trained too.

    A batch of "match": `image` (B, Q), or (B, R, Q) a grid of regions, or pixels for `cnn`; `words` (B, T), or vectors
    (B, S), and `lengths` (B,); `owner` (B,), which picture of the training split that is; for the decoder `caption`
    (B, L), word ids that end with END. One of "discriminator" or "generator": `picture` (B, 3, S, S) bytes, `words`,
    `lengths`, `owner`. `reward(sentences (B, L), owner (B,)) -> (B,)` judges sampled captions and is set from outside.
    """

    def __init__(self, picture_dim: int, sentence_dim: int, vocabulary: int, settings, cnn: nn.Module | None = None):
        super().__init__()
        self.settings, dim = settings, settings.joint_dim
        self.levels = ("h", "l") if settings.levels == "both" else ("h",)
        self.drop = nn.Dropout(settings.dropout)
        self.CNN_Enc = nn.Identity() if cnn is None else cnn
        if settings.sentence == "gru":
            self.W_e = nn.Embedding(sentence_dim, settings.word_dim, padding_idx=0)
            nn.init.uniform_(self.W_e.weight[1:], -0.1, 0.1)
            self.RNN_Enc = nn.ModuleDict({k: SentenceGRU(settings.word_dim, dim, k == "h") for k in self.levels})
        self.P_t = self.heads(dim if settings.sentence == "gru" else sentence_dim, settings.sentence == "frozen")
        self.P_v = self.heads(picture_dim, settings.image_head == "mlp")
        if settings.captions:
            self.add_decoder(vocabulary, picture_dim)
        if settings.pictures:
            self.add_adversaries()

    def heads(self, inside: int, mlp: bool) -> nn.ModuleDict:
        """P of each level: a linear map, or one with a small network beside it."""
        dim, dropout = self.settings.joint_dim, self.settings.dropout
        return nn.ModuleDict(
            {k: ResidualMLP(inside, dim, dim, dropout) if mlp else nn.Linear(inside, dim) for k in self.levels}
        )

    def add_decoder(self, vocabulary: int, picture_dim: int) -> None:
        s = self.settings
        memory_dim = picture_dim if s.attention else None
        sizes = s.joint_dim, s.decoder_word_dim, s.decoder_dim
        self.RNN_Dec = SentenceDecoder(vocabulary, *sizes, s.decoder_dropout, memory_dim)
        self.reward: Callable[[Tensor, Tensor], Tensor] | None = None
        if s.baseline == "mean":
            self.register_buffer("mean_reward", torch.zeros(()))

    def add_adversaries(self) -> None:
        s = self.settings
        self.phi = Conditioning(s.joint_dim, s.condition_dim, s.augment)
        self.G = Generator(s.noise_dim, s.condition_dim, s.width, s.picture_size).to(memory_format=torch.channels_last)
        self.D = Discriminator(s.joint_dim, s.width, s.picture_size, s.spectral).to(memory_format=torch.channels_last)
        if s.generator_average:
            self.G_mean = deepcopy(self.G).requires_grad_(False)
        side = s.picture_size, s.picture_size
        self.register_buffer("strip", torch.zeros(FRAMES, REMEMBERED, 3, *side, dtype=torch.uint8))

    def optimizers(self, settings) -> dict[str, Part]:
        """One for each part. Where its gradient is not cut, imagining pictures moves RNN_Enc^l and P_t^l too, at a rate
        of their own."""
        weights = self.weights_of_parts()
        network = [{"params": weights["network"], "lr": settings.image_rate}] if weights["network"] else []
        rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
        parts = {"match": Part(torch.optim.AdamW([{"params": weights["match"]}, *network], **rates, fused=True))}
        for part in ("discriminator", "generator") if settings.pictures else ():
            text = [{"params": weights["text"], "lr": settings.text_rate}] if self.taught_by(part) else []
            rates = {"lr": settings.adversarial_rate, "betas": (settings.adversarial_beta1, 0.999)}
            adam = torch.optim.Adam([{"params": weights[part]}, *text], **rates, fused=True)
            parts[part] = Part(adam, clip=0.0, schedule="late", warmup=0.0)
        return parts

    def weights_of_parts(self) -> dict[str, list[nn.Parameter]]:
        """The weights that are trained, by the part whose own they are; those behind t_l also by themselves."""
        owner = {"D": "discriminator", "G": "generator", "phi": "generator", "CNN_Enc": "network"}
        weights = {part: [] for part in ("match", "text", *owner.values())}
        for name, weight in self.named_parameters():
            if weight.requires_grad:
                weights[owner.get(name.split(".")[0], "match")].append(weight)
                weights["text"] += [weight] * name.startswith(GROUNDED_TEXT)
        return weights

    def losses(self, part: str, batch: dict, progress) -> dict[str, Tensor]:
        """The weighted losses of a part, "match", "discriminator" or "generator", whose sum is minimised."""
        return getattr(self, f"{part}_losses")(progress, **batch)

    # ---- look ----

    def look_at_picture(self, q: Tensor) -> dict[str, Tensor]:
        """v_k of each level (B, D), from q = CNN_Enc(i) (B, Q), or the mean of its regions (B, R, Q)."""
        q = self.drop(q.mean(1) if q.ndim == 3 else q)
        return {k: self.P_v[k](q).float() for k in self.levels}

    def look_at_text(self, words: Tensor, lengths: Tensor, levels: Sequence[str] = ()) -> dict[str, Tensor]:
        """t_k of each level, or of some (B, D)."""
        return {k: self.P_t[k](self.read(k, words, lengths)).float() for k in levels or self.levels}

    def read(self, k: str, words: Tensor, lengths: Tensor) -> Tensor:
        """RNN_Enc^k(c) (B, D); a frozen encoder has read the sentence before."""
        if self.settings.sentence == "frozen":
            return words
        return self.RNN_Enc[k](lambda indices: self.drop(self.W_e(indices)), words, lengths)

    def encode_images(self, image: Tensor) -> Tensor:
        """Pictures in the joint space: [v_h ; v_l] (B, 2D), or v_h alone (B, D)."""
        return self.joined(self.look_at_picture(self.CNN_Enc(image)))

    def encode_sentences(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Sentences in the joint space: [t_h ; t_l] (B, 2D), or t_h alone (B, D)."""
        return self.joined(self.look_at_text(words, lengths))

    def joined(self, levels: dict[str, Tensor]) -> Tensor:
        """What is compared, as one vector. The paper's order is one of any vectors; the first order embeddings were of
        unit norm and not negative (Vendrov et al. 2016)."""
        compared = [level.abs() if self.settings.absolute else level for level in levels.values()]
        return torch.cat([normalize(level, dim=-1) if self.settings.unit_norm else level for level in compared], dim=-1)

    # ---- match ----

    def similarity(self, images: Tensor, captions: Tensor) -> Tensor:
        """s* of every pair of `encode_images` (N, 2D) and `encode_sentences` (M, 2D) -> (N, M)."""
        return similarity(self.settings)(images, captions)

    def match_losses(self, progress, image, words, lengths, owner, caption=None) -> dict[str, Tensor]:
        """L_R+, and L_xe+rl where captions are imagined."""
        q, losses = self.CNN_Enc(image), {}
        v = self.look_at_picture(q)
        if self.settings.matching:
            t = self.look_at_text(words, lengths)
            losses["ranking"] = self.ranking_loss(self.joined(v), self.joined(t), owner, progress)
        return losses | self.caption_losses(v["l"], q, caption, owner) if self.settings.captions else losses

    def ranking_loss(self, images: Tensor, captions: Tensor, owner: Tensor, progress) -> Tensor:
        """L_R+, the mean over the pairs of a batch. The hardest negative alone teaches nothing to a fresh model."""
        images, captions, owner = gather(images), gather(captions), gather(owner)
        early = self.settings.negatives == "hardest" and progress.epoch < self.settings.hardest_after
        negatives = "all" if early else self.settings.negatives
        same = owner[:, None] == owner  # (B, B)
        return pairwise_ranking_loss(self.similarity(images, captions), same, self.settings.margin, negatives)

    # ---- imagine a sentence ----

    def caption_losses(self, v_l: Tensor, q: Tensor, caption: Tensor, owner: Tensor) -> dict[str, Tensor]:
        """(1 - gamma) L_xe and gamma L_rl, weighted."""
        s = self.settings
        xe = cross_entropy_loss(self.RNN_Dec(caption, self.decoder_state(v_l, q)), caption)
        losses = {"xe": s.caption_weight * (1 - s.gamma) * xe}
        return losses | {"rl": s.caption_weight * s.gamma * self.reinforcement_loss(q, owner)} if s.gamma else losses

    def decoder_state(self, v_l: Tensor, q: Tensor) -> dict[str, Tensor]:
        """RNN_Dec before its first word; the gradient of what it says reaches P_v^l, unless it is cut."""
        v_l = v_l if self.settings.caption_gradient else v_l.detach()
        return self.RNN_Dec.start(v_l, q if self.settings.attention else None)

    def reinforcement_loss(self, q: Tensor, owner: Tensor) -> Tensor:
        """L_rl by one sample a picture, of the decoder as it speaks at test time: without dropout."""
        if self.reward is None:
            raise ValueError(f"gamma is {self.settings.gamma}, but the model has no reward, expected one to be set")
        with without_dropout(self):
            state = self.decoder_state(self.look_at_picture(q)["l"], q)
            sampled = self.RNN_Dec.generate(state, self.settings.longest, sample=True)  # (B, L)
            r = self.reward(sampled, owner)  # (B,)
            advantage = r - self.baseline(r, state, owner)
            return reinforce_loss(self.RNN_Dec.log_probabilities(sampled, state), sampled, advantage)

    def baseline(self, r: Tensor, state: dict[str, Tensor], owner: Tensor) -> Tensor:
        """r_b: the reward of the greedy caption (B,) (self-critical, Rennie et al. 2017), the running mean (), or 0."""
        if self.settings.baseline == "greedy":
            return self.reward(self.RNN_Dec.generate(state, self.settings.longest), owner)
        if self.settings.baseline == "none":
            return torch.zeros_like(r)
        before = self.mean_reward.clone()
        self.mean_reward.lerp_(r.mean(), 1 - MEMORY)
        return before

    @torch.no_grad()
    def start_caption(self, image: Tensor) -> dict[str, Tensor]:
        """The decoder's state for each picture, from which `RNN_Dec.step` and a beam search go on."""
        q = self.CNN_Enc(image)
        return self.decoder_state(self.look_at_picture(q)["l"], q)

    @torch.no_grad()
    def caption(self, image: Tensor, sample: bool = False) -> Tensor:
        """A sentence for each picture, word ids (B, L) up to END: the likeliest word each time, or one drawn."""
        return self.RNN_Dec.generate(self.start_caption(image), self.settings.longest, sample)

    # ---- imagine a picture ----

    def taught_by(self, part: str) -> bool:
        """Whether the gradient of a part's loss reaches RNN_Enc^l and P_t^l."""
        return self.settings.text_gradient in ("both", part)

    def grounded_text(self, part: str, words: Tensor, lengths: Tensor) -> Tensor:
        """t_l (B, D)."""
        with torch.set_grad_enabled(self.taught_by(part) and torch.is_grad_enabled()):
            return self.look_at_text(words, lengths, ("l",))["l"]

    def noise(self, count: int, device: torch.device) -> Tensor:
        """z (B, Z)."""
        z = torch.empty(count, self.settings.noise_dim, device=device)
        return z.normal_() if self.settings.noise == "gaussian" else z.uniform_(-1, 1)

    def discriminator_losses(self, progress, picture, words, lengths, owner) -> dict[str, Tensor]:
        """-L_D; the wrong caption t_l' is the batch's one before."""
        s, t_l, i = self.settings, self.grounded_text("discriminator", words, lengths), pixels(picture)
        with torch.no_grad():
            drawn = self.G(self.noise(len(i), i.device), self.phi(t_l)[0])
        f, f_drawn, E_t = self.seen(i), self.seen(drawn), self.D.texts(t_l)  # (B, F)
        same = same_text(owner, words)  # (B, B)
        logits = self.D(f, E_t), self.D(f_drawn, E_t), self.D(f, E_t.roll(1, 0))  # (B,) each
        wrong = ~same.roll(1, 1).diagonal()  # (B,)
        losses = {"discriminator": adversarial.discriminator_loss(s.game, *logits, wrong, s.beta_f, s.beta_w)}
        if s.contrastive:
            losses["contrastive"] = s.contrastive * adversarial.every_wrong_text_loss(f, E_t, same)
        return losses

    def generator_losses(self, progress, picture, words, lengths, owner) -> dict[str, Tensor]:
        """L_G, and what keeps it on its way: every wrong caption, and the distance to the real picture."""
        self.follow_generator()
        s, t_l = self.settings, self.grounded_text("generator", words, lengths)
        t_c, kl = self.phi(t_l)
        drawn = self.G(self.noise(len(t_c), t_c.device), t_c)
        with adversarial.held(self.D):
            f, E_t = self.seen(drawn), self.D.texts(t_l)  # (B, F)
            losses = {"generator": adversarial.generator_loss(s.game, self.D(f, E_t)), "kl": s.beta_s * kl}
        if s.contrastive:
            every = adversarial.every_wrong_text_loss(f, E_t, same_text(owner, words))
            losses["drawn contrastive"] = s.contrastive * every
        if s.l1:
            losses["l1"] = s.l1 * (drawn.float() - pixels(picture)).abs().mean()
        return losses

    def seen(self, pictures: Tensor) -> Tensor:
        """f(i) of pictures somewhat out of place."""
        return self.D.features(adversarial.shifted(pictures, s) if (s := self.settings.shift) else pictures)

    @torch.no_grad()
    def follow_generator(self) -> None:
        """Move the mean of G over its steps towards what G is now. Its norms' statistics are G's: a mean of these would
        hold on to the ones that a fresh norm begins with, and draw grey."""
        if keep := self.settings.generator_average:
            for mean, now in zip(self.G_mean.parameters(), self.G.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
            for mean, now in zip(self.G_mean.buffers(), self.G.buffers(), strict=True):
                mean.copy_(now)

    @torch.no_grad()
    def imagine(self, t_l: Tensor, z: Tensor | None = None) -> Tensor:
        """Pictures (B, 3, S, S), from -1 to 1, of grounded texts (B, D), each with its own noise z (B, Z) if given."""
        z = self.noise(len(t_l), t_l.device) if z is None else z
        drawer = self.G_mean if self.settings.generator_average else self.G
        return drawer(z, self.phi(t_l)[0]).float()

    def remember(self, drawn: Tensor) -> None:
        """Keep the first of some pictures, bytes (B, 3, S, S), as the newest frame of `strip`; the oldest is lost."""
        newest = torch.zeros_like(self.strip[:1])
        newest[0, : len(drawn)] = drawn[:REMEMBERED].to(newest.device)
        self.strip = torch.cat([self.strip[1:], newest])


class SentenceGRU(nn.Module):
    """RNN_Enc: the state of a GRU after the last word; where it reads both ways, half of it comes from each.

    forward(embed, words [B, T], lengths [B]) -> [B, dim]; what follows the last word does not reach it.
    """

    def __init__(self, word_dim: int, dim: int, both_ways: bool):
        super().__init__()
        widths = (dim // 2, dim - dim // 2) if both_ways else (dim,)
        self.ways = nn.ModuleList(nn.GRU(word_dim, width, batch_first=True) for width in widths)
        for rnn in self.ways:
            for gate in rnn.weight_hh_l0.data.chunk(3):
                nn.init.orthogonal_(gate)

    def forward(self, embed: Callable[[Tensor], Tensor], words: Tensor, lengths: Tensor) -> Tensor:
        rows, last = torch.arange(len(words), device=words.device), lengths - 1
        backwards = (last[:, None] - torch.arange(words.shape[1], device=words.device)).clamp(min=0)  # (B, T)
        orders = (words, words.gather(1, backwards))
        return torch.cat([rnn(embed(order))[0][rows, last] for rnn, order in zip(self.ways, orders, strict=False)], -1)


def similarity(settings) -> Callable[[Tensor, Tensor], Tensor]:
    """s* of every picture and caption, [N, 2D] and [M, 2D] -> [N, M]; s of the abstract level where that is all."""
    s = partial(order_similarity, direction=settings.direction, squared=settings.squared)
    return two_level(settings.lam, s) if settings.levels == "both" else s


def pixels(picture: Tensor) -> Tensor:
    """Bytes (B, 3, S, S) as numbers from -1 to 1."""
    return (picture.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def same_text(owner: Tensor, words: Tensor) -> Tensor:
    """Which captions of a batch (B, B) are no wrong ones for each picture: its own, and those with the same words."""
    return (owner[:, None] == owner) | (words[:, None] == words).all(-1)
