"""K3M against its equations read plainly, whatever is missing, in each of its rows."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from lib.encoders.regions import distribution
from lib.models.k3m import K3M, Fusion
from lib.papers import k3m
from lib.run import experiment
from lib.tasks.listings import TASKS

SIZES = {"pieces": 40, "labels": 5, "region": 12, "classes": 50}
SMALL = dict(width=24, heads=3, graph_heads=4, text_layers=1, image_layers=1, co_layers=1, longest=8, dropout=0.0)
PAPER = "lib.papers.k3m"


def settings(variant: str = "k3m", **changes) -> k3m.Settings:
    return experiment.resolve(PAPER, variant, SMALL | {"tasks": TASKS} | changes)


def model(variant: str = "k3m", **changes) -> K3M:
    torch.manual_seed(0)
    s = settings(variant, **changes)
    return K3M(SIZES, s, k3m.inner_width(SIZES, s)).eval()


def lengths_mask(lengths, width):
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def batch(texts=(5, 0, 3, 0, 2), pictures=(3, 4, 0, 0, 1), triples=(2, 3, 0, 0, 4), seed=1) -> dict:
    """Five listings with so many words, regions and triples each; everything a loss may take beside them."""
    make, B = torch.Generator().manual_seed(seed), len(texts)
    draw = lambda high, *shape: torch.randint(high, shape, generator=make)  # noqa: E731
    shown = lengths_mask(triples, 4)
    regions = lengths_mask(pictures, 4)
    found = {
        "text": 4 + draw(36, B, 8), "text_mask": lengths_mask(texts, 8),
        "graph": 4 + draw(36, B, 8), "graph_mask": lengths_mask([2 * n for n in triples], 8),
        "regions": torch.randn(B, 4, 12, generator=make) * regions[..., None],
        "boxes": torch.rand(B, 4, 5, generator=make) * regions[..., None], "region_mask": regions,
        "spans": 4 + draw(36, 9, 4), "span_mask": lengths_mask([1, 2, 3, 4, 1, 2, 3, 4, 2], 4),
        "properties": draw(9, B, 4), "values": draw(9, B, 4), "wrong": draw(9, B, 4), "triple_mask": shown,
    }  # fmt: skip
    hidden = {"masked_words": torch.tensor([0, 17]), "words": torch.tensor([7, 8]),
              "masked_values": torch.tensor([0]), "value_words": torch.tensor([5]),
              "masked_regions": torch.tensor([0, 5]), "targets": torch.rand(2, 12, generator=make),
              "target_classes": torch.stack([torch.randperm(50, generator=make)[:32] for _ in range(2)]),
              "target_probabilities": torch.full((2, 32), 1 / 40)}  # fmt: skip
    asked = {"items": torch.tensor([0, 3]), "labels": torch.tensor([1, 4]), "left": torch.tensor([0]),
             "right": torch.tensor([2]), "same": torch.tensor([1]), "asked": torch.tensor([1, 4]),
             "candidates": torch.arange(6), "answers": torch.tensor([2, 5])}  # fmt: skip
    return found | hidden | asked


def one(found: dict, row: int) -> dict:
    """One listing of a batch, alone and without its paddings."""
    alone = {name: value[row : row + 1] for name, value in found.items() if value.shape[0] == 5}
    alone |= {"spans": found["spans"], "span_mask": found["span_mask"]}
    for name, mask in (("text", "text_mask"), ("graph", "graph_mask"), ("regions", "region_mask")):
        width = max(1, int(found[mask][row].sum()))
        alone |= {name: alone[name][:, :width], mask: alone[mask][:, :width]}
    return alone | {"boxes": alone["boxes"][:, : alone["regions"].shape[1]]}


# ---- whatever is missing ----

FORMS = ("k3m", "two-stream", "single-stream-graph", "lxmert-graph", "graph-as-text", "fusion-soft", "published-text")


@pytest.mark.parametrize("variant", FORMS)
def test_a_listing_is_the_same_alone_and_among_others_whatever_it_lacks(variant):
    net, found = model(variant), batch()
    with torch.no_grad():
        together = net.encode(**found)["c_star"]
        for row in range(5):
            alone = net.encode(**one(found, row))["c_star"][0]
            assert alone.isfinite().all() and torch.allclose(alone, together[row], atol=1e-5)


@limits(max_examples=8, deadline=None)
@given(*(st.lists(st.integers(0, most), min_size=5, max_size=5) for most in (8, 4, 4)), st.sampled_from(FORMS[:-1]))
def test_losses_and_gradients_are_finite_in_any_mixture(texts, pictures, triples, variant):
    for stage in ("pretraining", "tuning"):
        net = model(variant, stage=stage).train()
        sum(net(**batch(texts, pictures, triples)).values()).backward()
        assert all(weight.grad.isfinite().all() for weight in net.parameters())


@pytest.mark.parametrize("stage", ["pretraining", "tuning"])
@pytest.mark.parametrize("variant", [name for name in k3m.MODELS if name != "published-text"])
def test_every_weight_takes_part_in_every_row(variant, stage):
    """Or several processes that share a run would wait for a gradient that never comes."""
    net, found = model(variant, stage=stage).train(), batch()
    found["targets"] = found["targets"][:, : 3 if net.settings.objects == "colours" else 12]
    losses = net(**found)
    sum(losses.values()).backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None] == []
    s = net.settings
    known = {"mlm", "mom"} | ({"lpm"} if s.graph == "attention" else set())
    wanted = known & set(s.objectives) | ({"values"} if s.masked_values else set())
    assert set(losses) == (wanted if stage == "pretraining" else set(s.tasks))


@pytest.mark.parametrize("stage", ["pretraining", "tuning"])
@pytest.mark.parametrize("variant", ["k3m", "fusion-soft", "single-stream", "lxmert-graph", "released", FORMS[-1]])
def test_a_step_waits_for_nothing(variant, stage):
    """On the device "meta" tensors have no values: whoever asks for one, or mixes in a tensor of the CPU, fails."""
    net = model(variant, stage=stage).to("meta").train()
    sum(net(**{name: value.to("meta") for name, value in batch().items()}).values()).backward()


def test_a_batch_of_one_kind_and_of_nothing_hidden_has_losses_of_zero():
    found = batch()
    none = {name: found[name][:0] for name in ("left", "right", "same", "asked", "answers")}
    losses = model()(**found | none)
    assert losses["alignment"] == losses["questions"] == 0 < losses["classification"]
    names = ("masked_words", "words", "masked_regions", "targets", "target_classes", "target_probabilities")
    losses = model(stage="pretraining")(**found | {name: found[name][:0] for name in names})
    assert losses["mlm"] == losses["mom"] == 0 < losses["lpm"]


# ---- sizes ----


@pytest.mark.parametrize("profile, variants, count", [
    ("smoke", k3m.MODELS, 20), ("small", k3m.MODELS, 20),
    ("paper", ("k3m", "single-stream", "two-stream-graph", "lxmert", "released"), 5),
])  # fmt: skip
def test_all_rows_have_as_many_weights_within_five_per_cent(profile, variants, count):
    sizes, counts = {"pieces": 1500, "labels": 24, "region": 1280, "classes": 1000}, {}
    for variant in variants:
        s = experiment.resolve(PAPER, variant, {"profile": profile, "stage": "tuning", "tasks": TASKS})
        if s.text_encoder == "wordpiece":
            counts[variant] = k3m._size(sizes, s, k3m.inner_width(sizes, s))
    assert len(counts) >= count and max(counts.values()) <= 1.05 * min(counts.values()), counts
    s = experiment.resolve(PAPER, "k3m", {"profile": profile})
    assert k3m.inner_width(sizes, s) == 4 * s.width


# ---- fusion ----


def fused(kind, sources, **changes):
    torch.manual_seed(0)
    fusion = Fusion(settings(fusion=kind, **changes), len(sources)).eval()
    return fusion, *fusion(sources)


@pytest.mark.parametrize("count", [2, 3])
def test_fusion_is_what_its_name_says(count):
    sources = [torch.randn(2, 3, 24) for _ in range(count)]
    assert torch.allclose(fused("mean", sources)[1], sum(sources) / count)
    assert torch.allclose(fused("residual", sources)[1], sum(sources))
    assert torch.allclose(fused("none", sources)[1], sum(sources[1:]) / (count - 1))
    fusion, found, gates = fused("soft", sources)
    g = torch.sigmoid(fusion.W_g(torch.cat(sources, -1))).chunk(count, -1)
    assert torch.allclose(found, fusion.W_s(torch.cat([a * h for a, h in zip(g, sources, strict=True)], -1)), atol=1e-6)
    assert torch.allclose(gates, torch.stack([a.mean(-1) for a in g], -1), atol=1e-6)
    fusion, found, gates = fused("hard", sources)
    scores = torch.stack(fusion.W_g(torch.cat(sources, -1)).chunk(count, -1))  # (n, B, T, d)
    best = scores.argmax(0)
    assert torch.equal(found, torch.stack(sources).gather(0, best[None])[0])
    assert torch.allclose(gates.sum(-1), torch.ones(2, 3))
    assert torch.allclose(gates[..., 0], (best == 0).float().mean(-1))
    positive = [h.relu() for h in sources]
    fusion, squashed, _ = fused("hard", sources, gates="squashed")
    best = torch.stack(fusion.W_g(torch.cat(positive, -1)).chunk(count, -1)).argmax(0)  # sigmoid keeps the order
    assert torch.equal(squashed, torch.stack(positive).gather(0, best[None])[0])


def test_the_hard_choice_is_drawn_in_training_and_never_at_evaluation():
    net, found = model(), batch()
    with torch.no_grad():
        first, again = (net.encode(**found)["c_star"] for _ in range(2))
        assert torch.equal(first, again)
        net.train()
        assert not torch.equal(net.encode(**found)["c_star"], net.encode(**found)["c_star"])
        released = model(sampling="always")
        assert not torch.equal(released.encode(**found)["c_star"], released.encode(**found)["c_star"])


def test_the_choice_in_training_is_gumbel_softmax():
    torch.manual_seed(0)
    fusion, found = Fusion(settings(), 3).train(), {}
    scores = torch.tensor([1.0, 0.0, -0.5])[:, None].repeat(40000, 1, 1)  # (N, n, 1)
    for name, choose in {"ours": fusion.choose, "torch": lambda g: F.gumbel_softmax(g, hard=True, dim=-2)}.items():
        g = scores.clone().requires_grad_()
        chosen = choose(g)
        chosen[:, 0].sum().backward()
        assert torch.allclose(chosen.sum(-2), torch.ones(40000, 1)) and chosen.round().unique().tolist() == [0, 1]
        found[name] = [*chosen.mean(0)[:, 0].tolist(), *g.grad.mean(0)[:, 0].tolist()]
    assert found["ours"] == pytest.approx(found["torch"], abs=0.01)
    assert found["ours"][:3] == pytest.approx(scores[0, :, 0].softmax(0).tolist(), abs=0.01)


def test_what_a_modality_is_by_itself_comes_from_its_encoder_or_is_its_embedding():
    found, seen = batch(), {}
    for initial in ("encoder", "embeddings"):
        net = model(initial=initial, fusion="residual")
        embedded, encoded = net.backbone.text(found["text"], found["text_mask"])
        net.backbone.interact["text-image"].forward = lambda x, y, *masks: (torch.zeros_like(x), torch.zeros_like(y))
        states, _ = net.backbone(found)
        seen[initial] = torch.equal(states["text"], encoded), torch.equal(states["text"], embedded)
    assert seen == {"encoder": (True, False), "embeddings": (False, True)}


# ---- the item ----


def test_an_item_is_the_mean_of_its_real_positions_and_what_its_triples_add():
    net, found = model(), batch()
    with torch.no_grad():
        said = net.encode(**found)
        for row in range(5):
            words = said["states"]["text"][row][found["text_mask"][row]]
            regions = net.W_0(said["states"]["image"][row][found["region_mask"][row]])
            every = torch.cat([words, regions])
            c = every.mean(0) if len(every) else torch.zeros(24)
            assert torch.allclose(said["c"][row], c, atol=1e-6)
        p, v = said["vectors"][found["properties"]], said["vectors"][found["values"]]
        added, a = net.structure(said["c"], p, v, found["triple_mask"])
        assert torch.equal(said["c_star"], said["c"] + added) and torch.equal(said["attention"], a)
        assert torch.equal(said["c_star"][2], said["c"][2])  # no triples
    released = model(pooling="all").encode(**found)
    mapped = [released["states"]["text"], model().W_0(released["states"]["image"])]
    assert torch.allclose(released["c"], sum(h.mean(1) for h in mapped) / 2, atol=1e-6)


def test_a_property_is_the_mean_of_all_its_pieces_or_of_the_two_at_its_ends():
    found = batch()
    for pooling in ("mean", "ends"):
        net = model(span_pooling=pooling)
        with torch.no_grad():
            h = net.backbone.read(found["spans"], found["span_mask"])
            vectors = net.read_spans(found["spans"], found["span_mask"])
            for row, mask in enumerate(found["span_mask"]):
                own = h[row][mask]
                expected = own.mean(0) if pooling == "mean" else (own[0] + own[-1]) / 2
                assert torch.allclose(vectors[row], expected, atol=1e-6)


def test_three_streams_meet_in_pairs():
    net = model("released")
    states, gates = net.backbone(batch())
    assert set(net.backbone.interact) == {"text-image", "graph-image", "graph-text"}
    assert set(states) == {"text", "image", "graph"} and {gate.shape[-1] for gate in gates.values()} == {3}


# ---- losses ----


def test_words_and_objects_are_told_from_the_fused_states():
    net, found = model(stage="pretraining"), batch()
    with torch.no_grad():
        states, losses = net.encode(**found)["states"], net(**found)
        h = states["text"].reshape(-1, 24)[[0, 17]]
        logits = net.heads["word"](h) @ net.backbone.text.W_e.weight.T
        assert torch.allclose(losses["mlm"], F.cross_entropy(logits, torch.tensor([7, 8])), atol=1e-6)
        said = net.heads["object"](states["image"].reshape(-1, 12 * 2)[[0, 5]]).log_softmax(-1)
        goal = distribution(found["target_classes"], found["target_probabilities"], 50)
        divergence = (goal * (goal.log() - said)).sum(-1).mean()
        assert torch.allclose(losses["mom"], divergence, atol=1e-5)
    for objects, width in (("features", 12), ("colours", 3)):
        net = model(stage="pretraining", objects=objects)
        goal = found["targets"][:, :width]
        h = net.encode(**found)["states"]["image"].reshape(-1, 24)[[0, 5]]
        loss = net(**found | {"targets": goal})["mom"]
        assert torch.allclose(loss, (net.heads["object"](h) - goal).square().mean(), atol=1e-6)


def test_links_are_told_from_wrong_ones_by_a_margin():
    net, found = model(stage="pretraining", margin=0.5), batch()
    found["triple_shown"] = found["triple_mask"] & torch.tensor([True, False, True, False])
    with torch.no_grad():
        said, items = net.encode(**found), []
        for row in range(5):
            terms = []
            for x in range(int(found["triple_mask"][row].sum())):
                c_p = said["c_star"][row] + said["vectors"][found["properties"][row, x]]
                S, wrong = ((c_p - said["vectors"][found[name][row, x]]).abs().mean() for name in ("values", "wrong"))
                terms.append((S - wrong + 0.5).clamp(min=0))
            items += [sum(terms) / len(terms)] if terms else []
        assert torch.allclose(net(**found)["lpm"], sum(items) / len(items), atol=1e-6)
    assert not said["attention"][:, 1].any()  # what is hidden adds nothing


def test_the_released_structure_loss_tells_an_item_from_the_next():
    net, found = model(stage="pretraining", structure="next"), batch()
    said = net.encode(**found)
    own, other = net.heads["own"](said["c_star"]), net.heads["own"](said["c"].roll(-1, 0) + said["added"])
    expected = -(own.log_softmax(-1)[:, 1].mean() + other.log_softmax(-1)[:, 0].mean()) / 2
    assert torch.allclose(net(**found)["lpm"], expected, atol=1e-6)


def test_the_three_tasks_are_divided_by_the_number_of_all():
    net, found = model(), batch()
    with torch.no_grad():
        said = net.encode(**found)
        c, values, losses = said["c_star"], said["vectors"][:6], net(**found)
        items = F.cross_entropy(net.classify(c[[0, 3]]), torch.tensor([1, 4]), reduction="sum") / 5
        assert torch.allclose(losses["classification"], items)
        assert torch.allclose(losses["alignment"], -F.logsigmoid(net.compare(c[[0]], c[[2]])).sum() / 5)
        asked = c[[1, 4]] + net.heads["questions"](c[[1, 4]])
        scores = F.layer_norm(asked, (24,)) @ F.layer_norm(values, (24,)).T / 24**0.5
        answers = F.cross_entropy(scores, torch.tensor([2, 5]), reduction="sum") / 5
        assert torch.allclose(losses["questions"], answers)
        assert torch.allclose(net.compare(c[:2], c[2:4]), net.compare(c[2:4], c[:2]))


@pytest.mark.parametrize("variant", ["k3m", "two-stream-graph", "single-stream", "lxmert", "released"])
@pytest.mark.parametrize("stage", ["pretraining", "tuning"])
def test_one_batch_can_be_learned(variant, stage):
    net, found = model(variant, stage=stage).train(), batch()
    optimizer, told = torch.optim.Adam(net.parameters(), lr=5e-3), []
    for _ in range(40):
        loss = sum(net(**found).values())
        told.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(told[-5:]) / 5 < 0.75 * told[0], told[::8]


def test_settings_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="fusion 'hrd' is unknown, did you mean 'hard'"):
        settings(fusion="hrd")
    with pytest.raises(ValueError, match="masked_values with streams 'two', expected 'three'"):
        settings(masked_values=True)
    with pytest.raises(ValueError, match="heads is 5, expected a divisor of 24"):
        model(heads=5)
    with pytest.raises(ValueError, match="ratio is 1.5, expected a share"):
        settings(ratio=1.5)
    assert dataclasses.replace(settings(), stage="pretraining").epochs == settings().pretraining_epochs
