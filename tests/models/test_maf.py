"""MAF: each part says what its equation says, read the plain way."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from lib.models.maf import MAF
from lib.papers.maf import TEXT_ONLY, Settings
from lib.tasks.tagging import swap
from tests.processes import ended, two_forked

D, P, K, LONGEST = 24, 10, 5, 12
LENGTHS, TOKENS = [9, 6, 5, 7, 4, 9], [5, 4, 3, 5, 2, 6]


def model(**changes) -> MAF:
    torch.manual_seed(0)
    sizes = {"hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = BertModel(BertConfig(vocab_size=30, **sizes), add_pooling_layer=False)
    settings = {"heads": 4, "longest": LONGEST, "swap_share": 0.7, "tagger": "softmax"} | changes
    return MAF(text, P, K, Settings(**settings)).eval()


def batch(missing: tuple[int, ...] = (), length: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(length) < torch.tensor(LENGTHS)[:, None]
    tokens = torch.arange(max(TOKENS)) < torch.tensor(TOKENS)[:, None]
    pieces = torch.randint(4, 30, (6, 9), generator=generator)
    first = torch.arange(1, 7).expand(6, -1).clamp(max=torch.tensor(LENGTHS)[:, None] - 2) * tokens
    present = torch.tensor([i not in missing for i in range(6)])
    image = torch.randn(6, 4, P, generator=generator)
    tags = torch.randint(0, K, tokens.shape, generator=generator) * tokens
    pieces = F.pad(pieces, (0, length - 9)) * mask
    return {
        **{"pieces": pieces, "mask": mask, "first_pieces": first, "token_mask": tokens},
        **{"image": image, "present": present, "picture": torch.arange(6).where(present, -1), "tags": tags},
        **swapped(present, torch.arange(6)),
    }


def swapped(present: torch.Tensor, picture: torch.Tensor, share: float = 0.7, kind: str = "pictures") -> dict:
    """Which posts get whose pictures, as the task says in a batch."""
    return swap(picture.where(present, -1).numpy(), share, kind, np.random.default_rng(0))


def test_emissions_are_those_of_the_equations_token_by_token():
    maf, b = model(), batch()
    H, U, V = maf.encode(**b)
    assert torch.allclose(U, b["image"] @ maf.W_u.weight.T + maf.W_u.bias, atol=1e-6)
    assert torch.allclose(V, maf.interaction(H, U))
    found = maf.emissions(H, V, **b)
    for i in range(6):
        flat = torch.zeros(LONGEST, 2 * D)
        flat[: LENGTHS[i]] = torch.cat([H[i], V[i]], dim=-1)[: LENGTHS[i]]
        p = F.linear(flat.flatten(), maf.W_m.weight, maf.W_m.bias).softmax(0)[1]
        assert found["p"][i].item() == pytest.approx(p.item(), abs=1e-5)
        for w in range(TOKENS[i]):
            h, v = H[i, b["first_pieces"][i, w]], p * V[i, b["first_pieces"][i, w]]
            g = torch.sigmoid(maf.W_t(h) + maf.W_v(v))
            assert torch.allclose(found["emissions"][i, w], maf.W_y(torch.cat([h, g * v])), atol=1e-5)


@pytest.mark.parametrize("changes, parts", [
    ({"matching": False}, {"emissions", "g"}),
    ({"gate": False}, {"emissions", "p"}),
    ({"matching": False, "gate": False, "alignment": False}, {"emissions"}),
    (TEXT_ONLY, {"emissions"}),
])  # fmt: skip
def test_variants_leave_parts_out(changes, parts):
    maf, b = model(**changes), batch()
    assert set(maf.emissions(*maf.encode(**b)[::2], **b)) == parts
    assert set(maf(**b)) == {"ner", "matching", "alignment"} - {name for name, on in changes.items() if not on}


def test_without_gate_and_matching_the_picture_is_taken_whole():
    maf, b = model(matching=False, gate=False), batch()
    H, _, V = maf.encode(**b)
    pair = torch.cat([H[2, b["first_pieces"][2]], V[2, b["first_pieces"][2]]], dim=-1)
    assert torch.allclose(maf.emissions(H, V, **b)["emissions"][2], maf.W_y(pair), atol=1e-6)


def test_text_only_does_not_look():
    maf, b = model(**TEXT_ONLY), batch()
    other = {**b, "image": torch.randn_like(b["image"]), "present": ~b["present"]}
    assert maf.tag(**b)["tags"] == maf.tag(**other)["tags"]
    assert maf.encode(**b)[1:] == (None, None)


def test_padding_reaches_nothing_unless_pairs_are_padded():
    short, long = batch(length=9), batch(length=LONGEST)
    for padded in (False, True):
        maf = model(pad_pairs=padded)
        a, b = (maf.emissions(*maf.encode(**x)[::2], **x)["p"] for x in (short, long))
        assert torch.allclose(a, b, atol=1e-5) == (not padded)


@pytest.mark.parametrize("swap", ["pictures", "representations"])
def test_posts_that_share_a_picture_teach_nothing_about_matching(swap):
    everywhere = {**batch(), "picture": torch.zeros(6, dtype=torch.int64)}
    everywhere |= swapped(everywhere["present"], everywhere["picture"], 1.0, swap)
    maf = model(swap=swap)
    losses = maf(**everywhere)
    judged = maf.match(*maf.encode(**everywhere)[::2], everywhere["mask"])
    assert losses["matching"].item() == pytest.approx(0.2 * F.cross_entropy(judged, torch.ones(6).long()).item())
    assert losses["alignment"].item() == 0  # nothing is left that could be told apart


def plain_matching_loss(maf, b, negatives: dict[int, int]):
    """Cross-entropy, post by post: `negatives` says whose picture a post was given."""
    losses = []
    for i in range(6):
        if not b["present"][i] and i not in negatives:
            continue
        one = {name: value[i : i + 1] for name, value in b.items() if name not in ("swapped", "givers")}
        one["image"] = b["image"][negatives.get(i, i)][None]
        H, _, V = maf.encode(**one)
        losses.append(F.cross_entropy(maf.match(H, V, one["mask"]), torch.tensor([int(i not in negatives)])))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("missing", [(), (1, 4)])
def test_matching_loss_sees_the_swapped_pictures(missing):
    maf, b = model(), batch(missing)
    expected = plain_matching_loss(maf, b, dict(zip(b["swapped"].tolist(), b["givers"].tolist(), strict=True)))
    assert len(b["swapped"]) == 4
    assert maf(**b)["matching"].item() == pytest.approx(maf.settings.alpha * expected.item(), rel=1e-4)


def test_the_released_code_exchanges_what_the_last_posts_have_seen():
    maf, b = model(swap="representations"), batch()
    b |= swapped(b["present"], b["picture"], kind="representations")
    rows, givers = b["swapped"], b["givers"]
    H, _, V = maf.encode(**b)
    seen = V.clone()
    seen[rows] = V[givers]
    expected = F.cross_entropy(maf.match(H, seen, b["mask"]), torch.tensor([1, 1, 0, 0, 0, 0]))
    losses = maf(**b)
    assert losses["matching"].item() == pytest.approx(0.2 * expected.item(), rel=1e-5)
    honest = maf.tagging_loss(maf.emissions(H, V, **b)["emissions"], b["tags"], b["token_mask"])
    misled = maf.tagging_loss(maf.emissions(H, seen, **b)["emissions"], b["tags"], b["token_mask"])
    assert losses["ner"].item() == pytest.approx(honest.item(), rel=1e-5)
    released = model(swap="representations", tag_swapped=True)(**b)["ner"]
    assert released.item() == pytest.approx(misled.item(), rel=1e-5)
    assert abs(misled.item() - honest.item()) > 1e-4


@pytest.mark.parametrize("missing, sentence", [((), "mean"), ((0, 5), "mean"), ((), "cls")])
def test_alignment_loss_reads_as_the_equation(missing, sentence):
    maf, b = model(sentence=sentence), batch(missing)
    H, U, _ = maf.encode(**b)
    those = [i for i in range(6) if i not in missing]
    T_s = [H[i, 0] if sentence == "cls" else H[i, : LENGTHS[i]].mean(0) for i in those]
    T = [F.normalize(maf.text_head(summary), dim=0) for summary in T_s]
    V = [F.normalize(maf.image_head(U[i].mean(0)), dim=0) for i in those]
    total = 0.0
    for i in range(len(those)):
        to_image = torch.stack([T[i] @ V[k] for k in range(len(those))]) / 0.179
        to_text = torch.stack([T[k] @ V[i] for k in range(len(those))]) / 0.179
        total -= 0.7 * to_image.log_softmax(0)[i] + 0.3 * to_text.log_softmax(0)[i]
    assert maf.alignment_loss(H, U, **b).item() == pytest.approx(total.item() / len(those), rel=1e-4)


def test_a_missing_picture_is_a_learned_vector_that_belongs_to_every_post():
    maf, b = model(tagger="crf"), batch(missing=tuple(range(6)))
    assert len(b["swapped"]) == 0
    other = {**b, "image": torch.randn_like(b["image"])}
    assert maf.tag(**b)["tags"] == maf.tag(**other)["tags"] and maf.tag(**b)["p"].tolist() == [1.0] * 6
    losses = maf(**b)
    assert losses["matching"].item() == losses["alignment"].item() == 0.0
    sum(losses.values()).backward()
    assert maf.missing.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in maf.parameters())  # or several processes would hang


def test_softmax_and_crf_tag_only_tokens():
    for tagger in ("softmax", "crf"):
        maf, b = model(tagger=tagger), batch()
        assert [len(row) for row in maf.tag(**b)["tags"]] == TOKENS
    maf, b = model(), batch()
    emissions = maf.emissions(*maf.encode(**b)[::2], **b)["emissions"]
    rows = [(emissions[i, :n], b["tags"][i, :n]) for i, n in enumerate(TOKENS)]
    plain = sum(F.cross_entropy(*row, reduction="sum") for row in rows)
    assert maf.tagging_loss(emissions, b["tags"], b["token_mask"]).item() == pytest.approx(plain.item() / 6, rel=1e-5)


def test_weights_and_rates_are_as_set():
    b = batch()
    torch.manual_seed(5)
    one = model()(**b)
    torch.manual_seed(5)
    other = model(ner_weight=0.62, alpha=0.4, beta=0.1)(**b)
    assert other["ner"].item() == pytest.approx(0.62 * one["ner"].item())
    assert other["alignment"].item() == pytest.approx(0.5 * one["alignment"].item())
    groups = {group["lr"]: group["params"] for group in model(head_rate=0.5, matching_rate=0.2).parameter_groups(0.1)}
    assert set(groups) == {0.1, 0.2, 0.5} and len(groups[0.2]) == 2
    assert len(groups[0.1]) == len(list(model().text.parameters()))
    assert sum(map(len, groups.values())) == len(list(model().parameters()))


def test_attention_is_where_tokens_look():
    maf, b = model(), batch()
    looks = maf.look(**b)
    assert looks.shape == (6, 6, 4)
    H, U, _ = maf.encode(**b)
    assert torch.allclose(looks[3, 1], maf.interaction.weights(H, U)[3, b["first_pieces"][3, 1]])


@pytest.mark.parametrize("changes, message", [
    ({"image": False}, "found matching without image"),
    ({"tagger": "crff"}, "tagger 'crff' is unknown, did you mean 'crf'"),
    ({"swap": "images"}, "swap 'images' is unknown"),
    ({"swap_share": 1.5}, "swap_share is 1.5, expected a share"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


def test_heads_share_the_width():
    with pytest.raises(ValueError, match="heads is 5, expected a divisor of 24"):
        model(heads=5)


def test_two_processes_learn_from_all_pairs_of_their_batch():
    def gradients(rows: slice, **changes) -> tuple[dict, dict]:
        maf = model(**changes)
        mine = {name: value[rows] for name, value in batch((0, 3)).items() if name not in ("swapped", "givers")}
        losses = maf(**mine, **swapped(mine["present"], mine["picture"]))
        sum(losses.values()).backward()
        return losses, {name: p.grad for name, p in maf.named_parameters()}

    def work() -> None:
        alone = gradients(slice(None), matching=False)[1]
        dist.init_process_group("gloo")
        mine = slice(dist.get_rank(), None, 2)
        for name, gradient in gradients(mine, matching=False)[1].items():
            dist.all_reduce(gradient)
            assert torch.allclose(gradient / 2, alone[name], atol=1e-5), name
        assert all(loss.isfinite() for loss in gradients(mine)[0].values())

    assert [ended(process) for process in two_forked(work)] == [0, 0]
