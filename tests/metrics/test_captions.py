"""CIDEr-D and BLEU against their definitions written with dictionaries, and against pycocoevalcap where it is there."""

from collections import Counter
from math import exp, log, prod, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from lib.metrics.captions import CiderD, References, bleu, bleu_of, bleu_statistics, sentence_bleu

word = st.integers(1, 5)  # so few that n-grams repeat inside a sentence and across images
sentence = st.lists(word, max_size=9)
images = st.lists(st.lists(sentence, min_size=1, max_size=4), min_size=1, max_size=6)
few = settings(deadline=None, max_examples=30)


@st.composite
def corpora(draw):
    """References and a candidate for each image, half of them one of its references with its end cut off."""
    references = draw(images)
    cut = [draw(st.sampled_from(several))[: draw(st.integers(0, 9))] for several in references]
    return references, [draw(st.one_of(st.just(candidate), sentence)) for candidate in cut]


# ---- the definitions, one sentence after the other ----


def ngrams(sentence, n):
    return Counter(tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1))


def plain_cider(candidate, references, corpus):
    """Vedantam et al. 2015, eq. 1 to 3 and section 7, with coco-caption's length, the number of bigrams."""
    total = 0.0
    for n in (1, 2, 3, 4):
        df = Counter(gram for several in corpus for gram in {g for one in several for g in ngrams(one, n)})

        def tf_idf(one, n=n, df=df):
            return {g: count * (log(len(corpus)) - log(max(1, df[g]))) for g, count in ngrams(one, n).items()}

        ours = tf_idf(candidate)
        for reference in references:
            theirs = tf_idf(reference)
            clipped = sum(min(value, theirs.get(gram, 0)) * theirs.get(gram, 0) for gram, value in ours.items())
            norm = sqrt(sum(v**2 for v in ours.values())) * sqrt(sum(v**2 for v in theirs.values()))
            gap = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
            total += (clipped / norm if norm else 0) * exp(-(gap**2) / 72)
    return 10 * total / 4 / len(references)


def plain_statistics(candidate, references, n):
    right, every = [], []
    for k in range(1, n + 1):
        most = Counter()
        for reference in references:
            most |= ngrams(reference, k)
        right.append(sum((ngrams(candidate, k) & most).values()))
        every.append(sum(ngrams(candidate, k).values()))
    closest = min((abs(len(reference) - len(candidate)), len(reference)) for reference in references)[1]
    return right + every + [len(candidate), closest]


def plain_bleu(statistics, n, right_add, all_add):
    """The geometric mean of n precisions, times the brevity penalty; what is added is that for n = 1, 2, ..."""
    right, every, (ours, closest) = statistics[:n], statistics[n : 2 * n], statistics[2 * n :]
    if not ours:
        return 0.0
    pairs = zip(right, every, right_add, all_add, strict=False)
    return prod((r + s) / (e + t) for r, e, s, t in pairs) ** (1 / n) * min(1, exp(1 - closest / ours))


# ---- CIDEr-D ----


@given(corpora())
@few
def test_cider_is_its_definition(corpus):
    references, candidates = corpus
    expected = [plain_cider(*pair, references) for pair in zip(candidates, references, strict=True)]
    assert CiderD(references).score(candidates).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(corpora(), images)
@few
def test_document_frequencies_may_be_those_of_another_corpus(corpus, other):
    references, candidates = corpus
    expected = [plain_cider(*pair, other) for pair in zip(candidates, references, strict=True)]
    for df in (other, References(other)):
        found = CiderD(references, df).score(candidates).tolist()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(images, st.data())
@few
def test_owner_says_who_judges(references, data):
    owner = data.draw(st.lists(st.integers(0, len(references) - 1), max_size=9))
    candidates = [data.draw(sentence) for _ in owner]
    expected = [plain_cider(c, references[i], references) for c, i in zip(candidates, owner, strict=True)]
    for given_as in (owner, np.array(owner, int), torch.tensor(owner, dtype=torch.long)):
        found = CiderD(references).score(candidates, given_as).tolist()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(corpora())
