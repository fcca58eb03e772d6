"""PGD against closed forms, against foolbox, and against itself in other batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import eagerpy
import foolbox
import pytest
import torch
from oracles import TinyDenoiser, fill, hash_by_hand, some_images
from torch import Tensor, nn
from torch.nn import functional as F

from lit_purify.attacks import PGD, Target, WatchedTarget
from lit_purify.diffusion import (
    DiffusionPurifier,
    FixedNoise,
    FreshNoise,
    NoiseConfiguration,
    NoiseSource,
)
from lit_purify.functional import correct
from lit_purify.types import InputError

EPS = 8 / 255
HALF_ULP = 2.0**-24
"""Rounding of a float32 sum below 1: what clean + eps may be off by, and eps itself."""


def convnet() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(128, 4)
    )
    return fill(network, seed=1, std=0.3).requires_grad_(False).eval()


def images_and_labels(n: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Images in float32, the classes that ``convnet`` gives them, and dataset indices."""
    images = some_images(n).float()
    return images, convnet()(images).argmax(1), torch.arange(50, 50 + n)


def plain(network: Callable[[Tensor], Tensor]) -> Target:
    return Target(network)


def random_start(images: Tensor, indices: Tensor, seed: int, eps: float = EPS) -> Tensor:
    """U(-1, 1) eps around the images, drawn by hand in the slot t = 0."""
    rows = []
    for i in indices.tolist():
        generator = torch.Generator().manual_seed(hash_by_hand(seed, i, 0))
        rows.append(torch.rand(images.shape[1:], generator=generator))
    return images + eps * (2 * torch.stack(rows) - 1)


class FoolboxPGD(foolbox.attacks.LinfPGD):
    """Foolbox's, started where we say."""

    def __init__(self, start: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.start = start

    def get_random_start(self, x0: Any, epsilon: float) -> Any:
        return eagerpy.astensor(self.start)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 40])
@pytest.mark.parametrize("start", [True, False])
def test_iterates_are_those_of_foolbox(steps: int, start: bool) -> None:
    images, labels, indices = images_and_labels()
    images[0], images[1] = 0, 1
    labels = convnet()(images).argmax(1)
    oracle = FoolboxPGD(
        random_start(images, indices, seed=3),
        steps=steps,
        rel_stepsize=0.01 / 0.3,
        random_start=start,
    )
    model = foolbox.PyTorchModel(convnet(), bounds=(0, 1), device="cpu")
    want = oracle.run(model, images, labels, epsilon=EPS)
    attack = PGD(eps=EPS, steps=steps, random_start=start)
    got = attack(plain(convnet()), images, labels, indices, seed=3)
    # Both round the same sums in float32; ours are projected once more at the end.
    torch.testing.assert_close(got, want, rtol=0, atol=HALF_ULP)
    assert not torch.equal(got, images)


def test_the_defaults_are_foolbox_and_the_papers() -> None:
    attack, oracle = PGD(), foolbox.attacks.LinfPGD()
    assert attack.eps == 8 / 255
    assert attack.steps == oracle.steps == attack.num_queries(plain(convnet())) == 40
    assert attack.rel_stepsize == oracle.rel_stepsize == 0.01 / 0.3
    assert attack.random_start
    assert oracle.random_start
    assert not attack.early_stop


