r"""EDM's stochastic sampler and DPM-Solver++ 2M on Gaussian data and as plain loops, in float64.

With :math:`y = x_t / \sqrt{\bar\alpha_t}`, its noise level :math:`\sigma` and an eigenvalue
:math:`\lambda` of the covariance of data with mean 0, the predicted noise is
:math:`\sigma y / (\lambda + \sigma^2)`, and the ODE multiplies y by
:math:`\sqrt{(\lambda + \sigma_s^2) / (\lambda + \sigma_t^2)}` from t to s.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
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
    DDIMSampler,
    Denoiser,
    DiffusionPurifier,
    DPMSolverSampler,
    EDMSampler,
    FixedNoise,
    KarrasSchedule,
    RepeatedPurifier,
    Sampler,
)
from lit_purify.functional.jacobian import push_forward
from lit_purify.types import InputError

SHAPE = (1, 2, 2)
EIGENVALUES = torch.tensor([0.05, 0.1, 0.4, 0.9], dtype=torch.float64)
INDICES = torch.tensor([3, 41])
SIGMA = np.sqrt((1 - ALPHA_BAR) / ALPHA_BAR)
HEUN, MULTISTEP = EDMSampler(), DPMSolverSampler()
CHURNED = EDMSampler(s_churn=1.5, s_min=0.1, s_max=0.3, s_noise=1.01)
SAMPLERS = [HEUN, EDMSampler(s_churn=0.7), CHURNED, MULTISTEP, DPMSolverSampler(clip=True)]


def alpha_bar_at(t: float) -> float:
    return math.exp(np.interp(t, np.arange(1001), np.log(ALPHA_BAR)))


def step_at(sigma: float) -> float:
    """The t of a noise level, -ln alpha_bar being linear between whole ones."""
    return float(np.interp(math.log(1 + sigma**2), -np.log(ALPHA_BAR), np.arange(1001)))


def gaussian(sampler: Sampler, t_star: int, num_steps: int | None = None) -> DiffusionPurifier:
    """Of data with mean 0 and uncorrelated pixels; the image itself is x_t*."""
    mean = torch.zeros(4, dtype=torch.float64)
    return DiffusionPurifier(
        GaussianDenoiser(mean, torch.diag(EIGENVALUES), alpha_bar_at),
        t_star=t_star,
        num_steps=num_steps,
        sampler=sampler,
        forward_process="none",
    )


def steps(visited: list[int]) -> list[tuple[int, int]]:
    return [(t, s) for s, t in itertools.pairwise([0, *visited])][::-1]


def churned(sampler: EDMSampler, t: int, num_steps: int) -> float:
    """The noise level that algorithm 2 goes up to."""
    s_max = math.inf if sampler.s_max is None else sampler.s_max
    gamma = min(sampler.s_churn / num_steps, math.sqrt(2) - 1)
    inside = sampler.s_min <= SIGMA[t] <= s_max
    return min((1 + gamma) * SIGMA[t], SIGMA[-1]) if inside else SIGMA[t]


def at_step(model: DiffusionPurifier, images: Tensor, noise: FixedNoise, t: int) -> Tensor:
    """The reverse state at a step, (B, C H W), [-1, 1] scale."""
    indices = torch.arange(len(images))
    for state in model.trajectory(images, noise, indices):
        if (state.process, state.t) == ("reverse", t):
            return (2 * state.image - 1).flatten(1)
    raise AssertionError


def affine(model: DiffusionPurifier, t: int) -> tuple[Tensor, dict[int, Tensor]]:
    """Diagonals of J and of every A_u in x_t = J x_t* + sum_u A_u z_u."""
    noise = ChosenNoise()
    model.purify(torch.full((1, *SHAPE), 0.5, dtype=torch.float64), noise, INDICES[:1])
    drawn = sorted(u for _, u in noise.asked)  # type: ignore[attr-defined]
    units = torch.eye(4, dtype=torch.float64).view(4, *SHAPE)
    linear = at_step(model, (units + 1) / 2, ChosenNoise(), t)
    chosen: Any = [("reverse", u, k) for u in drawn for k in range(4)]
    half = torch.full((len(chosen), *SHAPE), 0.5, dtype=torch.float64)  # 0 on the scale of x
    weights = at_step(model, half, ChosenNoise(chosen), t).view(-1, 4, 4) if chosen else []
    for matrix in (linear, *weights):
        assert torch.equal(matrix, torch.diag(matrix.diag()))
    return linear.diag(), {u: w.diag() for u, w in zip(drawn, weights, strict=True)}


@pytest.mark.parametrize(
    "sampler", [HEUN, CHURNED, EDMSampler(s_churn=3.0), EDMSampler(s_churn=1e6, s_noise=0.9)]
)
@pytest.mark.parametrize(("t_star", "num_steps"), [(100, 7), (1000, 9), (1, None)])
def test_edms_chain_is_its_closed_form(
    sampler: EDMSampler, t_star: int, num_steps: int | None
) -> None:
    """Affine in the image and in the draws, of which steps that are not churned have none."""
    model = gaussian(sampler, t_star, num_steps)
    linear, weights = affine(model, 0)
    want = torch.full_like(EIGENVALUES, 1 / math.sqrt(ALPHA_BAR[t_star]))
    added: dict[int, Tensor] = {}
    for t, s in steps(model.timesteps):
        high = churned(sampler, t, len(model.timesteps))
        if high > SIGMA[t]:
            spread = sampler.s_noise * math.sqrt(high**2 - SIGMA[t] ** 2)
            added[t] = torch.full_like(want, spread)
        slope, down = high / (EIGENVALUES + high**2), SIGMA[s] - high
        if s > 0:
            at_end = SIGMA[s] / (EIGENVALUES + SIGMA[s] ** 2) * (1 + down * slope)
            slope = (slope + at_end) / 2
        factor = 1 + down * slope
        want, added = factor * want, {u: factor * weight for u, weight in added.items()}
    torch.testing.assert_close(linear, want, rtol=0, atol=1e-10)
    assert weights.keys() == added.keys()
    for u, weight in weights.items():
        torch.testing.assert_close(weight, added[u], rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampler", [HEUN, MULTISTEP])
def test_the_ode_is_solved_with_order_two(sampler: Sampler) -> None:
    """Down to t = 80: from there the score is not known to the end."""
    x = some_images(5, SHAPE)
    m_t, m_s = (ALPHA_BAR[t] * EIGENVALUES + 1 - ALPHA_BAR[t] for t in (800, 80))
    exact = (m_s / m_t).sqrt() * (2 * x - 1).flatten(1)
    errors = [
        (at_step(gaussian(sampler, 800, n), x, FixedNoise(0), 80) - exact).abs().max()
        for n in (50, 100, 200)
    ]
    assert errors[-1] < 1e-3
    for coarse, fine in itertools.pairwise(errors):
        assert 3.2 < coarse / fine < 5


def test_edms_noise_keeps_mean_and_variance() -> None:
    """From x_t* of the data's own law, for as much noise in ever more steps."""
    mean = torch.tensor([0.2, -0.3, 0.0, 0.5], dtype=torch.float64)
    sampler = EDMSampler(s_churn=20.0)
    errors = []
    for n in (50, 100, 200):
        model = gaussian(sampler, 800, n)
        linear, weights = affine(model, 80)
        m_t, m_s = (ALPHA_BAR[t] * EIGENVALUES + 1 - ALPHA_BAR[t] for t in (800, 80))
        added = torch.stack(list(weights.values())).square().sum(0)
        assert (added > 0.3 * m_s).all()  # the noise is new for a good part
        errors.append(((linear.square() * m_t + added) / m_s - 1).abs().max())
        model.denoiser.mean = mean
        start = math.sqrt(ALPHA_BAR[800]) * mean.view(1, *SHAPE)
        there = at_step(model, (start + 1) / 2, ChosenNoise(), 80)
        want = math.sqrt(ALPHA_BAR[80]) * mean.view(1, 4)
        torch.testing.assert_close(there, want, rtol=0, atol=1e-12)
    assert errors[-1] < 0.01
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def plain_states(model: DiffusionPurifier, images: Tensor, seed: int) -> list[Tensor]:
    """One loop of the papers' algorithms, by plain autograd; the states from x_t* on."""
    x = 2 * images - 1
    a = ALPHA_BAR[model.t_star]
    x = a**0.5 * x + (1 - a) ** 0.5 * draws(seed, INDICES, 2 * model.t_star, x)
    states = [x]
    sampler, visited = model.sampler, model.timesteps

    def noise(y: Tensor, sigma: float, t: float) -> Tensor:
        when = t if isinstance(t, int) else torch.full((len(y),), t, dtype=y.dtype)
        return model.denoiser(y / (1 + sigma**2) ** 0.5, when)[:, :3]

    before: Any = None
    for t, s in steps(visited):
        y, sigma, end = x / ALPHA_BAR[t] ** 0.5, SIGMA[t], SIGMA[s]
        if isinstance(sampler, EDMSampler):
            high = churned(sampler, t, len(visited))
            if high > sigma:
                spread = sampler.s_noise * (high**2 - sigma**2) ** 0.5
                y = y + spread * draws(seed, INDICES, 2 * t + 1, y)
            slope = noise(y, high, step_at(high) if high > sigma else t)
            there = y + (end - high) * slope
            if s:
                there = y + (end - high) * (slope + noise(there, end, s)) / 2
        else:
            clean = y - sigma * noise(y, sigma, t)
            clean = clean.clamp(-1, 1) if sampler.clip else clean
            ahead = clean
            if before is not None and s:
                h, h_before = math.log(sigma / end), math.log(before[1] / sigma)
                r = h_before / h
                ahead = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * before[0]
            there = end / sigma * y + (1 - end / sigma) * ahead
            before = clean, sigma
        x = ALPHA_BAR[s] ** 0.5 * there
        states.append(x)
    return states


