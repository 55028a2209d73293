"""The conditional random field against a list of all its paths."""

import itertools
from math import log

import pytest
import torch
import torch.distributed as dist
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from lib.layers import crf as module
from lib.layers.crf import LinearChainCRF

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def field(num_tags, generator, scale=1.0, **forbidden):
    crf = LinearChainCRF(num_tags, **forbidden).double()
    for parameter in crf.parameters():
        parameter.data = scale * torch.randn(parameter.shape, dtype=torch.double, generator=generator)
    return crf


def prefix_mask(lengths, longest):
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def bio_bans():
    """O or another type before an I- tag is forbidden, and so is an I- tag at the start."""
    inside = torch.tensor([tag.startswith("I") for tag in BIO])
    same = torch.tensor([[before[2:] == tag[2:] for tag in BIO] for before in BIO])
    return {"forbidden": inside & ~same, "forbidden_start": inside}


@st.composite
def batches(draw):
    """A field and (emissions, tags, mask), in which the padding holds what no one should read."""
    size, longest, num_tags = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    share = draw(st.sampled_from((0.0, 0.0, 0.3, 0.6)))
    bans = torch.rand(num_tags + 1, num_tags, generator=generator) < share
    try:
        crf = field(num_tags, generator, draw(st.sampled_from((0.1, 3.0))), forbidden=bans[1:], forbidden_start=bans[0])
    except ValueError:
        assume(False)
    emissions = torch.randn(size, longest, num_tags, dtype=torch.double, generator=generator)
    emissions *= draw(st.sampled_from((1.0, 30.0, 300.0, 1e4)))
    tags = torch.randint(num_tags, (size, longest), generator=generator)
    mask = prefix_mask(draw(st.lists(st.integers(1, longest), min_size=size, max_size=size)), longest)
    tags[~mask] = draw(st.sampled_from((-100, num_tags, 0)))
    emissions[~mask] = draw(st.sampled_from((torch.nan, torch.inf, -torch.inf, 1e300, 0.0)))
    return crf, emissions, tags, mask


def score(crf, emissions, path):
    """s(x, y) of one sequence, step by step."""
    if crf.forbidden_start[path[0]] or any(crf.forbidden[pair] for pair in itertools.pairwise(path)):
        return torch.tensor(-torch.inf, dtype=torch.double)
    tokens = sum(emissions[t, tag] for t, tag in enumerate(path))
    steps = sum(crf.transitions[pair] for pair in itertools.pairwise(path))
    return crf.start[path[0]] + tokens + steps + crf.end[path[-1]]


def all_scores(crf, emissions):
    paths = itertools.product(range(crf.num_tags), repeat=len(emissions))
    scores = torch.stack([score(crf, emissions, path) for path in paths])
    return scores[scores.isfinite()]


def plain_likelihood(crf, emissions, tags, mask):
    rows = [(scores[inside], path[inside].tolist()) for scores, path, inside in zip(emissions, tags, mask, strict=True)]
    return torch.stack([score(crf, *row) - torch.logsumexp(all_scores(crf, row[0]), 0) for row in rows])


