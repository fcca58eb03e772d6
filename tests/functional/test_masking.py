"""Norms, growth, derivatives by differences: against losses whose derivative is known."""

import math

import pytest
import torch
from oracles import some_images
from torch import Tensor

from lit_purify.functional.masking import (
    derivative_error,
    directional_derivative,
    first_to_last,
    growth_log10,
    l2_norm,
    zero_share,
)

NAN = math.nan


def direction(images: Tensor, seed: int = 1) -> Tensor:
    """A unit vector for each image."""
    u = some_images(len(images), images.shape[1:], seed=seed).to(images) - 0.5
    return u / u.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def test_norms_survive_what_float32_cannot_square():
    gradient = torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [math.inf, 0], [NAN, 0]])
    found = l2_norm(gradient).tolist()
    assert found[:2] == pytest.approx([5e-30, 5e30], rel=1e-6)
    assert found[2] == math.inf
    assert math.isnan(found[3])


def test_growth_is_between_input_and_output():
    norms = torch.tensor([[2e-3, 1e9, 2.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).double()
    found = growth_log10(norms).tolist()
    assert found[:2] == [pytest.approx(-3), -math.inf]
    assert math.isnan(found[2])


def test_only_exact_zeros_count():
    gradient = torch.tensor([[[0.0, -0.0], [1e-45, NAN]], [[0.0, 0.0], [0.0, 0.0]]])
    assert zero_share(gradient).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_loss_has_the_same_slope_at_every_step(dtype):
    x = some_images(3).to(dtype)
    u, w = direction(x), some_images(1, seed=2)[0] - 0.5
    found = directional_derivative(lambda x: (x.double() * w).flatten(1).sum(1), x, u)
    want = (u.double() * w).flatten(1).sum(1)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)


def test_curvature_and_rounding_are_both_kept_out():
    """exp(30 x) has a third derivative of 27000, and float32 images a rounding of 6e-8."""
    x, u = torch.tensor([[0.2], [0.5]]), torch.ones(2, 1)
    found = directional_derivative(lambda x: (30 * x.double()).exp().sum(1), x, u)
    want = 30 * (30 * x.double()).exp().squeeze(1)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=0)


@pytest.mark.parametrize("size", [1e-8, 1e-3, 1.0, 1e3])
def test_losses_of_every_size(size):
    x = some_images(2).float()
    u, w = direction(x), some_images(1, seed=2)[0]
    found = directional_derivative(lambda x: size * ((x * w).flatten(1).sum(1) / 5).sin(), x, u)
    inner = (x * w).flatten(1).sum(1) / 5
    want = size * inner.cos() * (u * w).flatten(1).sum(1) / 5
    torch.testing.assert_close(found, want, rtol=1e-3, atol=0)


def test_each_sample_has_its_own_step():
    """One is quick and one is slow; alone they find what they find together."""
    x, u = torch.tensor([[0.3], [0.3]], dtype=torch.float64), torch.ones(2, 1).double()
    speed = torch.tensor([300.0, 0.01]).double()

    def loss(x: Tensor) -> Tensor:
        return (speed * x.squeeze(1)).sin() + 5

    want = speed * (speed * 0.3).cos()
    found = directional_derivative(loss, x, u)
    torch.testing.assert_close(found, want, rtol=2e-3, atol=0)
    for row in range(2):
        speed = torch.tensor([[300.0], [0.01]]).double()[row]
        alone = directional_derivative(loss, x[row : row + 1], u[row : row + 1])
        assert torch.equal(alone, found[row : row + 1])


def test_what_is_flat_has_the_slope_zero():
    """Also where it has steps: none of them is near."""
    x, u = torch.full((2, 4), 0.5), torch.full((2, 4), 0.5)
    for flat in (lambda x: x.sum(1).double() * 0 + 3, lambda x: (x / 9).floor().sum(1).double()):
        assert directional_derivative(flat, x, u).tolist() == [0, 0]


def test_a_loss_that_is_a_number_only_nearby():
    x, u = torch.tensor([[0.01]], dtype=torch.float64), torch.ones(1, 1).double()
    found = directional_derivative(lambda x: x.log().sum(1), x, u)
    assert found.item() == pytest.approx(100, rel=1e-2)


@pytest.mark.parametrize("c", [0.5, 1.0, 3.0])
def test_a_gradient_c_times_too_long(c):
    true = torch.tensor([2.0])
    assert derivative_error(c * true, true).item() == pytest.approx(abs(1 - 1 / c))


def test_a_derivative_that_is_none():
    found = derivative_error(torch.tensor([0.0, NAN, math.inf, 1.0]), torch.tensor([1.0] * 4))
    assert found.isnan().tolist() == [True, True, True, False]


def test_first_to_last():
    rows = [[1.0, 5.0, 4.0], [2.0, 9.0, NAN], [2.0, NAN, NAN], [NAN] * 3, [NAN, 1.0, 3.0]]
    found = first_to_last(torch.tensor(rows)).tolist()
    assert [found[0], found[1], found[4]] == [3, 7, 2]
    assert math.isnan(found[2])
    assert math.isnan(found[3])
    assert first_to_last(torch.tensor([[3.0]])).isnan().all()
