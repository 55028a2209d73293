"""GXN: it matches as the equations say, and what it imagines teaches what it looks with, unless that is cut."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from lib.layers.decoder import END, PAD, UNKNOWN
from lib.metrics import retrieval
from lib.metrics.captions import CiderD
from lib.models.gxn import FRAMES, GXN, REMEMBERED, SentenceGRU, pixels, same_text
from lib.papers.gxn import ModelSettings

VOCABULARY = 20
SMALL = {
    **{"word_dim": 8, "joint_dim": 10, "decoder_dim": 12, "decoder_word_dim": 8, "decoder_dropout": 0.0, "longest": 6},
    **{"picture_size": 8, "width": 2, "condition_dim": 5, "noise_dim": 4},
}
EVERYTHING = {"captions": True, "pictures": True}
START = SimpleNamespace(epoch=0, step=0, share=0.0)


def model(sentence_dim=VOCABULARY, **changes) -> GXN:
    torch.manual_seed(0)
    return GXN(6, sentence_dim, VOCABULARY, settings(**changes))


def settings(**changes) -> SimpleNamespace:
    """The model's, and those of training that it asks for."""
    return SimpleNamespace(**vars(ModelSettings(**SMALL | changes)), learning_rate=1e-2, weight_decay=0.0)


def batch(pairs=7, grid=False, frozen=False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 6, (pairs,), generator=generator)
    words = torch.randint(3, VOCABULARY, (pairs, 5), generator=generator) * (torch.arange(5) < lengths[:, None])
    caption = torch.nn.functional.pad(words, (0, 1)).scatter(1, lengths[:, None], END)
    image = torch.randn(pairs, 4, 6, generator=generator) if grid else torch.randn(pairs, 6, generator=generator)
    owner = torch.tensor([0, 1, 1, 2, 3, 4, 5])[:pairs]
    words = torch.randn(pairs, 9, generator=generator) if frozen else words
    return {"image": image, "words": words, "lengths": lengths, "owner": owner, "caption": caption}


def pictures(pairs=7, size=8, **options) -> dict[str, torch.Tensor]:
    drawn = torch.randint(0, 256, (pairs, 3, size, size), generator=torch.Generator().manual_seed(2)).byte()
    return {"picture": drawn, **{name: batch(pairs, **options)[name] for name in ("words", "lengths", "owner")}}


def of(part, **options) -> dict[str, torch.Tensor]:
    return batch(**options) if part == "match" else pictures(**options)


# ---- look ----


def test_padding_does_not_reach_a_sentence():
    gxn, b = model(), batch()
    together = gxn.encode_sentences(b["words"], b["lengths"])
    assert together.shape == (7, 20)
    for row, (words, length) in enumerate(zip(b["words"], b["lengths"], strict=True)):
        alone = gxn.encode_sentences(words[None, :length], length[None])
        torch.testing.assert_close(together[row], alone[0])


def test_reading_both_ways_is_what_torch_calls_bidirectional():
    torch.manual_seed(0)
    ours, theirs = SentenceGRU(4, 6, both_ways=True), torch.nn.GRU(4, 3, bidirectional=True, batch_first=True)
    state = {name: value for name, value in ours.ways[0].state_dict().items()}
    state |= {f"{name}_reverse": value for name, value in ours.ways[1].state_dict().items()}
    theirs.load_state_dict(state)
    embed, words = torch.nn.Embedding(9, 4), torch.tensor([[3, 1, 4, 1, 5], [9 - 1, 2, 6, 0, 0]])
    found = ours(embed, words, torch.tensor([5, 3]))
    for row, length in enumerate((5, 3)):
        _, last = theirs(embed(words[row : row + 1, :length]))  # (2, 1, 3)
        torch.testing.assert_close(found[row], last.flatten())


def test_a_grid_is_looked_at_by_its_mean():
    gxn, image = model(), batch(grid=True)["image"]
    torch.testing.assert_close(gxn.encode_images(image), gxn.encode_images(image.mean(1)))


def test_a_network_that_is_trained_reads_pixels():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 6))
    gxn = GXN(6, VOCABULARY, VOCABULARY, settings(), network)
    losses = gxn.losses("match", {**batch(), "image": torch.randn(7, 3, 2, 2)}, START)
    sum(losses.values()).backward()
    assert network[1].weight.grad.abs().sum() > 0
    groups = gxn.optimizers(gxn.settings)["match"].optimizer.param_groups
    rates = {len(group["params"]): group["lr"] for group in groups}
    assert rates[2] == gxn.settings.image_rate == 1e-5 and 1e-2 in rates.values()


