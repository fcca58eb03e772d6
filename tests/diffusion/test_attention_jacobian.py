"""The Jacobian of a purifier with attention and resizing: dense, without the matrix, refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import fill, some_images
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from unets import small_guided

from lit_purify.diffusion import DDPMSampler, DiffusionPurifier, FixedNoise
from lit_purify.functional import JacobianOperator, push_forward
from lit_purify.functional.spectral import largest_singular
from lit_purify.types import InputError

N = 3 * 6 * 6


@pytest.fixture(scope="module")
def function() -> Callable[[Tensor], Tensor]:
    """Rows of 3 x 6 x 6 through two steps at 8 x 8, attention at both levels, in float64."""
    denoiser = fill(small_guided(attention_resolutions=(8, 4)).double(), seed=0, std=0.15)
    purifier = DiffusionPurifier(
        denoiser,
        t_star=60,
        num_steps=2,
        sampler=DDPMSampler(variance="learned_range"),
        resize_to=8,
    )
    index = torch.tensor([4])

    def function(rows: Tensor) -> Tensor:
        return purifier.purify(rows, FixedNoise(1).cached(index), index.expand(len(rows)))

    return function


@pytest.fixture(scope="module")
def matrix(function: Callable[[Tensor], Tensor]) -> Tensor:
    """The same matrix by plain autograd, row by row."""
    image = some_images(1, (3, 6, 6))[0]
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: function(x[None])[0], image)
    return jacobian.view(N, N)


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_dense(function: Callable[[Tensor], Tensor], matrix: Tensor, way: Any) -> None:
    operator = JacobianOperator(
        function=function, image=some_images(1, (3, 6, 6))[0], differentiation=way
    )
    torch.testing.assert_close(operator.dense(), matrix, rtol=0, atol=1e-12)


def test_the_largest_singular_value_without_the_matrix(
    function: Callable[[Tensor], Tensor], matrix: Tensor
) -> None:
    operator = JacobianOperator(function=function, image=some_images(1, (3, 6, 6))[0])
    start = some_images(1, (N,), seed=3)[0]
    found = largest_singular(operator.push, operator.pull, start, 1)
    want = torch.linalg.svdvals(matrix)[:1]
    torch.testing.assert_close(found.values, want, rtol=1e-8, atol=0)


def fused_attention(x: Tensor) -> Tensor:
    """Attention by the kernel that has neither forward mode nor a second derivative."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        q = x.flatten(2).unsqueeze(1)
        return F.scaled_dot_product_attention(q, 2 * q, q).view_as(x)


class Once(torch.autograd.Function):
    """A part that somebody wrote with a gradient and no more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@pytest.mark.parametrize("part", [fused_attention, Once.apply])
@pytest.mark.parametrize(("way", "other"), [("forward", "reverse"), ("reverse", "forward")])
def test_a_part_without_the_rules_is_named_and_nothing_takes_its_place(
    part: Callable[[Tensor], Tensor], way: Any, other: str
) -> None:
    x = some_images(1, (3, 4, 4))
    with pytest.raises(InputError, match=f"differentiation: {other}"):
        push_forward(part, x, x, differentiation=way)
