"""CMKP: each part says what its equation says, read the plain way."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lib.layers.pointer import log_distribution
from lib.models.cmkp import BRANCHES, CMKP, END, ROOM, START, UNKNOWN, Block, TextEncoder, pooled
from lib.papers.cmkp import RELEASED, SECOND, VARIANTS, Settings

V, Q, B = 20, 6, 4
PHRASES = torch.tensor([[5, 6, 0], [6, 7, 8], [9, 0, 0], [5, 10, 0], [11, 11, 0], [12, 0, 0]])
PAPER = SECOND
AS_RELEASED = RELEASED | SECOND | dict(a=1.0, b=1.0, frozen="encoder")


def model(**changes) -> CMKP:
    torch.manual_seed(0)
    sizes = dict(word_dim=8, dim=12, heads=2, head_dim=5, attributes="file", ocr="file", blocks=2)
    return CMKP(V, PHRASES, Q, Settings(**sizes | changes)).eval()


def post(missing: tuple[int, ...] = (), padding: int = 0) -> dict[str, torch.Tensor]:
    """Sources of 5, 3, 1 and 6 words, some of them beyond the vocabulary."""
    torch.manual_seed(1)
    mask = torch.arange(6) < torch.tensor([5, 3, 1, 6])[:, None]
    copy = torch.randint(5, V, (B, 6))
    copy[0, 1], copy[0, 3], copy[3, 0], copy[3, 5] = V, V + 1, V, V
    copy = F.pad(copy * mask, (0, padding))
    present = torch.tensor([i not in missing for i in range(B)])
    attributes = torch.tensor([[5, 9, 3], [7, 0, 0], [1, 0, 0], [13, 14, 15]])
    source = copy.masked_fill(copy >= V, UNKNOWN)
    return dict(source=source, copy=copy, image=torch.randn(B, 4, Q), present=present, attributes=attributes)


def pairs(**options) -> dict[str, torch.Tensor]:
    """A word of the source, its own words of the source, words of classes, and one that nothing has."""
    target = torch.tensor([[V + 1, 6, END, 0], [9, END, 0, 0], [5, 6, 7, END], [V, END, 0, 0]])
    before = F.pad(target.masked_fill(target >= V, UNKNOWN), (1, -1), value=START)
    rows = target.flatten().nonzero()[:, 0]
    phrase = torch.tensor([0, 2, -1, 5])
    return dict(phrase=phrase, inputs=before, target=target.flatten()[rows], rows=rows) | post(**options)


def distributions(cmkp: CMKP, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """P of every word at each place (N, V + ROOM), built; and lambda (N,)."""
    asked = {name: batch[name] for name in post()}
    memory = cmkp.read(**asked)
    hidden, switch, *places = cmkp.given(memory, batch["inputs"], batch["rows"])
    logits = F.pad(cmkp.W_o(hidden), (0, ROOM), value=-torch.inf)
    return log_distribution(logits, switch, *places).exp(), switch.sigmoid()


@pytest.mark.parametrize("changes", [{}, dict(generator=True, classifier=False), PAPER, PAPER | dict(beta="distinct")])
def test_probabilities_sum_to_one(changes):
    P, _ = distributions(model(**changes), pairs())
    assert torch.allclose(P.sum(1), torch.ones(len(P)), atol=1e-5)


def test_probabilities_sum_to_two_minus_lambda_as_released():
    cmkp = model(**AS_RELEASED)
    P, lam = distributions(cmkp, pairs())
    assert torch.allclose(P.sum(1), 2 - lam, atol=1e-5) and (P.sum(1) > 1.01).all()


@pytest.mark.parametrize("changes", [{}, PAPER, AS_RELEASED, dict(copy=False, fusion="none", classifier=False)])
def test_the_loss_is_that_of_the_built_distribution(changes):
    cmkp, batch = model(**changes), pairs()
    P, _ = distributions(cmkp, batch)
    target = cmkp.makable(batch["target"])
    losses = cmkp(**batch)
    count = 1 if cmkp.settings.reduction == "sum" else B
    plain = -P.gather(1, target[:, None]).log().sum() / count
    assert losses["generator"].item() == pytest.approx(plain.item(), rel=1e-4)
    if not changes:
        scores = cmkp.read(**post()).scores
        known = [scores[i].log_softmax(0)[c] for i, c in enumerate(batch["phrase"].tolist()) if c >= 0]
        assert losses["classifier"].item() == pytest.approx(-sum(known).item() / B, rel=1e-5)
    assert ("classifier" in losses) == (not changes)


def test_p_unf_word_by_word_as_in_the_equation():
    cmkp, batch = model(**PAPER), pairs()
    memory = cmkp.read(**{name: batch[name] for name in post()})
    P, lam = distributions(cmkp, batch)
    u = cmkp.W_e(batch["inputs"][3, :1])  # the first word of the last pair
    s_1 = cmkp.GRU(u[None], memory.start[3][None, None])[0][0]
    scores = cmkp.attend.v(torch.tanh(cmkp.attend.W_q(s_1) + cmkp.attend.W_k(memory.text[3])))[:, 0]
    alpha = scores[batch["source"][3] != 0].softmax(0)
    c_1 = alpha @ memory.text[3, : len(alpha)] + memory.c_fuse[3]
    x = torch.cat([s_1[0], c_1, u[0]])
    P_gen, lambda_1 = cmkp.W_o(cmkp.W_h(x)).softmax(0), cmkp.w(x).sigmoid()
    best, which = memory.scores[3].topk(5)
    said = [(word, score) for score, row in zip(best, PHRASES[which].tolist(), strict=True) for word in row if word]
    beta = torch.stack([score for _, score in said]).softmax(0)
    at = int((batch["rows"] // 4 == 3).nonzero()[0])
    assert lam[at].item() == pytest.approx(lambda_1.item(), rel=1e-5)
    for word in range(1, V + 2):
        generated = P_gen[word] if word < V else 0
        copied = sum(a for a, x in zip(alpha, batch["copy"][3], strict=True) if x == word)
        of_class = sum(share for share, (w, _) in zip(beta, said, strict=True) if w == word)
        plain = lambda_1 * generated + (1 - lambda_1) * (0.5 * copied + 0.5 * of_class)
        assert P[at, word].item() == pytest.approx(plain.item(), rel=1e-4, abs=1e-7)


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6), st.sampled_from(["words", "distinct"]), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_beta_plainly(scores, form, k):
    cmkp = model(**PAPER | dict(beta=form, top_k=k))
    asked = torch.tensor([scores])
    beta, words = cmkp.class_words(asked)
    best = asked[0].topk(k).indices.tolist()
    said = [(word, scores[i]) for i in best for word in PHRASES[i].tolist() if word]
    if form == "distinct":
        said = [pair for i, pair in enumerate(said) if pair[0] not in [word for word, _ in said[:i]]]
    weights = torch.tensor([score for _, score in said]).softmax(0)
    for word in range(1, V):
        plain = sum(w for w, (other, _) in zip(weights, said, strict=True) if other == word)
        found = beta[0].exp()[words[0] == word].sum()
        assert found.item() == pytest.approx(float(plain), abs=1e-6)


def test_distinct_words_change_what_a_word_of_several_phrases_weighs():
    scores = torch.zeros(1, 6)
    scores[0, :2] = 1.0  # phrases "5 6" and "6 7 8"
    shares = {}
    for form in ("words", "distinct"):
        beta, words = model(**PAPER | dict(beta=form, top_k=2)).class_words(scores)
        shares[form] = beta.exp()[words == 6].sum().item()
    assert shares == {"words": pytest.approx(2 / 5), "distinct": pytest.approx(1 / 4)}


def test_the_classifier_does_not_learn_from_what_it_hands_on():
    cmkp = model(**PAPER | dict(fusion="text", image=False, wordings=()))
    scores = cmkp.read(**{n: post()[n] for n in ("source", "copy")}).scores.detach().requires_grad_()
    assert not cmkp.class_words(scores)[0].requires_grad


# ---- reading ----


def test_the_text_encoder_is_a_packed_bidirectional_gru():
    torch.manual_seed(0)
    ours, theirs = TextEncoder(5, 8, 2, 0.0), torch.nn.GRU(5, 4, 2, batch_first=True, bidirectional=True)
    for layer in range(2):
        for suffix, grus in (("", ours.forwards), ("_reverse", ours.backwards)):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                weight = getattr(theirs, f"{name}_l{layer}{suffix}")
                getattr(grus[layer], f"{name}_l0").data = weight.data
    x, lengths = torch.randn(3, 7, 5), torch.tensor([7, 1, 4])
    mask = torch.arange(7) < lengths[:, None]
    M, start = ours(x, mask)
    packed, last = theirs(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    plain, _ = pad_packed_sequence(packed, batch_first=True)
    assert torch.allclose(M[mask], plain[mask], atol=1e-6)
    assert torch.allclose(start, torch.cat([last[3], last[2]], -1), atol=1e-6)  # the backward one's first


def test_a_block_is_multi_head_attention_over_a_mapped_memory():
    torch.manual_seed(0)
    block = Block(6, 3, 4, 0.0).eval()
    q, memory = torch.randn(2, 6), torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    K, V_ = (W(memory).view(2, 5, 3, 4).transpose(1, 2) for W in (block.W_k, block.W_v))  # (B, h, R, k)
    plain = F.scaled_dot_product_attention(block.W_q(q).view(2, 3, 1, 4), K, V_, mask[:, None, None])
    x = block.norm_attended(q + block.W_o(plain[:, :, 0].flatten(1)))
    found, weights = block(q, memory, mask)
    assert torch.allclose(found, block.norm_out(x + block.network(x)), atol=1e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3)) and (weights[1, :, 2:] == 0).all()


def test_pooling_leaves_padding_out():
    memory, mask = torch.tensor([[[1.0], [4.0], [9.0]]]), torch.tensor([[True, True, False]])
    assert pooled(memory, mask, "mean").item() == 2.5 and pooled(memory, mask, "max").item() == 4


@pytest.mark.parametrize("changes", [{}, PAPER, dict(pool="max"), dict(fusion="co-attention")])
def test_padding_changes_nothing(changes):
    cmkp = model(**changes)
    short, padded = cmkp(**pairs()), cmkp(**pairs(padding=3))
    assert all(short[name].item() == pytest.approx(padded[name].item(), rel=1e-5) for name in short)


def test_each_branch_adds_its_answer():
    whole = model(fuse_linear=False)
    c_fuse = whole.read(**post()).c_fuse
    parts = []
    for branch in BRANCHES:
        one = model(fuse_linear=False, branches=(branch,))
        one.load_state_dict({n: w for n, w in whole.state_dict().items() if n in one.state_dict()})
        parts.append(one.read(**post()).c_fuse)
    assert torch.allclose(c_fuse, sum(parts), atol=1e-5)
    assert list(model(wordings=()).fuse.blocks) == ["text-vision", "vision-text"]
    looks = whole.read(**post()).looks
    assert {name: tuple(x.shape) for name, x in looks.items()} == {
        "text-vision": (B, 2, 4), "text-attributes": (B, 2, 3), "attributes-text": (B, 2, 6), "vision-text": (B, 2, 6)
    }  # fmt: skip


def test_a_missing_picture_is_a_learned_one():
    cmkp = model()
    for missing in ((1,), (0, 1, 2, 3)):
        cmkp.zero_grad()
        sum(cmkp(**pairs(missing=missing)).values()).backward()
        assert cmkp.missing.grad.abs().sum() > 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in cmkp.parameters())
    sum(cmkp(**pairs()).values()).backward()
    other = post(missing=(1,)) | {"image": torch.randn(B, 4, Q)}
    mine = post(missing=(1,)) | {"image": other["image"].clone()}
    mine["image"][1] = 7
    assert torch.equal(cmkp.read(**mine).c_fuse, cmkp.read(**other).c_fuse)


# ---- stage 2 ----


@pytest.mark.parametrize("frozen, moving", [
    ("classifier", {"W_e", "RNN", "W_v", "missing", "W_a", "fuse", "GRU", "attend", "w", "W_h", "W_o"}),
    ("encoder", {"GRU", "attend", "w", "W_h", "W_o"}),
])  # fmt: skip
def test_what_the_second_stage_leaves_as_it_is(frozen, moving):
    cmkp = model(**PAPER | dict(frozen=frozen)).train()
    before = {name: weight.clone() for name, weight in cmkp.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in cmkp.parameters() if p.requires_grad], lr=0.1)
    sum(cmkp(**pairs(missing=(1,))).values()).backward()
    optimizer.step()
    after = cmkp.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == moving


# ---- writing ----


@pytest.mark.parametrize("changes", [{}, PAPER, AS_RELEASED, dict(copy=False, fusion="none", classifier=False)])
def test_what_is_written_is_as_probable_as_it_is_traced(changes):
    cmkp = model(**changes)
    asked = post()
    memory = cmkp.read(**asked)
    found = cmkp.generate(memory, beams=6, n_best=3, longest=4)
    for n in range(3):
        shares, lam, log_p = cmkp.trace(memory, found.tokens[:, n])
        assert torch.allclose(shares.sum(-1), torch.ones(B, 4), atol=1e-5) and ((lam > 0) & (lam <= 1)).all()
        real = torch.arange(4) < found.lengths[:, n, None]
        assert torch.allclose((log_p * real).sum(1) / found.lengths[:, n], found.scores[:, n], atol=1e-4)
        if changes.get("copy") is False:
            assert torch.allclose(shares[..., 0], torch.ones(B, 4)) and (found.tokens < V).all()


def test_looks_are_the_places_that_attention_prefers():
    cmkp, asked = model(), post()
    memory = cmkp.read(**asked)
    found = cmkp.generate(memory, beams=4, n_best=2, longest=4)
    tokens, length = found.tokens[0, 0], int(found.lengths[0, 0])
    inputs = F.pad(tokens.masked_fill(tokens >= V, UNKNOWN), (1, -1), value=START)[None]
    states, _ = cmkp.GRU(cmkp.W_e(inputs), memory.start[None, :1])
    _, alpha = cmkp.attend(states, memory.text[:1], cmkp.attend.keys(memory.text[:1]), memory.mask[:1])
    assert found.kept["looks"][0, 0, 4 - length :].tolist() == alpha[0, :length].argmax(-1).tolist()


def test_it_learns_pairs_by_heart():
    cmkp = model(dropout=0.0).train()
    optimizer = torch.optim.Adam(cmkp.parameters(), lr=0.02)
    first = sum(cmkp(**pairs()).values()).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = sum(cmkp(**pairs()).values())
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
    written = cmkp.eval().generate(cmkp.read(**post()), beams=5, n_best=1, longest=5)
    assert written.tokens[0, 0, :3].tolist() == [V + 1, 6, END]  # one of them copied, a word that no vocabulary has


def test_parts_that_cannot_work_together_are_named():
    for changes, message in (
        (dict(classifier=False, generator=False), "neither classifier nor generator"),
        (dict(fusion="image", image=False, generator=False), "fusion 'image' without image"),
        (dict(fusion="none"), "fusion 'none' with a classifier"),
        (dict(image=False, wordings=("ocr",)), "fusion 'm3h' with nothing to ask"),
        (dict(classifier=False, b=0.5), "b without a classifier"),
        (dict(branches=("vision-vision",)), "branches 'vision-vision' is unknown"),
        (dict(beta="word"), "did you mean 'words'"),
        (dict(dim=7), "dim 7"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**changes)


def test_every_variant_is_a_model_that_learns():
    for name, variant in VARIANTS.items():
        if variant.changes.get("predicts") is None:
            cmkp = model(**variant.changes)
            there = {n: x for n, x in pairs().items() if n not in ("image", "present") or cmkp.settings.image}
            there = {n: x for n, x in there.items() if n != "attributes" or cmkp.settings.attributes != "none"}
            loss = sum(cmkp(**there).values())
            loss.backward()
            idle = [n for n, p in cmkp.named_parameters() if p.requires_grad and p.grad is None and n != "W_e.weight"]
            assert loss.isfinite() and not idle, (name, idle)
