"""Structural similarity of images whose similarity is known."""

from __future__ import annotations

import pytest
import torch
from oracles import ssim
from torch import Tensor

from lit_purify.metrics import structural_similarity
from lit_purify.types import InputError

C1, C2 = 0.01**2, 0.03**2


def images(n: int, size: int = 16, *, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_identical_images_have_similarity_one() -> None:
    x = images(3)
    torch.testing.assert_close(structural_similarity(x, x), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(("a", "b"), [(0.2, 0.7), (0.0, 1.0), (0.5, -0.1), (1.3, 0.9)])
def test_constant_images_differ_by_their_light(a: float, b: float) -> None:
    one, two = (torch.full((2, 3, 12, 12), value, dtype=torch.float64) for value in (a, b))
    expected = (2 * a * b + C1) / (a**2 + b**2 + C1)
    found = structural_similarity(one, two)
    torch.testing.assert_close(found, torch.full((2,), expected, dtype=torch.float64))


@pytest.mark.parametrize("size", [6, 11, 32])
def test_by_the_formula(size: int) -> None:
    x = images(4, size)
    y = 0.7 * x + 0.3 * images(4, size, seed=1)
    torch.testing.assert_close(structural_similarity(x, y), ssim(x, y), rtol=1e-9, atol=0)
    torch.testing.assert_close(structural_similarity(y, x), structural_similarity(x, y))


def test_nothing_is_clipped() -> None:
    x = 3 * images(2) - 1
    torch.testing.assert_close(
        structural_similarity(x, x.clamp(0, 1)), ssim(x, x.clamp(0, 1)), rtol=1e-9, atol=0
    )


def test_an_image_counts_for_itself() -> None:
    x, y = images(5), images(5, seed=1)
    alone = torch.cat([structural_similarity(x[k : k + 1], y[k : k + 1]) for k in range(5)])
    torch.testing.assert_close(structural_similarity(x, y), alone, rtol=1e-12, atol=0)
    assert structural_similarity(x[:0], y[:0]).shape == (0,)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one shape"):
        structural_similarity(images(2), images(1))
    with pytest.raises(InputError, match="6x6"):
        structural_similarity(images(1, 5), images(1, 5))