class Linear(nn.Module):
    """Two classes; the best l_inf perturbation of class 0 is eps times the sign of ``slope``."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        score = ((images - 0.5) * self.slope).flatten(1).sum(1) / 20
        return torch.stack([-score, score], 1)


def cross_entropy(images: Tensor) -> Tensor:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return F.cross_entropy(Linear()(images), labels, reduction="none")


@pytest.mark.parametrize("options", [{"random_start": False}, {"rel_stepsize": 0.05}])
def test_the_optimum_of_a_linear_classifier_is_reached(options: Any) -> None:
    images = some_images(4).float()
    zeros, indices = torch.zeros(4, dtype=torch.int64), torch.arange(4)
    best = (images + EPS * Linear().slope.sign()).clamp(0, 1)
    got = PGD(**options)(plain(Linear()), images, zeros, indices)
    torch.testing.assert_close(got, best, rtol=0, atol=4 * HALF_ULP)
    increase = cross_entropy(got) - cross_entropy(images)
    assert (increase >= (cross_entropy(best) - cross_entropy(images)) / 1.05).all()


@pytest.mark.parametrize("steps", [1, 10, 40])
def test_a_linear_classifier_is_climbed_at_constant_speed(steps: int) -> None:
    """Coordinate by coordinate, from the start u: s min(1, s u + steps / 30) in units of eps.

    The paper's 40 steps make 4/3 eps of way, so a start on the far side of -1/3 ends short.
    """
    images = 0.3 + 0.4 * some_images(4).float()  # the box plays no part
    zeros, indices = torch.zeros(4, dtype=torch.int64), torch.arange(4)
    sign = Linear().slope.sign()
    u = (random_start(images, indices, seed=0) - images).double() / EPS
    want = images + EPS * sign * (sign * u + steps / 30).clamp(max=1)
    got = PGD(steps=steps)(plain(Linear()), images, zeros, indices, seed=0)
    # Two roundings for each step and four more, of numbers below 1.
    torch.testing.assert_close(got.double(), want, rtol=0, atol=(2 * steps + 4) * HALF_ULP)


def overflowing(images: Tensor) -> Tensor:
    """Logits are finite at first, and the gradient of the upper half of the image is nan."""
    logits = convnet()(images)
    upper = images[:, :, :4]
    return logits + (upper - upper).sqrt().flatten(1).sum(1, keepdim=True)


def all_nan(images: Tensor) -> Tensor:
    return convnet()(images) * torch.nan


def infinite(images: Tensor) -> Tensor:
    return convnet()(images) * 1e38 * 1e10


def in_bfloat16(images: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return convnet()(images)


@pytest.mark.parametrize("network", [convnet(), in_bfloat16, overflowing, all_nan, infinite])
@pytest.mark.parametrize("eps", [0.0, 4 / 255, 8 / 255, 128 / 255, 1.0])
@pytest.mark.parametrize("start", [True, False])
def test_never_leaves_the_ball_nor_the_box(network: Any, eps: float, start: bool) -> None:
    images, labels, indices = images_and_labels()
    images[0], images[1] = 0, 1
    images[2] = images[2].round()
    attack = PGD(eps=eps, steps=10, rel_stepsize=0.3, random_start=start)
    found = attack(plain(network), images, labels, indices)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    distance = (found.double() - images.double()).abs().max()
    assert distance <= eps + 2 * HALF_ULP
    if eps == 0:
        assert torch.equal(found, images)


def test_a_bfloat16_network_still_gets_float32_images() -> None:
    seen: list[torch.dtype] = []

    def network(images: Tensor) -> Tensor:
        seen.append(images.dtype)
        return in_bfloat16(images)

    images, labels, indices = images_and_labels()
    found = PGD(steps=3)(plain(network), images.double(), labels, indices)
    assert set(seen) == {torch.float32}
    # The grid of bfloat16 near 1 is eps / 8, wider than a step of eps / 30.
    assert (found != found.bfloat16()).double().mean() > 0.9


def test_pixels_without_a_gradient_stay() -> None:
    images, labels, indices = images_and_labels()
    attack = PGD(steps=10, random_start=False)
    assert torch.equal(attack(plain(all_nan), images, labels, indices), images)
    found = attack(plain(overflowing), images, labels, indices)
    assert torch.equal(found[:, :, :4], images[:, :, :4])
    torch.testing.assert_close(
        found, attack(plain(lambda x: convnet()(half_frozen(x))), images, labels, indices)
    )
    assert not torch.equal(found, images)


def half_frozen(images: Tensor) -> Tensor:
    return torch.cat([images[:, :, :4].detach(), images[:, :, 4:]], 2)


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_constant_classifier_is_not_moved(early_stop: bool) -> None:
    def constant(images: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]) + 0 * images.flatten(1)[:, :2]

    images, _, indices = images_and_labels()
    zeros = torch.zeros(len(images), dtype=torch.int64)
    attack = PGD(steps=5, early_stop=early_stop)
    found = attack(plain(constant), images, zeros, indices, seed=2)
    want = random_start(images, indices, seed=2).clamp(0, 1)
    torch.testing.assert_close(found, want, rtol=0, atol=2 * HALF_ULP)
    still = PGD(steps=5, random_start=False, early_stop=early_stop)
    assert torch.equal(still(plain(constant), images, zeros, indices), images)


def test_inputs_are_left_as_they_were() -> None:
    images, labels, indices = images_and_labels()
    before = images.clone()
    PGD(steps=2)(plain(convnet()), images, labels, indices)
    assert torch.equal(images, before)
    assert images.grad is None


def test_works_where_gradients_are_switched_off() -> None:
    images, labels, indices = images_and_labels()
    want = PGD(steps=3)(plain(convnet()), images, labels, indices)
    with torch.no_grad():
        assert torch.equal(PGD(steps=3)(plain(convnet()), images, labels, indices), want)


# A purified classifier. It computes in float64, so that rounding, which depends on the batch size,
# never decides the sign of a gradient; the attack itself stays in float32. Then what one sample
# meets can be compared bit by bit.


def purified(noise: NoiseSource, sizes: list[int] | None = None) -> Target:
    purifier = DiffusionPurifier(TinyDenoiser(), t_star=60, num_steps=3)

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        if sizes is not None:
            sizes.append(len(images))
        return purifier.purify(images.double(), noise, indices)

    return Target(convnet().double(), purify, noise)


def purified_batch(n: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Images, the classes that the purified classifier gives them, and dataset indices."""
    images, indices = some_images(n).float(), torch.arange(200, 200 + n)
    return images, purified(FixedNoise(0))(images, indices).argmax(1), indices


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_sample_does_not_depend_on_its_batch(early_stop: bool) -> None:
    images, labels, indices = purified_batch(14)
    attack = PGD(eps="24/255", steps=4, rel_stepsize=0.4, early_stop=early_stop)

    def found(rows: Tensor) -> Tensor:
        source = FixedNoise(0).cached(indices[rows])
        return attack(purified(source), images[rows], labels[rows], indices[rows], seed=1)

    everything = torch.arange(14)
    whole = found(everything)
    for size in (1, 7):
        assert torch.equal(torch.cat([found(part) for part in everything.split(size)]), whole)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found(order), whole[order])


