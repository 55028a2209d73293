"""The blocked order similarity against the equation written with one broadcast."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from lib.layers.order import order_similarity

DIRECTIONS = ("gxn", "vendrov")


def naive(images, captions, direction, squared):
    difference = images[:, None] - captions[None]  # (N, M, D)
    violation = (difference if direction == "gxn" else -difference).clamp(min=0)
    return -(violation**2).sum(-1) if squared else -violation.norm(dim=-1)


def vectors(seed, count, captions, dimension, dtype=torch.double):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(rows, dimension, dtype=dtype, generator=generator) for rows in (count, captions)]
    return [tensor.requires_grad_() for tensor in draw]


@given(
    seed=st.integers(0, 9999),
    count=st.integers(1, 9),
    captions=st.integers(1, 9),
    dimension=st.integers(1, 6),
    direction=st.sampled_from(DIRECTIONS),
    squared=st.booleans(),
    chunk=st.integers(1, 200),
)
@settings(deadline=None, max_examples=60)
def test_value_and_gradient_are_the_equations(seed, count, captions, dimension, direction, squared, chunk):
    images, texts = vectors(seed, count, captions, dimension)
    ours, plain = (
        order_similarity(images, texts, direction, squared, chunk),
        naive(images, texts, direction, squared),
    )
    torch.testing.assert_close(ours, plain)
    weights = torch.randn_like(ours)
    expected = torch.autograd.grad((plain * weights).sum(), (images, texts))
    found = torch.autograd.grad((ours * weights).sum(), (images, texts))
    torch.testing.assert_close(found, tuple(gradient.nan_to_num(0) for gradient in expected))


@pytest.mark.parametrize("squared", (True, False))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradcheck(direction, squared):
    images, captions = vectors(0, 3, 4, 5)
    assert torch.autograd.gradcheck(lambda v, t: order_similarity(v, t, direction, squared, 20), (images, captions))


def test_directions_punish_opposite_orders():
    abstract, concrete = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 6.0]])
    assert order_similarity(concrete, abstract, "gxn").item() == -25
    assert order_similarity(concrete, abstract, "gxn", squared=False).item() == -5
    assert order_similarity(concrete, abstract, "vendrov").item() == 0
    assert order_similarity(abstract, concrete, "vendrov").item() == -25


@pytest.mark.parametrize("squared", (True, False))
def test_gradient_where_nothing_is_violated_is_zero(squared):
    images = torch.ones(3, 4, requires_grad=True)
    captions = torch.ones(2, 4, requires_grad=True)
    order_similarity(images, captions, squared=squared).sum().backward()
    assert (images.grad == 0).all() and (captions.grad == 0).all()


@pytest.mark.parametrize("squared", (True, False))
def test_nan_stays_nan(squared):
    scores = order_similarity(torch.tensor([[torch.nan], [1.0]]), torch.zeros(2, 1), squared=squared)
    assert scores.isnan().tolist() == [[True, True], [False, False]]


def test_half_precision_is_computed_in_single():
    images, captions = (tensor.detach().bfloat16() for tensor in vectors(1, 4, 5, 64))
    torch.testing.assert_close(order_similarity(images, captions), naive(images.float(), captions.float(), "gxn", True))


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_no_block_is_larger_than_the_chunk():
    images, captions = vectors(2, 60, 70, 32)  # all differences at once: 134,400
    with Largest() as largest:
        order_similarity(images, captions, chunk=6_000).sum().backward()
    assert 4_200 <= largest.numel <= 6_000


def test_threads_are_given_back():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    order_similarity(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(RuntimeError):
        order_similarity(torch.ones(2, 3), torch.ones(2, 3, device="meta"))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("shapes", "direction", "message"),
    [
        (((2, 3), (2, 4)), "gxn", r"expected images \[N, D\] and captions \[M, D\], got \[2, 3\] and \[2, 4\]"),
        (((3,), (2, 3)), "gxn", r"got \[3\] and \[2, 3\]"),
        (((2, 3), (2, 3)), "up", "direction is 'gxn' or 'vendrov', got 'up'"),
    ],
)
def test_bad_input_is_named(shapes, direction, message):
    with pytest.raises(ValueError, match=message):
        order_similarity(*map(torch.ones, shapes), direction)
