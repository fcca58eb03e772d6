"""Correlation against numpy, closed forms and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_purify.functional import correlation


def normal(n: int, *, seed: int, shape: tuple[int, ...] = (3, 8, 8)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator)


@pytest.mark.parametrize("scale", [1.0, 1e-42, 1e30])
def test_it_is_numpys(scale):
    a = scale * normal(5, seed=0)  # 1e-42 is subnormal, and keeps three digits
    b = 0.3 * normal(5, seed=0) + normal(5, seed=1) + 2
    want = [
        np.corrcoef(x / x.abs().max(), y)[0, 1]
        for x, y in zip(a.double().flatten(1), b.double().flatten(1), strict=True)
    ]
    found = correlation(a, b)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-13)
    np.testing.assert_allclose(correlation(b, a), want, rtol=0, atol=1e-13)


def test_scale_and_offset_do_not_count_and_sign_does():
    a = normal(4, seed=0, shape=(50,)).double()
    torch.testing.assert_close(
        correlation(a, 1e-6 * a + 0.2), torch.ones(4).double(), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(correlation(a, -a), -torch.ones(4).double(), rtol=0, atol=1e-14)
    assert correlation(a, a).max() <= 1
    other = normal(4, seed=1, shape=(50,)).double()
    torch.testing.assert_close(correlation(3 * a - 1, other), correlation(a, other))


def test_independent_directions_do_not_correlate():
    n = 3 * 32 * 32
    found = correlation(normal(200, seed=0, shape=(n,)), normal(200, seed=1, shape=(n,)))
    assert found.abs().max() < 4.5 / n**0.5  # of 200 draws
    assert found.mean().abs() < 4 / (200 * n) ** 0.5
    assert found.std().item() == pytest.approx(n**-0.5, rel=0.2)


@pytest.mark.parametrize("broken", [0.0, 0.1, -8 / 255, torch.nan, torch.inf])
def test_a_side_without_variation_has_none(broken):
    a, b = normal(3, seed=0), normal(3, seed=1)
    a[1] = broken
    a[2, 0, 0, 0] = torch.inf  # one bad pixel is enough
    for found in (correlation(a, b), correlation(b, a)):
        assert found.isnan().tolist() == [False, True, True]


def test_an_image_does_not_depend_on_its_batch():
    a, b = normal(6, seed=0), normal(6, seed=1)
    whole = correlation(a, b)
    for i in range(6):
        torch.testing.assert_close(
            correlation(a[i : i + 1], b[i : i + 1])[0], whole[i], rtol=0, atol=1e-15
        )
    assert correlation(a[:0], b[:0]).shape == (0,)


def test_gradients_pass():
    a = normal(2, seed=0, shape=(7,)).double().requires_grad_()
    b = normal(2, seed=1, shape=(7,)).double()
    assert torch.autograd.gradcheck(lambda x: correlation(x, b), (a,))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        correlation(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="pixels"):
        correlation(torch.zeros(2, 0), torch.zeros(2, 0))
