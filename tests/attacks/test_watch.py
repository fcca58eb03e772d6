"""Success at any iteration, judged from outside the attack."""

import pytest
import torch
from torch import Tensor

from lit_purify.attacks import Target, WatchedTarget


def first_pixel(images: Tensor, indices: Tensor) -> Tensor:
    """Class 1 where the first pixel is bright."""
    score = images.flatten(1)[:, 0] - 0.5
    return torch.stack([-score, score], 1)


def batch(*brightness: float) -> Tensor:
    return torch.tensor(brightness).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


@pytest.fixture
def watched() -> WatchedTarget:
    return WatchedTarget(Target(first_pixel), torch.tensor([0, 0, 1]), torch.tensor([30, 10, 20]))


def test_a_success_is_remembered(watched: WatchedTarget) -> None:
    indices = torch.tensor([30, 10, 20])
    assert watched.fooled.tolist() == [False, False, False]
    watched(batch(0.1, 0.2, 0.9), indices)
    assert watched.fooled.tolist() == [False, False, False]
    watched(batch(0.1, 0.8, 0.9), indices)
    assert watched.fooled.tolist() == [False, True, False]
    watched(batch(0.1, 0.2, 0.9), indices)
    assert watched.fooled.tolist() == [False, True, False]
    assert watched.queries == 3


def test_samples_are_told_apart_by_index(watched: WatchedTarget) -> None:
    watched(batch(0.1, 0.8), torch.tensor([20, 30]))  # both wrong, in another order
    assert watched.fooled.tolist() == [True, False, True]
    watched(batch(0.2), torch.tensor([10]))
    assert watched.fooled.tolist() == [True, False, True]
    watched(batch(0.6), torch.tensor([10]))
    assert watched.fooled.all()


def test_the_answer_and_its_gradient_pass_through(watched: WatchedTarget) -> None:
    images = batch(0.1, 0.2, 0.9).clone().requires_grad_()
    indices = torch.tensor([30, 10, 20])
    logits = watched(images, indices)
    assert torch.equal(logits, first_pixel(images, indices))
    logits[:, 1].sum().backward()
    assert images.grad is not None
    assert images.grad.flatten(1)[:, 0].tolist() == [1, 1, 1]
    assert not watched.fooled.requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_overflow_counts_as_fooled(bad: float) -> None:
    target = Target(lambda images, indices: first_pixel(images, indices) * bad)
    watched = WatchedTarget(target, torch.tensor([0]), torch.tensor([5]))
    watched(batch(0.1), torch.tensor([5]))
    assert watched.fooled.tolist() == [True]


def test_progress_is_told() -> None:
    told: list[int] = []
    labels, indices = torch.tensor([0]), torch.tensor([5])
    watched = WatchedTarget(Target(first_pixel), labels, indices, on_query=told.append)
    for _ in range(3):
        watched(batch(0.1), indices)
    assert told == [1, 2, 3]


@pytest.mark.parametrize("deterministic", [True, False])
def test_it_is_as_deterministic_as_its_target(deterministic: bool) -> None:
    target = Target(first_pixel, deterministic=deterministic)
    watched = WatchedTarget(target, torch.tensor([0]), torch.tensor([5]))
    assert watched.deterministic == deterministic