def tiny(sampler: Sampler, *, budget: float = 1.0, learned: bool = False) -> DiffusionPurifier:
    return DiffusionPurifier(
        TinyDenoiser(learns_variance=learned, scale=2),
        t_star=90,
        num_steps=5,
        forward_process="one_shot",
        sampler=sampler,
        memory_budget_gib=budget,
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [0.0, 1.0])
@pytest.mark.parametrize("learned", [False, True])
def test_states_and_gradient_are_those_of_a_plain_loop(
    sampler: Sampler, budget: float, learned: bool
) -> None:
    model = tiny(sampler, budget=budget, learned=learned)
    x = some_images(2).requires_grad_()
    cotangent = some_images(2, seed=9) - 0.5
    plain = plain_states(model, x, 5)
    shown = list(model.trajectory(x, FixedNoise(5), INDICES))[1:]
    assert [state.image.shape for state in shown] == [x.shape] * 6
    for state, want in zip(shown, plain, strict=True):
        torch.testing.assert_close(2 * state.image - 1, want, rtol=0, atol=1e-12)
    found = model.purify(x, FixedNoise(5), INDICES)
    (got,) = torch.autograd.grad(found, x, cotangent)
    (want,) = torch.autograd.grad(plain[-1] / 2, x, cotangent, retain_graph=True)
    assert (got - want).norm() <= 1e-10 * want.norm()

    def loss(images: Tensor) -> Tensor:
        return (images * cotangent).flatten(1).sum(1)

    between = model.state_gradients(x, FixedNoise(5), INDICES, loss)[1:-1]
    wanted = torch.autograd.grad(plain[-1] / 2, plain[:-1], cotangent)
    for state, want in zip(between, wanted, strict=True):
        assert (state.image / 2 - want).norm() <= 1e-10 * want.norm()