# ---- match ----

FORMS = [
    {},
    {"lam": 0.9},
    {"direction": "vendrov"},
    {"squared": False},
    {"absolute": True, "unit_norm": True},
    {"levels": "abstract"},
]


def plain_similarity(gxn, v, t):
    """s*(t, v) of one picture and one sentence."""
    s = gxn.settings

    def one_level(v, t):
        v, t = (x.abs() if s.absolute else x for x in (v, t))
        v, t = (normalize(x, dim=0) if s.unit_norm else x for x in (v, t))
        squares = ((v - t if s.direction == "gxn" else t - v).clamp(min=0) ** 2).sum().item()
        return -squares if s.squared else -(squares**0.5)

    shares = {"h": s.lam, "l": 1 - s.lam} if s.levels == "both" else {"h": 1.0}
    return sum(share * one_level(v[k], t[k]) for k, share in shares.items())


@pytest.mark.parametrize("changes", FORMS)
def test_the_loss_is_the_papers_double_sum(changes):
    gxn, b = model(**changes, margin=0.3), batch()
    v, t = gxn.look_at_picture(b["image"]), gxn.look_at_text(b["words"], b["lengths"])
    v, t = ([{k: level[i] for k, level in side.items()} for i in range(7)] for side in (v, t))
    s = torch.tensor([[plain_similarity(gxn, v[i], t[j]) for j in range(7)] for i in range(7)])  # pictures, sentences
    torch.testing.assert_close(
        gxn.similarity(gxn.encode_images(b["image"]), gxn.encode_sentences(b["words"], b["lengths"])), s
    )
    total = 0.0
    for n in range(7):
        others = [m for m in range(7) if b["owner"][m] != b["owner"][n]]
        total += sum(max(0, 0.3 - s[n, n].item() + s[n, m].item()) for m in others)  # t'
        total += sum(max(0, 0.3 - s[n, n].item() + s[m, n].item()) for m in others)  # v'
    (loss,) = gxn.losses("match", b, START).values()
    assert loss.item() == pytest.approx(total / 7, rel=1e-5)


def test_hardest_negatives_come_after_all_of_them():
    gxn, b, losses = model(negatives="hardest", hardest_after=2), batch(), []
    for epoch in range(4):
        losses.append(gxn.losses("match", b, SimpleNamespace(epoch=epoch))["ranking"].item())
    assert losses[0] == losses[1] > losses[2] == losses[3]


@pytest.mark.parametrize("changes", FORMS)
def test_it_is_ranked_as_it_matches(changes):
    gxn, b = model(**changes).eval(), batch()
    with torch.no_grad():
        images, captions = gxn.encode_images(b["image"][[0, 1]]), gxn.encode_sentences(b["words"], b["lengths"])
    owner = torch.tensor([0, 1, 1, 0, 0, 1, 1])
    scores = gxn.similarity(images, captions)
    _, ranks = retrieval.ranks(images, captions, owner, gxn.similarity)
    expected = [int(scores[1 - own, j] >= scores[own, j]) for j, own in enumerate(owner.tolist())]
    assert ranks.tolist() == expected


# ---- imagining teaches ----


def gradients(gxn, losses) -> dict[str, float]:
    """How much of a gradient each group of weights gets; the first word or two of their names."""
    gxn.zero_grad()
    sum(losses.values()).backward()
    found = {}
    for name, weight in gxn.named_parameters():
        group = ".".join(name.split(".")[:2]) if name.startswith(("P_", "RNN_Enc")) else name.split(".")[0]
        found[group] = found.get(group, 0.0) + (0.0 if weight.grad is None else weight.grad.abs().sum().item())
    return found


def some_reward(sentences, owner):
    return (sentences % 5 == 0).float().mean(1) + owner


@pytest.mark.parametrize("attention", (False, True))
@pytest.mark.parametrize("loss", ("xe", "rl"))
@pytest.mark.parametrize("passed", (True, False))
def test_what_is_said_teaches_the_grounded_look_at_pictures(loss, passed, attention):
    gxn = model(captions=True, caption_gradient=passed, gamma=0.5, baseline="none", attention=attention)
    gxn.reward = some_reward
    losses = gxn.losses("match", batch(grid=attention), START)
    assert set(losses) == {"ranking", "xe", "rl"}
    found = gradients(gxn, {loss: losses[loss]})
    assert (found["P_v.l"] > 0) == passed and found["RNN_Dec"] > 0
    assert not any(found[group] for group in ("P_v.h", "P_t.h", "P_t.l", "RNN_Enc.h", "RNN_Enc.l", "W_e"))


