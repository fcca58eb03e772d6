"""Jacobian products against matrices that are known, differences, and plain autograd."""

import pytest
import torch
from oracles import TinyDenoiser, random_unet, some_images
from tiny import Float64Denoiser
from torch.nn import functional as F

from lit_purify.diffusion import (
    DDIMSampler,
    DDPMSampler,
    DiffusionPurifier,
    FixedNoise,
)
from lit_purify.functional import JacobianOperator, pull_back, push_forward
from lit_purify.types import InputError

WAYS = ["forward", "reverse"]


def matrix(m, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, n, generator=generator, dtype=torch.float64)


def operator_of(function, image, way):
    return JacobianOperator(function=function, image=image, differentiation=way)


def dense_by_autograd(function, image):
    jacobian = torch.autograd.functional.jacobian(lambda x: function(x[None])[0], image)
    return jacobian.view(image.numel(), image.numel())


def chain(**options):
    """A purifier's function of rows at one sample, and an image."""
    options = {"t_star": 60, "num_steps": 3, **options}
    purifier = DiffusionPurifier(
        options.pop("denoiser", None) or TinyDenoiser(learns_variance=True), **options
    )
    index = torch.tensor([7])

    def function(rows):
        return purifier.purify(rows, FixedNoise(3).cached(index), index.expand(len(rows)))

    return function, some_images(1, (3, 4, 4))[0]


CHAINS = {
    "learned variance, clipped": {"sampler": DDPMSampler(variance="learned_range")},
    "ddim": {"sampler": DDIMSampler(), "denoiser": TinyDenoiser()},
    "reverse only, output clipped": {"forward_process": "none", "clip_output": True},
    "one shot, everything recomputed": {"forward_process": "one_shot", "memory_budget_gib": 0},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_matrix_is_its_own_jacobian(way):
    a = matrix(12, 12)
    operator = JacobianOperator(
        function=lambda x: (x.flatten(1) @ a.T).view_as(x),
        image=some_images(1, (3, 2, 2))[0],
        rows_per_pass=5,
        differentiation=way,
    )
    rows = matrix(7, 12, seed=1)
    assert operator.size == 12
    torch.testing.assert_close(operator.dense(), a, rtol=0, atol=1e-14)
    torch.testing.assert_close(operator.push(rows), rows @ a.T, rtol=0, atol=1e-13)
    torch.testing.assert_close(operator.pull(rows), rows @ a, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", CHAINS)
def test_products_are_those_of_plain_autograd(name):
    function, image = chain(**CHAINS[name])
    want = dense_by_autograd(function, image)
    for way in WAYS:
        operator = operator_of(function, image, way)
        torch.testing.assert_close(operator.dense(), want, rtol=0, atol=1e-12)
        rows = matrix(3, 48)
        torch.testing.assert_close(operator.push(rows), rows @ want.T, rtol=0, atol=1e-11)
        torch.testing.assert_close(operator.pull(rows), rows @ want, rtol=0, atol=1e-11)


def test_a_product_is_the_central_difference():
    # Without clipping: a kink between the two sides would show.
    function, image = chain(sampler=DDPMSampler(variance="learned_range", clip=False))
    v = matrix(4, 48).view(4, 3, 4, 4)
    h = 1e-4
    difference = (function(image + h * v) - function(image - h * v)) / (2 * h)
    got = push_forward(function, image.expand(4, -1, -1, -1), v)
    # Its own error is of the order h**2.
    torch.testing.assert_close(got, difference, rtol=0, atol=1e-6 * float(difference.abs().max()))
    coarse = (function(image + 4 * h * v) - function(image - 4 * h * v)) / (8 * h)
    assert (coarse - got).norm() > 4 * (difference - got).norm()


@pytest.mark.parametrize("budget", [0, 1.0])
def test_the_unet_in_channels_last(budget):
    function, _ = chain(denoiser=Float64Denoiser(random_unet()), memory_budget_gib=budget)
    image = some_images(1, (3, 16, 16))[0]
    v, u = matrix(2, 768), matrix(2, 768, seed=1)
    forward, reverse = (operator_of(function, image, way) for way in WAYS)
    pushed = forward.push(v)
    torch.testing.assert_close(reverse.push(v), pushed, rtol=0, atol=1e-11)
    # <u, J v> = <J^T u, v>, for every pair of rows
    torch.testing.assert_close(
        u @ pushed.T, forward.pull(u) @ v.T, rtol=0, atol=1e-10 * float(pushed.norm())
    )


@pytest.mark.parametrize("way", WAYS)
def test_attention_has_products_too(way):
    """The fused kernel has neither forward mode nor a second derivative."""

    def function(x):
        q = x.flatten(2).unsqueeze(1)
        return F.scaled_dot_product_attention(q, 2 * q, q).view_as(x)

    image = some_images(1, (3, 4, 4))[0]
    want = dense_by_autograd(function, image)
    operator = operator_of(function, image, way)
    torch.testing.assert_close(operator.push(torch.eye(48).double()), want.T, rtol=0, atol=1e-12)


def test_passes_do_not_matter_in_float64():
    function, image = chain()
    rows = matrix(5, 48)
    one, all_at_once = (
        JacobianOperator(function=function, image=image, rows_per_pass=n) for n in (1, 8)
    )
    torch.testing.assert_close(one.push(rows), all_at_once.push(rows), rtol=0, atol=1e-13)
    torch.testing.assert_close(one.dense(), all_at_once.dense(), rtol=0, atol=1e-13)


def test_float32_is_computed_as_run():
    operator = JacobianOperator(function=lambda x: 2 * x, image=torch.zeros(3, 2, 2))
    assert operator.push(torch.ones(1, 12, dtype=torch.float64)).dtype == torch.float32
    assert operator.dense().dtype == torch.float32


class _WithoutForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


def test_a_missing_rule_of_forward_mode_is_said_and_reverse_mode_does_it():
    x, v = torch.ones(2, 4), torch.arange(8.0).view(2, 4)
    with pytest.raises(InputError, match="reverse"):
        push_forward(_WithoutForwardMode.apply, x, v)
    got = push_forward(_WithoutForwardMode.apply, x, v, differentiation="reverse")
    assert torch.equal(got, 3 * v)


def test_an_error_of_the_function_itself_stays_what_it_is():
    def broken(x):
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        push_forward(broken, torch.ones(1, 2), torch.ones(1, 2))


@pytest.mark.parametrize("way", WAYS)
def test_no_derivative_is_refused(way):
    x = torch.ones(1, 4)
    with pytest.raises(InputError, match="no derivative"):
        push_forward(lambda x: torch.ones_like(x.detach()), x, x, differentiation=way)
    with pytest.raises(InputError, match="no derivative"):
        pull_back(lambda x: x.detach(), x, x)


def test_it_works_without_gradients_switched_on_and_leaves_nothing_behind():
    function, image = chain()
    state = torch.get_rng_state()
    with torch.no_grad():
        for way in WAYS:
            operator = operator_of(function, image, way)
            assert operator.push(matrix(1, 48)).isfinite().all()
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_arguments():
    with pytest.raises(InputError, match="rows_per_pass"):
        JacobianOperator(function=abs, image=torch.zeros(1), rows_per_pass=0)
    with pytest.raises(InputError, match="sideways"):
        JacobianOperator(function=abs, image=torch.zeros(1), differentiation="sideways")  # type: ignore[arg-type]