@few
def test_strings_lists_and_a_tensor_are_the_same(corpus):
    references, candidates = corpus

    def spoken(sentence):
        return " ".join(f"w{i}" for i in sentence)

    scores = CiderD(references).score(candidates)
    text = CiderD([[*map(spoken, several)] for several in references])
    torch.testing.assert_close(text.score([*map(spoken, candidates)]), scores)
    padded = pad_sequence([torch.tensor(candidate, dtype=torch.long) for candidate in candidates], batch_first=True)
    assert CiderD(references).score(padded).equal(scores)
    assert bleu([*map(spoken, candidates)], text.references) == bleu(padded, references)


def test_a_known_case():
    """Of two images: idf is log 2 for what one of them has. The candidate is the first one's only reference."""
    references = [["a red car"], ["a blue bus"]]
    same, halved = CiderD(references).score(["a red car", "a blue truck"]).tolist()
    assert same == pytest.approx(7.5)  # there is no 4-gram in three words
    # n = 1: blue of blue, bus against blue, truck: 1/2. n = 2: a-blue of a-blue, blue-bus: 1/2. n = 3: none.
    assert halved == pytest.approx(10 * (0.5 + 0.5) / 4)


def test_repeating_a_word_does_not_pay():
    references = [["a red car"], ["a blue bus"]]
    once, twice = CiderD(references).score(["red car", "red red red car"], [0, 0]).tolist()
    assert twice < once


def test_words_that_no_reference_has_count_against_a_candidate_each_by_itself():
    cider = CiderD([["a red car"], ["a blue bus"]])
    none, same, different = cider.score(["red car", "red car x x", "red car x y"], [0, 0, 0]).tolist()
    assert same < different < none  # the same twice weighs sqrt(4), two of them sqrt(2)


def test_scores_are_where_the_candidates_are_and_can_be_none():
    cider = CiderD([[[1, 2], [3]], [[4]]])
    assert cider.score([], []).shape == cider.score(torch.zeros(0, 5, dtype=torch.long), []).shape == (0,)
    assert cider.score([[], []]).tolist() == [0, 0]
    assert cider.score([[1, 2], [4]]).dtype == torch.float32


def test_a_model_that_holds_it_keeps_no_tables_in_its_weights():
    assert not CiderD([[[1, 2]]]).state_dict()


# ---- BLEU ----


@given(corpora(), st.integers(1, 5))
@few
def test_statistics_are_their_definition(corpus, n):
    references, candidates = corpus
    expected = [plain_statistics(*pair, n) for pair in zip(candidates, references, strict=True)]
    assert bleu_statistics(candidates, references, n=n).tolist() == expected
    assert bleu_statistics(candidates, References(references, n), n=n).tolist() == expected


@given(corpora())
@few
def test_bleu_is_its_definition(corpus):
    references, candidates = corpus
    sums = np.sum([plain_statistics(*pair, 4) for pair in zip(candidates, references, strict=True)], axis=0).tolist()
    for k, found in enumerate(bleu(candidates, references), start=1):
        expected = plain_bleu(sums[:k] + sums[4 : 4 + k] + sums[8:], k, [1e-15] * k, [1e-9] * k)
        assert found == pytest.approx(expected, rel=1e-6)


def test_bleu_of_takes_many_sums_at_once():
    references = [[[1, 2, 3, 4, 5], [1, 2]], [[2, 3, 4, 5]], [[5, 4, 3, 2, 1, 1]]]
    table = bleu_statistics([[1, 2, 3, 4], [2, 3, 4, 5, 5], [5, 4, 3, 2]], references)  # (3, 10)
    rows = np.array([[0, 1, 2], [2, 2, 0]])
    together = bleu_of(table[rows].sum(1))  # (2, 4)
    assert together.shape == (2, 4)
    assert together.tolist() == [bleu_of(table[chosen].sum(0)).tolist() for chosen in rows]


@given(images, st.data())
@few
def test_sentence_bleu_is_its_definition(references, data):
    owner = data.draw(st.lists(st.integers(0, len(references) - 1), max_size=9))
    candidates = [data.draw(sentence) for _ in owner]
    statistics = [plain_statistics(c, references[i], 4) for c, i in zip(candidates, owner, strict=True)]
    found = sentence_bleu(candidates, references, owner).tolist()
    lin_and_och = [0, 1, 1, 1], [0, 1, 1, 1]
    assert found == pytest.approx([plain_bleu(row, 4, *lin_and_och) for row in statistics], rel=1e-5)


def test_the_closest_reference_is_the_shorter_of_two_as_close():
    assert bleu_statistics([[1, 2, 3]], [[[1] * 5, [1] * 4, [1] * 2, [1] * 7]])[0, -1] == 2