@pytest.mark.parametrize("part", ("discriminator", "generator"))
@pytest.mark.parametrize("text_gradient", ("both", "discriminator", "generator", "none"))
def test_what_is_drawn_teaches_the_grounded_reading(part, text_gradient):
    gxn = model(pictures=True, text_gradient=text_gradient)
    found = gradients(gxn, gxn.losses(part, pictures(), START))
    passed = text_gradient in ("both", part)
    assert (found["RNN_Enc.l"] > 0) == (found["P_t.l"] > 0) == passed
    assert (found["D"] > 0) == (part == "discriminator")
    assert (found["G"] > 0) == (found["phi"] > 0) == (part == "generator")
    assert not any(found[group] for group in ("P_v.h", "P_v.l", "P_t.h", "RNN_Enc.h"))
    groups = gxn.optimizers(gxn.settings)[part].optimizer.param_groups
    assert any(weight is gxn.P_t["l"].weight for group in groups for weight in group["params"]) == passed


@pytest.mark.parametrize("term", ("generator", "drawn contrastive", "l1", "kl"))
def test_each_loss_of_a_drawing_teaches_the_reading(term):
    gxn = model(pictures=True)
    found = gradients(gxn, {term: gxn.losses("generator", pictures(), START)[term]})
    assert found["RNN_Enc.l"] > 0 and found["P_t.l"] > 0


def test_each_weight_belongs_to_one_part_and_the_reading_to_three():
    gxn = model(**EVERYTHING)
    optimizers = {name: part.optimizer for name, part in gxn.optimizers(gxn.settings).items()}
    assert [*optimizers] == ["match", "discriminator", "generator"]
    owners = {name: [] for name, _ in gxn.named_parameters()}
    for part, optimizer in optimizers.items():
        inside = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        for name, weight in gxn.named_parameters():
            owners[name] += [part] * (id(weight) in inside)
    for name, parts in owners.items():
        grounded, mean = name.startswith(("RNN_Enc.l", "P_t.l")), name.startswith("G_mean.")
        assert len(parts) == (3 if grounded else 0 if mean else 1), name
    assert [*model(captions=True).optimizers(settings(captions=True))] == ["match"]


def test_frozen_weights_are_in_no_optimizer():
    gxn = model(**EVERYTHING)
    gxn.RNN_Enc.requires_grad_(False)
    for part in gxn.optimizers(gxn.settings).values():
        assert all(weight.requires_grad for group in part.optimizer.param_groups for weight in group["params"])


@pytest.mark.parametrize("changes", [
    {},
    {"levels": "abstract"},
    {"captions": True},
    {"captions": True, "matching": False},
    {"captions": True, "attention": True},
    {"captions": True, "gamma": 0.7, "baseline": "greedy"},
    {"captions": True, "gamma": 0.7, "baseline": "mean"},
    {"captions": True, "sentence": "frozen", "image_head": "mlp"},
    {"pictures": True},
    {"pictures": True, "game": "saturating", "spectral": False, "contrastive": 0.0, "l1": 0.0},
    {"pictures": True, "game": "non-saturating", "noise": "uniform", "augment": False},
    {"pictures": True, "sentence": "frozen", "image_head": "mlp"},
])  # fmt: skip
def test_every_part_of_every_form_takes_steps(changes):
    frozen = changes.get("sentence") == "frozen"
    gxn = model(9 if frozen else VOCABULARY, **changes)
    gxn.reward = some_reward
    before = {name: weight.clone() for name, weight in gxn.named_parameters()}
    for part, own in gxn.optimizers(gxn.settings).items():
        for _ in range(2):
            b = of(part, frozen=frozen, **({"grid": changes.get("attention", False)} if part == "match" else {}))
            losses = gxn.losses(part, b, START)
            assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
            sum(losses.values()).backward()
            own.optimizer.step()
            gxn.zero_grad()
    still = [name for name, weight in gxn.named_parameters() if weight.equal(before[name])]
    reading = ("W_e", "RNN_Enc", "P_t") if changes.get("matching") is False else ()
    untaught = ("P_v.h", *reading) if reading else ()
    assert all(name.startswith(untaught) for name in still) if untaught else not still, still