@pytest.mark.parametrize("sampler", [CHURNED, MULTISTEP])
def test_forward_mode_and_rounds(sampler: Sampler) -> None:
    """A round starts anew: nothing is carried over to it."""
    model = tiny(sampler)
    x, along = some_images(2), some_images(2, seed=4)
    purify = lambda x: model.purify(x, FixedNoise(5), INDICES)  # noqa: E731
    tangent = push_forward(purify, x, along)
    (pulled,) = torch.autograd.grad(purify(x.requires_grad_()), x, along)
    assert (tangent * along).sum().item() == pytest.approx((pulled * along).sum().item(), rel=1e-10)

    rounds = RepeatedPurifier(
        model.denoiser,
        rounds=[90, 90],
        num_steps=5,
        forward_process="one_shot",
        sampler=sampler,
    )
    second = FixedNoise(5).derived("round", 1)
    want = model.purify(purify(x), second, INDICES)
    torch.testing.assert_close(rounds.purify(x, FixedNoise(5), INDICES), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [CHURNED, MULTISTEP])
def test_a_sample_gets_the_same_in_any_batch_and_order(sampler: Sampler) -> None:
    model, x = tiny(sampler), some_images(3)
    together = model.purify(x, FixedNoise(0), torch.tensor([4, 9, 2]))
    turned = model.purify(x.flip(0), FixedNoise(0), torch.tensor([2, 9, 4])).flip(0)
    alone = model.purify(x[1:2], FixedNoise(0), torch.tensor([9]))
    torch.testing.assert_close(turned, together, rtol=0, atol=1e-14)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sampler", [HEUN, MULTISTEP])
