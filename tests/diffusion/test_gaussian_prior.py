r"""Purification of Gaussian data by its exact denoiser has a closed form.

For data :math:`x_0 \sim \mathcal N(\mu, \Sigma)` the state at step t is Gaussian with covariance
:math:`M_t = \bar\alpha_t \Sigma + (1 - \bar\alpha_t) I`, and everything shares the eigenvectors of
:math:`\Sigma`. With :math:`\lambda` an eigenvalue, :math:`m_t = \bar\alpha_t \lambda + 1 -
\bar\alpha_t` and :math:`u_t = x_t - \sqrt{\bar\alpha_t} \mu`:

- **DDPM.** The mean of a step is :math:`E[u_s | u_t]`, and since :math:`u_t = \sqrt{\alpha'} u_s +
  \sqrt{1 - \alpha'} z`, that is :math:`\sqrt{\alpha'}\, (m_s / m_t)\, u_t`. The product telescopes
  to :math:`\sqrt{\bar\alpha_{t^*}}\, \lambda / m_{t^*}`, however many steps are taken.
- **DDIM.** With :math:`a_t = (\sqrt{\bar\alpha_t \lambda}, \sqrt{1 - \bar\alpha_t})`, a step is
  :math:`u_s = \frac{a_s \cdot a_t}{|a_t|^2} u_t = \sqrt{m_s / m_t} \cos(\theta_t - \theta_s)\, u_t`
  with :math:`\theta` the angle of :math:`a`. The product is :math:`\sqrt{\lambda / m_{t^*}} \prod
  \cos \Delta\theta`, and tends to the probability flow as the steps shrink.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import ALPHA_BAR, ChosenNoise, GaussianDenoiser, cosine_alpha_bar, draws
from torch import Tensor

from lit_purify.diffusion import (
    CosineSchedule,
    DDIMSampler,
    DDPMSampler,
    Denoiser,
    DiffusionPurifier,
    FixedNoise,
    LinearSchedule,
    Sampler,
    Schedule,
)
from lit_purify.types import Process

SHAPE = (1, 2, 2)
EIGENVALUES = torch.tensor([0.02, 0.1, 0.4, 0.9], dtype=torch.float64)
MEAN = torch.tensor([0.2, -0.3, 0.0, 0.5], dtype=torch.float64)
CHAINS = [(100, None), (100, 7), (150, 20), (1000, 40)]


def rotation() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q


def spectral(values: Tensor) -> Tensor:
    """The matrix with these eigenvalues and the eigenvectors of Sigma."""
    return rotation() @ torch.diag(values) @ rotation().T


def marginal(t: int, eigenvalues: Tensor = EIGENVALUES) -> Tensor:
    return ALPHA_BAR[t] * eigenvalues + 1 - ALPHA_BAR[t]


def purifier(
    sampler: Sampler, t_star: int, num_steps: int | None, forward: Any = "stepwise"
) -> DiffusionPurifier:
    denoiser = GaussianDenoiser(MEAN, spectral(EIGENVALUES))
    return DiffusionPurifier(
        denoiser, t_star=t_star, num_steps=num_steps, sampler=sampler, forward_process=forward
    )


def reverse_map(sampler: Sampler, visited: list[int], t: int) -> Tensor:
    """Eigenvalues of the map from the state at step t to the output, for eta = 0."""
    if isinstance(sampler, DDPMSampler):
        return math.sqrt(ALPHA_BAR[t]) * EIGENVALUES / marginal(t)
    cosines = torch.ones_like(EIGENVALUES)
    path = [0, *visited[: visited.index(t) + 1]]
    angles = [
        torch.atan2(
            torch.full_like(EIGENVALUES, math.sqrt(1 - ALPHA_BAR[s])),
            (ALPHA_BAR[s] * EIGENVALUES).sqrt(),
        )
        for s in path
    ]
    for a, b in zip(angles[1:], angles[:-1], strict=True):
        cosines = cosines * torch.cos(a - b)
    return (EIGENVALUES / marginal(t)).sqrt() * cosines


def noise_scale(sampler: Sampler, t: int, s: int) -> float:
    """Standard deviation of the draw between t and s."""
    if s == 0 or isinstance(sampler, DDIMSampler):
        return 0.0
    beta = 1 - ALPHA_BAR[t] / ALPHA_BAR[s]
    small = (1 - ALPHA_BAR[s]) / (1 - ALPHA_BAR[t])
    return math.sqrt(beta if sampler.variance == "fixed_large" else beta * small)  # type: ignore[attr-defined]


def weights(model: DiffusionPurifier) -> dict[tuple[Process, int], Tensor]:
    """Eigenvalues of A_k in f(x) = b + J x + sum_k A_k z_k / 2, for every draw of the chain.

    The half is the scale of the output: [0, 1] images, [-1, 1] noise.
    """
    visited, t_star = model.timesteps, model.t_star
    down = reverse_map(model.sampler, visited, t_star)
    found: dict[tuple[Process, int], Tensor] = {}
    if model.forward_process != "none":
        for s, t in zip([0, *visited], visited, strict=False):
            beta = 1 - ALPHA_BAR[t] / ALPHA_BAR[s]
            found["forward", t] = math.sqrt(beta * ALPHA_BAR[t_star] / ALPHA_BAR[t]) * down
    for s, t in itertools.pairwise(visited):
        scale = noise_scale(model.sampler, t, s)
        found["reverse", t] = scale * reverse_map(model.sampler, visited, s)
    return found


def columns(model: DiffusionPurifier, pixel: float) -> tuple[Tensor, Tensor]:
    """Rows A_k e_j for every draw k and direction j: one unit draw per row; the output without any.

    Both on the [-1, 1] scale, for an image of equal pixels.
    """
    chosen = [(process, t, k) for process, t in weights(model) for k in range(4)]
    x = torch.full((len(chosen) + 1, *SHAPE), pixel, dtype=torch.float64)
    output = 2 * model.purify(x, ChosenNoise(chosen), torch.arange(len(x))).flatten(1) - 1
    return output[:-1] - output[-1], output[-1]


def jacobian(model: DiffusionPurifier) -> Tensor:
    into = 1.0 if model.forward_process == "none" else math.sqrt(ALPHA_BAR[model.t_star])
    return spectral(into * reverse_map(model.sampler, model.timesteps, model.t_star))


LARGE = DDPMSampler(variance="fixed_large", clip=False)
SMALL = DDPMSampler(variance="fixed_small", clip=False)
DDIM = DDIMSampler(clip=False)
SAMPLERS = [LARGE, SMALL, DDIM]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("t_star", "num_steps"), CHAINS)
@pytest.mark.parametrize("forward", ["stepwise", "none"])
def test_jacobian(sampler: Sampler, t_star: int, num_steps: int | None, forward: Any) -> None:
    model = purifier(sampler, t_star, num_steps, forward)
    x = torch.full((1, *SHAPE), 0.4, dtype=torch.float64)
    index = torch.tensor([7])
    got = torch.autograd.functional.jacobian(lambda x: model.purify(x, FixedNoise(0), index), x)
    torch.testing.assert_close(got.view(4, 4), jacobian(model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_steps", [None, 10])
@pytest.mark.parametrize(
    ("schedule", "alpha_bar", "t_star"),
    [
        (LinearSchedule(), ALPHA_BAR.__getitem__, 100),
        (CosineSchedule(400), lambda t: cosine_alpha_bar(t, 400), 80),
    ],
)
def test_jacobian_of_ddpm_is_the_posterior_of_the_data(
    schedule: Schedule, alpha_bar: Any, t_star: int, num_steps: int | None
) -> None:
    """J = alpha_bar Sigma M^-1: compression below one in every direction, most in the thin ones.

    With the alpha_bar that the denoiser's own schedule has, whatever that is.
    """
    sigma = spectral(EIGENVALUES)
    denoiser = GaussianDenoiser(MEAN, sigma, alpha_bar)
    denoiser.schedule = schedule
    model = DiffusionPurifier(denoiser, t_star=t_star, num_steps=num_steps, sampler=SMALL)
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    index = torch.tensor([7])
    got = torch.autograd.functional.jacobian(lambda x: model.purify(x, FixedNoise(0), index), x)
    share = alpha_bar(t_star)
    identity = torch.eye(4, dtype=torch.float64)
    want = share * sigma @ torch.linalg.inv(share * sigma + (1 - share) * identity)
    torch.testing.assert_close(got.view(4, 4), want, rtol=0, atol=1e-10)
    assert torch.linalg.matrix_norm(got.view(4, 4), 2) < 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("t_star", "num_steps"), CHAINS)
@pytest.mark.parametrize("forward", ["stepwise", "none"])
def test_every_draw_enters_with_its_own_weight(
    sampler: Sampler, t_star: int, num_steps: int | None, forward: Any
) -> None:
    """f is affine in the noise: unit draws give every column of every A_k."""
    model = purifier(sampler, t_star, num_steps, forward)
    want = weights(model)
    found, silent = columns(model, 0.4)
    matrices = torch.stack([spectral(values) for values in want.values()])
    torch.testing.assert_close(found.view(len(want), 4, 4).mT, matrices, rtol=0, atol=1e-10)
    # Without noise the purified image is mu + J (x - mu), on the [-1, 1] scale.
    shift = math.sqrt(ALPHA_BAR[t_star]) if forward == "none" else 1.0  # where x is x_t*
    mean = MEAN + jacobian(model) @ (2 * 0.4 - 1 - shift * MEAN)
    torch.testing.assert_close(silent, mean, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_purified_image_is_the_sum_of_its_draws(sampler: Sampler) -> None:
    model = purifier(sampler, 100, 7)
    indices = torch.tensor([11, 4])
    x = torch.full((2, *SHAPE), 0.4, dtype=torch.float64)
    want = MEAN + (2 * x.flatten(1) - 1 - MEAN) @ jacobian(model).T
    for (process, t), values in weights(model).items():
        z = draws(5, indices, 2 * t + (process == "reverse"), x).flatten(1)
        want = want + z @ spectral(values).T
    got = model.purify(x, FixedNoise(5), indices).flatten(1)
    torch.testing.assert_close(2 * got - 1, want, rtol=0, atol=1e-10)


def population(model: DiffusionPurifier) -> Tensor:
    """Eigenvalues of the covariance of purified data, over the prior and all noise."""
    found, _ = columns(model, 0.0)
    total = found.T @ found + jacobian(model) @ spectral(EIGENVALUES) @ jacobian(model).T
    eigen = rotation().T @ total @ rotation()
    torch.testing.assert_close(eigen, torch.diag(eigen.diagonal()), rtol=0, atol=1e-10)
    return eigen.diagonal()


@pytest.mark.parametrize("t_star", [20, 200])
def test_the_two_variances_enclose_the_data(t_star: int) -> None:
    r"""Exact reverse steps have variance :math:`\beta' m_s / m_t`.

    ``fixed_small`` is that for :math:`\lambda = 0` and ``fixed_large`` for :math:`\lambda = 1`, so
    for data between them the one makes purified data too narrow, the other too wide. Exact steps
    would give :math:`\bar\alpha_{\tau_1} \lambda^2 / m_{\tau_1}`, the last step being noiseless.
    """
    exact = ALPHA_BAR[1] * EIGENVALUES**2 / marginal(1)
    small = population(purifier(SMALL, t_star, None))
    large = population(purifier(LARGE, t_star, None))
    assert (small < exact).all()
    assert (exact < large).all()


@pytest.mark.parametrize("sampler", [SMALL, DDIM])
def test_purified_data_approach_the_data_as_steps_get_finer(sampler: Sampler) -> None:
    """To first order in the step: five times as many divide the error by up to five.

    Not so for ``fixed_large``, whose steps widen while its noiseless last one narrows.
    """
    errors = [
        (population(purifier(sampler, 200, n)) / EIGENVALUES - 1).abs().max() for n in (8, 40, 200)
    ]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 3


class ExactVariance(Denoiser):
    r"""Also gives the interpolation values of ``learned_range`` that make reverse steps exact.

    For axis-aligned Gaussian data with variances in [0, 1] the exact variance
    :math:`\beta' m_s / m_t` lies between the two ends.
    """

    def __init__(self, visited: list[int]) -> None:
        super().__init__()
        self.previous = dict(zip(visited, [0, *visited], strict=False))
        self.noise = GaussianDenoiser(MEAN, torch.diag(EIGENVALUES))

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        assert isinstance(t, int)
        s = self.previous[t]
        eps = self.noise(x_t, t)
        if s == 0:
            return torch.cat([eps, torch.zeros_like(eps)], 1)
        low = math.log((1 - ALPHA_BAR[s]) / (1 - ALPHA_BAR[t]))
        share = 1 - (marginal(s) / marginal(t)).log() / low
        assert ((share >= 0) & (share <= 1)).all()
        return torch.cat([eps, (2 * share - 1).view(1, *SHAPE).expand_as(eps)], 1)


@pytest.mark.parametrize(("t_star", "num_steps"), [(100, None), (100, 5), (1000, 40)])
def test_a_learned_variance_makes_every_chain_exact(t_star: int, num_steps: int | None) -> None:
    """Then purified data have the law of E[x0 | x_tau1], at every depth and number of steps."""
    visited = np.unique(np.linspace(0, t_star, (num_steps or t_star) + 1).round().astype(int))
    steps = visited[1:].tolist()
    model = DiffusionPurifier(
        ExactVariance(steps),
        t_star=t_star,
        num_steps=num_steps,
        sampler=DDPMSampler(variance="learned_range", clip=False),
    )
    assert model.timesteps == steps
    found, _ = columns(model, 0.0)
    shrink = ALPHA_BAR[t_star] * EIGENVALUES / marginal(t_star)
    got = found.T @ found + torch.diag(shrink**2 * EIGENVALUES)
    first = steps[0]
    want = torch.diag(ALPHA_BAR[first] * EIGENVALUES**2 / marginal(first))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
