"""What every attack keeps, whatever the defence does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import TinyDenoiser, fill, some_images
from torch import Tensor, nn

from lit_purify.attacks import BPDA, BPDAEOT, PGD, PGDEOT, Target, Uniform
from lit_purify.diffusion import DiffusionPurifier, FixedNoise, FreshNoise, NoiseSource
from lit_purify.functional import correct

ATTACKS: dict[str, Any] = {
    "PGD": lambda eps: PGD(eps=eps, steps=5, rel_stepsize=0.5),
    "PGDEOT": lambda eps: PGDEOT(eps=eps, steps=5, rel_stepsize=0.5, draws=3),
    "BPDA": lambda eps: BPDA(eps=eps, steps=5, rel_stepsize=0.5),
    "BPDAEOT": lambda eps: BPDAEOT(eps=eps, steps=5, rel_stepsize=0.5, draws=3),
    "Uniform": lambda eps: Uniform(eps=eps),
}
NOISES: dict[str, Any] = {"fixed": FixedNoise, "fresh": lambda seed: FreshNoise(seed, "attack")}
INDICES = torch.arange(40, 46)

pytestmark = [
    pytest.mark.parametrize("name", ATTACKS),
    pytest.mark.parametrize("noise", [make(0) for make in NOISES.values()], ids=list(NOISES)),
]


def images() -> Tensor:
    """Many pixels are 0 or 1, where the box meets the ball."""
    return (some_images(6).float() * 1.6 - 0.3).clamp(0, 1)


def network() -> nn.Module:
    convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    module = nn.Sequential(convolution, nn.SiLU(), nn.Flatten(), nn.Linear(128, 4))
    return fill(module, seed=1, std=0.3).requires_grad_(False)


def chain(classifier: nn.Module, noise: NoiseSource) -> Target:
    purifier = DiffusionPurifier(TinyDenoiser().float(), t_star=60, num_steps=3)
    return Target(classifier, purifier.purify, noise)


class Constant(nn.Module):
    """Says class 0 of everything; its gradient is zero."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([1.0, 0, 0, 0]) + 0 * images.flatten(1).sum(1, keepdim=True)


class NotANumber(nn.Module):
    """Sound logits, no gradient that is a number."""

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            images.register_hook(lambda gradient: gradient * torch.nan)
        return network()(images)


def attacked(name: str, target: Target, eps: float = 8 / 255) -> Tensor:
    labels = torch.zeros(6, dtype=torch.int64)
    found = ATTACKS[name](eps)(target, images(), labels, INDICES, seed=1)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert ((found >= 0) & (found <= 1)).all()
    # Half an ulp of a float32 below 1 for the sum, and the same for the difference.
    assert ((found.double() - images().double()).abs() <= eps + 2.0**-24).all()
    return found


def test_a_network_in_bfloat16_leaves_the_ball_alone(name: str, noise: NoiseSource) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        target = chain(network(), noise)
        assert target(images(), INDICES).dtype == torch.bfloat16
        found = attacked(name, target)
    if name != "Uniform":
        assert (found - images()).abs().amax((1, 2, 3)).min() > 7.9 / 255


def test_a_constant_classifier(name: str, noise: NoiseSource) -> None:
    """Its gradient says nothing: what is left is the random start."""
    target = chain(Constant(), noise)
    start = Uniform(eps=8 / 255)(target, images(), torch.zeros(6), INDICES, seed=1)
    assert torch.equal(attacked(name, target), start)
    assert correct(target(start, INDICES), torch.zeros(6, dtype=torch.int64)).all()


def test_a_gradient_that_is_not_a_number(name: str, noise: NoiseSource) -> None:
    start = Uniform(eps=8 / 255)(chain(network(), noise), images(), INDICES, INDICES, seed=1)
    assert torch.equal(attacked(name, chain(NotANumber(), noise)), start)


def test_no_budget(name: str, noise: NoiseSource) -> None:
    assert torch.equal(attacked(name, chain(network(), noise), eps=0.0), images())


def test_no_images(name: str, noise: NoiseSource) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    found = ATTACKS[name](8 / 255)(chain(network(), noise), images()[:0], none, none)
    assert found.shape == (0, *images().shape[1:])


def test_every_image_is_wrong_already(name: str, noise: NoiseSource) -> None:
    target = chain(network(), noise)
    labels = (target(images(), INDICES).argmax(1) + 1) % 4
    found = ATTACKS[name](8 / 255)(target, images(), labels, INDICES)
    assert found.isfinite().all()
    if name in ("PGD", "BPDA") and noise == FixedNoise(0):
        assert not correct(target(found, INDICES), labels).any()
