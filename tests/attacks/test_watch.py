"""Success at any iteration, judged from outside the attack."""

import pytest
import torch
from torch import Tensor

from lit_purify.attacks import PGD, Target, WatchedTarget
from lit_purify.diffusion import FixedNoise, FreshNoise


def first_pixel(images: Tensor) -> Tensor:
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
    assert torch.equal(logits, first_pixel(images))
    logits[:, 1].sum().backward()
    assert images.grad is not None
    assert images.grad.flatten(1)[:, 0].tolist() == [1, 1, 1]
    assert not watched.fooled.requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_overflow_counts_as_fooled(bad: float) -> None:
    target = Target(lambda images: first_pixel(images) * bad)
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


def test_an_image_outside_the_ball_fools_nobody() -> None:
    clean = batch(0.4, 0.4)
    labels, indices = torch.tensor([0, 0]), torch.tensor([5, 6])
    watched = WatchedTarget(
        Target(first_pixel),
        labels,
        indices,
        admits=lambda images, rows: PGD(eps=0.2).admits(images, clean[rows]),
    )
    watched(batch(0.7), torch.tensor([6]))
    assert watched.fooled.tolist() == [False, False]
    watched(batch(0.6), torch.tensor([6]))
    assert watched.fooled.tolist() == [False, True]


def test_the_loss_of_every_query_is_kept(watched: WatchedTarget) -> None:
    watched(batch(0.1, 0.2, 0.9), torch.tensor([30, 10, 20]))
    assert watched.losses == []  # where it is asked for
    watched.keep_losses, watched.queries = True, 0

    def loss(brightness: float, label: int) -> float:
        return -first_pixel(batch(brightness)).log_softmax(1)[0, label].item()

    watched(batch(0.1, 0.2, 0.9), torch.tensor([30, 10, 20]))
    watched(batch(0.4), torch.tensor([20]))
    watched(batch(0.3, 0.5), torch.tensor([10, 10]), draws=2)
    assert watched.queries == 4
    want = torch.full((3, 4), torch.nan)
    want[:, 0] = torch.tensor([loss(0.1, 0), loss(0.2, 0), loss(0.9, 1)])
    want[2, 1] = loss(0.4, 1)
    want[1, 2] = (loss(0.3, 0) + loss(0.5, 0)) / 2
    torch.testing.assert_close(watched.loss_by_query(4), want, equal_nan=True)


@pytest.mark.parametrize("deterministic", [True, False])
def test_it_is_as_deterministic_as_its_target(deterministic: bool) -> None:
    noise = FixedNoise(0) if deterministic else FreshNoise(0, "attack")
    target = Target(first_pixel, lambda images, noise, indices: images, noise)
    watched = WatchedTarget(target, torch.tensor([0]), torch.tensor([5]))
    assert watched.deterministic == deterministic
