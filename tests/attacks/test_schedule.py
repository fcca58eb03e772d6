"""Step sizes, momentum, and APGD against the library's own."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pyautoattack.autopgd_base
import pytest
import torch
from defences import LinearDefence, convnet
from oracles import some_images
from torch import Tensor

from lit_purify.attacks import PGD, input_gradient
from lit_purify.attacks.losses import Goal
from lit_purify.attacks.schedule import Halving, checkpoints
from lit_purify.defence import Defence

APGD: Any = {"rel_stepsize": 2, "schedule": "apgd", "momentum": 0.25, "keep": "best"}
HALF_ULP = 2.0**-24


def test_steps_along_a_cosine() -> None:
    """On a linear defence the way is the sum of the steps."""
    linear = LinearDefence()
    images, labels, indices = linear.samples()
    attack = PGD(eps=0.1, steps=7, rel_stepsize=0.2, random_start=False, schedule="cosine")
    found = attack(linear.defence(), images, labels, indices)
    way = 0.02 * sum((1 + math.cos(math.pi * k / 7)) / 2 for k in range(7))
    assert way < 0.1
    want = images + way * linear.towards(labels)
    torch.testing.assert_close(found, want.float(), rtol=0, atol=20 * HALF_ULP)


def test_momentum_repeats_a_part_of_the_last_step() -> None:
    images = some_images(4).float()
    labels, indices = convnet()(images).argmax(1), torch.arange(4)
    defence, eps, m = Defence(convnet()), 0.1, 0.25
    x = before = images
    for k in range(5):
        gradient, _ = input_gradient(defence, x, labels, indices)
        low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
        z = (x + 0.04 * gradient.sign()).clamp(low, high)
        ahead = (1 - m) * (z - x) + m * (x - before) if k else z - x
        x, before = (x + ahead).clamp(low, high), x
    attack = PGD(eps=eps, steps=5, rel_stepsize=0.4, random_start=False, momentum=m)
    found = attack(defence, images, labels, indices)
    torch.testing.assert_close(found, x, rtol=0, atol=20 * HALF_ULP)


@pytest.mark.parametrize("steps", [1, 2, 10, 33, 100])
def test_checkpoints_come_closer(steps: int) -> None:
    found = checkpoints(steps)
    assert all(0 < k < steps for k in found)
    gaps = [after - before for before, after in pairwise([0, *found])]
    assert all(later <= earlier + 1 for earlier, later in pairwise(gaps))


class TestHalving:
    """Samples of one pixel, each with losses of its own."""

    def follow(self, losses: list[list[float]], steps: int = 10) -> tuple[Tensor, Tensor]:
        """Sizes and images after every iteration, (I, B), of images that are the iteration."""
        schedule = Halving(steps, torch.zeros(len(losses), 1, 1, 1))
        rows, sizes, images = torch.arange(len(losses)), [], []
        for k, now in enumerate(zip(*losses, strict=True)):
            here = torch.full((len(losses), 1, 1, 1), float(k))
            size = schedule.sizes(k, rows, torch.tensor(now), here, here.clone())
            assert isinstance(size, Tensor)
            sizes.append(size.flatten())
            images.append(here.flatten())
        return torch.stack(sizes), torch.stack(images)

    def test_samples_decide_by_themselves(self) -> None:
        assert checkpoints(10) == [3, 5, 6, 7, 8, 9]
        rising = [0.0, 1, 2, 3, 4, 5]
        falling = [0.0, -1, -2, -3, -4, -5]
        peak = [0.0, 2, 1, 3, 2.5, 2]  # rises twice in three steps, then never
        sizes, images = self.follow([rising, falling, peak])
        assert sizes[:, 0].tolist() == [1] * 6
        assert images[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert sizes[:, 1].tolist() == [1, 1, 1, 0.5, 0.5, 0.25]
        assert images[:, 1].tolist() == [0, 1, 2, 0, 4, 0]
        assert sizes[:, 2].tolist() == [1, 1, 1, 0.5, 0.5, 0.25]
        assert images[:, 2].tolist() == [0, 1, 2, 3, 4, 3]

    def test_a_best_that_stays_the_same_at_one_size(self) -> None:
        """Nearly every step rises, and yet none comes to the loss of the start."""
        assert checkpoints(40)[:3] == [9, 17, 23]
        sizes, images = self.follow([[10.0, *(k / 10 for k in range(1, 20))]], steps=40)
        assert sizes[:, 0].tolist() == [1] * 17 + [0.5] * 3
        assert images[:, 0].tolist() == [*range(17), 0, 18, 19]


def test_it_comes_closer_than_its_first_step() -> None:
    """The best of all images lies inside the ball, between two steps of the full size."""

    def peaked(images: Tensor) -> Tensor:
        height = -(images - 0.53).abs().flatten(1).sum(1)
        return torch.stack([-height, height], 1)

    images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    found = PGD(eps=0.1, steps=60, loss="margin", **APGD)(
        Defence(peaked), images, labels, torch.tensor([3])
    )
    assert (found - 0.53).abs().max() < 0.005


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("ours", "theirs"), [("cross_entropy", "ce"), ("dlr", "dlr")])
def test_apgd_reaches_the_losses_of_the_library(norm: Any, ours: Any, theirs: str) -> None:
    images = some_images(16).float()
    labels, indices = convnet()(images).argmax(1), torch.arange(16)
    eps = {"Linf": 8 / 255, "L2": 0.3}[norm]
    with torch.random.fork_rng():
        oracle = pyautoattack.autopgd_base.APGDAttack(
            convnet(), n_iter=40, norm=norm, eps=eps, loss=theirs, seed=0
        )
        want = oracle.perturb(images, labels, best_loss=True)
    attack = PGD(norm=norm, eps=eps, steps=40, loss=ours, **APGD)
    found = attack(Defence(convnet()), images, labels, indices)
    loss = Goal(ours)
    reached, best = (loss(convnet()(x), labels).mean().item() for x in (found, want))
    start = loss(convnet()(images), labels).mean().item()
    assert best > start + 0.1
    assert reached - start >= 0.98 * (best - start)
