"""A ball in the features of a network: linear features have a closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import LinearDefence, attack_whole_and_alone, chain
from feature_networks import curved_features, linear_features
from oracles import some_images
from torch import Tensor, nn

from lit_purify.attacks import PGD, Perceptual
from lit_purify.diffusion import FixedNoise, FreshNoise
from lit_purify.types import InputError

INDICES = torch.arange(40, 44)


@pytest.mark.parametrize("noise", [FixedNoise(0), FreshNoise(0, "attack")], ids=["fixed", "fresh"])
def test_it_reaches_the_optimum_of_linear_features(noise: Any) -> None:
    r"""Max :math:`w \cdot \delta` in :math:`\|F \delta\| \le \epsilon` is
    :math:`\epsilon \, (w \cdot (F^T F)^{-1} w)^{1/2}`."""
    linear, features, eps = LinearDefence(), linear_features(), 0.1
    images, labels, indices = linear.samples()
    attack = Perceptual(eps=eps, features=features, steps=100, draws=2)
    found = attack(linear.defence(noise, 0.01), images, labels, indices)
    change = (linear.score(found) - linear.score(images)) * (2 * labels - 1)
    normal, f = linear.normal.double(), features.module.matrix.double()
    best = eps * (normal @ torch.linalg.solve(f.T @ f, normal)).sqrt()
    assert (change / best > 1 / 1.02).all()
    assert (change / best < 1 + 2e-3).all()
    # Plain steps of the gradient, shortened to the ball, fall short: the multiplier is needed.
    along = (normal @ normal) / (f @ normal).norm() * eps
    assert along < 0.5 * best


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    images = (some_images(4).float() * 1.1 - 0.05).clamp(0, 1)
    return images, chain(FixedNoise(0))(images, INDICES).argmax(1), INDICES


def test_every_image_is_of_the_threat_model(batch: tuple[Tensor, ...]) -> None:
    features = curved_features()
    attack = Perceptual(eps=0.5, features=features, steps=6)
    found = attack(chain(FixedNoise(0)), *batch)

    def before_the_last_layer(images: Tensor) -> Tensor:
        return features.module[1][:3](images.double())

    apart = before_the_last_layer(found) - before_the_last_layer(batch[0])
    distance = apart.square().sum(1).sqrt()
    assert (distance <= 0.5 * (1 + 1e-6)).all()
    assert (distance > 0.45).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert attack.admits(found, batch[0]).all()
    assert not attack.with_eps(0.4).admits(found, batch[0]).any()
    assert not attack.admits(batch[0] + 2, batch[0] + 2).any()
    assert not attack.admits(
        PGD(eps="64/255", steps=2)(chain(FixedNoise(0)), *batch), batch[0]
    ).all()


def test_it_raises_the_loss(batch: tuple[Tensor, ...]) -> None:
    images, labels, _ = batch
    found = Perceptual(eps=1.0, features=curved_features(), steps=8)(chain(FixedNoise(0)), *batch)
    logits = [chain(FixedNoise(0))(x, INDICES) for x in (images, found)]
    losses = [nn.functional.cross_entropy(each, labels, reduction="none") for each in logits]
    assert (losses[1] > losses[0]).all()


def test_a_sample_does_not_depend_on_its_batch(batch: tuple[Tensor, ...]) -> None:
    """In float64, where rounding leaves the images alone."""
    attack = Perceptual(eps=0.5, features=curved_features(), steps=3, draws=2)
    parts = [[3, 0, 2, 1], [1], [2, 3]]
    attack_whole_and_alone(attack, lambda: chain(FreshNoise(0, "attack")), batch, parts)


def test_no_budget_and_no_images(batch: tuple[Tensor, ...]) -> None:
    attack = Perceptual(eps=0.5, features=curved_features(), steps=2)
    defence = chain(FixedNoise(0))
    found = attack.with_eps(0)(defence, *batch)
    torch.testing.assert_close(found, batch[0], rtol=0, atol=1e-3)
    assert len(attack(defence, *(column[:0] for column in batch))) == 0


def test_settings_name_the_threat_model() -> None:
    said = Perceptual(eps=2, features=linear_features()).settings()
    assert said["attack"] == "Perceptual"
    assert said["eps"] == 2
    assert "feature_l2" in str(said["threat_model"])
    assert "logits" in str(said["features"])
    assert "Tanh" in str(Perceptual(eps=2, features=nn.Tanh()).settings()["threat_model"])


def test_a_radius_of_the_pixels_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="customary"):
        Perceptual(eps="8/255", features=linear_features())


@pytest.mark.parametrize("option", ["steps", "draws", "rows_per_pass", "rel_stepsize"])
def test_senseless_arguments_are_refused(option: str) -> None:
    options: Any = {"eps": 1, "features": linear_features(), option: 0}
    with pytest.raises(InputError, match=option):
        Perceptual(**options)


@pytest.mark.parametrize("features", [None, "embedded_resnet18"])
def test_features_are_a_network(features: Any) -> None:
    with pytest.raises(InputError, match="expected a network"):
        Perceptual(eps=1, features=features)


class Deaf(nn.Module):
    """Features without a gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return images.detach().flatten(1)


def test_features_without_a_gradient_are_refused() -> None:
    attack = Perceptual(eps=1, features=Deaf(), steps=1)
    labels = torch.zeros(len(INDICES), dtype=torch.int64)
    with pytest.raises(InputError, match="no gradient"):
        attack(chain(FixedNoise(0), dtype=torch.float32), some_images(4).float(), labels, INDICES)
