"""Beam search against enumerating every sequence, and against a plain search post by post and beam by beam."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.layers import beam
from lib.layers.beam import search

START, END, STATES = 0, 1, 97
few = settings(deadline=None, max_examples=40)


class Writer:
    """A decoder whose next word depends on the example and on all words before, each in its own way.

    Of `lacking`, a share of the words of each example, nothing has a probability.
    """

    def __init__(self, examples, size, seed=0, lacking=0.0, dtype=torch.double):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(examples, STATES, size, generator=generator, dtype=dtype)
        lacks = torch.rand(examples, 1, size, generator=generator) < lacking
        self.table = table.masked_fill(lacks, -1e4).log_softmax(-1).masked_fill(lacks, -torch.inf)
        self.state = {"example": torch.arange(examples), "written": torch.zeros(examples, dtype=torch.long)}
        self.calls = []

    def __call__(self, tokens, state):
        self.calls.append(len(tokens))
        written = (state["written"] * 31 + tokens + 7) % STATES
        return self.table[state["example"], written], {**state, "written": written}

    def log_p(self, example, words):
        """Of the word after these, start among them (V,)."""
        written = 0
        for word in words:
            written = (written * 31 + word + 7) % STATES
        return self.table[example, written]

    @property
    def size(self):
        return self.table.shape[2]


def ranked(finished, cut, n):
    """The n best, finished ones first; each is a score and a sequence."""
    finished, cut = (sorted((x for x in side if x[0] > -torch.inf), reverse=True) for side in (finished, cut))
    return (finished + cut)[:n]


def exhaustive(writer, example, n_best, longest, length_power):
    finished, cut = [], []
    for length in range(1, longest + 1):
        for words in product(range(writer.size), repeat=length):
            if END in words[:-1]:
                continue
            total = sum(writer.log_p(example, (START, *words[:i]))[word].item() for i, word in enumerate(words))
            if words[-1] == END:
                finished.append((total / length**length_power, words))
            elif length == longest:
                cut.append((total / length**length_power, words))
    return ranked(finished, cut, n_best)


def plain(writer, example, beams, n_best, longest, length_power):
    live, finished = [(0.0, ())], []
    for length in range(1, longest + 1):
        longer = []
        for total, words in live:
            log_p = writer.log_p(example, (START, *words)).tolist()
            finished.append(((total + log_p[END]) / length**length_power, (*words, END)))
            longer += [(total + log_p[word], (*words, word)) for word in range(writer.size) if word != END]
        live = sorted(longer, reverse=True)[:beams]
    return ranked(finished, [(total / longest**length_power, words) for total, words in live], n_best)


def assert_found(found, expected, longest):
    """Of one example: tokens (n, T), scores (n,), lengths (n,) are what is expected, and no more."""
    tokens, scores, lengths = (x.tolist() for x in found)
    for rank, (score, words) in enumerate(expected):
        assert scores[rank] == pytest.approx(score)
        assert tokens[rank] == [*words] + [END] * (longest - len(words)) and lengths[rank] == len(words)
    rest = slice(len(expected), None)
    assert all(score == -torch.inf for score in scores[rest]) and not any(lengths[rest])
    assert all(row == [END] * longest for row in tokens[rest])


def assert_same(found, oracle, longest):
    for example in range(len(found.scores)):
        assert_found([x[example] for x in found[:3]], oracle(example), longest)


options = {
    "seed": st.integers(0, 10**6),
    "n_best": st.integers(1, 6),
    "length_power": st.sampled_from((0, 0.7, 1, 2)),
    "lacking": st.sampled_from((0.0, 0.5)),
}


@given(size=st.integers(2, 4), longest=st.integers(1, 3), **options)
@few
def test_with_enough_beams_search_is_exhaustive(size, longest, seed, n_best, length_power, lacking):
    writer, rules = Writer(3, size, seed, lacking), dict(n_best=n_best, longest=longest, length_power=length_power)
    found = search(writer, writer.state, start=START, end=END, beams=(size - 1) ** longest, **rules)
    assert_same(found, lambda example: exhaustive(writer, example, **rules), longest)


@given(size=st.integers(2, 40), longest=st.integers(1, 6), beams=st.integers(1, 5), **options)
@few
def test_search_is_that_of_the_plain_loops(size, longest, beams, seed, n_best, length_power, lacking):
    writer = Writer(3, size, seed, lacking)
    rules = dict(beams=beams, n_best=n_best, longest=longest, length_power=length_power)
    found = search(writer, writer.state, start=START, end=END, **rules)
    assert_same(found, lambda example: plain(writer, example, **rules), longest)


def found_by(writer, **changes):
    rules = dict(start=START, end=END, beams=4, n_best=3, longest=5, length_power=1) | changes
    return search(writer, writer.state, **rules)


def test_greedy_search_takes_the_best_word_each_time():
    writer = Writer(1, 9)
    writer.table[..., END] = -torch.inf
    words = [START]
    for _ in range(5):
        words.append(writer.log_p(0, words).argmax().item())
    assert found_by(writer, beams=1, n_best=1).tokens[0, 0].tolist() == words[1:]


def test_hypotheses_are_best_first_and_no_two_the_same():
    found = found_by(Writer(5, 12), beams=8, n_best=8)
    assert (found.scores.diff(dim=1) <= 0).all()
    assert all(len({*map(tuple, rows)}) == 8 for rows in found.tokens.tolist())


def test_cut_off_sequences_come_after_finished_ones_however_good():
    writer = Writer(1, 3)
    writer.table[...] = torch.tensor([-0.1, -9.0, -5.0])  # start, end, another word
    found = found_by(writer, n_best=5, beams=1, longest=2)
    assert found.tokens[0].tolist() == [[0, 1], [1, 1], [0, 0], [1, 1], [1, 1]]
    assert found.scores[0].tolist() == pytest.approx([-9.1 / 2, -9, -0.2 / 2, -torch.inf, -torch.inf])
    assert found.lengths[0].tolist() == [2, 1, 2, 0, 0]


def test_without_any_end_sequences_are_cut_off():
    writer = Writer(2, 6)
    writer.table[..., END] = -torch.inf
    found = found_by(writer)
    assert (found.lengths == 5).all() and (found.tokens != END).all() and found.scores.isfinite().all()


def test_what_an_example_lacks_is_never_written():
    writer = Writer(4, 30, lacking=0.7)
    found = found_by(writer, beams=6)
    for example, rows in enumerate(found.tokens.tolist()):
        lacks = writer.table[example, 0] == -torch.inf
        assert not any(lacks[word] for row in rows for word in row if word != END)


def test_a_step_sees_every_beam_each_time():
    writer = Writer(3, 9)
    found_by(writer, beams=4, longest=5)
    assert writer.calls == [12] * 5


def test_examples_do_not_know_each_other():
    writer = Writer(4, 9)
    together = found_by(writer)
    for example in range(4):
        writer.state = {"example": torch.tensor([example]), "written": torch.tensor([0])}
        for whole, alone in zip(together[:3], found_by(writer)[:3], strict=True):
            assert torch.equal(whole[example], alone[0])


def test_no_examples():
    found = found_by(Writer(0, 9), keep=("written",))
    assert [tuple(x.shape) for x in found[:3]] == [(0, 3, 5), (0, 3), (0, 3)] and found.kept["written"].shape == (0, 3)


def test_half_precision_is_added_up_in_single():
    writer = Writer(2, 9, dtype=torch.bfloat16)
    found = found_by(writer)
    assert found.scores.dtype == torch.float
    for row, score in zip(found.tokens[0].tolist(), found.scores[0].tolist(), strict=True):
        words = row[: row.index(END) + 1] if END in row else row
        total = sum(writer.log_p(0, (START, *words[:i]))[word].item() for i, word in enumerate(words))
        assert score == pytest.approx(total / len(words))


def test_results_can_be_trained_on():
    tokens = found_by(Writer(2, 9)).tokens
    embedding = torch.nn.Embedding(9, 2)
    embedding(tokens).sum().backward()
    assert embedding.weight.grad.any()


# ---- what is carried along ----


def test_what_is_kept_belongs_to_its_hypothesis():
    writer = Writer(3, 5)
    found = found_by(writer, beams=3, n_best=12, longest=3, keep=("written", "example"))  # seven end, three are cut off
    assert {*found.kept} == {"written", "example"} and (found.lengths > 0).sum(1).tolist() == [10] * 3
    for example in range(3):
        for rank, length in enumerate(found.lengths[example, :10].tolist()):
            written = 0
            for word in (START, *found.tokens[example, rank, : length - 1].tolist()):
                written = (written * 31 + word + 7) % STATES
            assert found.kept["written"][example, rank] == written
            assert found.kept["example"][example, rank] == example


UNKNOWN = 2


def copying_step(source, longest):
    """A step that looks at one source word a token, and writes into its state which: `focus` (N, T), by `place` (N)."""

    def step(tokens, state):
        examples = len(source)
        looks = (tokens.view(examples, -1) + state["place"].view(examples, -1)) % source.shape[1]  # (B, K)
        place = state["place"]
        focus = state["focus"].scatter(1, place[:, None], looks.view(-1, 1))
        log_p = torch.tensor([-6.0, -2.0, -1.0, -1.5, -1.7]).expand(len(tokens), -1)
        return log_p, {"place": place + 1, "focus": focus}

    return step, {"place": torch.zeros(len(source), dtype=torch.long), "focus": source.new_zeros(len(source), longest)}


def test_unknown_words_give_way_to_the_source_word_looked_at():
    source, longest = torch.tensor([[40, 41, 42], [50, 51, 52]]), 4
    step, state = copying_step(source, longest)
    rules = dict(start=0, end=END, beams=6, n_best=5, longest=longest, length_power=1, keep=("focus",))
    found = search(step, state, **rules)
    looked_at = source[:, None].expand(-1, 5, -1).gather(2, found.kept["focus"])  # (B, n, T)
    words = torch.where(found.tokens == UNKNOWN, looked_at, found.tokens)  # (B, n, T)
    for example, rows in enumerate(found.tokens.tolist()):
        for rank, row in enumerate(rows):
            before, expected = [0, *row], []
            for place, word in enumerate(row[: found.lengths[example, rank]]):
                seen = source[example, (before[place] + place) % 3].item()
                expected.append(seen if word == UNKNOWN else word)
            assert words[example, rank, : len(expected)].tolist() == expected
    assert (found.tokens == UNKNOWN).any() and (words[found.tokens == UNKNOWN] >= 40).all()


# ---- time ----


def confident_of_the_end(longest):
    writer = Writer(3, 9)
    writer.table[..., END] += 6
    writer.table = writer.table.log_softmax(-1)
    return writer, found_by(writer, longest=longest)


def test_search_stops_where_nothing_better_can_come(monkeypatch):
    writer, early = confident_of_the_end(40)
    assert len(writer.calls) < 40 and len(writer.calls) % beam.LOOK == 0
    monkeypatch.setattr(beam, "LOOK", 1000)
    writer, late = confident_of_the_end(40)
    assert len(writer.calls) == 40
    assert all(map(torch.equal, early[:3], late[:3]))


@given(seed=st.integers(0, 10**6), lacking=st.sampled_from((0.0, 0.6)), power=st.sampled_from((0, 0.5, 1)))
@settings(deadline=None, max_examples=15)
def test_stopping_never_changes_the_result(seed, lacking, power):
    writer = Writer(4, 6, seed, lacking)
    writer.table[..., END] -= 3 * (seed % 2)
    results = []
    for look in (1, 1000):
        beam.LOOK, before = look, beam.LOOK
        results.append(found_by(writer, longest=14, length_power=power))
        beam.LOOK = before
    assert all(map(torch.equal, results[0][:3], results[1][:3]))


def test_a_token_never_waits_for_the_device():
    """Tensors without data: whatever looked at a value would fail."""
    writer = Writer(3, 5000)
    writer.table, writer.state = writer.table.to("meta"), {name: x.to("meta") for name, x in writer.state.items()}
    assert found_by(writer, longest=beam.LOOK - 1, keep=("written",)).tokens.shape == (3, 3, beam.LOOK - 1)


@given(rows=st.integers(0, 3), size=st.integers(1, 300), beams=st.integers(1, 12), seed=st.integers(0, 10**6))
@few
def test_the_largest_are_found_by_blocks(rows, size, beams, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, beams, generator=generator).round(decimals=1)
    log_p = torch.randn(rows, beams, size, generator=generator).round(decimals=1)  # with ties
    end = seed % size
    log_p[:, :, end] += 5 * (seed % 2)  # the largest of all, or not
    best, places = beam._largest(scores, log_p, end)
    sums = (scores[:, :, None] + log_p).index_fill(2, torch.tensor([end]), -torch.inf).flatten(1)
    assert torch.equal(best, sums.topk(beams).values) and torch.equal(sums.gather(1, places), best)
    assert all(len({*row}) == beams for row in places.tolist())


# ---- bad input ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beams": 0}, "^beams is 0, expected at least 1"),
        ({"n_best": 0}, "^n_best is 0, expected at least 1"),
        ({"longest": 0}, "^longest is 0, expected at least 1"),
        ({"length_power": -1}, "^length_power is -1, expected at least 0"),
        ({"keep": ("writen",)}, "^tensor of the state 'writen' is unknown, did you mean 'written'"),
    ],
)
def test_what_cannot_be_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        found_by(Writer(1, 3), **changes)


def test_a_state_without_tensors_is_refused():
    writer = Writer(1, 3)
    writer.state = {}
    with pytest.raises(ValueError, match="^the state is empty, expected a tensor with a row for each example"):
        found_by(writer)