@pytest.mark.parametrize("cached", [True, False])
def test_early_stop_fools_the_same_samples(cached: bool) -> None:
    """Success at any iteration, the last included, with and without; fewer queries with."""
    images, labels, indices = purified_batch()
    noise = FixedNoise(0).cached(indices) if cached else FixedNoise(0)
    options: Any = {"eps": "12/255", "steps": 8, "rel_stepsize": 0.2}

    watched = WatchedTarget(purified(noise), labels, indices)
    last = PGD(**options)(watched, images, labels, indices)
    watched(last, indices)

    sizes: list[int] = []
    stopped = PGD(**options, early_stop=True)(purified(noise, sizes), images, labels, indices)
    fooled = ~correct(purified(noise)(stopped, indices), labels)
    assert torch.equal(fooled, watched.fooled)
    # The batch did shrink on the way, and neither group is empty.
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 4
    assert 5 < fooled.sum() < len(images) - 5
    # Samples that stood to the end took the same path.
    assert torch.equal(stopped[~fooled], last[~fooled])


def test_early_stop_keeps_the_first_iterate_that_fools() -> None:
    images, labels, indices = purified_batch()
    target = purified(FixedNoise(0))
    options: Any = {"eps": "12/255", "rel_stepsize": 0.2}
    stopped = PGD(**options, steps=8, early_stop=True)(target, images, labels, indices)
    iterates = [PGD(**options, steps=k)(target, images, labels, indices) for k in range(1, 9)]
    start = random_start(images, indices, seed=0, eps=12 / 255).clamp(0, 1)
    fooled = torch.stack([~correct(target(x, indices), labels) for x in [start, *iterates]])
    ever = fooled.any(0)
    first = fooled.int().argmax(0)
    for row in range(len(images)):
        want = [start, *iterates][first[row] if ever[row] else 8][row]
        torch.testing.assert_close(stopped[row], want, rtol=0, atol=2 * HALF_ULP)
    assert first.unique().numel() > 4


