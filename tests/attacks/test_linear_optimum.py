"""A linear classifier behind an affine purifier: the best perturbation is known in closed form.

The l_inf perturbation eps sign(A^T w) changes the score by eps ||A^T w||_1, and no other changes it
more.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from defences import LinearDefence
from oracles import some_images

from lit_purify.attacks import BPDA, BPDAEOT, PGD, PGDEOT
from lit_purify.attacks.geometry import EXPONENTS
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseSource
from lit_purify.functional import correct

RATIO = 1.05
HALF_ULP = 2.0**-24
MIXING = LinearDefence(
    matrix=torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) / 8,
)
"""Its purifier mixes all pixels. Its gradient is far from the identity's."""

SCALING = LinearDefence(matrix=0.4 * torch.eye(64))
"""The identity stands in for its purifier: BPDA is exact here, but for the length."""

APGD = {"schedule": "apgd", "rel_stepsize": 2, "momentum": 0.25, "keep": "best"}
DISTANCES = tuple((torch.arange(24) / 1000 + 0.05).tolist())
CASES: list[Any] = [
    (PGD, MIXING, FixedNoise(0)),
    (PGD, SCALING, FreshNoise(0, "attack")),
    (PGDEOT, MIXING, FreshNoise(0, "attack")),
    (BPDA, SCALING, FixedNoise(0)),
    (BPDAEOT, SCALING, FreshNoise(0, "attack")),
]


def gain(
    linear: LinearDefence, attack: Any, noise: NoiseSource | None = None, level: float = 0.0
) -> torch.Tensor:
    """What an attack with eps 0.01 changes the score by, in units of the best, shape (B,)."""
    images, labels, indices = linear.samples(DISTANCES)
    attack = attack(eps=0.01, steps=40, rel_stepsize=0.1)
    found = attack(linear.defence(noise, level), images, labels, indices)
    change = (linear.score(found) - linear.score(images)) * (2 * labels - 1)
    return change / (0.01 * linear.normal.double().norm(1))


@pytest.mark.parametrize(("attack", "linear", "noise"), CASES)
@pytest.mark.parametrize("random_start", [True, False])
def test_it_needs_no_more_than_the_optimal_budget(
    attack: Any, linear: LinearDefence, noise: NoiseSource, random_start: bool
) -> None:
    images, labels, indices = linear.samples(DISTANCES)
    defence = linear.defence(noise)
    optimum = linear.optimum(images, math.inf).max().item()
    options = {"steps": 40, "rel_stepsize": 0.1, "random_start": random_start}
    # Nor is the optimum itself wrong: with less the image of the largest margin stands.
    for factor, all_fooled in ((RATIO, True), (1 / RATIO, False)):
        found = attack(eps=factor * optimum, **options)(defence, images, labels, indices)
        assert correct(defence(found, indices), labels).any() != all_fooled


@pytest.mark.parametrize(("attack", "linear", "noise"), CASES)
def test_additive_noise_does_not_move_the_optimum(
    attack: Any, linear: LinearDefence, noise: NoiseSource
) -> None:
    """It adds to the score, not to its gradient."""
    found = gain(linear, attack, noise, level=0.01)
    assert (found > 1 / RATIO).all()
    assert (found < 1.0001).all()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": "cosine"},
        {"keep": "best", "restarts": 2},
        {"targets": 1, "keep": "best"},
        APGD,
    ],
)
def test_every_norm_and_loss_reaches_the_optimum(norm: Any, loss: Any, options: Any) -> None:
    images, labels, indices = MIXING.samples(DISTANCES[:6])
    defence = MIXING.defence()
    p = EXPONENTS[norm]
    optimum = MIXING.optimum(images, p).max().item()
    settings = {"steps": 40, "rel_stepsize": 0.25, "norm": norm, "loss": loss, **options}
    for factor, all_fooled in ((1.02, True), (1 / 1.02, False)):
        found = PGD(eps=factor * optimum, **settings)(defence, images, labels, indices)
        assert correct(defence(found, indices), labels).any() != all_fooled


@pytest.mark.parametrize(("attack", "linear", "noise"), CASES)
def test_all_of_its_kin_reach_the_optimum_in_l2(
    attack: Any, linear: LinearDefence, noise: NoiseSource
) -> None:
    """Here noise has no part in the answer, so that none of the evaluations is lucky."""
    images, labels, indices = linear.samples(DISTANCES[:6])
    optimum = linear.optimum(images, 2).max().item()
    options = {"norm": "L2", "steps": 20, "loss": "margin", "keep": "best", "evaluations": 2}
    for factor, all_fooled in ((1.02, True), (1 / 1.02, False)):
        search = attack(eps=factor * optimum, rel_stepsize=0.5, **options)
        found = search(linear.defence(noise), images, labels, indices)
        stands = correct(linear.defence()(found, indices), labels)
        assert stands.any() != all_fooled
        assert torch.equal(search.findings["standing_in_selection"] == 1, stands)


def test_bpda_falls_short_where_the_purifier_mixes() -> None:
    """The exact gradient is worth more: what the straight-through one reaches is far less."""
    assert (gain(MIXING, PGD) > 1 / RATIO).all()
    assert (gain(MIXING, BPDA) < 0.6).all()


@pytest.mark.parametrize("steps", [1, 10, 40])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("rel_stepsize", [1 / 30, 1 / 20])
def test_it_is_climbed_at_constant_speed(
    steps: int, random_start: bool, rel_stepsize: float
) -> None:
    """Coordinate by coordinate: a step each towards the end of the ball or box, and there it stays.

    The paper's 40 steps make 4/3 eps of way, so a start on the far side of -1/3 ends short.
    """
    eps, images, indices = 8 / 255, some_images(4, MIXING.shape).float(), torch.arange(4)
    labels = MIXING.defence()(images, indices).argmax(1)
    start = images.double()
    if random_start:
        start = (start + eps * FixedNoise(0).uniform(indices, like=images)).clamp(0, 1)
    want = start + eps * rel_stepsize * steps * MIXING.towards(labels)
    want = want.clamp(images - eps, images + eps).clamp(0, 1)
    attack = PGD(eps=eps, steps=steps, rel_stepsize=rel_stepsize, random_start=random_start)
    got = attack(MIXING.defence(), images, labels, indices)
    # Two roundings for each step and four more, of numbers below 1.
    torch.testing.assert_close(got.double(), want, rtol=0, atol=(2 * steps + 4) * HALF_ULP)


def test_the_papers_step_size_reaches_eight_ninths() -> None:
    """40 steps of eps / 30 travel 4/3 eps: from a uniform start two pixels in three arrive.

    The third, uniform in (-eps, -eps / 3), ends uniform in (eps / 3, eps): on average
    2/3 + 1/3 * 2/3 = 8/9.
    """
    images, labels, indices = MIXING.samples(DISTANCES)
    found = PGD(eps=0.01)(MIXING.defence(), images, labels, indices)
    reached = ((found - images).double() * MIXING.towards(labels) / 0.01).flatten()
    assert reached.numel() == 1536
    error = reached.std() / reached.numel() ** 0.5
    assert abs(reached.mean() - 8 / 9) < 4 * error
    assert (reached > 1 / 3 - 1e-4).all()
    assert (reached < 1 - 1e-4).double().mean() == pytest.approx(1 / 3, abs=0.05)
