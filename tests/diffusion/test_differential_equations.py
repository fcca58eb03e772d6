r"""The reverse SDE and ODE on Gaussian data, where both are solved in closed form, in float64.

With :math:`\lambda` an eigenvalue of the data's covariance and :math:`m_t = \bar\alpha_t \lambda +
1 - \bar\alpha_t`, the score of data with mean 0 is :math:`-x_t / m_t` in its direction. So a
step multiplies :math:`x_t` by :math:`1 + b / 2 - b / m_t` (SDE), :math:`e_t = 1
+ b (1 - 1 / m_t) / 2` (ODE, Euler) or :math:`(1 + e_t e_s) / 2` (Heun). The ODE itself multiplies
by :math:`\sqrt{m_s / m_t}`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from oracles import (
    ALPHA_BAR,
    ChosenNoise,
    GaussianDenoiser,
    TinyDenoiser,
    draws,
    some_images,
)
from torch import Tensor

from lit_purify.diffusion import (
    DDPMSampler,
    DiffusionPurifier,
    FixedNoise,
    LinearSchedule,
    ProbabilityFlowSampler,
    Sampler,
    VPSDESampler,
)
from lit_purify.diffusion.brownian import increment
from lit_purify.diffusion.reverse_step import reverse_steps
from lit_purify.types import InputError

SHAPE = (1, 2, 2)
EIGENVALUES = torch.tensor([0.05, 0.1, 0.4, 0.9], dtype=torch.float64)
SDE, LAST = VPSDESampler(), VPSDESampler(denoise_last=True)
EULER, HEUN = ProbabilityFlowSampler(), ProbabilityFlowSampler(method="heun")
SAMPLERS = [SDE, LAST, EULER, HEUN]
CHAINS = [(100, None), (100, 7), (1000, 40), (1, None)]
INDICES = torch.tensor([3, 41])


def gaussian(schedule: LinearSchedule | None = None) -> GaussianDenoiser:
    schedule = schedule or LinearSchedule()
    mean = torch.zeros(4, dtype=torch.float64)
    alpha_bar = schedule.alpha_bar.tolist()
    denoiser = GaussianDenoiser(mean, torch.diag(EIGENVALUES), alpha_bar.__getitem__)
    denoiser.schedule = schedule
    return denoiser


def purifier(sampler: Sampler, t_star: int, num_steps: int | None = None) -> DiffusionPurifier:
    """Of Gaussian data with mean 0 and uncorrelated pixels; the image itself is x_t*."""
    return DiffusionPurifier(
        gaussian(), t_star=t_star, num_steps=num_steps, sampler=sampler, forward_process="none"
    )


def factor(sampler: Sampler, t: int, s: int) -> Tensor:
    """What the step from t to s multiplies each pixel by."""
    b = math.log(ALPHA_BAR[s] / ALPHA_BAR[t])
    m_t, m_s = (ALPHA_BAR[u] * EIGENVALUES + 1 - ALPHA_BAR[u] for u in (t, s))
    if isinstance(sampler, VPSDESampler):
        return 1 + b / 2 - b / m_t
    first, second = (1 + b * (1 - 1 / m) / 2 for m in (m_t, m_s))
    return (1 + first * second) / 2 if sampler is HEUN and s > 0 else first


def steps(model: DiffusionPurifier) -> list[tuple[int, int]]:
    return [(t, s) for s, t in itertools.pairwise([0, *model.timesteps])][::-1]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("t_star", "num_steps"), CHAINS)
def test_a_chain_is_its_closed_form(sampler: Sampler, t_star: int, num_steps: int | None) -> None:
    """Affine in the image and in every draw, of which the skipped ones count too."""
    model = purifier(sampler, t_star, num_steps)
    noise = ChosenNoise()
    model.purify(torch.zeros(1, *SHAPE, dtype=torch.float64), noise, INDICES[:1])
    asked = sorted(t for _, t in noise.asked)  # type: ignore[attr-defined]
    first = 1 if sampler is SDE else model.timesteps[0] + 1
    assert asked == (list(range(first, t_star + 1)) if sampler in (SDE, LAST) else [])

    x = torch.eye(4, dtype=torch.float64).view(4, *SHAPE)
    silent = 2 * model.purify((x + 1) / 2, ChosenNoise(), torch.arange(4)) - 1
    want = torch.ones_like(EIGENVALUES)
    for t, s in steps(model):
        want = want * factor(sampler, t, s)
    torch.testing.assert_close(silent.view(4, 4), torch.diag(want), rtol=0, atol=1e-10)

    some = asked[:: max(1, len(asked) // 10)]
    chosen: Any = [("reverse", u, k) for u in some for k in range(4)]
    half = torch.full((len(chosen), *SHAPE), 0.5, dtype=torch.float64)  # 0 on the scale of x
    found = 2 * model.purify(half, ChosenNoise(chosen), torch.arange(len(chosen))) - 1
    for u, matrix in zip(some, found.view(-1, 4, 4), strict=True):
        weight = math.sqrt(math.log(ALPHA_BAR[u - 1] / ALPHA_BAR[u])) * torch.ones_like(want)
        for t, s in steps(model):
            weight = weight * (factor(sampler, t, s) if t < u else 1)
        torch.testing.assert_close(matrix, torch.diag(weight), rtol=0, atol=1e-10)


def test_chains_of_all_lengths_follow_one_path() -> None:
    """Its values at common steps, from the increments that each chain is given."""
    noise, like = FixedNoise(7), torch.zeros(2, *SHAPE, dtype=torch.float64)
    by_hand = torch.zeros_like(like)
    path = {0: by_hand}
    for u in range(1, 101):
        b = math.log(ALPHA_BAR[u - 1] / ALPHA_BAR[u])
        by_hand = by_hand + math.sqrt(b) * draws(7, INDICES, 2 * u + 1, like)
        path[u] = by_hand
    for n in (1, 7, 10, 20, 50, 100):
        value = torch.zeros_like(like)
        for step in reversed(reverse_steps(LinearSchedule().timesteps(100, n), LinearSchedule())):
            t, s, *_ = step
            b = math.log(ALPHA_BAR[s] / ALPHA_BAR[t])
            variances = {u: math.log(ALPHA_BAR[u - 1] / ALPHA_BAR[u]) for u in SDE.drawn(step)}
            value = value + math.sqrt(b) * increment(noise, INDICES, variances, like=like)
            torch.testing.assert_close(value, path[t], rtol=0, atol=1e-12)
    single = increment(noise, INDICES, {9: 0.3}, like=like)
    assert torch.equal(single, noise.normal(INDICES, "reverse", 9, like=like))


def outputs(sampler: Sampler, num_steps: int | None) -> Tensor:
    indices = torch.arange(12)
    x = some_images(12, SHAPE)
    model = purifier(sampler, 800, num_steps)
    return 2 * model.purify(x, FixedNoise(0).cached(indices), indices) - 1


def test_the_sde_has_strong_order_one() -> None:
    """On one path; every step of the schedule stands for the solution."""
    limit = outputs(SDE, None)
    errors = [(outputs(SDE, n) - limit).square().mean().sqrt() for n in (25, 50, 100)]
    for coarse, fine in itertools.pairwise(errors):
        assert 1.8 < coarse / fine < 2.6  # 1.4 would be order 1/2


@pytest.mark.parametrize(("sampler", "ratio"), [(EULER, 2), (HEUN, 4)])
def test_the_ode_has_its_order(sampler: Sampler, ratio: int) -> None:
    at_depth = ALPHA_BAR[800] * EIGENVALUES + 1 - ALPHA_BAR[800]
    exact = (EIGENVALUES / at_depth).sqrt() * (2 * some_images(12, SHAPE).flatten(1) - 1)
    errors = [(outputs(sampler, n).flatten(1) - exact).abs().max() for n in (50, 100, 200)]
    for coarse, fine in itertools.pairwise(errors):
        assert 0.8 * ratio < coarse / fine < 1.25 * ratio


def test_ddpm_and_the_sde_agree_where_steps_are_small() -> None:
    """Draw by draw: to first order in the step, on schedules of ever more steps."""
    differences = []
    for n in (100, 200, 400):
        schedule = LinearSchedule(n, beta_start=0.1 / n, beta_end=20 / n)
        indices = torch.arange(64)
        found = [
            DiffusionPurifier(gaussian(schedule), t_star=n // 2, sampler=sampler).purify(
                some_images(64, SHAPE), FixedNoise(1), indices
            )
            for sampler in (DDPMSampler(variance="fixed_large", clip=False), LAST)
        ]
        differences.append((found[0] - found[1]).square().mean().sqrt())
    assert differences[-1] < 0.01
    for coarse, fine in itertools.pairwise(differences):
        assert 1.7 < coarse / fine < 2.5


def plain_chain(model: DiffusionPurifier, images: Tensor, seed: int) -> Tensor:
    """One loop of the equations, by plain autograd."""
    x = 2 * images - 1
    a = ALPHA_BAR[model.t_star]
    x = a**0.5 * x + (1 - a) ** 0.5 * draws(seed, INDICES, 2 * model.t_star, x)

    def score(x: Tensor, t: int) -> Tensor:
        return -model.denoiser(x, t)[:, :3] / (1 - ALPHA_BAR[t]) ** 0.5

    for t, s in steps(model):
        b = math.log(ALPHA_BAR[s] / ALPHA_BAR[t])
        if isinstance(model.sampler, VPSDESampler):
            x = x + b * (x / 2 + score(x, t))
            for u in range(s + 1, t + 1) if s or model.sampler is SDE else ():
                b_u = math.log(ALPHA_BAR[u - 1] / ALPHA_BAR[u])
                x = x + b_u**0.5 * draws(seed, INDICES, 2 * u + 1, x)
        else:
            slope = (x + score(x, t)) / 2
            if s and model.sampler is HEUN:
                y = x + b * slope
                slope = (slope + (y + score(y, s)) / 2) / 2
            x = x + b * slope
    return (x + 1) / 2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [0.0, 1.0])
@pytest.mark.parametrize("learned", [False, True])
def test_the_gradient_is_exact(sampler: Sampler, budget: float, learned: bool) -> None:
    model = DiffusionPurifier(
        TinyDenoiser(learns_variance=learned, scale=2),
        t_star=30,
        num_steps=4,
        forward_process="one_shot",
        sampler=sampler,
        memory_budget_gib=budget,
    )
    x = some_images(2).requires_grad_()
    cotangent = some_images(2, seed=9) - 0.5
    found = model.purify(x, FixedNoise(5), INDICES)
    plain = plain_chain(model, x, 5)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
    got, want = (torch.autograd.grad(y, x, cotangent)[0] for y in (found, plain))
    assert (got - want).norm() <= 1e-10 * want.norm()


def test_heun_evaluates_the_network_twice_and_keeps_as_many_steps_as_fit() -> None:
    denoiser = TinyDenoiser()
    model = DiffusionPurifier(denoiser, t_star=30, num_steps=4, sampler=HEUN)
    model.budget.steps = lambda network, x: 5  # type: ignore[method-assign]
    x = some_images(2).requires_grad_()
    output = model.purify(x, FixedNoise(0), INDICES)
    assert denoiser.calls == 2 * 3 + 1
    output.sum().backward()
    assert denoiser.calls == 7 + 2 * 2  # the last two of four steps are not computed again


def test_a_sample_gets_the_same_in_any_batch() -> None:
    model = purifier(SDE, 20, 3)
    x = some_images(3, SHAPE)
    together = model.purify(x, FixedNoise(0), torch.tensor([4, 9, 2]))
    alone = model.purify(x[1:2], FixedNoise(0), torch.tensor([9]))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-14)


def test_settings_say_which() -> None:
    assert purifier(LAST, 10).settings()["sampler_options"] == {"clip": False, "denoise_last": True}
    assert purifier(HEUN, 10).settings()["sampler_options"] == {"clip": False, "method": "heun"}
    with pytest.raises(InputError, match="heun"):
        ProbabilityFlowSampler(method="rk4")  # type: ignore[arg-type]