# ---- imagine a sentence ----


def test_it_learns_to_say_the_captions_of_its_batch():
    gxn, b = model(captions=True, longest=7), batch()
    b["owner"] = torch.arange(7)
    optimizer = gxn.optimizers(gxn.settings)["match"].optimizer
    for _ in range(150):
        sum(gxn.losses("match", b, START).values()).backward()
        optimizer.step()
        gxn.zero_grad()
    said = gxn.eval().caption(b["image"])
    assert torch.nn.functional.pad(said, (0, 6 - said.shape[1])).equal(b["caption"])
    assert not (said == UNKNOWN).any() and (said[:, 0] != PAD).all()


@pytest.mark.parametrize("baseline", ("greedy", "mean", "none"))
def test_reinforcement_raises_the_reward(baseline):
    gxn = model(captions=True, matching=False, gamma=1.0, baseline=baseline, dropout=0.2)
    gxn.reward = lambda sentences, owner: (sentences == 7).float().sum(1)
    optimizer, b = gxn.optimizers(gxn.settings)["match"].optimizer, batch()
    torch.manual_seed(0)
    before = gxn.reward(gxn.caption(b["image"], sample=True), None).mean()
    for _ in range(60):
        sum(gxn.losses("match", b, START).values()).backward()
        optimizer.step()
        gxn.zero_grad()
    after = gxn.reward(gxn.caption(b["image"], sample=True), None).mean()
    assert before < 1 and after > 3


def test_the_greedy_baseline_is_the_reward_of_the_greedy_caption():
    gxn, b = model(captions=True, gamma=1.0).eval(), batch()
    gxn.reward = some_reward
    state = gxn.start_caption(b["image"])
    expected = some_reward(gxn.caption(b["image"]), b["owner"])
    assert gxn.baseline(torch.zeros(7), state, b["owner"]).equal(expected)


def test_the_running_mean_follows_the_rewards_and_is_kept():
    gxn = model(captions=True, gamma=1.0, baseline="mean")
    r = torch.tensor([1.0, 3.0])
    assert gxn.baseline(r, {}, None) == 0
    assert gxn.baseline(r, {}, None).item() == pytest.approx(0.2)
    assert gxn.state_dict()["mean_reward"].item() == pytest.approx(0.38)


def test_reinforcement_needs_a_reward():
    with pytest.raises(ValueError, match="gamma is 0.5, but the model has no reward, expected one to be set"):
        model(captions=True, gamma=0.5).losses("match", batch(), START)


def test_captions_are_found_step_by_step_as_a_beam_search_does():
    gxn, b = model(captions=True).eval(), batch()
    state = {name: rows.repeat_interleave(2, 0) for name, rows in gxn.start_caption(b["image"]).items()}
    words, said = torch.full((14,), END), []
    for _ in range(3):
        scores, state = gxn.RNN_Dec.step(words, state)  # (N, V)
        words = scores.argmax(-1)
        said.append(words)
    said = torch.stack(said, 1)[::2]
    expected = gxn.caption(b["image"])[:, :3]
    assert said.masked_fill(expected == PAD, PAD).equal(expected)


# ---- imagine a picture ----


def test_a_text_and_a_noise_are_one_picture():
    gxn, b = model(pictures=True).eval(), batch()
    t_l, z = gxn.look_at_text(b["words"], b["lengths"], ("l",))["l"], torch.randn(7, 4)
    drawn = gxn.imagine(t_l, z)
    assert drawn.shape == (7, 3, 8, 8) and drawn.abs().max() <= 1
    assert gxn.imagine(t_l, z).equal(drawn) and not gxn.imagine(t_l).equal(drawn)


def test_a_discriminator_that_is_to_see_them_moved_does():
    gxn, still = model(pictures=True, shift=3).eval(), model(pictures=True, shift=0).eval()
    pictures = torch.rand(2, 3, 8, 8) * 2 - 1
    assert still.seen(pictures).equal(still.D.features(pictures))
    assert len({gxn.seen(pictures).sum().item() for _ in range(20)}) > 5


