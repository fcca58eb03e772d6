"""What every adapter of another library's attack promises, shown on attacks made for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from defences import LinearDefence, Rule, attack_whole_and_alone, half_broken
from torch import Tensor

from lit_purify.attacks import ExternalAttack, Watch
from lit_purify.attacks.external import ExternalModel
from lit_purify.attacks.global_randomness import own_randomness
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.functional import correct
from lit_purify.types import InputError

LINEAR = LinearDefence()
BATCH = IMAGES, LABELS, INDICES = LINEAR.samples()

Search = Callable[[ExternalModel, Tensor, Tensor], Tensor]


class Scripted(ExternalAttack):
    """An attack whose library is a function."""

    library = "scripted"

    def __init__(self, search: Search, *, eps: float = 0.5, early_stop: bool = False) -> None:
        super().__init__(eps=eps, early_stop=early_stop)
        self.script = search

    def search(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
        return self.script(network, image, label)


def careless(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
    """Draws from every global generator, and seeds them."""
    noise = torch.randn_like(image) + float(np.random.randn()) + random.gauss(0, 1)  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    return image + 0.1 * noise + 0.01 * torch.rand(())


def state() -> tuple[Any, ...]:
    legacy = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()


def test_global_generators_are_neither_read_nor_changed() -> None:
    found = []
    for seed in (1, 2):
        with own_randomness(seed):  # so that this test leaves nothing behind
            before = state()
            found.append(Scripted(careless)(LINEAR.defence(), IMAGES, LABELS, INDICES, seed=3))
            assert state() == before
    assert torch.equal(*found)
    other = Scripted(careless)(LINEAR.defence(), IMAGES, LABELS, INDICES, seed=4)
    assert not torch.equal(found[0], other)


def test_global_generators_are_put_back_after_an_error() -> None:
    def fails(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        careless(network, image, label)
        raise RuntimeError("broken")

    before = state()
    with pytest.raises(RuntimeError, match="broken"):
        Scripted(fails)(LINEAR.defence(), *BATCH)
    assert state() == before


def test_a_sample_does_not_depend_on_its_batch() -> None:
    parts = [[2], [0], [3], [1], [3, 1, 0]]
    attack_whole_and_alone(Scripted(careless), LINEAR.defence, BATCH, parts)


def test_every_sample_meets_the_fresh_noise_from_its_first_pass() -> None:
    passes: list[tuple[int, int]] = []

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        assert isinstance(noise, FixedNoise)
        passes.extend((index, noise.seed) for index in indices.tolist())
        return images

    def thrice(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        for _ in range(3):
            network(image)
        return image

    source = FreshNoise(5, "attack", passes=2)
    Scripted(thrice)(Defence(LINEAR.classify, Rule(purify), source), *BATCH)
    seeds = [FreshNoise(5, "attack", passes=k).next_configuration().seed for k in (2, 3, 4)]
    assert passes == [(index, seed) for seed in seeds for index in INDICES.tolist()]
    assert source.passes == 2


def test_a_query_of_any_size_and_dtype_is_about_the_sample() -> None:
    seen: list[tuple[list[int], torch.dtype]] = []

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        seen.append((indices.tolist(), images.dtype))
        return images

    def script(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        assert not network.training
        for dtype in (torch.float64, torch.float32, torch.float16):
            logits = network(image.to(dtype).repeat(3, 1, 1, 1))
            assert logits.dtype == torch.float32
            assert logits.shape == (3, 4)
            logits.zero_()  # as libraries do
        return image

    defence = Defence(LINEAR.classify, Rule(purify)).bind(FixedNoise(0), INDICES)
    Scripted(script)(defence.observed(Watch(LABELS, INDICES)), *BATCH)
    asked = [index for indices, _ in seen for index in indices]
    every = INDICES.tolist()
    assert asked == every + 3 * [index for index in every for _ in range(3)]
    assert {dtype for _, dtype in seen} == {torch.float32}


def step(image: Tensor, label: Tensor, length: float) -> Tensor:
    """A step of this l2 length straight to the boundary."""
    away = LINEAR.normal.view(LINEAR.shape) / LINEAR.normal.norm()
    return image - length * away * (1 - 2 * label)


def walk(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
    """Queries at l2 distances 0.02, 0.04, ... 1, far beyond the boundary."""
    for k in range(1, 51):
        image_k = step(image, label, 0.02 * k)
        network(image_k)
    return image_k


class L2Scripted(Scripted):
    p = 2.0


@pytest.mark.parametrize("eps", [0.35, 0.6])
def test_early_stop_returns_the_first_query_in_the_ball_that_fools(eps: float) -> None:
    watch = Watch(LABELS, INDICES)
    found = L2Scripted(walk, eps=eps, early_stop=True)(LINEAR.defence().observed(watch), *BATCH)
    distance = LINEAR.optimum(IMAGES, 2)
    reached = distance <= eps
    needed = (distance / 0.02).ceil()
    for row in range(4):
        # The last one, 0.41 away, is out of reach of the smaller ball: the walk's end is projected.
        length = 0.02 * float(needed[row]) if reached[row] else eps
        want = step(IMAGES[row], LABELS[row], length)
        torch.testing.assert_close(found[row], want, rtol=0, atol=1e-6)
    assert torch.equal(~correct(LINEAR.defence()(found, INDICES), LABELS), reached)
    # One query of the clean image, the walk, and one more of what is returned.
    assert watch.queries == 4 + int(torch.where(reached, needed + 1, 50).sum())
    assert L2Scripted(walk, early_stop=True).stops_early is False  # the adapter's to say


def test_without_early_stop_the_library_has_the_last_word() -> None:
    watch = Watch(LABELS, INDICES)
    found = L2Scripted(walk, eps=0.6)(LINEAR.defence().observed(watch), *BATCH)
    assert watch.queries == 4 * 51
    want = torch.cat([step(x, y, 0.6) for x, y in zip(IMAGES, LABELS, strict=True)]).unsqueeze(1)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("where", ["outside the ball", "outside the box", "fresh"])
def test_early_stop_only_where_it_is_sure(where: str) -> None:
    def script(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        step = 0.6 if where != "outside the box" else 1.2
        bad = (image - step * LINEAR.normal.view(1, 1, 8, 8).sign() * (1 - 2 * label)).double()
        network(torch.cat([image.double(), bad]))
        return image

    eps = {"outside the ball": 0.5, "outside the box": 1.0, "fresh": 0.7}[where]
    defence = LINEAR.defence(FreshNoise(0, "attack") if where == "fresh" else None)
    watch = Watch(LABELS, INDICES)
    found = Scripted(script, eps=eps, early_stop=True)(defence.observed(watch), *BATCH)
    assert torch.equal(found, IMAGES)
    assert watch.queries == (4 if where == "fresh" else 8)


def test_samples_that_are_wrong_already_are_left_alone() -> None:
    wrong = torch.tensor([True, False, False, True])
    labels = torch.where(wrong, 1 - LABELS, LABELS)
    watch = Watch(labels, INDICES)
    found = L2Scripted(walk)(LINEAR.defence().observed(watch), IMAGES, labels, INDICES)
    assert torch.equal((found == IMAGES).flatten(1).all(1), wrong)
    assert watch.fooled.all()
    assert watch.queries == 4 + 2 * 50


def test_no_radius_no_queries() -> None:
    watch = Watch(LABELS, INDICES)
    attack = Scripted(careless, eps=0)
    assert torch.equal(attack(LINEAR.defence().observed(watch), *BATCH), IMAGES)
    assert watch.queries == 0
    assert not torch.stack(list(attack.findings.values())).any()


def test_gradients_flow_whatever_mode_the_caller_is_in() -> None:
    def script(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        x = image.requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
        return x + 0.1 * gradient

    with torch.no_grad():
        quiet = Scripted(script)(LINEAR.defence(), *BATCH)
    loud = Scripted(script)(LINEAR.defence(), *BATCH)
    assert torch.equal(quiet, loud)
    assert not loud.requires_grad
    want = IMAGES + 0.1 * LINEAR.steepness * LINEAR.normal.view(1, 1, 8, 8)
    torch.testing.assert_close(loud, want.clamp(0, 1).clamp(IMAGES - 0.5, IMAGES + 0.5))


def test_a_gradient_that_is_no_number_is_zero_and_is_reported() -> None:
    gradients = []

    def script(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        x = image.requires_grad_()
        gradients.append(torch.autograd.grad(network(x)[:, 0].sum(), x)[0])
        return image

    attack = Scripted(script)
    labels = LINEAR.classify(IMAGES).argmax(1)
    attack(Defence(half_broken(LINEAR.classify)), IMAGES, labels, INDICES)
    want = LINEAR.steepness * LINEAR.slope.view(1, 1, 8, 8)
    assert len(gradients) == 4
    for gradient in gradients:
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient[:, :, 4:], want[:, :, 4:])
        assert (gradient[:, :, :4] == 0).all()
    assert attack.findings["gradient_not_finite"].all()
    assert not attack.findings["not_finite"].any()


def test_an_image_that_is_no_number_gives_way_to_the_clean_one() -> None:
    def script(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        return torch.where(label == 0, torch.nan, image + 0.1)

    attack = Scripted(script)
    found = attack(LINEAR.defence(), *BATCH)
    torch.testing.assert_close(found, torch.where(LABELS.view(-1, 1, 1, 1) == 0, 0, 0.1) + IMAGES)
    assert torch.equal(attack.findings["not_finite"], LABELS == 0)


def test_a_defence_without_gradient_is_named() -> None:
    def script(network: ExternalModel, image: Tensor, label: Tensor) -> Tensor:
        network(image)  # decisions are free to all
        return network(image.requires_grad_())

    defence = Defence(lambda images: LINEAR.classify(images.detach()))
    labels = defence(IMAGES).argmax(1)
    with pytest.raises(InputError, match="no gradient"):
        Scripted(script)(defence, IMAGES, labels, INDICES)


def test_findings_are_those_of_the_last_batch() -> None:
    attack = Scripted(lambda network, image, label: image * torch.nan)
    assert attack.findings == {}
    attack(LINEAR.defence(), *BATCH)
    assert tuple(attack.findings) == attack.finding_names
    assert attack.findings["not_finite"].tolist() == [True] * 4
    attack(LINEAR.defence(), IMAGES[:2], 1 - LABELS[:2], INDICES[:2])
    assert attack.findings["not_finite"].tolist() == [False] * 2