@given(batches())
@settings(deadline=None, max_examples=80)
def test_likelihood_and_gradient_are_those_of_all_paths(batch):
    crf, emissions, tags, mask = batch
    emissions.requires_grad_()
    inputs = (emissions, crf.transitions, crf.start, crf.end)
    ours, plain = crf.log_likelihood(emissions, tags, mask), plain_likelihood(*batch)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-9)
    possible = plain.isfinite()
    weights = torch.randn(len(ours), dtype=torch.double)[possible]
    found = torch.autograd.grad((ours[possible] * weights).sum(), inputs)
    expected = torch.autograd.grad((plain[possible] * weights).sum(), inputs, materialize_grads=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@given(batches())
@settings(deadline=None, max_examples=80)
def test_no_path_scores_above_the_decoded_one(batch):
    crf, emissions, _, mask = batch
    paths = crf.decode(emissions, mask)
    assert [len(path) for path in paths] == mask.sum(1).tolist()
    for path, row, inside in zip(paths, emissions, mask, strict=True):
        best = all_scores(crf, row[inside]).max()
        torch.testing.assert_close(score(crf, row[inside], path), best, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("bans", ({}, bio_bans()), ids=("free", "bio"))
@pytest.mark.parametrize("fast", (True, False))
def test_gradcheck(fast, bans, monkeypatch):
    if not fast:
        monkeypatch.setattr(module, "TINY", torch.inf)
    generator = torch.Generator().manual_seed(0)
    crf = field(len(BIO), generator, **bans)
    emissions = torch.randn(3, 11, len(BIO), dtype=torch.double, generator=generator, requires_grad=True)
    tags = torch.tensor([[0, 1, 2, 2, 0, 3, 4, 0, 0, 1, 1], [1] * 11, [3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]])

    def likelihood(emissions, *parameters):
        named = dict(zip(("transitions", "start", "end"), parameters, strict=True))
        inputs = (emissions, tags, prefix_mask([11, 5, 1], 11))
        return torch.func.functional_call(Whole(crf), {f"crf.{name}": p for name, p in named.items()}, inputs)

    assert torch.autograd.gradcheck(likelihood, (emissions, crf.transitions, crf.start, crf.end))


class Whole(nn.Module):
    """What a model's forward does with the field."""

    def __init__(self, crf):
        super().__init__()
        self.crf = crf

    def forward(self, emissions, tags, mask):
        return self.crf.log_likelihood(emissions, tags, mask)


def long_batch(length, scale, bans, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    crf = field(len(BIO), generator, **bans)
    emissions = scale * torch.randn(4, length, len(BIO), generator=generator).to(dtype)
    mask = prefix_mask([length, length // 2, 2, 1], length)
    tags = torch.zeros(4, length, dtype=torch.long)
    return crf.to(dtype), emissions.requires_grad_(), tags, mask


@pytest.mark.parametrize("bans", ({}, bio_bans()), ids=("free", "bio"))
@pytest.mark.parametrize("scale", (1.0, 20.0, 1e4))
def test_long_sequences_and_large_scores_stay_exact(scale, bans, monkeypatch):
    crf, *batch = long_batch(512, scale, bans)
    inputs = (batch[0], *crf.parameters())
    ours = crf.log_likelihood(*batch)
    gradients = torch.autograd.grad(ours.sum(), inputs)
    monkeypatch.setattr(module, "TINY", torch.inf)  # the plain recursion
    plain = crf.log_likelihood(*batch)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients, torch.autograd.grad(plain.sum(), inputs))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("bans", ({}, bio_bans()), ids=("free", "bio"))
@pytest.mark.parametrize("scale", (1.0, 1e4))
def test_long_sequences_are_decoded_in_single_precision_as_in_double(scale, bans):
    crf, emissions, _, mask = long_batch(512, scale, bans)
    single, precise = crf.decode(emissions, mask), crf.double()
    double = precise.decode(emissions.double(), mask)
    for row, *paths in zip(emissions.double(), single, double, strict=True):
        found, best = (score(precise, row, path).item() for path in paths)
        assert found == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("bans", ({}, bio_bans()), ids=("free", "bio"))
def test_ordinary_scores_take_the_fast_way(bans, monkeypatch):
    monkeypatch.delattr(module, "_in_logarithms")
    crf, *batch = long_batch(128, 20.0, bans)
    assert crf.log_likelihood(*batch).isfinite().all()


def test_what_all_paths_share_does_not_cost_precision():
    crf, emissions, tags, mask = long_batch(40, 1.0, {}, torch.double)
    moved = crf.log_likelihood(emissions + 1e4, tags, mask)
    torch.testing.assert_close(moved, crf.log_likelihood(emissions, tags, mask), rtol=0, atol=1e-8)


@pytest.mark.parametrize("gap", (300.0, 470.0, 735.0, 745.0, 1e4))
def test_what_nearly_vanished_may_come_back(gap):
    """Two tags that never meet: each looks impossible at one of the tokens, and both are equally probable."""
    crf = LinearChainCRF(2, forbidden=~torch.eye(2, dtype=torch.bool)).double()
    for parameter in crf.parameters():
        nn.init.zeros_(parameter)
    emissions = torch.tensor([[[0, -gap], [-gap, 0]]], dtype=torch.double, requires_grad=True)
    likelihood = crf.log_likelihood(emissions, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool))
    assert likelihood.item() == pytest.approx(-log(2), abs=1e-12)
    (gradient,) = torch.autograd.grad(likelihood, emissions)
    torch.testing.assert_close(gradient, torch.tensor([[[0.5, -0.5], [0.5, -0.5]]], dtype=torch.double))


def test_the_smallest_difference_decides():
    crf, mask = field(2, torch.Generator().manual_seed(0), 0.0), torch.ones(1, 2, dtype=torch.bool)
    assert crf.decode(torch.tensor([[[1, 1 + 1e-12], [1 + 1e-12, 1]]], dtype=torch.double), mask) == [[1, 0]]


def test_forbidden_steps_are_not_decoded_however_they_score():
    crf = LinearChainCRF(len(BIO), **bio_bans())
    emissions = torch.zeros(2, 3, len(BIO))
    emissions[..., BIO.index("I-PER")] = 1e4
    per, inside = BIO.index("B-PER"), BIO.index("I-PER")
    assert crf.decode(emissions, prefix_mask([3, 2], 3)) == [[per, inside, inside], [per, inside]]


def test_a_gold_path_that_is_forbidden_has_probability_zero_and_teaches_nothing():
    crf, emissions, tags, mask = long_batch(6, 1.0, bio_bans())
    tags[0, 3] = BIO.index("I-PER")  # after O
    tags[2, 0] = BIO.index("I-LOC")  # at the start
    likelihood = crf.log_likelihood(emissions, tags, mask)
    assert likelihood.isneginf().tolist() == [True, False, True, False]
    whole = torch.autograd.grad(likelihood.sum(), (emissions, *crf.parameters()), retain_graph=True)
    assert all(gradient.isfinite().all() for gradient in whole) and not whole[0][[0, 2]].any()
    torch.testing.assert_close(crf.log_likelihood(emissions[1::2], tags[1::2], mask[1::2]), likelihood[1::2])
    rest = torch.autograd.grad(likelihood[likelihood.isfinite()].sum(), (emissions, *crf.parameters()))
    torch.testing.assert_close(rest, whole)


def test_padding_gets_no_gradient_and_its_length_changes_nothing():
    crf, emissions, tags, mask = long_batch(9, 1.0, {})
    with torch.no_grad():
        emissions[~mask] = torch.nan
    likelihood = crf.log_likelihood(emissions, tags, mask)
    likelihood.sum().backward()
    assert not emissions.grad[~mask].any() and emissions.grad[mask].all()
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = (emissions[row : row + 1, :length], tags[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(crf.log_likelihood(*alone)[0], likelihood[row])


def test_autocast_and_half_precision_cost_nothing():
    crf, emissions, tags, mask = long_batch(30, 1.0, {})
    expected = crf.log_likelihood(emissions, tags, mask)
    expected_gradient = torch.autograd.grad(expected.sum(), crf.transitions)
    with torch.autocast("cpu", torch.bfloat16):
        found = crf.log_likelihood(emissions, tags, mask)
        halved = crf.log_likelihood(emissions.bfloat16(), tags, mask)
    assert torch.equal(found, expected)
    assert torch.equal(torch.autograd.grad(found.sum(), crf.transitions)[0], expected_gradient[0])
    assert torch.equal(halved, crf.log_likelihood(emissions.bfloat16().float(), tags, mask))
    assert found.dtype == halved.dtype == torch.float32
    assert crf.decode(emissions.bfloat16(), mask) == crf.decode(emissions.bfloat16().float(), mask)


def test_no_grad_gives_the_same_without_a_graph():
    crf, *batch = long_batch(12, 1.0, {})
    with torch.no_grad():
        likelihood = crf.log_likelihood(*batch)
    assert not likelihood.requires_grad and torch.equal(likelihood, crf.log_likelihood(*batch))


def test_it_trains_under_ddp():
    crf, *batch = long_batch(12, 1.0, bio_bans())
    alone = torch.autograd.grad(crf.log_likelihood(*batch).mean(), tuple(crf.parameters()))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        DistributedDataParallel(Whole(crf))(*batch).mean().backward()
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(tuple(parameter.grad for parameter in crf.parameters()), alone)


class Calls(TorchFunctionMode):
    """Remembers the names of all torch functions called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


def test_decoding_waits_for_the_device_once():
    crf, emissions, _, mask = long_batch(12, 1.0, {})
    with Calls() as calls:
        crf.decode(emissions, mask)
    moved = calls.names.index("cpu")
    assert not {"item", "tolist", "numpy", "nonzero", "__bool__", "__int__"} & set(calls.names[:moved])
    assert "cpu" not in calls.names[moved + 1 :]


@pytest.mark.parametrize("size", (1, 2))
def test_the_input_is_left_as_it_was(size):
    emissions, mask = torch.randn(size, 3, 2, dtype=torch.double), torch.ones(size, 3, dtype=torch.bool)
    before, tags = emissions.clone(), torch.zeros(size, 3, dtype=torch.long)
    crf = LinearChainCRF(2)
    crf.decode(emissions, mask), crf.log_likelihood(emissions, tags, mask)
    assert torch.equal(emissions, before) and mask.all() and not tags.any()


def test_parameters_are_all_that_is_saved():
    crf = LinearChainCRF(3, torch.eye(3, dtype=torch.bool))
    assert {name: [*value.shape] for name, value in crf.state_dict().items()} == {
        "transitions": [3, 3],
        "start": [3],
        "end": [3],
    }


@pytest.mark.parametrize("rows", ([[1, 1], [0, 0]], [[1, 1], [0, 1]]))
def test_a_mask_must_be_tokens_then_padding(rows):
    crf, mask = LinearChainCRF(2), torch.tensor(rows, dtype=torch.bool)
    for call in (lambda: crf.decode(torch.zeros(2, 2, 2), mask), lambda: likelihood_of_zeros(mask=mask)):
        with pytest.raises(ValueError, match="row 1 of mask is not True, once or more, and then only False"):
            call()


def likelihood_of_zeros(emissions=(2, 2, 2), tags=None, mask=None):
    tags = torch.zeros(2, 2, dtype=torch.long) if tags is None else tags
    mask = torch.ones(2, 2, dtype=torch.bool) if mask is None else mask
    return LinearChainCRF(2).log_likelihood(torch.zeros(emissions), tags, mask)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"emissions": (2, 2, 3)}, r"expected emissions \[B, T, 2\], got \[2, 2, 3\]"),
        ({"emissions": (2, 2)}, r"expected emissions \[B, T, 2\], got \[2, 2\]"),
        ({"emissions": (2, 0, 2)}, r"expected emissions \[B, T, 2\], got \[2, 0, 2\]"),
        ({"mask": torch.ones(2, 2)}, r"expected mask as bool \[2, 2\], got torch.float32 \[2, 2\]"),
        ({"mask": torch.ones(2, 3) > 0}, r"expected mask as bool \[2, 2\], got torch.bool \[2, 3\]"),
        ({"tags": torch.zeros(2, 2)}, r"expected tags as int64 \[2, 2\], got torch.float32 \[2, 2\]"),
        ({"tags": torch.zeros(2, 3, dtype=torch.long)}, r"expected tags as int64 \[2, 2\], got torch.int64 \[2, 3\]"),
        ({"tags": torch.tensor([[0, 1], [2, 0]])}, r"tags\[1, 0\] is 2, expected 0 to 1"),
        ({"tags": torch.tensor([[0, -1], [2, 0]])}, r"tags\[0, 1\] is -1, expected 0 to 1"),
    ],
)
def test_bad_input_is_named(inputs, message):
    with pytest.raises(ValueError, match=message):
        likelihood_of_zeros(**inputs)


@pytest.mark.parametrize(
    ("bans", "message"),
    [
        ({"forbidden": torch.zeros(2, 3) > 0}, r"expected forbidden as bool \[2, 2\], got torch.bool \[2, 3\]"),
        ({"forbidden_start": torch.zeros(2)}, r"expected forbidden_start as bool \[2\], got torch.float32 \[2\]"),
        ({"forbidden_start": torch.ones(2) > 0}, "forbidden and forbidden_start allow no sequence of 3 tags"),
        ({"forbidden": torch.ones(2, 2).tril() > 0}, "forbidden and forbidden_start allow no sequence of 3 tags"),
    ],
)
def test_bans_of_the_wrong_form_or_without_a_way_out_are_refused(bans, message):
    with pytest.raises(ValueError, match=message):
        LinearChainCRF(2, **bans)
