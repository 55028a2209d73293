"""The decoder: all words at once are one after the other, and a reward's gradient is that of its expectation."""

from itertools import product

import pytest
import torch

from lib.layers.decoder import (
    END,
    PAD,
    UNKNOWN,
    SentenceDecoder,
    cross_entropy_loss,
    reinforce_loss,
    without_dropout,
)

VOCABULARY, LONGEST = 5, 3  # it can say 3, 4 and END
with_and_without_memory = pytest.mark.parametrize("memory", (False, True))


def decoder(memory=False, vocabulary=VOCABULARY, dropout=0.0, dtype=torch.float64):
    torch.manual_seed(0)
    network = SentenceDecoder(vocabulary, 6, 7, 8, dropout, 9 if memory else None).to(dtype)
    network.W_p.weight.data *= 5  # far from uniform
    return network


def start(network, count=4, memory=False):
    torch.manual_seed(1)
    dtype = network.W_x.weight.dtype
    return network.start(torch.randn(count, 6, dtype=dtype), torch.randn(count, 5, 9, dtype=dtype) if memory else None)


def row(state, i):
    return {name: value[i : i + 1] for name, value in state.items()}


def every_sentence():
    """All that can be said in LONGEST words, cut there or ended."""
    for words in product((3, 4, END), repeat=LONGEST):
        ended = words.index(END) + 1 if END in words else LONGEST
        if set(words[ended:]) <= {3}:  # one of the many with the same beginning
            yield [*words[:ended], *[PAD] * (LONGEST - ended)]


@with_and_without_memory
def test_teacher_forcing_is_one_step_after_the_other(memory):
    network = decoder(memory, vocabulary=11)
    state, sentences = start(network, 4, memory), torch.randint(2, 11, (4, 6))
    found = network(sentences, state).log_softmax(-1)  # (B, T, V)
    words = torch.full((4,), END)
    for t in range(6):
        scores, state = network.step(words, state)
        assert (scores[:, [PAD, UNKNOWN]] == -torch.inf).all()
        torch.testing.assert_close(scores.exp().sum(-1), torch.ones(4, dtype=torch.double))
        allowed = found[:, t, 2:].log_softmax(-1)
        torch.testing.assert_close(scores[:, 2:], allowed)
        words = sentences[:, t]


@with_and_without_memory
def test_a_row_does_not_see_the_others_nor_its_padding(memory):
    network = decoder(memory, vocabulary=11)
    state, sentences = start(network, 4, memory), torch.randint(3, 11, (4, 6))
    together = network(sentences, state)
    for i in range(4):
        torch.testing.assert_close(network(sentences[i : i + 1, :3], row(state, i))[0], together[i, :3])


@with_and_without_memory
def test_the_probabilities_of_all_sentences_add_up_to_one(memory):
    network = decoder(memory)
    sentences = torch.tensor([*every_sentence()])  # (15, T)
    state = {k: v.expand(len(sentences), *v.shape[1:]) for k, v in row(start(network, 1, memory), 0).items()}
    total = network.log_probabilities(sentences, state).sum(1).exp().sum()
    assert total.item() == pytest.approx(1)


@with_and_without_memory
def test_greedy_takes_the_likeliest_word_each_time(memory):
    network = decoder(memory, vocabulary=9)
    state = start(network, 30, memory)
    found = network.generate(state, 7)
    scores = network(found, state)  # (B, T, V)
    scores[..., [PAD, UNKNOWN]] = -torch.inf
    assert torch.where(found == PAD, PAD, scores.argmax(-1)).equal(found)
    assert not found.eq(UNKNOWN).any() and not found[:, 0].eq(PAD).any()


@pytest.mark.parametrize("sample", (False, True))
def test_a_sentence_is_over_at_its_end_mark_or_when_it_is_too_long(sample):
    network = decoder()
    found = network.generate(start(network, 200), 6, sample)
    assert found.shape[0] == 200 and found.shape[1] <= 6
    after = (found == END).cumsum(1) - (found == END).long() > 0
    assert found.eq(PAD).equal(after) and after.any() and (found[:, -1] > END).any()


def test_draws_are_as_frequent_as_they_are_likely():
    network = decoder()
    state = {name: value.expand(4000, *value.shape[1:]) for name, value in start(network, 1).items()}
    found = network.generate(state, LONGEST, sample=True).tolist()
    sentences = torch.tensor([*every_sentence()])
    likely = network.log_probabilities(sentences, {k: v[: len(sentences)] for k, v in state.items()}).sum(1).exp()
    often = torch.tensor([found.count(sentence) / len(found) for sentence in sentences.tolist()], dtype=torch.double)
    torch.testing.assert_close(often, likely, atol=0.03, rtol=0)
    assert network.generate(state, LONGEST, sample=True).tolist() != found