@pytest.mark.parametrize("early_stop", [True, False])
def test_an_unstable_defence_is_attacked_to_the_end(early_stop: bool) -> None:
    """Where a success may be luck, early stop changes nothing."""
    images, labels, indices = purified_batch()
    sizes: list[int] = []

    def run(early_stop: bool) -> Tensor:
        target = purified(FreshNoise(0, "attack"), sizes)
        attack = PGD(eps="16/255", steps=3, early_stop=early_stop)
        return attack(target, images, labels, indices)

    found = run(early_stop)
    assert sizes == [24, 24, 24]
    assert torch.equal(found, run(False))


@pytest.mark.parametrize("start", [True, False])
def test_a_batch_that_is_wrong_already_takes_one_query(start: bool) -> None:
    images, labels, indices = images_and_labels()
    watched = WatchedTarget(plain(convnet()), (labels + 1) % 4, indices)
    attack = PGD(random_start=start, early_stop=True)
    found = attack(watched, images, (labels + 1) % 4, indices)
    assert watched.queries == 1
    assert watched.fooled.all()
    want = random_start(images, indices, seed=0).clamp(0, 1) if start else images
    torch.testing.assert_close(found, want, rtol=0, atol=2 * HALF_ULP)


def test_the_seed_chooses_the_start() -> None:
    images, labels, indices = images_and_labels()
    first, again, other = (
        PGD(steps=1)(plain(convnet()), images, labels, indices, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, float("nan"), float("inf"), -float("inf")])
def test_images_outside_the_box_are_refused(bad: float) -> None:
    images, labels, indices = images_and_labels()
    images[3, 1, 2, 2] = bad
    with pytest.raises(InputError, match=r"finite images in \[0, 1\]"):
        PGD(steps=1)(plain(convnet()), images, labels, indices)


def test_eight_bit_images_are_refused() -> None:
    images, labels, indices = images_and_labels()
    with pytest.raises(InputError, match="divide 8-bit images by 255"):
        PGD(steps=1)(plain(convnet()), (images * 255).byte(), labels, indices)


@pytest.mark.parametrize("eps", [-1 / 255, 1.01, 8, "8", "-8/255", float("nan"), float("inf")])
def test_a_radius_outside_the_scale_is_refused(eps: Any) -> None:
    with pytest.raises(InputError, match=r"eps must lie in \[0, 1\].*write 8/255"):
        PGD(eps=eps)


@pytest.mark.parametrize("eps", ["eight", "8/0", "8//255", ""])
def test_text_that_is_no_fraction_is_refused(eps: str) -> None:
    with pytest.raises(InputError, match="a fraction such as 8/255"):
        PGD(eps=eps)


def test_fractions_are_read() -> None:
    assert PGD(eps="8/255").eps == PGD(eps=8 / 255).eps == PGD(eps=" 8 / 255 ").eps == 8 / 255
    assert PGD(eps="0.25").eps == 0.25
    assert PGD(eps=0).eps == 0
    assert PGD(eps="1").eps == 1
    assert PGD(rel_stepsize="1/30").rel_stepsize == 1 / 30
    with pytest.raises(InputError, match="a fraction"):
        PGD(rel_stepsize="fast")


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match="at least 1 step"):
        PGD(steps=steps)


def test_settings_name_what_was_run() -> None:
    settings = PGD(eps="4/255", steps=7).settings()
    assert settings["attack"] == "PGD"
    assert settings["eps"] == 4 / 255
    assert settings["steps"] == 7
