"""The copy mixture against the form that builds the whole distribution, and extended ids against a plain dictionary."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib.layers import pointer
from lib.layers.pointer import (
    NEVER,
    AdditiveAttention,
    ExtendedOutput,
    candidates,
    extended_ids,
    log_distribution,
    log_likelihood,
    log_softmax_at,
    origins,
)

B, T, V, S, J, ROOM = 3, 4, 7, 5, 3, 2
SHARES = [(1.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.3, 0.7), (0.0, 1.0)]
each_share = pytest.mark.parametrize("shares", SHARES)
few = settings(deadline=None, max_examples=60)


class Case:
    """A batch in double precision: what a decoder made, and what may be copied, with duplicates and padding."""

    def __init__(self, seed=0, dtype=torch.double, scale=1.0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return (scale * torch.randn(shape, generator=generator, dtype=torch.double)).to(dtype).requires_grad_()

        self.logits, self.switch = normal(B, T, V), normal(B, T)
        self.alpha_scores, self.beta_scores = normal(B, T, S), normal(B, J)
        self.source = torch.randint(V + ROOM, (B, 1, S), generator=generator)
        self.words = torch.randint(V + ROOM, (B, 1, J), generator=generator)
        self.target = torch.randint(V, (B, T), generator=generator)
        self.target[:, 1] = self.source[:, 0, 0]  # something to copy
        self.padding = torch.arange(S) >= torch.tensor([S, 3, 1])[:, None, None]  # (B, 1, S)

    @property
    def leaves(self):
        return self.logits, self.switch, self.alpha_scores, self.beta_scores

    def places(self, shares):
        alpha = self.alpha_scores.masked_fill(self.padding, NEVER).log_softmax(-1)
        beta = self.beta_scores.log_softmax(-1)[:, None]  # (B, 1, J)
        return (shares[0], alpha, self.source), (shares[1], beta, self.words)

    def arguments(self, shares):
        return self.logits, self.switch, *candidates(*self.places(shares))

    def distribution(self, shares):
        """P of every word (B, T, V + ROOM), as the equation has it."""
        lam = self.switch.sigmoid()[..., None]
        mixed = torch.cat([lam * self.logits.softmax(-1), self.logits.new_zeros(B, T, ROOM)], -1)
        for share, weights, ids in self.places(shares):
            weights = weights.exp().expand(B, T, -1)
            mixed = mixed.scatter_add(-1, ids.expand(weights.shape), (1 - lam) * share * weights)
        return mixed

    def possible(self, shares):
        """The target, or word 0 where that cannot be made."""
        return self.target.masked_fill(self.plain(shares, self.target) == -torch.inf, 0)

    def plain(self, shares, target):
        return self.distribution(shares).gather(-1, target[..., None])[..., 0].log()


def every_target():
    return [torch.full((B, T), word) for word in range(V + ROOM)]


# ---- training ----


@each_share
@pytest.mark.parametrize("seed", range(5))
def test_likelihood_is_that_of_the_plain_form(shares, seed):
    case = Case(seed)
    for target in every_target():
        ours, theirs = log_likelihood(*case.arguments(shares), target), case.plain(shares, target)
        assert torch.allclose(ours, theirs)


@each_share
@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_plain_form(shares, seed):
    case, weight = Case(seed), torch.rand(B, T, dtype=torch.double)
    target = case.possible(shares)
    ours, theirs = (
        torch.autograd.grad((weight * form).sum(), case.leaves, allow_unused=True, materialize_grads=True)
        for form in (log_likelihood(*case.arguments(shares), target), case.plain(shares, target))
    )
    for leaf, mine, other in zip(case.leaves, ours, theirs, strict=True):
        assert mine.shape == leaf.shape and torch.allclose(mine, other)


@each_share
def test_gradcheck(shares):
    case = Case()
    target = case.possible(shares)

    def function(*leaves):
        case.logits, case.switch, case.alpha_scores, case.beta_scores = leaves
        return log_likelihood(*case.arguments(shares), target)

    assert torch.autograd.gradcheck(function, case.leaves)


def test_gradcheck_of_the_generator_alone():
    case = Case()
    assert torch.autograd.gradcheck(lambda logits: log_softmax_at(logits, case.target.clamp(max=V - 1)), case.logits)


@each_share
def test_probabilities_sum_to_one_or_to_two_less_lambda(shares):
    case = Case()
    total = sum(log_likelihood(*case.arguments(shares), target).exp() for target in every_target())
    lam = case.switch.sigmoid()
    assert torch.allclose(total, lam + (1 - lam) * sum(shares))
    if sum(shares) == 1:
        assert torch.allclose(total, torch.ones_like(total))
    if shares == (1, 1):
        assert torch.allclose(total, 2 - lam)


def test_any_part_of_a_batch_may_run_by_itself():
    case, shares = Case(), (0.5, 0.5)
    whole = log_likelihood(*case.arguments(shares), case.target)
    rows = torch.tensor([0, 3, 5, 10])  # the positions of B x T that are no padding, say
    logits, switch, weights, ids = case.arguments(shares)
    ids = ids.expand(weights.shape)
    packed = (x.flatten(0, 1)[rows] for x in (logits, switch, weights, ids, case.target))
    assert torch.equal(log_likelihood(*packed), whole.flatten()[rows])


@pytest.mark.parametrize("rows", [1, 3, B * T, 100])
def test_how_many_rows_at_a_time_does_not_matter(monkeypatch, rows):
    case, target = Case(), Case().possible((0.5, 0.5))
    expected = log_likelihood(*case.arguments((0.5, 0.5)), target)
    monkeypatch.setattr(pointer, "ROWS", rows)
    assert torch.equal(log_likelihood(*case.arguments((0.5, 0.5)), target), expected)


def test_what_cannot_be_made_has_no_probability_and_no_gradient():
    case = Case()
    case.source, case.words = torch.zeros_like(case.source), torch.zeros_like(case.words)
    case.target = torch.tensor([[1, V, V + 1, 2]]).expand(B, T)  # nowhere to copy V and V + 1 from
    likelihood = log_likelihood(*case.arguments((0.5, 0.5)), case.target)
    assert torch.isneginf(likelihood[:, 1:3]).all() and likelihood[:, [0, 3]].isfinite().all()
    gradients = torch.autograd.grad(likelihood[:, 1:3].sum(), case.leaves)
    assert not any(gradient.any() for gradient in gradients)


def test_what_can_only_be_copied_does_not_move_the_generator():
    case = Case()
    case.source[:, :, 0] = V
    likelihood = log_likelihood(*case.arguments((1, 0)), torch.full((B, T), V))
    assert likelihood.isfinite().all()
    to_logits, to_switch = torch.autograd.grad(likelihood.sum(), case.leaves[:2])
    assert not to_logits.any() and (to_switch < 0).all()


def test_a_source_that_is_all_padding_copies_nothing():
    case = Case()
    attention = AdditiveAttention(2, 2, 2).double()
    memory, query = torch.randn(B, S, 2).double(), torch.randn(B, T, 2).double()
    context, alpha = attention(query, memory, attention.keys(memory), torch.zeros(B, S, dtype=torch.bool))
    likelihood = log_likelihood(case.logits, case.switch, *candidates((1, alpha, case.source)), case.target % V)
    generated = case.switch.sigmoid() * case.logits.softmax(-1).gather(-1, case.target[..., None] % V)[..., 0]
    assert torch.allclose(likelihood, generated.log()) and not context.any()
    gradients = torch.autograd.grad(likelihood.sum() + context.sum(), [*attention.parameters(), case.logits])
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("never", [NEVER, -torch.inf])
def test_padding_may_have_any_id_and_either_zero(never):
    logits, switch = torch.zeros(1, V, requires_grad=True), torch.zeros(1)
    weights = torch.tensor([[0.0, never, never]], requires_grad=True)
    for word in (1, 3, 5):
        ids = torch.tensor([[1, word, 3]])
        likelihood = log_likelihood(logits, switch, *candidates((1.0, weights, ids)), torch.tensor([3]))
        assert likelihood.exp().item() == pytest.approx(0.5 / V)
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(likelihood.sum(), [logits, weights]))
        total = log_distribution(logits.detach().clone(), switch, *candidates((1.0, weights, ids))).exp()
        assert total.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1, 30, 300])
def test_single_precision_is_as_good_as_double(scale):
    """Probabilities down to exp(-1000) and beyond, which a plain logarithm of a sum turns into -inf."""
    double, single = Case(scale=scale), Case(scale=scale, dtype=torch.float)
    target = Case().possible((0.5, 0.5))
    results = []
    for case in (double, single):
        likelihood = log_likelihood(*case.arguments((0.5, 0.5)), target)
        results.append([likelihood, *torch.autograd.grad(likelihood.sum(), case.leaves)])
    for exact, ours in zip(*results, strict=True):
        assert ours.dtype == torch.float and ours.isfinite().all()
        assert torch.allclose(ours.double(), exact, rtol=1e-5, atol=1e-5)


def test_half_precision_is_rounded_once():
    exact, half = Case(), Case()
    half.logits = exact.logits.detach().bfloat16().requires_grad_()
    exact.logits = half.logits.detach().double().requires_grad_()
    target = Case().possible((0.5, 0.5))
    ours, theirs = (log_likelihood(*case.arguments((0.5, 0.5)), target) for case in (half, exact))
    assert torch.allclose(ours, theirs, atol=1e-6)
    mine, other = (torch.autograd.grad(x.sum(), case.logits)[0] for x, case in ((ours, half), (theirs, exact)))
    assert mine.dtype == torch.bfloat16
    assert torch.allclose(mine.double(), other, rtol=2**-8, atol=1e-6)


def test_half_precision_stays_single_where_it_is_summed():
    logits = torch.randn(2, V).bfloat16()
    assert log_softmax_at(logits, torch.tensor([0, 1])).dtype == torch.float
    weights = torch.zeros(2, 1).bfloat16()
    assert candidates((0.5, weights, torch.zeros(2, 1, dtype=torch.long)))[0].dtype == torch.float


def test_only_the_logits_are_kept():
    case, kept = Case(), []
    case.logits = torch.randn(B, T, 1000, requires_grad=True)
    arguments = case.arguments((0.5, 0.5))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        log_likelihood(*arguments, case.target)
    large = [x for x in kept if x.numel() >= B * T * 1000]
    assert [x.data_ptr() for x in large] == [case.logits.data_ptr()]


@pytest.mark.parametrize("shape", [(0, T), (B, 0), (0,)])
def test_empty_batches(shape):
    logits, ids = torch.randn(*shape, V, requires_grad=True), torch.zeros(*shape, S, dtype=torch.long)
    arguments = logits, torch.randn(shape), *candidates((1, torch.randn(*shape, S), ids))
    likelihood = log_likelihood(*arguments, torch.zeros(shape, dtype=torch.long))
    likelihood.sum().backward()
    assert likelihood.shape == shape and logits.grad.shape == logits.shape


def test_a_step_never_waits_for_the_device():
    """Tensors without data: whatever looked at a value would fail."""
    case = Case()
    case.logits, case.switch, case.alpha_scores, case.beta_scores = (
        leaf.detach().to("meta").requires_grad_() for leaf in case.leaves
    )
    case.source, case.words, case.target, case.padding = (
        x.to("meta") for x in (case.source, case.words, case.target, case.padding)
    )
    log_likelihood(*case.arguments((0.5, 0.5)), case.target).sum().backward()
    extended_ids(case.target, case.source[:, 0], V, 1, ROOM)
    logits, switch, weights, ids = case.arguments((0.5, 0.5))
    log_distribution(logits.detach()[:, 0], switch[:, 0], weights[:, 0], ids[:, 0])


# ---- decoding ----


def all_at_once(case, shares):
    """`log_distribution` of a case (B, T, V + ROOM)."""
    logits, switch, weights, ids = (x.detach().flatten(0, 1) for x in expanded(*case.arguments(shares)))
    logits = torch.cat([logits, logits.new_full((B * T, ROOM), -torch.inf)], 1)
    return log_distribution(logits, switch, weights, ids).view(B, T, -1)


def expanded(logits, switch, weights, ids):
    return logits, switch, weights.expand(B, T, -1), ids.expand(B, T, -1)


@each_share
@pytest.mark.parametrize("seed", range(5))
def test_distribution_is_that_of_the_plain_form(shares, seed):
    case = Case(seed)
    assert torch.allclose(all_at_once(case, shares), case.distribution(shares).log())


def test_distribution_is_the_likelihood_of_every_word():
    case, shares = Case(dtype=torch.float, scale=30), (0.5, 0.5)
    ours = all_at_once(case, shares)
    for word, target in enumerate(every_target()):
        assert torch.allclose(ours[..., word], log_likelihood(*case.arguments(shares), target), rtol=1e-5, atol=1e-6)


def test_distribution_is_written_over_the_logits():
    logits = torch.randn(2, V)
    result = log_distribution(logits, torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.long))
    assert result.data_ptr() == logits.data_ptr()
    half = torch.randn(2, V).bfloat16()
    kept = half.clone()
    result = log_distribution(half, torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.long))
    assert torch.equal(half, kept) and result.dtype == torch.float


def test_an_extended_output_layer_generates_the_same_words():
    output = nn.Linear(6, V)
    extended = ExtendedOutput(output, ROOM)
    for rows in (4, 4, 2, 0):
        hidden = torch.randn(rows, 6)
        logits = extended(hidden)
        assert logits.shape == (rows, V + ROOM) and not logits.requires_grad
        assert torch.allclose(logits[:, :V], output(hidden), atol=1e-6) and torch.isneginf(logits[:, V:]).all()


def test_an_extended_output_layer_takes_the_memory_it_has():
    extended = ExtendedOutput(nn.Linear(6, V), ROOM)
    places = [extended(torch.randn(4, 6).to(dtype)).data_ptr() for dtype in (torch.float, torch.bfloat16)]
    assert places[0] == places[1]


def test_a_distribution_may_lie_anywhere_in_memory():
    case = Case(dtype=torch.float)
    logits, switch, weights, ids = (x.detach() for x in expanded(*case.arguments((0.5, 0.5))))
    logits = torch.cat([logits, logits.new_full((B, T, ROOM), -torch.inf)], 2)
    together = log_distribution(logits.flatten(0, 1).clone(), *(x.flatten(0, 1) for x in (switch, weights, ids)))
    alone = log_distribution(logits[:, 1], switch[:, 1], weights[:, 1], ids[:, 1])  # every fourth row
    assert torch.allclose(alone, together.view(B, T, -1)[:, 1])


# ---- where a word came from ----


@each_share
def test_origins_are_each_ways_part_of_the_probability(shares):
    case = Case()
    arguments, target = case.arguments(shares), case.possible(shares)
    result, lam = origins(*arguments, target), case.switch.sigmoid()
    total = case.plain(shares, target).exp()
    generated = lam * nn.functional.pad(case.logits.softmax(-1), (0, ROOM)).gather(-1, target[..., None])[..., 0]
    copied = (1 - lam)[..., None] * arguments[2].exp() * (arguments[3] == target[..., None])
    assert torch.allclose(result[..., 0], generated / total)
    assert torch.allclose(result[..., 1:], copied / total[..., None])
    assert torch.allclose(result.sum(-1), torch.ones(B, T).double())


# ---- extended ids ----


def plain_ids(words, source, room):
    places = {}
    for word in source:
        if word >= V and word not in places and len(places) < room:
            places[word] = V + len(places)
    return [word if word < V else places.get(word, 1) for word in words]


numbers = st.integers(0, V + 4)


@given(st.integers(0, 3), st.integers(0, 6), st.integers(0, 4), st.integers(0, 4), st.data())
@few
def test_extended_ids_are_those_of_a_dictionary(batch, length, width, room, data):
    source = [data.draw(st.lists(numbers, min_size=length, max_size=length)) for _ in range(batch)]
    words = [data.draw(st.lists(numbers, min_size=width, max_size=width)) for _ in range(batch)]
    source_ids, word_ids = (
        torch.tensor(rows, dtype=torch.long).reshape(batch, -1 if batch else size)
        for rows, size in ((source, length), (words, width))
    )
    expected = [plain_ids(*pair, room) for pair in zip(words, source, strict=True)]
    assert extended_ids(word_ids, source_ids, V, 1, room).tolist() == expected
    own = [plain_ids(row, row, room) for row in source]
    assert extended_ids(source_ids, source_ids, V, 1, room).tolist() == own


def test_extended_ids_of_a_known_case():
    source = torch.tensor([[3, 90, 80, 90, 70, 0]])  # 90 is the first word beyond the vocabulary, 80 the second
    assert extended_ids(source, source, 50, 1, 2).tolist() == [[3, 50, 51, 50, 1, 0]]
    assert extended_ids(torch.tensor([[80, 4, 70, 60]]), source, 50, 1, 2).tolist() == [[51, 4, 1, 1]]


# ---- attention ----


def test_attention_is_the_plain_formula():
    torch.manual_seed(0)
    attention = AdditiveAttention(6, 4, 5)
    query, memory = torch.randn(B, T, 6), torch.randn(B, S, 4)
    mask = torch.arange(S) < torch.tensor([S, 3, 1])[:, None]
    context, weights = attention(query, memory, attention.keys(memory), mask)
    for example in range(B):
        for step in range(T):
            states = [attention.W_q(query[example, step]) + attention.W_k(row) for row in memory[example]]
            scores = torch.stack([attention.v(state.tanh())[0] for state in states])[mask[example]]
            alpha = scores.softmax(0)
            assert torch.allclose(weights[example, step].exp()[mask[example]], alpha, atol=1e-6)
            assert torch.allclose(context[example, step], alpha @ memory[example][mask[example]], atol=1e-6)
    assert (weights[(~mask)[:, None].expand_as(weights)] == NEVER).all()


def test_attention_weights_are_single_under_autocast():
    attention, query, memory = AdditiveAttention(6, 4, 5), torch.randn(B, T, 6), torch.randn(B, S, 4)
    with torch.autocast("cpu", torch.bfloat16):
        context, weights = attention(query, memory, attention.keys(memory), torch.ones(B, S, dtype=torch.bool))
    assert weights.dtype == torch.float
    assert torch.allclose(weights.exp().sum(-1), torch.ones(B, T))