@pytest.mark.parametrize("baseline", (0.0, 2.5))
def test_reinforcement_follows_the_expected_reward_whatever_the_baseline(baseline):
    """Summed over all sentences, each as often as it is said, its gradient is that of -E[r]."""
    network, sentences = decoder(), torch.tensor([*every_sentence()])
    reward = torch.randn(len(sentences), dtype=torch.double)
    state = {k: v.expand(len(sentences), *v.shape[1:]) for k, v in row(start(network, 1), 0).items()}
    log_p = network.log_probabilities(sentences, state)  # (15, T)
    p = log_p.sum(1).exp()
    weights = [weight for name, weight in network.named_parameters() if name != "W_e.weight"]
    expected = torch.autograd.grad(-(p * reward).sum(), weights, retain_graph=True)
    words = (sentences != PAD).sum()
    found = torch.autograd.grad(words * reinforce_loss(log_p, sentences, p * (reward - baseline)), weights)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-7)
    assert any(gradient.abs().max() > 1e-3 for gradient in found)


@with_and_without_memory
def test_a_wide_beam_finds_the_likeliest_sentence(memory):
    beam = pytest.importorskip("lib.layers.beam", reason="there is no beam search yet")
    network, sentences = decoder(memory), torch.tensor([*every_sentence()])
    ended, state = sentences[(sentences == END).any(1)], start(network, 3, memory)
    options = {"start": END, "end": END, "beams": 8, "n_best": 1, "longest": LONGEST, "length_power": 0.0}
    with torch.no_grad():
        found = beam.search(network.step, state, **options)
    for i in range(3):
        alone = {k: v.expand(len(ended), *v.shape[1:]) for k, v in row(state, i).items()}
        scores = network.log_probabilities(ended, alone).sum(1)
        best, length = ended[scores.argmax()].tolist(), int(found.lengths[i, 0])
        assert found.scores[i, 0].item() == pytest.approx(scores.max().item())
        assert found.tokens[i, 0, :length].tolist() == best[: best.index(END) + 1]


def test_cross_entropy_is_the_mean_over_words():
    logits = torch.randn(2, 3, 5, dtype=torch.double)
    sentences = torch.tensor([[3, 4, END], [UNKNOWN, END, PAD]])
    chosen = [(0, 0, 3), (0, 1, 4), (0, 2, END), (1, 0, UNKNOWN), (1, 1, END)]
    expected = -sum(logits[b, t].log_softmax(-1)[w].item() for b, t, w in chosen) / 5
    assert cross_entropy_loss(logits, sentences).item() == pytest.approx(expected)
    assert cross_entropy_loss(logits, torch.full((2, 3), PAD)).item() == 0


def test_gradcheck():
    logits = torch.randn(2, 3, 5, dtype=torch.double, requires_grad=True)
    sentences = torch.tensor([[3, 4, END], [3, END, PAD]])
    advantage = torch.tensor([0.7, -0.2], dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x: cross_entropy_loss(x, sentences), logits)
    assert torch.autograd.gradcheck(lambda x: reinforce_loss(x[..., 0], sentences, advantage), logits)


def test_what_was_said_has_a_finite_gradient_although_it_could_not_say_all():
    network = decoder()
    state = start(network, 20)
    said = network.generate(state, 6, sample=True)
    reinforce_loss(network.log_probabilities(said, state), said, torch.ones(20)).backward()
    gradients = [weight.grad for weight in network.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients) and gradients[0].abs().sum() > 0


@with_and_without_memory
def test_bfloat16_and_no_rows_at_all(memory):
    network = decoder(memory, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        state = start(network, 4, memory)
        said = network.generate(state, 4)
        loss = cross_entropy_loss(network(said, state), said)
        loss.backward()
        scores, _ = network.step(torch.full((4,), END), state)
    assert loss.dtype == scores.dtype == torch.float32 and network.W_0.weight.grad.isfinite().all()
    assert network.generate(start(network, 0, memory), 4).shape[0] == 0


@with_and_without_memory
def test_without_dropout_is_a_state_that_ends(memory):
    network = decoder(memory, dropout=0.5)
    sentences, v = torch.randint(2, 5, (4, 6)), torch.randn(4, 6, dtype=torch.double)
    regions = torch.randn(4, 5, 9, dtype=torch.double) if memory else None

    def twice():
        return [network(sentences, network.start(v, regions)) for _ in range(2)]

    with without_dropout(network):
        once, again = twice()
        assert network.rnn.training
    assert once.equal(again) and all(module.training for module in network.modules())
    once, again = twice()
    assert not once.equal(again)
    network.eval()
    with without_dropout(network):
        pass
    assert not any(module.training for module in network.modules())
