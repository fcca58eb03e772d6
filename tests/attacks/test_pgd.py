"""PGD against closed forms, against foolbox, and against itself in other batches."""

from __future__ import annotations

import math
from typing import Any

import eagerpy
import foolbox
import pytest
import torch
from defences import chain, convnet, half_broken
from oracles import hash_by_hand, some_images
from torch import Tensor

from lit_purify.attacks import PGD, Watch
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise
from lit_purify.functional import correct
from lit_purify.types import InputError

EPS = 8 / 255
HALF_ULP = 2.0**-24
"""Rounding of a float32 sum below 1: what clean + eps may be off by, and eps itself."""


def images_and_labels(n: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Images in float32, the classes that ``convnet`` gives them, and dataset indices."""
    images = some_images(n).float()
    return images, convnet()(images).argmax(1), torch.arange(50, 50 + n)


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
    got = attack(Defence(convnet()), images, labels, indices, seed=3)
    # Both round the same sums in float32; ours are projected once more at the end.
    torch.testing.assert_close(got, want, rtol=0, atol=HALF_ULP)
    assert not torch.equal(got, images)


def test_the_defaults_are_foolbox_and_the_papers() -> None:
    attack, oracle = PGD(), foolbox.attacks.LinfPGD()
    assert attack.eps == 8 / 255
    assert attack.steps == oracle.steps == attack.num_queries(Defence(convnet())) == 40
    assert attack.rel_stepsize == oracle.rel_stepsize == 0.01 / 0.3
    assert attack.random_start
    assert oracle.random_start
    assert not attack.early_stop


HALF_BROKEN = half_broken(convnet())


def all_nan(images: Tensor) -> Tensor:
    return convnet()(images) * torch.nan


def infinite(images: Tensor) -> Tensor:
    return convnet()(images) * 1e38 * 1e10


def in_bfloat16(images: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return convnet()(images)


@pytest.mark.parametrize("network", [convnet(), in_bfloat16, HALF_BROKEN, all_nan, infinite])
@pytest.mark.parametrize("eps", [0.0, 4 / 255, 8 / 255, 128 / 255, 1.0])
@pytest.mark.parametrize("start", [True, False])
def test_never_leaves_the_ball_nor_the_box(network: Any, eps: float, start: bool) -> None:
    images, labels, indices = images_and_labels()
    images[0], images[1] = 0, 1
    images[2] = images[2].round()
    attack = PGD(eps=eps, steps=10, rel_stepsize=0.3, random_start=start)
    found = attack(Defence(network), images, labels, indices)
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
    found = PGD(steps=3)(Defence(network), images.double(), labels, indices)
    assert set(seen) == {torch.float32}
    # The grid of bfloat16 near 1 is eps / 8, wider than a step of eps / 30.
    assert (found != found.bfloat16()).double().mean() > 0.9


def test_pixels_without_a_gradient_stay() -> None:
    def half_frozen(images: Tensor) -> Tensor:
        return convnet()(torch.cat([images[:, :, :4].detach(), images[:, :, 4:]], 2))

    batch = images, _, _ = images_and_labels()
    attack = PGD(steps=10, random_start=False)
    assert torch.equal(attack(Defence(all_nan), *batch), images)
    found = attack(Defence(HALF_BROKEN), *batch)
    assert torch.equal(found[:, :, :4], images[:, :, :4])
    torch.testing.assert_close(found, attack(Defence(half_frozen), *batch))
    assert not torch.equal(found, images)


def purified_batch() -> tuple[Tensor, Tensor, Tensor]:
    """24 images, the classes that a purified classifier gives them, and dataset indices."""
    images, indices = some_images(24).float(), torch.arange(200, 224)
    return images, chain(FixedNoise(0))(images, indices).argmax(1), indices


def test_early_stop_keeps_the_first_iterate_that_fools() -> None:
    """The same samples are fooled at any iteration, and the batch shrinks on the way."""
    images, labels, indices = purified_batch()
    passes: list[tuple[int, int]] = []
    defence, watch = chain(FixedNoise(0), passes=passes), Watch(labels, indices)
    options: Any = {"eps": "12/255", "rel_stepsize": 0.2}
    start = random_start(images, indices, seed=0, eps=12 / 255).clamp(0, 1)
    attacks = [PGD(**options, steps=steps) for steps in range(1, 9)]
    iterates = [attack(defence.observed(watch), images, labels, indices) for attack in attacks]
    fooled = torch.stack([~correct(defence(x, indices), labels) for x in [start, *iterates]])
    assert torch.equal(watch.fooled, fooled[:-1].any(0))
    first = torch.where(fooled.any(0), fooled.int().argmax(0), 8)
    assert first.unique().numel() > 4
    assert 5 < fooled.any(0).sum() < len(images) - 5

    passes.clear()
    stopped = PGD(**options, steps=8, early_stop=True)(defence, images, labels, indices)
    want = torch.stack([start, *iterates])[first, torch.arange(len(images))]
    torch.testing.assert_close(stopped, want, rtol=0, atol=2 * HALF_ULP)
    assert torch.equal(stopped[first > 0], want[first > 0])
    # Each sample is asked about until it is fooled.
    assert passes == [(int((first >= k).sum()), 1) for k in range(8)]


def test_an_unstable_defence_is_attacked_to_the_end() -> None:
    """Where a success may be luck, early stop changes nothing."""
    passes: list[tuple[int, int]] = []
    found = []
    for early_stop in (False, True):
        defence = chain(FreshNoise(0, "attack"), passes=passes)
        attack = PGD(eps="16/255", steps=3, early_stop=early_stop)
        found.append(attack(defence, *purified_batch()))
    assert passes == [(24, 1)] * 6
    assert torch.equal(*found)


@pytest.mark.parametrize("start", [True, False])
def test_a_batch_that_is_wrong_already_takes_one_query(start: bool) -> None:
    images, labels, indices = images_and_labels()
    wrong = (labels + 1) % 4
    watch = Watch(wrong, indices)
    attack = PGD(random_start=start, early_stop=True)
    found = attack(Defence(convnet()).observed(watch), images, wrong, indices)
    assert watch.queries == 1
    assert watch.fooled.all()
    want = random_start(images, indices, seed=0).clamp(0, 1) if start else images
    torch.testing.assert_close(found, want, rtol=0, atol=2 * HALF_ULP)


@pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, math.nan, math.inf, -math.inf, "bytes"])
def test_images_outside_the_box_are_refused(bad: Any) -> None:
    images, labels, indices = images_and_labels()
    if bad == "bytes":
        images = (images * 255).byte()
    else:
        images[3, 1, 2, 2] = bad
    with pytest.raises(InputError, match="8-bit"):
        PGD(steps=1)(Defence(convnet()), images, labels, indices)


@pytest.mark.parametrize(
    ("options", "keyword"),
    [
        *(({"eps": e}, "8/255") for e in (-1 / 255, 1.01, 8, "8", "-8/255", math.nan, math.inf)),
        *(({"eps": text}, "fraction") for text in ("eight", "8/0", "8//255", "")),
        ({"rel_stepsize": "fast"}, "fraction"),
        *(({"steps": steps}, "whole number") for steps in (1.5, "3", True, None)),
        ({"steps": 0}, "at least 1"),
        ({"steps": -1}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], keyword: str) -> None:
    with pytest.raises(InputError, match=keyword):
        PGD(**options)


def test_fractions_are_read() -> None:
    assert PGD(eps="8/255").eps == PGD(eps=8 / 255).eps == PGD(eps=" 8 / 255 ").eps == 8 / 255
    assert (PGD(eps="0.25").eps, PGD(eps=0).eps, PGD(eps="1").eps) == (0.25, 0, 1)
    assert PGD(rel_stepsize="1/30").rel_stepsize == 1 / 30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_indices_and_labels_may_lie_elsewhere_than_the_images() -> None:
    def classify(x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, 1 - mean], 1)

    images = torch.full((2, 3, 4, 4), 0.6)
    attack = PGD(eps=0.2, steps=3, early_stop=True)
    labels, indices = torch.tensor([0, 0]), torch.arange(2)
    found, expected = (
        attack(Defence(classify, indices=indices), x, labels, indices)
        for x in (images.cuda(), images)
    )
    torch.testing.assert_close(found.cpu(), expected)
