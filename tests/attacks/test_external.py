"""What every adapter of another library's attack promises, shown on attacks made for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from linear_defence import LinearDefence
from torch import Tensor

from lit_purify.attacks import ExternalAttack, Target, WatchedTarget
from lit_purify.attacks.external import OneSample, own_randomness
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.functional import correct
from lit_purify.types import InputError

DEFENCE = LinearDefence()
IMAGES, LABELS, INDICES = DEFENCE.samples()

Search = Callable[[OneSample, Tensor, Tensor], Tensor]


class Scripted(ExternalAttack):
    """An attack whose library is a function."""

    library = "scripted"

    def __init__(self, search: Search, *, eps: float = 0.5, early_stop: bool = False) -> None:
        super().__init__(eps=eps, early_stop=early_stop)
        self.script = search

    def search(self, network: OneSample, image: Tensor, label: Tensor, seed: int) -> Tensor:
        return self.script(network, image, label)


def watched(target: Target) -> WatchedTarget:
    return WatchedTarget(target, LABELS, INDICES)


def careless(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
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
            found.append(Scripted(careless)(DEFENCE.target(), IMAGES, LABELS, INDICES, seed=3))
            assert state() == before
    assert torch.equal(*found)
    other = Scripted(careless)(DEFENCE.target(), IMAGES, LABELS, INDICES, seed=4)
    assert not torch.equal(found[0], other)


def test_global_generators_are_put_back_after_an_error() -> None:
    def fails(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        careless(network, image, label)
        raise RuntimeError("broken")

    before = state()
    with pytest.raises(RuntimeError, match="broken"):
        Scripted(fails)(DEFENCE.target(), IMAGES, LABELS, INDICES)
    assert state() == before


def test_a_sample_does_not_depend_on_its_batch() -> None:
    attack = Scripted(careless)
    whole = attack(DEFENCE.target(), IMAGES, LABELS, INDICES)
    for rows in (*torch.tensor([2, 0, 3, 1]).split(1), torch.tensor([3, 1, 0])):
        part = attack(DEFENCE.target(), IMAGES[rows], LABELS[rows], INDICES[rows])
        assert torch.equal(part, whole[rows])


def test_every_sample_meets_the_fresh_noise_from_its_first_pass() -> None:
    passes: list[tuple[int, int]] = []

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        assert isinstance(noise, FixedNoise)
        passes.append((int(indices[0]), noise.seed))
        return images

    def thrice(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        for _ in range(3):
            network(image)
        return image

    source = FreshNoise(5, "attack", passes=2)
    Scripted(thrice)(Target(DEFENCE.classify, purify, source), IMAGES, LABELS, INDICES)
    seeds = [FreshNoise(5, "attack", passes=k).configuration().seed for k in (2, 3, 4)]
    assert passes == [(index, seed) for index in INDICES.tolist() for seed in seeds]


def test_a_query_of_any_size_and_dtype_is_about_the_sample() -> None:
    seen: list[tuple[list[int], torch.dtype]] = []

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        seen.append((indices.tolist(), images.dtype))
        return images

    def script(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        assert not network.training
        for dtype in (torch.float64, torch.float32, torch.float16):
            logits = network(image.to(dtype).repeat(3, 1, 1, 1))
            assert logits.dtype == torch.float32
            assert logits.shape == (3, 4)
            logits.zero_()  # as libraries do
        return image

    target = watched(Target(DEFENCE.classify, purify, FixedNoise(0).cached(INDICES)))
    Scripted(script)(target, IMAGES, LABELS, INDICES)
    asked = [indices for indices, _ in seen]
    assert asked == [list(row) for i in INDICES.tolist() for row in ([i], *[[i] * 3] * 3)]
    assert {dtype for _, dtype in seen} == {torch.float32}


def step(image: Tensor, label: Tensor, length: float) -> Tensor:
    """A step of this l2 length straight to the boundary."""
    away = DEFENCE.normal.view(DEFENCE.shape) / DEFENCE.normal.norm()
    return image - length * away * (1 - 2 * label)


def walk(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
    """Queries at l2 distances 0.02, 0.04, ... 1, far beyond the boundary."""
    for k in range(1, 51):
        image_k = step(image, label, 0.02 * k)
        network(image_k)
    return image_k


class L2Scripted(Scripted):
    p = 2.0


@pytest.mark.parametrize("eps", [0.35, 0.6])
def test_early_stop_returns_the_first_query_in_the_ball_that_fools(eps: float) -> None:
    target = watched(DEFENCE.target())
    found = L2Scripted(walk, eps=eps, early_stop=True)(target, IMAGES, LABELS, INDICES)
    distance = DEFENCE.optimum(IMAGES, 2)
    reached = distance <= eps
    needed = (distance / 0.02).ceil()
    for row in range(4):
        # The last one, 0.41 away, is out of reach of the smaller ball: the walk's end is projected.
        length = 0.02 * float(needed[row]) if reached[row] else eps
        want = step(IMAGES[row], LABELS[row], length)
        torch.testing.assert_close(found[row], want, rtol=0, atol=1e-6)
    assert torch.equal(~correct(DEFENCE.target()(found, INDICES), LABELS), reached)
    # One query of the clean image, the walk, and one more of what is returned.
    assert target.queries == 4 + int(torch.where(reached, needed + 1, 50).sum())
    assert L2Scripted(walk, early_stop=True).stops_early is False  # the adapter's to say


def test_without_early_stop_the_library_has_the_last_word() -> None:
    target = watched(DEFENCE.target())
    found = L2Scripted(walk, eps=0.6)(target, IMAGES, LABELS, INDICES)
    assert target.queries == 4 * 51
    want = torch.cat([step(x, y, 0.6) for x, y in zip(IMAGES, LABELS, strict=True)]).unsqueeze(1)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("where", ["outside the ball", "outside the box", "fresh"])
def test_early_stop_only_where_it_is_sure(where: str) -> None:
    def script(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        step = 0.6 if where != "outside the box" else 1.2
        bad = (image - step * DEFENCE.normal.view(1, 1, 8, 8).sign() * (1 - 2 * label)).double()
        network(torch.cat([image.double(), bad]))
        return image

    eps = {"outside the ball": 0.5, "outside the box": 1.0, "fresh": 0.7}[where]
    target = watched(DEFENCE.target(FreshNoise(0, "attack") if where == "fresh" else None))
    found = Scripted(script, eps=eps, early_stop=True)(target, IMAGES, LABELS, INDICES)
    assert torch.equal(found, IMAGES)
    assert target.queries == (4 if where == "fresh" else 8)


def test_samples_that_are_wrong_already_are_left_alone() -> None:
    wrong = torch.tensor([True, False, False, True])
    labels = torch.where(wrong, 1 - LABELS, LABELS)
    target = WatchedTarget(DEFENCE.target(), labels, INDICES)
    found = L2Scripted(walk)(target, IMAGES, labels, INDICES)
    assert torch.equal((found == IMAGES).flatten(1).all(1), wrong)
    assert torch.equal(target.fooled, torch.ones(4, dtype=torch.bool))
    assert target.queries == 4 + 2 * 50


def test_no_radius_no_queries() -> None:
    target = watched(DEFENCE.target())
    attack = Scripted(careless, eps=0)
    assert torch.equal(attack(target, IMAGES, LABELS, INDICES), IMAGES)
    assert target.queries == 0
    assert not torch.stack(list(attack.findings.values())).any()


def test_gradients_flow_whatever_mode_the_caller_is_in() -> None:
    def script(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        x = image.requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
        return x + 0.1 * gradient

    with torch.no_grad():
        quiet = Scripted(script)(DEFENCE.target(), IMAGES, LABELS, INDICES)
    loud = Scripted(script)(DEFENCE.target(), IMAGES, LABELS, INDICES)
    assert torch.equal(quiet, loud)
    assert not loud.requires_grad
    want = IMAGES + 0.1 * DEFENCE.steepness * DEFENCE.normal.view(1, 1, 8, 8)
    torch.testing.assert_close(loud, want.clamp(0, 1).clamp(IMAGES - 0.5, IMAGES + 0.5))


def test_a_gradient_that_is_no_number_is_zero_and_is_reported() -> None:
    def classify(images: Tensor) -> Tensor:
        upper = images[:, :, :4]
        broken = (upper - upper).sqrt().flatten(1).sum(1, keepdim=True)
        return DEFENCE.classify(images) + broken * (images[:, 0, 0, :1] > 0.5)

    gradients = []

    def script(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        x = image.requires_grad_()
        gradients.append(torch.autograd.grad(network(x)[:, 0].sum(), x)[0])
        return image

    images = IMAGES.clone()
    images[:, 0, 0, 0] = torch.tensor([0.2, 0.8, 0.2, 0.8])
    labels = classify(images).argmax(1)
    attack = Scripted(script)
    attack(Target(classify), images, labels, INDICES)
    want = DEFENCE.steepness * DEFENCE.slope.view(1, 1, 8, 8)
    for gradient in gradients:
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient[:, :, 4:], want[:, :, 4:])
        assert (gradient[:, :, :4] == 0).all()  # 0 times infinity, whatever it is multiplied with
    assert attack.findings["gradient_not_finite"].all()
    assert not attack.findings["not_finite"].any()


def test_an_image_that_is_no_number_gives_way_to_the_clean_one() -> None:
    def script(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        return torch.where(label == 0, torch.nan, image + 0.1)

    attack = Scripted(script)
    found = attack(DEFENCE.target(), IMAGES, LABELS, INDICES)
    torch.testing.assert_close(found, torch.where(LABELS.view(-1, 1, 1, 1) == 0, 0, 0.1) + IMAGES)
    assert torch.equal(attack.findings["not_finite"], LABELS == 0)


def test_a_defence_without_gradient_is_named() -> None:
    def script(network: OneSample, image: Tensor, label: Tensor) -> Tensor:
        network(image)  # decisions are free to all
        return network(image.requires_grad_())

    target = Target(lambda images: DEFENCE.classify(images.detach()))
    labels = target(IMAGES, INDICES).argmax(1)
    with pytest.raises(InputError, match=r"no gradient.*use an attack without gradients"):
        Scripted(script)(target, IMAGES, labels, INDICES)


def test_findings_are_those_of_the_last_batch() -> None:
    attack = Scripted(lambda network, image, label: image * torch.nan)
    assert attack.findings == {}
    attack(DEFENCE.target(), IMAGES, LABELS, INDICES)
    assert tuple(attack.findings) == attack.finding_names
    assert attack.findings["not_finite"].tolist() == [True] * 4
    attack(DEFENCE.target(), IMAGES[:2], 1 - LABELS[:2], INDICES[:2])
    assert attack.findings["not_finite"].tolist() == [False] * 2
