"""The ODE by a solver that chooses its steps: the closed form on Gaussian data, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import ALPHA_BAR, GaussianDenoiser, TinyDenoiser, draws, some_images
from torch import Tensor
from torchdiffeq import odeint

from lit_purify.diffusion import AdaptiveFlowPurifier, Denoiser, FixedNoise
from lit_purify.types import InputError

SHAPE = (1, 2, 2)
EIGENVALUES = torch.tensor([0.02, 0.1, 0.4, 0.9], dtype=torch.float64)
MEAN = torch.tensor([0.2, -0.3, 0.0, 0.5], dtype=torch.float64)
INDICES = torch.tensor([3, 41])
LOG = np.log(ALPHA_BAR)


class BetweenSteps(Denoiser):
    """The best denoiser of Gaussian data at any real step."""

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        between = float(np.exp(np.interp(float(t), np.arange(1001), LOG)))
        whole = GaussianDenoiser(MEAN, torch.diag(EIGENVALUES), lambda _: between)
        noise: Tensor = whole(x_t, 0)
        return noise


def marginal(t: int) -> Tensor:
    return ALPHA_BAR[t] * EIGENVALUES + 1 - ALPHA_BAR[t]


@pytest.mark.parametrize("method", ["dopri5", "adaptive_heun"])
@pytest.mark.parametrize("t_star", [1, 200])
def test_it_is_the_closed_form(method: Any, t_star: int) -> None:
    """sqrt(m_1 / m_t*) to the tolerance, then Euler's step; so is the gradient."""
    tolerance = 1e-10 if method == "dopri5" else 1e-6
    model = AdaptiveFlowPurifier(
        BetweenSteps(), t_star=t_star, method=method, rtol=tolerance, atol=tolerance
    )
    x = some_images(2, SHAPE).requires_grad_()
    output = model.purify(x, FixedNoise(5), INDICES)
    a, b = ALPHA_BAR[t_star], -LOG[1]
    noised = math.sqrt(a) * (2 * x - 1)
    noised = noised + math.sqrt(1 - a) * draws(5, INDICES, 2 * t_star, x)
    down = (marginal(1) / marginal(t_star)).sqrt()
    at_one = down * (noised.flatten(1) - math.sqrt(a) * MEAN)
    score = -at_one / marginal(1)
    at_one = at_one + math.sqrt(ALPHA_BAR[1]) * MEAN
    want = (at_one + b * (at_one + score) / 2 + 1) / 2
    torch.testing.assert_close(output.flatten(1), want, rtol=0, atol=100 * tolerance)
    got, expected = (torch.autograd.grad(y.sum(), x)[0] for y in (output, want))
    torch.testing.assert_close(got, expected, rtol=0, atol=100 * tolerance)
    depths = [(state.process, state.t) for state in model.trajectory(x, FixedNoise(5), INDICES)]
    assert depths == model.depths


class Smooth(TinyDenoiser):
    """Known weights; smooth in a step between whole ones."""

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return super().forward(x_t, torch.as_tensor(t).view(-1, 1, 1, 1))


def plain(model: AdaptiveFlowPurifier, images: Tensor) -> Tensor:
    """The same solver on the equation written down again, image by image, nothing recomputed."""
    t_star = model.t_star
    x = 2 * images - 1
    noise = draws(5, INDICES, 2 * t_star, x)
    x = ALPHA_BAR[t_star] ** 0.5 * x + (1 - ALPHA_BAR[t_star]) ** 0.5 * noise

    def slope(log_alpha_bar: float, x: Tensor) -> Tensor:
        t = np.interp(-log_alpha_bar, -LOG, np.arange(1001))
        eps = model.denoiser(x, torch.tensor([t], dtype=torch.float64))
        return (x - eps / math.sqrt(1 - math.exp(log_alpha_bar))) / 2

    span = torch.tensor([0, LOG[1] - LOG[t_star]], dtype=torch.float64)
    rows = [
        odeint(
            lambda r, x: slope(float(LOG[t_star] + r), x),
            row,
            span,
            rtol=model.rtol,
            atol=model.atol,
            method=model.method,
            options={"first_step": span[1] / 10, "step_t": span[1:]},
        )[-1]
        for row in x.split(1)
    ]
    x = torch.cat(rows)
    return (x - LOG[1] * slope(LOG[1], x) + 1) / 2


@pytest.mark.parametrize("kept", [0, 5, 10_000])
def test_the_gradient_is_that_of_the_steps_taken(kept: int) -> None:
    model = AdaptiveFlowPurifier(Smooth(scale=2), t_star=150, rtol=1e-5, atol=1e-5)
    model.budget.steps = lambda network, x: kept  # type: ignore[method-assign]
    x = some_images(2).requires_grad_()
    cotangent = some_images(2, seed=9) - 0.5
    output, want = model.purify(x, FixedNoise(5), INDICES), plain(model, x)
    # An ulp of alpha_bar near 1 is 1e-12 of the variance of the first step.
    torch.testing.assert_close(output, want, rtol=0, atol=1e-11)
    got, expected = (torch.autograd.grad(y, x, cotangent)[0] for y in (output, want))
    assert (got - expected).norm() <= 1e-10 * expected.norm()


def test_the_steps_of_an_image_do_not_depend_on_its_batch() -> None:
    model = AdaptiveFlowPurifier(Smooth(scale=3), t_star=150)
    x = torch.cat([some_images(1), 30 * some_images(1, seed=1)])  # one harder than the other
    together = model.purify(x, FixedNoise(0), INDICES)
    alone = [model.purify(x[k : k + 1], FixedNoise(0), INDICES[k : k + 1]) for k in (0, 1)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)
    assert model.purify(x[:0], FixedNoise(0), INDICES[:0]).shape == (0, 3, 8, 8)


def test_a_smaller_tolerance_takes_more_evaluations() -> None:
    calls = []
    for tolerance in (1e-2, 1e-8):
        denoiser = Smooth(scale=2)
        model = AdaptiveFlowPurifier(denoiser, t_star=150, rtol=tolerance, atol=tolerance)
        model.purify(some_images(1), FixedNoise(0), INDICES[:1])
        calls.append(denoiser.calls)
    assert calls[0] < calls[1]


def test_what_it_says() -> None:
    model = AdaptiveFlowPurifier(Smooth(), method="bosh3")
    settings = model.settings()
    assert settings["purifier_options"] == {"method": "bosh3", "rtol": 1e-3, "atol": 1e-3}
    assert "num_steps" not in settings
    assert "constants" in model.approximate_gradient
    for options, word in (
        ({"method": "euler"}, "dopri5"),
        ({"rtol": 0}, "rtol"),
        ({"atol": 1e-30}, "1e-13"),
    ):
        with pytest.raises(InputError, match=word):
            AdaptiveFlowPurifier(Smooth(), **options)  # type: ignore[arg-type]
