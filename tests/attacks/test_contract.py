"""What every attack keeps, whatever the defence does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import attack_whole_and_alone, chain, constant, convnet
from oracles import some_images
from torch import Tensor

from lit_purify.attacks import BPDA, BPDAEOT, PGD, PGDEOT, DiffHammer, LowFrequency, Uniform
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise
from lit_purify.functional import correct

OPTIONS: Any = {"steps": 5, "rel_stepsize": 0.5}
APGD: Any = {
    **{"steps": 5, "rel_stepsize": 2, "schedule": "apgd", "momentum": 0.25, "loss": "margin"},
    **{"keep": "best", "restarts": 2},
}
ATTACKS: dict[str, Any] = {
    "PGD": lambda eps: PGD(eps=eps, **OPTIONS),
    "PGD, early": lambda eps: PGD(eps=eps, early_stop=True, **OPTIONS),
    "PGDEOT": lambda eps: PGDEOT(eps=eps, draws=3, **OPTIONS),
    "BPDA": lambda eps: BPDA(eps=eps, **OPTIONS),
    "BPDAEOT": lambda eps: BPDAEOT(eps=eps, draws=3, **OPTIONS),
    "DiffHammer": lambda eps: DiffHammer(eps=eps, draws=3, losses=["margin", "dlr"], **OPTIONS),
    "LowFrequency": lambda eps: LowFrequency(eps=eps, frequencies=8, draws=3, **OPTIONS),
    "APGD": lambda eps: PGD(eps=eps, **APGD),
    "PGD, targeted": lambda eps: PGD(eps=eps, loss="dlr", targets=2, keep="best", **OPTIONS),
    "PGDEOT, evaluated": lambda eps: PGDEOT(
        eps=eps, draws=3, keep="best", evaluations=2, judged_by="majority", **OPTIONS
    ),
    "Uniform": lambda eps: Uniform(eps=eps),
}
CHOOSY = ("APGD", "PGD, targeted", "PGDEOT, evaluated", "DiffHammer")
"""Those that choose among several attempts, or have the clean image among their choice."""
NOISES: dict[str, Any] = {
    "fixed": lambda: FixedNoise(0),
    "fresh": lambda: FreshNoise(0, "attack"),
}
INDICES = torch.arange(40, 46)
ZEROS = torch.zeros(6, dtype=torch.int64)

pytestmark = [
    pytest.mark.parametrize("name", ATTACKS),
    pytest.mark.parametrize("noise", NOISES),
]


def images() -> Tensor:
    """Many pixels are 0 or 1, where the box meets the ball."""
    return (some_images(6).float() * 1.6 - 0.3).clamp(0, 1)


def defence(noise: str, classifier: Any = None) -> Defence:
    return chain(NOISES[noise](), classifier, dtype=torch.float32)


def not_a_number(images: Tensor) -> Tensor:
    """Sound logits, no gradient that is a number."""
    if images.requires_grad:
        images.register_hook(lambda gradient: gradient * torch.nan)
    return convnet()(images)


def attacked(name: str, defence: Defence, eps: float = 8 / 255, labels: Tensor = ZEROS) -> Tensor:
    clean = images()
    found = ATTACKS[name](eps)(defence, clean, labels, INDICES, seed=1)
    assert torch.equal(clean, images())
    assert clean.grad is None
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert ((found >= 0) & (found <= 1)).all()
    # Half an ulp of a float32 below 1 for the sum, and the same for the difference.
    assert ((found.double() - images().double()).abs() <= eps + 2.0**-24).all()
    return found


def test_a_network_in_bfloat16_leaves_the_ball_alone(name: str, noise: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert defence(noise)(images(), INDICES).dtype == torch.bfloat16
        found = attacked(name, defence(noise))
    # Some are fooled where they start.
    if name not in ("Uniform", "PGD, early", "PGD, targeted", "DiffHammer"):
        assert (found - images()).abs().amax((1, 2, 3)).min() > 7.9 / 255


def test_it_works_where_gradients_are_switched_off(name: str, noise: str) -> None:
    found = []
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            found.append(attacked(name, defence(noise)))
    assert torch.equal(*found)


def test_a_gradient_that_says_nothing_leaves_the_random_start(name: str, noise: str) -> None:
    starts = [Uniform(eps=8 / 255)(defence(noise), images(), ZEROS, INDICES, seed=1)]
    if name in CHOOSY:
        again = [FixedNoise(1).derived("restart", k) for k in (1, 2)]
        moves = [8 / 255 * each.uniform(INDICES, like=images()) for each in again]
        starts += [images(), *(PGD().project(images() + move, images()) for move in moves)]
    for classifier in (constant, not_a_number):
        found = attacked(name, defence(noise, classifier))
        same = torch.stack([(found == start).flatten(1).all(1) for start in starts])
        assert same.any(0).all()


def test_a_sample_does_not_depend_on_its_batch(name: str, noise: str) -> None:
    """Nor on whether its noise is drawn again at every query or kept."""

    def bound() -> Defence:
        return chain(FixedNoise(0)).bind(NOISES[noise](), INDICES)

    batch = images(), chain(FixedNoise(0))(images(), INDICES).argmax(1), INDICES
    attack, order = ATTACKS[name](24 / 255), [4, 0, 5, 2, 1, 3]
    whole = attack(chain(NOISES[noise]()), *batch, seed=1)
    parts = [order, order[:4], *([row] for row in order)]
    assert torch.equal(attack_whole_and_alone(attack, bound, batch, parts), whole)


def test_no_budget(name: str, noise: str) -> None:
    assert torch.equal(attacked(name, defence(noise), eps=0.0), images())


def test_no_images(name: str, noise: str) -> None:
    found = ATTACKS[name](8 / 255)(defence(noise), images()[:0], ZEROS[:0], ZEROS[:0])
    assert found.shape == (0, *images().shape[1:])


def test_every_image_is_wrong_already(name: str, noise: str) -> None:
    labels = (defence(noise)(images(), INDICES).argmax(1) + 1) % 4
    found = attacked(name, defence(noise), labels=labels)
    if name != "Uniform" and noise == "fixed":
        assert not correct(defence(noise)(found, INDICES), labels).any()
