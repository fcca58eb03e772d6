"""Perturbations of low frequency: the threat model holds, and with all frequencies it is PGD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import LinearDefence, attack_whole_and_alone, chain
from oracles import some_images
from scipy.fft import dctn
from torch import Tensor

from lit_purify.attacks import PGD, PGDEOT, LowFrequency
from lit_purify.diffusion import FixedNoise, FreshNoise
from lit_purify.functional import project
from lit_purify.types import InputError

INDICES = torch.arange(40, 44)
EPS = 8 / 255
OPTIONS: Any = {"eps": EPS, "steps": 4, "rel_stepsize": 0.4}


def fresh() -> FreshNoise:
    return FreshNoise(0, "attack")


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    """Some pixels are 0 or 1, where the perturbation has one side alone."""
    images = (some_images(4).float() * 1.1 - 0.05).clamp(0, 1)
    assert ((images == 0) | (images == 1)).any()
    return images, chain(FixedNoise(0))(images, INDICES).argmax(1), INDICES


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("noise", [FixedNoise(0), fresh()], ids=["fixed", "fresh"])
def test_every_image_is_of_the_threat_model(k: int, noise: Any, batch: tuple[Tensor, ...]) -> None:
    attack = LowFrequency(**OPTIONS, frequencies=k, draws=2)
    found = attack(chain(noise), *batch)
    delta = (found - batch[0]).double()
    assert ((found >= 0) & (found <= 1)).all()
    assert delta.abs().max() <= EPS + 1e-6
    spectrum = torch.from_numpy(dctn(delta.numpy(), axes=(2, 3), norm="ortho"))
    above = spectrum.clone()
    above[:, :, :k, :k] = 0
    assert (above.square().flatten(1).mean(1).sqrt() <= 0.0101 * EPS).all()
    assert attack.admits(found, batch[0]).all()
    assert (delta.abs().amax((1, 2, 3)) > 0.3 * EPS).any()
    # Nor does it admit everything: not what has high frequencies, not what is too large.
    assert not attack.admits(PGD(**OPTIONS)(chain(FixedNoise(0)), *batch), batch[0]).any()
    far = (torch.full_like(found, 0.5) + 1.1 * EPS, torch.full_like(found, 0.5))
    assert not attack.admits(*far).any()


def test_with_all_frequencies_it_is_pgd(batch: tuple[Tensor, ...]) -> None:
    for plain, noise in ((PGD(**OPTIONS), FixedNoise(0)), (PGDEOT(**OPTIONS, draws=2), fresh())):
        want = plain(chain(noise), *batch, seed=1)
        low = LowFrequency(**OPTIONS, frequencies=8, draws=2)
        noise = FixedNoise(0) if noise == FixedNoise(0) else fresh()
        torch.testing.assert_close(low(chain(noise), *batch, seed=1), want, rtol=0, atol=1e-6)


def test_with_all_frequencies_it_reaches_the_optimum_of_plain_pgd() -> None:
    linear = LinearDefence()
    images, labels, indices = linear.samples()
    attack = LowFrequency(eps=0.01, steps=20, rel_stepsize=0.2, frequencies=8)
    found = attack(linear.defence(), images, labels, indices)
    change = (linear.score(found) - linear.score(images)) * (2 * labels - 1)
    assert (change > 0.01 * linear.normal.double().norm(1) / 1.02).all()


def test_the_lowest_frequency_is_the_brightness() -> None:
    """With k = 1 the best perturbation of a linear classifier is +eps or -eps in every pixel."""
    linear = LinearDefence()
    images, labels, indices = linear.samples()
    attack = LowFrequency(eps=0.01, steps=20, rel_stepsize=0.2, frequencies=1)
    found = attack(linear.defence(), images, labels, indices)
    want = 0.01 * (2 * labels - 1).view(-1, 1, 1, 1) * linear.normal.sum().sign()
    torch.testing.assert_close(found, images + want, rtol=0, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch(batch: tuple[Tensor, ...]) -> None:
    attack = LowFrequency(**OPTIONS, frequencies=3, draws=2)
    attack_whole_and_alone(attack, lambda: chain(fresh()), batch, [[3, 0, 2, 1], [1], [2, 3]])


def test_white_beside_black_leaves_little_and_gray_all() -> None:
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2.0
    images = torch.stack([checks, torch.full((8, 8), 0.5)])[:, None]
    wanted = project(images + EPS, images, EPS)
    found = LowFrequency(eps=EPS, frequencies=2).project(wanted, images)
    assert (found - images)[0].abs().max() < 0.1 * EPS
    torch.testing.assert_close(found[1], wanted[1])


def test_settings_name_the_threat_model() -> None:
    said = LowFrequency(eps="4/255", frequencies=5).settings()
    assert (said["eps"], said["frequencies"]) == (4 / 255, 5)
    assert "5 x 5 lowest DCT" in str(said["threat_model"])


@pytest.mark.parametrize("frequencies", [0, 2.5, "many"])
def test_senseless_frequencies_are_refused(frequencies: Any) -> None:
    with pytest.raises(InputError, match="frequencies"):
        LowFrequency(frequencies=frequencies)
