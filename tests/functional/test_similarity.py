"""The closed form of SSIM's gradient against autograd, of the formula and of torchmetrics."""

from __future__ import annotations

import pytest
import torch
from oracles import ssim
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lit_purify.functional import similarity_gradient
from lit_purify.types import InputError


def images(size: tuple[int, int], *, seed: int) -> Tensor:
    """Beyond [0, 1] too, as the states of a chain are."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 0.4 * torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)


def by_torchmetrics(x: Tensor, y: Tensor) -> Tensor:
    found = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("value", [ssim, by_torchmetrics], ids=["formula", "torchmetrics"])
@pytest.mark.parametrize("size", [(6, 6), (8, 14), (32, 32)], ids=str)
def test_it_is_the_derivative(size: tuple[int, int], value: object) -> None:
    assert callable(value)
    x, y = images(size, seed=0).requires_grad_(), images(size, seed=1)
    (exact,) = torch.autograd.grad(value(x, y).sum(), x)
    found = similarity_gradient(x, y)
    assert (found - exact).norm() <= 1e-10 * exact.norm()


def test_its_derivatives_in_both_are_the_second_ones() -> None:
    x, y = images((8, 8), seed=0).requires_grad_(), images((8, 8), seed=1).requires_grad_()
    cotangent = images((8, 8), seed=2)
    found = torch.autograd.grad(similarity_gradient(x, y), (x, y), cotangent)
    (first,) = torch.autograd.grad(ssim(x, y).sum(), x, create_graph=True)
    for mine, exact in zip(found, torch.autograd.grad(first, (x, y), cotangent), strict=True):
        assert exact.norm() > 0
        assert (mine - exact).norm() <= 1e-10 * exact.norm()


def test_forward_mode_agrees_with_backward() -> None:
    x, y, v, w = (images((8, 8), seed=k) for k in range(4))
    _, pushed = torch.func.jvp(lambda x: similarity_gradient(x, y), (x,), (v,))
    _, pull = torch.func.vjp(lambda x: similarity_gradient(x, y), x)
    torch.testing.assert_close((pushed * w).sum(), (v * pull(w)[0]).sum(), rtol=1e-12, atol=0)


def test_equal_images_cannot_be_more_similar() -> None:
    x = images((16, 16), seed=0)
    assert similarity_gradient(x, x).abs().max() < 1e-15


def test_an_image_counts_for_itself() -> None:
    x, y = images((8, 8), seed=0), images((8, 8), seed=1)
    torch.testing.assert_close(
        similarity_gradient(x[1:], y[1:]), similarity_gradient(x, y)[1:], rtol=1e-12, atol=0
    )


def test_images_smaller_than_the_window_reflects_are_refused() -> None:
    with pytest.raises(InputError, match="6x6"):
        similarity_gradient(images((5, 8), seed=0), images((5, 8), seed=1))
