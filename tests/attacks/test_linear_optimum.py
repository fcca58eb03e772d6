"""A linear classifier behind an affine purifier: the best perturbation is known in closed form.

With logits (0, w . (A x + b) + c) the l_inf perturbation eps sign(A^T w) changes the margin by
eps ||A^T w||_1, and no other changes it more.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import Rule
from torch import Tensor, nn

from lit_purify.attacks import BPDA, BPDAEOT, PGD, PGDEOT
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration, NoiseSource
from lit_purify.functional import correct

N = 32
SHAPE = (3, 4, 4)
RATIO = 1.05
INDICES = torch.arange(300, 300 + N)
LABELS = torch.zeros(N, dtype=torch.int64)

generator = torch.Generator().manual_seed(0)
W = torch.randn(48, generator=generator, dtype=torch.float64)
MIXING = torch.randn(48, 48, generator=generator, dtype=torch.float64) / 7
"""A purifier that mixes all pixels. Its gradient is far from the identity's."""

SCALING = 0.4 * torch.eye(48, dtype=torch.float64)
"""A purifier that the identity stands in for: BPDA is exact here, but for the length."""


class Linear(nn.Module):
    """The margin is 0.02 A^T w's l1 norm at the image (0.5, ..., 0.5)."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        centre = torch.full((48,), 0.5, dtype=torch.float64)
        self.offset = -(W @ a @ centre) - 0.02 * optimum(a)

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1).double() @ W + self.offset
        return torch.stack([torch.zeros_like(score), score], 1)


def optimum(a: Tensor) -> Tensor:
    """How much the margin changes at best, in units of eps."""
    return (a.T @ W).abs().sum()


def defence(a: Tensor, noise: NoiseSource, level: float = 0.0) -> Defence:
    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        xi = noise.normal(indices, "forward", 1, like=images).double()
        return (images.double().flatten(1) @ a.T).view_as(images) + level * xi

    return Defence(Linear(a), Rule(purify), noise)


def images() -> Tensor:
    """Far from 0 and 1, so that the box is not in the way."""
    return torch.full((N, *SHAPE), 0.5) + 0.001 * torch.randn(
        (N, *SHAPE), generator=torch.Generator().manual_seed(1)
    )


def smallest_eps(a: Tensor) -> float:
    """With it every image can be turned over: the largest margin over the optimum."""
    score = defence(a, FixedNoise(0))(images(), INDICES)[:, 1]
    assert (score < 0).all()
    return float((-score / optimum(a)).max())


CASES: list[Any] = [
    (PGD, MIXING, FixedNoise(0)),
    (PGD, SCALING, FreshNoise(0, "attack")),
    (PGDEOT, MIXING, FreshNoise(0, "attack")),
    (BPDA, SCALING, FixedNoise(0)),
    (BPDAEOT, SCALING, FreshNoise(0, "attack")),
]


@pytest.mark.parametrize(("attack", "a", "noise"), CASES)
@pytest.mark.parametrize("random_start", [True, False])
def test_it_needs_no_more_than_the_optimal_budget(
    attack: Any, a: Tensor, noise: NoiseSource, random_start: bool
) -> None:
    model = defence(a, noise)
    options = {"steps": 40, "rel_stepsize": 0.1, "random_start": random_start}
    # Nor is the optimum itself wrong: with less the image of the largest margin stands.
    for factor, all_fooled in ((RATIO, True), (1 / RATIO, False)):
        found = attack(eps=factor * smallest_eps(a), **options)(model, images(), LABELS, INDICES)
        assert correct(model(found, INDICES), LABELS).any() != all_fooled


@pytest.mark.parametrize(("attack", "a", "noise"), CASES)
def test_additive_noise_does_not_move_the_optimum(
    attack: Any, a: Tensor, noise: NoiseSource
) -> None:
    """It adds to the margin, not to its gradient."""
    eps, start = 0.01, images()
    silent = defence(a, FixedNoise(0))
    found = attack(eps=eps, steps=40, rel_stepsize=0.1)(
        defence(a, noise, 0.01), start, LABELS, INDICES
    )
    gain = silent(found, INDICES)[:, 1] - silent(start, INDICES)[:, 1]
    assert (gain > eps * optimum(a) / RATIO).all()
    assert (gain < eps * optimum(a) * 1.0001).all()


def test_bpda_falls_short_where_the_purifier_mixes() -> None:
    """The exact gradient is worth more: what the straight-through one reaches is far less."""
    start, gains = images(), []
    for attack in (PGD, BPDA):
        model = defence(MIXING, FixedNoise(0))
        found = attack(eps=0.01, steps=40, rel_stepsize=0.1)(model, start, LABELS, INDICES)
        gain = model(found, INDICES)[:, 1] - model(start, INDICES)[:, 1]
        gains.append(gain / (0.01 * optimum(MIXING)))
    exact, approximate = gains
    assert (exact > 1 / RATIO).all()
    assert (approximate < 0.6).all()


def test_the_papers_step_size_reaches_eight_ninths() -> None:
    """40 steps of eps / 30 travel 4/3 eps: from a uniform start two pixels in three arrive.

    The third, uniform in (-eps, -eps / 3), ends uniform in (eps / 3, eps): on average
    2/3 + 1/3 * 2/3 = 8/9.
    """
    start = images()
    model = defence(MIXING, FixedNoise(0))
    found = PGD(eps=0.01)(model, start, LABELS, INDICES)
    towards = (MIXING.T @ W).sign().view(SHAPE)
    reached = ((found - start).double() * towards / 0.01).flatten()
    assert reached.numel() == 1536
    error = reached.std() / reached.numel() ** 0.5
    assert abs(reached.mean() - 8 / 9) < 4 * error
    assert (reached > 1 / 3 - 1e-4).all()
    assert (reached < 1 - 1e-4).double().mean() == pytest.approx(1 / 3, abs=0.05)
