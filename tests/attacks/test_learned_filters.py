"""Filters learned in a ball of features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import attack_whole_and_alone, chain
from feature_networks import curved_features, linear_features
from oracles import some_images
from torch import Tensor, nn

from lit_purify.attacks import LearnedFilters
from lit_purify.classifiers.features import ClassifierFeatures
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise
from lit_purify.functional import bilateral
from lit_purify.types import InputError

INDICES = torch.arange(40, 44)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    images = (some_images(4).float() * 1.1 - 0.05).clamp(0, 1)
    return images, chain(FixedNoise(0))(images, INDICES).argmax(1), INDICES


def attack(**options: Any) -> LearnedFilters:
    return LearnedFilters(**{"eps": 0.5, "features": curved_features(), "steps": 6, **options})


def margins(defence: Defence, images: Tensor, labels: Tensor) -> Tensor:
    """By which the true class wins, from its definition."""
    logits = defence(images, INDICES)
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (true - others.amax(1, keepdim=True))[:, 0]


def test_every_image_is_of_the_threat_model(batch: tuple[Tensor, ...]) -> None:
    found = attack(eps=0.2)(chain(FixedNoise(0)), *batch)
    seen = ClassifierFeatures(curved_features())
    apart = (seen(found) - seen(batch[0])).square().sum(1).sqrt()
    assert (apart <= 0.2 * (1 + 1e-6)).all()
    assert (apart > 0.18).all()
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("noise", [FixedNoise(0), FreshNoise(0, "attack")], ids=["fixed", "fresh"])
def test_it_lowers_the_margin(batch: tuple[Tensor, ...], noise: Any) -> None:
    images, labels, _ = batch
    found = attack(eps=1.0, steps=15, draws=2)(chain(noise), *batch)
    judge = chain(FixedNoise(0))
    assert (margins(judge, found, labels) < margins(judge, images, labels)).all()


def test_the_first_step_is_adams_along_the_exact_gradient(batch: tuple[Tensor, ...]) -> None:
    """Adam's first step is the sign of the gradient, which autograd has of the whole at once."""
    images, labels = batch[0].double(), batch[1]
    defence, wide = chain(FixedNoise(0)), 1e3
    step, change_step = 0.05, 0.001
    found = attack(
        eps=wide, steps=1, kernels=[3], filter_stepsize=step, change_stepsize=change_step
    ).perturb(defence, images, labels, INDICES, 0)
    logits = torch.zeros(4, 9, 8, 8, dtype=torch.float64)
    logits[:, 4] = 5.0
    parts = [torch.zeros_like(images, requires_grad=True), logits.requires_grad_()]
    filtered = bilateral(images + parts[0], parts[1], 0.1)
    gradients = torch.autograd.grad(margins(defence, filtered, labels).sum(), parts)
    change, logits = (
        part - size * gradient.sign()
        for part, size, gradient in zip(parts, (change_step, step), gradients, strict=True)
    )
    expected = bilateral(images + change, logits, 0.1).clamp(0, 1)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("eps", [1e-3, 0.05])
def test_it_stays_at_the_surface_of_a_small_ball(batch: tuple[Tensor, ...], eps: float) -> None:
    """Though what it filters ends a thousand times as far away."""
    found = attack(eps=eps, steps=20).perturb(chain(FixedNoise(0)), *batch, 0)
    seen = ClassifierFeatures(curved_features())
    apart = (seen(found) - seen(batch[0])).square().sum(1).sqrt()
    assert ((apart > 0.98 * eps) & (apart <= eps * (1 + 1e-3))).all()


def test_a_sample_does_not_depend_on_its_batch(batch: tuple[Tensor, ...]) -> None:
    parts = [[3, 0, 2, 1], [1], [2, 3]]
    small = attack(steps=3, draws=2)
    attack_whole_and_alone(small, lambda: chain(FreshNoise(0, "attack")), batch, parts)


def test_no_budget_and_no_images(batch: tuple[Tensor, ...]) -> None:
    defence = chain(FixedNoise(0))
    found = attack(steps=2).with_eps(0)(defence, *batch)
    torch.testing.assert_close(found, batch[0], rtol=0, atol=1e-3)
    assert len(attack(steps=2)(defence, *(column[:0] for column in batch))) == 0


def test_settings_say_the_filters_and_the_threat_model() -> None:
    said = LearnedFilters(eps=2, features=linear_features(), kernels=[7, 3]).settings()
    assert said["attack"] == "LearnedFilters"
    assert said["kernels"] == [7, 3]
    assert "feature_l2" in str(said["threat_model"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernels": []}, "kernels"),
        ({"kernels": [4]}, "kernels"),
        ({"kernels": [1, 3]}, "kernels"),
        ({"kernels": 3}, "kernels"),
        ({"colour_sigma": 0}, "colour_sigma"),
        ({"filter_stepsize": -1}, "filter_stepsize"),
        ({"change_stepsize": 0}, "change_stepsize"),
        ({"features": nn.Identity, "eps": 1}, "expected a network"),
    ],
)
def test_senseless_arguments_are_refused(options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        attack(**options)


def test_small_images_are_refused(batch: tuple[Tensor, ...]) -> None:
    images, labels, indices = batch
    with pytest.raises(InputError, match="too small for kernels of 9"):
        attack(kernels=[3, 9])(chain(FixedNoise(0)), images[..., :4, :], labels, indices)