# ---- pycocoevalcap ----


CIDER = 1.9574941855097368
BLEU = [0.6666666666645092, 0.5478348302435083, 0.4929566951617323, 0.46608371634981316]


def random_corpus():
    random = np.random.default_rng(0)
    often = 1 / np.arange(1, 41)

    def draw(length):
        return " ".join(f"w{i}" for i in random.choice(40, length, p=often / often.sum()))

    references = [[draw(random.choice([0, 1, 2, 3, 8, 11, 12])) for _ in range(1 + i % 5)] for i in range(40)]
    return references, [draw(9) if i % 2 else several[0] for i, several in enumerate(references)]


def test_numbers_that_pycocoevalcap_gave():
    """Version 1.2, for a corpus drawn from a seed."""
    references, candidates = random_corpus()
    assert CiderD(references).score(candidates).mean().item() == pytest.approx(CIDER, abs=1e-6)
    assert bleu(candidates, references) == pytest.approx(BLEU, abs=1e-9)


def test_pycocoevalcap_agrees():
    cider = pytest.importorskip("pycocoevalcap.cider.cider", reason="pycocoevalcap, 100 MB, is not installed")
    from pycocoevalcap.bleu.bleu import Bleu

    references, candidates = random_corpus()
    gold, found = dict(enumerate(references)), {i: [candidate] for i, candidate in enumerate(candidates)}
    mean, each = cider.Cider().compute_score(gold, found)
    assert CiderD(references).score(candidates).tolist() == pytest.approx(each.tolist(), abs=1e-6)
    corpus, by_candidate = Bleu(4).compute_score(gold, found, verbose=0)
    assert bleu(candidates, references) == pytest.approx(corpus, abs=1e-12)
    assert bleu_of(bleu_statistics(candidates, references)).T == pytest.approx(np.array(by_candidate), abs=1e-12)
    assert (mean, corpus) == (pytest.approx(CIDER, abs=1e-6), pytest.approx(BLEU, abs=1e-9))


# ---- bad input ----


@pytest.mark.parametrize(("references", "message"), [
    ([], "there are no references, expected those of at least one image"),
    ([["a"], []], "image 1 has no reference, expected at least one"),
    ([["a"], [[1]]], "found strings beside word ids, expected strings as in the first reference"),
    ([[[1]], ["a"]], "found strings beside word ids, expected word ids as in the first reference"),
    ([[[3, 0]]], "found word id 0, expected positive ones"),
])  # fmt: skip
def test_bad_references_are_named(references, message):
    with pytest.raises(ValueError, match=message):
        CiderD(references)


@pytest.mark.parametrize(("candidates", "owner", "message"), [
    (["a"], None, "there are 1 candidates for 2 images, expected owner to say whose each is"),
    (["a", "b"], [0], r"expected owner as 2 integers, one a candidate, got \[1\]"),
    (["a", "b"], [0, 2], "found owner from 0 to 2, expected 0 to 1"),
    (["a", [1]], None, "found strings beside word ids, expected strings"),
    (torch.ones(2, 3, dtype=torch.long), None, r"found sentences as torch.int64 \[2, 3\], expected strings"),
])  # fmt: skip
def test_bad_candidates_are_named(candidates, owner, message):
    references = [["a b"], ["c"]]
    for judge in (CiderD(references).score, lambda c, o: sentence_bleu(c, references, o)):
        with pytest.raises(ValueError, match=message):
            judge(candidates, owner)


def test_a_tensor_of_other_numbers_is_named():
    with pytest.raises(ValueError, match=r"found sentences as torch.float32 \[1, 3\], expected int64 \[N, T\]"):
        CiderD([[[1, 2]]]).score(torch.ones(1, 3))


def test_words_of_two_corpora_must_be_numbered_alike():
    training = References([["a b"], ["c"]])
    assert CiderD([["b c"]], training).score(["b d"]).shape == (1,)
    CiderD(References([["b d"]], words=training.words), training)
    with pytest.raises(ValueError, match="number their words differently: count the references with words=df.words"):
        CiderD(References([["c b"]]), training)
    with pytest.raises(ValueError, match="number their words differently"):
        CiderD([[[1]]], training)
    with pytest.raises(ValueError, match="references were counted up to n = 2, expected 4"):
        bleu(["a"], References([["a"]], n=2))