def test_what_draws_is_the_mean_of_the_generator_over_its_steps():
    gxn, plain = model(pictures=True, generator_average=0.9), model(pictures=True, generator_average=0.0)
    name = "first.weight"
    before, mean = gxn.G.state_dict()[name].clone(), gxn.G_mean.state_dict()[name]
    assert mean.equal(before) and not any(weight.requires_grad for weight in gxn.G_mean.parameters())
    with torch.no_grad():
        gxn.G.first.weight.add_(1.0)
    gxn.follow_generator()
    assert torch.allclose(gxn.G_mean.first.weight, before + 0.1)
    gxn.G.norm.running_var.fill_(7.0)
    gxn.follow_generator()
    assert (gxn.G_mean.norm.running_var == 7).all()  # or it would go on from a fresh norm's
    gxn.eval()
    t_l, z = torch.randn(3, gxn.settings.joint_dim), torch.randn(3, 4)
    assert gxn.imagine(t_l, z).equal(gxn.G_mean(z, gxn.phi(t_l)[0]))
    plain.follow_generator()
    assert not hasattr(plain, "G_mean") and plain.eval().imagine(t_l, z).equal(plain.G(z, plain.phi(t_l)[0]))


def test_the_newest_frames_of_the_strip_are_kept():
    gxn = model(pictures=True)
    for shade in range(1, FRAMES + 3):
        gxn.remember(torch.full((6, 3, 8, 8), shade, dtype=torch.uint8))
    assert gxn.strip[:, 0, 0, 0, 0].tolist() == list(range(3, FRAMES + 3)) and gxn.strip.shape[1] == REMEMBERED
    gxn.remember(torch.ones(1, 3, 8, 8, dtype=torch.uint8))
    assert gxn.strip[-1].flatten(1).amax(1).tolist() == [1] + [0] * (REMEMBERED - 1)


def test_noise_is_what_its_name_says():
    uniform = model(pictures=True, noise="uniform").noise(500, torch.device("cpu"))
    gaussian = model(pictures=True).noise(500, torch.device("cpu"))
    assert uniform.abs().max() <= 1 and gaussian.abs().max() > 2
    assert uniform.std().item() == pytest.approx(3**-0.5, abs=0.05)
    assert gaussian.std().item() == pytest.approx(1, abs=0.05)


def test_pixels_are_from_minus_one_to_one():
    picture = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(pixels(picture).flatten(), torch.tensor([-1, -0.6, 1]))


def test_a_caption_with_the_same_words_is_no_wrong_one():
    owner, words = torch.tensor([0, 1, 1, 2]), torch.tensor([[3, 4], [5, 0], [6, 0], [3, 4]])
    expected = torch.eye(4, dtype=torch.bool)
    for i, j in ((1, 2), (0, 3)):
        expected[i, j] = expected[j, i] = True
    assert same_text(owner, words).equal(expected)


def test_a_wrong_caption_is_the_one_before_unless_it_is_right():
    """The loss of the discriminator, pair by pair."""
    gxn, b = model(pictures=True, contrastive=0.0, beta_w=0.7, beta_f=0.0, shift=0).eval(), pictures()
    found = gxn.losses("discriminator", b, START)["discriminator"].item()
    f = gxn.D.features(pixels(b["picture"]))
    E_t = gxn.D.texts(gxn.look_at_text(b["words"], b["lengths"], ("l",))["l"])
    real = [max(0, 1 - gxn.D(f[i : i + 1], E_t[i : i + 1]).item()) for i in range(7)]
    pairs = [(i, i - 1) for i in range(7) if b["owner"][i] != b["owner"][i - 1]]  # not (2, 1)
    wrong = [max(0, 1 + gxn.D(f[i : i + 1], E_t[[j]]).item()) for i, j in pairs]
    assert len(wrong) == 6 and found == pytest.approx(sum(real) / 7 + 0.7 * sum(wrong) / 6, rel=1e-5)


def test_bfloat16():
    gxn = model(**EVERYTHING, gamma=0.5)
    gxn.reward = some_reward
    for part in ("match", "discriminator", "generator"):
        with torch.autocast("cpu", torch.bfloat16):
            losses = gxn.losses(part, of(part), START)
        sum(losses.values()).backward()
        assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())


@pytest.mark.parametrize("part", ("match", "discriminator", "generator"))
def test_a_step_waits_for_no_number_and_makes_none_elsewhere(part):
    """On the device "meta" there are no numbers to wait for, and none of another device may join in."""
    gxn = model(**EVERYTHING, gamma=0.5, attention=True).to("meta")
    gxn.reward = CiderD([[[3, 4, END]]] * 6).to("meta").score
    b = {name: value.to("meta") for name, value in of(part, **({"grid": True} if part == "match" else {})).items()}
    sum(gxn.losses(part, b, START).values()).backward()
    assert gxn.P_t["l"].weight.grad is not None