def test_a_single_step_is_ddims(sampler: Sampler) -> None:
    x = some_images(2)
    found, ddim = (
        DiffusionPurifier(TinyDenoiser(), t_star=40, num_steps=1, sampler=each).purify(
            x, FixedNoise(0), INDICES
        )
        for each in (sampler, DDIMSampler(clip=False))
    )
    torch.testing.assert_close(found, ddim, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("sampler", "calls"), [(CHURNED, 9), (MULTISTEP, 5)])
def test_the_evaluations_counted_are_those_made(sampler: Sampler, calls: int) -> None:
    model = tiny(sampler)
    model.purify(some_images(2), FixedNoise(0), INDICES)
    assert model.denoiser.calls == calls
    assert model.settings()["evaluations"] == model.evaluations == calls


def test_the_denoiser_may_refuse_the_steps_around_a_churned_one() -> None:
    class Knows(TinyDenoiser):
        def check_steps(self, steps: Any) -> None:
            self.asked = steps

    denoiser: Denoiser = Knows()
    DiffusionPurifier(denoiser, t_star=100, num_steps=2, sampler=EDMSampler(s_churn=0.2))
    below = [math.floor(step_at(1.1 * SIGMA[t])) for t in (50, 100)]
    assert denoiser.asked == [50, below[0], below[0] + 1, below[1], below[1] + 1]


def test_no_noise_level_is_above_the_schedules() -> None:
    schedule = KarrasSchedule(18)
    denoiser = TinyDenoiser()
    denoiser.schedule = schedule
    model = DiffusionPurifier(denoiser, t_star=18, sampler=EDMSampler(s_churn=1e3))
    (top, *others) = model._down(model.timesteps)
    assert model.sampler.drawn(top) == ()
    assert model.sampler.evaluated(top) == (18, 17)
    assert all(step.t < model.sampler.evaluated(step)[0] <= 18 for step in others)


def test_settings_and_refusals() -> None:
    options = {"s_churn": 1.5, "s_min": 0.1, "s_max": 0.3, "s_noise": 1.01}
    assert tiny(CHURNED).settings()["sampler_options"] == {"clip": False, **options}
    assert tiny(MULTISTEP).settings()["sampler_options"] == {"clip": False}
    wrong: Any
    for wrong in ({"s_churn": -1}, {"s_noise": math.inf}, {"s_min": 0.5, "s_max": 0.4}):
        with pytest.raises(InputError, match=list(wrong)[-1]):
            EDMSampler(**wrong)
