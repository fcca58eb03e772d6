"""Searches side by side find what each finds alone, and share the passes."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from defences import LinearDefence, Rule, chain, convnet
from oracles import TinyDenoiser, some_images
from torch import Tensor

from lit_purify.attacks import AutoAttack, Watch
from lit_purify.attacks.cost import Cost
from lit_purify.attacks.side_by_side import side_by_side
from lit_purify.defence import Defence
from lit_purify.diffusion import (
    DiffusionPurifier,
    FixedNoise,
    FreshNoise,
    NoiseConfiguration,
    NoiseSource,
)

IMAGES = some_images(4).float()
INDICES = torch.tensor([70, 71, 72, 73])
LABELS = torch.tensor([0, 1, 2, 3])
SEEDS = [5, 6, 7, 8]

Work = Callable[[int, Defence], Any]


def out_of_step(row: int, defence: Defence) -> list[Tensor]:
    """Every sample asks its own number of questions, of its own sizes and under its own draws."""
    x = (IMAGES[row : row + 1] + 0.01 * torch.rand(1, 3, 8, 8)).clamp(0, 1).requires_grad_()
    found = []
    for k in range(row + 1):
        with torch.no_grad():
            for _ in range(row):
                found.append(defence(x.repeat(k + 1, 1, 1, 1)))
        draws = 1 + (row + k) % 2
        logits = defence(x.repeat(draws, 1, 1, 1), draws=draws)
        for column in range(row % 3):  # of one answer no, one or two gradients
            (gradient,) = torch.autograd.grad(logits[:, column].sum(), x, retain_graph=True)
            found.append(gradient)
        found.append(logits.detach() + float(np.random.rand()) + random.random())  # noqa: NPY002
    return found


def alone(work: Work, defence: Defence) -> list[Any]:
    return [
        side_by_side(
            lambda _, asked, row=row: work(row, asked), defence, INDICES[row : row + 1], [seed]
        )[0]
        for row, seed in enumerate(SEEDS)
    ]


@pytest.mark.parametrize("noise", [FixedNoise(3), FreshNoise(3, "attack", passes=2)], ids=str)
def test_a_search_cannot_tell_that_it_is_not_alone(noise: NoiseSource) -> None:
    """In float64, where rounding does not tell the size of a pass at 1e-12."""
    both = [each(out_of_step, chain(noise)) for each in (together, alone)]
    for found, want in zip(*both, strict=True):
        assert len(found) == len(want) > 0
        for ours, theirs in zip(found, want, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    if isinstance(noise, FreshNoise):
        assert noise.passes == 2


def together(work: Work, defence: Defence) -> list[Any]:
    return side_by_side(work, defence, INDICES, SEEDS)


def test_alone_is_the_defence_itself() -> None:
    """Its logits, its gradients, and draws of the global generators under the seed."""
    defence = chain(FixedNoise(3))
    for row, found in enumerate(together(out_of_step, defence)):
        torch.manual_seed(SEEDS[row])
        np.random.seed(SEEDS[row])  # noqa: NPY002
        random.seed(SEEDS[row])
        want = out_of_step(row, defence.bind(FixedNoise(3), INDICES[row : row + 1]))
        for ours, theirs in zip(found, want, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def counted(purify: Any = None) -> tuple[Defence, list[list[int]]]:
    """A defence, and the samples of every pass through it."""
    passes: list[list[int]] = []

    def rule(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        passes.append(indices.tolist())
        return images if purify is None else purify(images)

    def classify(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] * torch.arange(1, 5)

    return Defence(classify, Rule(rule), FixedNoise(0)), passes


def test_searches_in_step_share_every_pass() -> None:
    defence, passes = counted()

    def ascend(row: int, asked: Defence) -> None:
        x = IMAGES[row : row + 1]
        for _ in range(3):
            x = x.detach().requires_grad_()
            asked(x).sum().backward()

    together(ascend, defence)
    assert passes == [INDICES.tolist()] * 3


def test_whoever_is_ahead_waits_so_that_gradients_are_taken_together() -> None:
    taken = []

    def purify(images: Tensor) -> Tensor:
        if images.requires_grad:
            images.register_hook(lambda gradient: taken.append(len(gradient)))
        return images

    defence, passes = counted(purify)

    def busy(row: int, asked: Defence) -> None:
        x = IMAGES[row : row + 1].clone().requires_grad_()
        logits = asked(x)
        with torch.no_grad():
            for _ in range(row):
                asked(x)
        logits.sum().backward()

    together(busy, defence)
    assert passes == [[70, 71, 72, 73], [71, 72, 73], [72, 73], [73]]
    assert taken == [4]


def test_a_pass_holds_no_more_images_than_the_batch_or_one_question() -> None:
    defence, passes = counted()
    sizes = [3, 2, 2, 9]
    together(lambda row, asked: asked(IMAGES[row : row + 1].repeat(sizes[row], 1, 1, 1)), defence)
    assert [len(indices) for indices in passes] == [3, 4, 9]


def test_observers_are_told_of_each_question_and_of_the_gradients_that_were_taken() -> None:
    defence = chain(FixedNoise(3))
    cost, watch = Cost(defence, INDICES), Watch(LABELS, INDICES)
    seen: list[tuple[list[int], int]] = []

    def observer(images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        assert len(images) == len(logits)
        seen.append((indices.tolist(), draws))

    def some(row: int, asked: Defence) -> None:
        x = IMAGES[row : row + 1].clone().requires_grad_()
        logits = asked(x.repeat(row + 1, 1, 1, 1))
        if row != 1:
            logits.sum().backward()

    observed = defence.observed(cost).observed(watch).observed(observer)
    together(some, observed)
    assert sorted(seen) == [([70], 1), ([71] * 2, 1), ([72] * 3, 1), ([73] * 4, 1)]
    assert cost.passes.tolist() == [1, 2, 3, 4]
    assert cost.gradients.tolist() == [1, 0, 3, 4]
    assert watch.queries == 4
    assert watch.zero_gradient.isnan().tolist() == [False, True, False, False]


def test_what_a_search_raises_is_raised_and_ends_the_others() -> None:
    ended = []

    def fails(row: int, asked: Defence) -> None:
        try:
            for k in range(10):
                asked(IMAGES[row : row + 1])
                if (row, k) == (2, 3):
                    raise KeyError("sample 72")
        finally:
            ended.append(row)

    before = threading.active_count()
    with pytest.raises(KeyError, match="sample 72"):
        together(fails, counted()[0])
    assert sorted(ended) == [0, 1, 2, 3]
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["answer", "gradient"])
def test_what_a_pass_raises_is_raised_whatever_the_library_catches(
    error: type[BaseException], when: str
) -> None:
    def purify(images: Tensor) -> Tensor:
        def fail(gradient: Tensor) -> Tensor:
            raise error

        if when == "gradient":
            images.register_hook(fail)
        elif images.sum() > 0:
            raise error
        return images

    def stubborn(row: int, asked: Defence) -> None:
        for _ in range(3):
            try:
                x = IMAGES[row : row + 1].clone().requires_grad_()
                asked(x).sum().backward()
            except Exception:
                continue

    before = threading.active_count()
    with pytest.raises(error):
        together(stubborn, counted(purify)[0])
    assert threading.active_count() == before


def test_a_defence_without_gradient_is_named_in_a_pass() -> None:
    def follow(row: int, asked: Defence) -> None:
        asked(IMAGES[row : row + 1].clone().requires_grad_())

    with pytest.raises(ValueError, match="no gradient"):
        together(follow, counted(Tensor.detach)[0])


def test_a_network_that_draws_for_itself_goes_on_drawing() -> None:
    """Between passes searches put other states into the generator."""

    def noisy(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] + torch.rand(len(images), 4)

    def repeat(row: int, asked: Defence) -> Tensor:
        return torch.cat([asked(IMAGES[row : row + 1]) for _ in range(5)])

    for answers in together(repeat, Defence(noisy)):
        assert len(answers.unique(dim=0)) == 5


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the collector of cycles, so that what is gone went by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.usefixtures("uncollected")
def test_a_graph_is_gone_when_its_gradient_was_taken(draws: int) -> None:
    """Though the search keeps its logits, and of several draws not all samples fit in a pass."""
    alive: list[weakref.ref[Any]] = []
    rows = []

    def classify(images: Tensor) -> Tensor:
        rows.append(len(images) + sum(graph() is not None for graph in alive))
        logits = 2 * images.flatten(1)[:, :4]
        alive.append(weakref.ref(logits))
        return logits

    def follow(row: int, asked: Defence) -> None:
        for _ in range(2 * row + 1):
            x = IMAGES[row : row + 1].repeat(draws, 1, 1, 1).requires_grad_()
            logits = asked(x, draws=draws)
            logits.sum().backward()

    defence = Defence(classify, Rule(lambda images, *_: images), FreshNoise(0, "attack"))
    together(follow, defence)
    assert max(rows) <= 4
    assert not any(graph() is not None for graph in alive)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.usefixtures("uncollected")
def test_draws_and_graphs_end_with_the_searches(fails: bool) -> None:
    alive: list[weakref.ref[Any]] = []

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        xi = noise.normal(indices, "forward", 1, like=images)
        logits = images + xi
        alive.extend(map(weakref.ref, (xi, logits)))
        return logits

    def follow(row: int, asked: Defence) -> None:
        x = IMAGES[row : row + 1].clone().requires_grad_()
        logits = asked(x)
        if fails and row == 2:
            raise KeyError
        logits.sum().backward()

    defence = Defence(lambda images: images.flatten(1)[:, :4], Rule(purify), FixedNoise(0))
    with pytest.raises(KeyError) if fails else nullcontext():
        together(follow, defence)
    assert alive
    assert not any(thing() is not None for thing in alive)


def test_a_batch_without_samples_has_no_searches() -> None:
    assert side_by_side(out_of_step, counted()[0], INDICES[:0], []) == []


def test_the_inference_mode_of_the_caller_does_not_matter() -> None:
    want = together(out_of_step, chain(FixedNoise(3)))
    defence = chain(FixedNoise(3))
    with torch.inference_mode():
        found = together(out_of_step, defence)
    for ours, theirs in zip(found[3], want[3], strict=True):
        assert torch.equal(ours, theirs)


def test_searches_start_no_teams_of_threads() -> None:
    threads = torch.get_num_threads()
    found = together(lambda row, asked: torch.get_num_threads(), counted()[0])
    assert found == [1] * 4
    assert torch.get_num_threads() == threads


def test_the_linear_defence_has_its_gradient() -> None:
    linear = LinearDefence()
    images, _, indices = linear.samples()

    def follow(row: int, asked: Defence) -> Tensor:
        x = images[row : row + 1].clone().requires_grad_()
        return torch.autograd.grad(asked(x)[:, 0].sum(), x)[0]

    want = linear.steepness * linear.normal.view(1, *linear.shape)
    for gradient in side_by_side(follow, linear.defence(), indices, [0] * 4):
        torch.testing.assert_close(gradient, want)


def on_a_gpu(noise: NoiseSource) -> Defence:
    """What ``chain`` is, there."""
    purifier = DiffusionPurifier(TinyDenoiser().double(), t_star=60, num_steps=3).to("cuda")

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return purifier.purify(images.double(), noise, indices)

    return Defence(convnet().double().to("cuda"), Rule(purify), noise)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("noise", [FixedNoise(3), FreshNoise(3, "attack")], ids=str)
def test_networks_on_a_gpu_answer_searches_on_the_cpu(noise: NoiseSource) -> None:
    told: list[str] = []
    there = on_a_gpu(noise).observed(lambda images, *_: told.append(images.device.type))
    found = side_by_side(out_of_step, there, INDICES.cuda(), SEEDS)
    assert set(told) == {"cuda"}
    for row, want in enumerate(together(out_of_step, chain(noise))):
        for ours, theirs in zip(found[row], want, strict=True):
            assert ours.device.type == "cpu"
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_an_attack_finds_what_it_finds_on_the_cpu() -> None:
    """Random numbers of the library's are drawn on the CPU wherever the networks are."""
    attack = AutoAttack(eps="6/255", attacks=["apgd-ce", "square"], square_queries=5)
    want = attack(chain(FixedNoise(0)), IMAGES, LABELS, INDICES)
    batch = (part.cuda() for part in (IMAGES, LABELS, INDICES))
    found = attack(on_a_gpu(FixedNoise(0)), *batch)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), want, rtol=0, atol=1e-5)
