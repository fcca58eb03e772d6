"""Starts and steps in the balls of l_inf, l2 and l1."""

from __future__ import annotations

import math

import foolbox
import pytest
import torch
from defences import convnet
from oracles import some_images

from lit_purify.attacks import PGD
from lit_purify.attacks.geometry import random_perturbation, steepest_step
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise
from lit_purify.functional import lp_distance

INDICES = torch.arange(40)


@pytest.mark.parametrize("p", [2.0, 1.0])
def test_starts_are_uniform_on_the_sphere(p: float) -> None:
    like = torch.zeros(40, 3, 8, 8)
    found = random_perturbation(FixedNoise(3), INDICES, like, p)
    torch.testing.assert_close(lp_distance(found, like, p), torch.ones(40))
    some = random_perturbation(FixedNoise(3), INDICES[[9, 4]], like[:2], p)
    assert torch.equal(some, found[[9, 4]])
    # Of a sphere in d dimensions E x^2 is 1 / d (l2), and E |x| is 1 / d (l1); signs are even.
    d = like[0].numel()
    law = found.double().abs().flatten() * (d if p == 1 else math.sqrt(d))
    if p == 2:  # half-normal
        assert law.mean() == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)
    else:  # exponential
        assert (law > 1).double().mean() == pytest.approx(math.exp(-1), abs=0.02)
    assert (found > 0).double().mean() == pytest.approx(0.5, abs=0.02)


def test_the_end_of_the_uniform_law_has_a_place() -> None:
    class Ends(FixedNoise):
        def uniform(self, indices: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
            return torch.full_like(like, -1.0)

    for p in (2.0, 1.0):
        found = random_perturbation(Ends(0), INDICES[:2], torch.zeros(2, 1, 2, 2), p)
        assert (found < 0).all()
        assert found.isfinite().all()


def test_steps_are_the_steepest() -> None:
    gradient = torch.tensor([[3.0, -4.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    images = torch.full_like(gradient, 0.5)
    images[0, 0, 0, 1] = 0  # where -4 has nowhere to go
    want = {
        math.inf: [1.0, -1.0, 0.0, 1.0],
        2.0: [3 / 26**0.5, -4 / 26**0.5, 0.0, 1 / 26**0.5],
        1.0: [1.0, 0.0, 0.0, 0.0],
    }
    for p, direction in want.items():
        found = steepest_step(gradient, images, p).flatten(1)
        torch.testing.assert_close(found, torch.tensor([direction, [0.0] * 4]))


def test_a_step_in_l1_moves_a_hundredth_of_the_pixels() -> None:
    gradient = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    found = steepest_step(gradient, torch.full_like(gradient, 0.5), 1.0)
    assert ((found != 0).flatten(1).sum(1) == 3).all()
    torch.testing.assert_close(found.abs().sum((1, 2, 3)), torch.ones(2))
    assert (gradient.abs()[found != 0].min()) > gradient.abs()[found == 0].median()


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_gradients_that_are_no_numbers_lead_nowhere(p: float) -> None:
    gradient = torch.tensor([math.nan, 1.0, 2.0, math.nan]).view(1, 1, 2, 2)
    found = steepest_step(gradient, torch.full_like(gradient, 0.5), p).flatten()
    assert found[0] == found[3] == 0
    assert found[2] > 0
    gradient[0, 0, 0, 0] = math.inf
    found = steepest_step(gradient, torch.full_like(gradient, 0.5), p).flatten()
    assert found.isfinite().all()
    assert found[0] > 0


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_iterates_in_l2_are_those_of_foolbox(steps: int) -> None:
    images = some_images(8).float()
    images[0], images[1] = 0, 1
    labels, indices = convnet()(images).argmax(1), torch.arange(8)
    oracle = foolbox.attacks.L2PGD(steps=steps, rel_stepsize=0.2, random_start=False)
    model = foolbox.PyTorchModel(convnet(), bounds=(0, 1), device="cpu")
    want = oracle.run(model, images, labels, epsilon=0.5)
    attack = PGD(norm="L2", eps=0.5, steps=steps, rel_stepsize=0.2, random_start=False)
    found = attack(Defence(convnet()), images, labels, indices)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [("L2", 0.5), ("L1", 4.0)])
def test_never_leaves_the_ball_nor_the_box(norm: str, eps: float) -> None:
    images = (some_images(6).float() * 1.6 - 0.3).clamp(0, 1)
    labels, indices = convnet()(images).argmax(1), torch.arange(6)
    attack = PGD(norm=norm, eps=eps, steps=5, rel_stepsize=0.5)  # type: ignore[arg-type]
    found = attack(Defence(convnet()), images, labels, indices)
    assert attack.admits(found, images).all()
    assert (lp_distance(found, images, attack.p) > eps / 2).all()
