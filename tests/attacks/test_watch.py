"""Success at any iteration, judged from outside the attack."""

import pytest
import torch
from torch import Tensor

from lit_purify.attacks import PGD, Watch
from lit_purify.attacks.external import ExternalModel
from lit_purify.defence import Defence

INDICES = torch.tensor([30, 10, 20])


def first_pixel(images: Tensor) -> Tensor:
    """Class 1 where the first pixel is bright."""
    score = images.flatten(1)[:, 0] - 0.5
    return torch.stack([-score, score], 1)


def batch(*brightness: float) -> Tensor:
    return torch.tensor(brightness).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


@pytest.fixture
def watch() -> Watch:
    return Watch(torch.tensor([0, 0, 1]), INDICES)


@pytest.fixture
def defence(watch: Watch) -> Defence:
    return Defence(first_pixel).observed(watch)


def test_a_success_is_remembered_and_answers_pass_through(defence: Defence, watch: Watch) -> None:
    told: list[int] = []
    watch.progress = told.append
    for second in (0.2, 0.8, 0.2):
        images = batch(0.1, second, 0.9).clone().requires_grad_()
        logits = defence(images, INDICES)
        assert torch.equal(logits, first_pixel(images))
        logits[:, 1].sum().backward()
        assert images.grad is not None
        assert images.grad.flatten(1)[:, 0].tolist() == [1, 1, 1]
        assert watch.fooled.tolist() == [False, len(told) > 1, False]
    assert told == [1, 2, 3]


def test_samples_are_told_apart_by_index(defence: Defence, watch: Watch) -> None:
    defence(batch(0.1, 0.8), torch.tensor([20, 30]))  # both wrong, in another order
    assert watch.fooled.tolist() == [True, False, True]
    defence(batch(0.2), torch.tensor([10]))
    assert watch.fooled.tolist() == [True, False, True]
    defence(batch(0.6), torch.tensor([10]))
    assert watch.fooled.all()


class TestGradients:
    """They are looked at as they pass, whoever asks for them."""

    def test_pixels_without_any(self, defence: Defence, watch: Watch) -> None:
        assert watch.zero_gradient.isnan().all()
        defence(batch(0.1, 0.8, 0.9), INDICES)  # nobody asks for a gradient
        assert watch.zero_gradient.isnan().all()
        images = batch(0.1, 0.8).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            (defence(images, INDICES[:2])[:, 1] * torch.tensor([1.0, 0.0])).sum(), images
        )
        assert (gradient != 0).sum() == 1
        first, second, third = watch.zero_gradient.tolist()
        assert (first, second) == (11 / 12, 1)  # one pixel of 3 x 2 x 2 decides
        assert third != third
        images = batch(0.1).clone().requires_grad_()
        defence(images, INDICES[:1]).square().sum().backward()
        defence(images, INDICES[:1])
        assert watch.zero_gradient[0].item() == pytest.approx(22 / 24)

    def test_every_draw_counts(self, watch: Watch) -> None:
        images = batch(0.1, 0.8, 0.9).repeat(2, 1, 1, 1).requires_grad_()
        logits = first_pixel(images)
        watch(images, logits, INDICES.repeat(2), 2)
        torch.autograd.grad(logits[:3, 1].sum(), images)
        assert watch.zero_gradient.tolist() == pytest.approx([23 / 24] * 3)

    def test_a_leaf_that_is_asked_about_again_counts_every_query_once(self, watch: Watch) -> None:
        told: list[Tensor] = []
        images = batch(0.1).clone().requires_grad_()
        defence = (
            Defence(first_pixel)
            .observed(watch)
            .observed(lambda images, *_: images.register_hook(told.append))
        )
        for query in range(1, 4):
            torch.autograd.grad(defence(images, INDICES[:1])[:, 1].sum(), images)
            assert len(told) == query
        assert watch.zero_gradient[0].item() == 11 / 12

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_library_that_is_spared_it(self, bad: float, watch: Watch) -> None:
        defence = Defence(lambda x: first_pixel(x) * bad, indices=INDICES[:1])
        network = ExternalModel(defence.observed(watch))
        images = batch(0.1).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(images)[:, 1].sum(), images)
        assert gradient.isfinite().all()
        assert watch.nonfinite_gradient.tolist() == [True, False, False]
        assert watch.zero_gradient[0].item() == 11 / 12

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_one_that_is_not_finite(self, bad: float, watch: Watch) -> None:
        defence = Defence(lambda x: first_pixel(x) * torch.tensor([[1.0], [bad]])).observed(watch)
        images = batch(0.1, 0.8).clone().requires_grad_()
        defence(images, INDICES[:2])[:, 1].sum().backward()
        assert watch.nonfinite_gradient.tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_overflow_counts_as_fooled(bad: float, watch: Watch) -> None:
    Defence(lambda images: first_pixel(images) * bad).observed(watch)(batch(0.1), INDICES[:1])
    assert watch.fooled.tolist() == [True, False, False]


def test_an_image_outside_the_ball_fools_nobody(defence: Defence, watch: Watch) -> None:
    clean = batch(0.4, 0.4, 0.4)
    watch.admits = lambda images, rows: PGD(eps=0.2).admits(images, clean[rows])
    for brightness, fooled in ((0.7, False), (0.6, True)):
        defence(batch(brightness), INDICES[1:2])
        assert watch.fooled.tolist() == [False, fooled, False]


class TestTrace:
    """Two iterations of two queries each."""

    @pytest.fixture
    def watch(self) -> Watch:
        return Watch(torch.tensor([0, 0, 1]), INDICES, iterations=[2, 2])

    def test_every_iteration_is_kept(self, defence: Defence, watch: Watch) -> None:
        def loss(brightness: float, label: int) -> float:
            return -first_pixel(batch(brightness)).log_softmax(1)[0, label].item()

        images = batch(0.1, 0.2, 0.9).clone().requires_grad_()
        logits = defence(images, INDICES)
        torch.autograd.grad((logits[:, 1] * torch.tensor([3.0, -4.0, 0.0])).sum(), images)
        defence(batch(0.3, 0.7), INDICES[:2])
        defence(batch(0.4, 0.45), INDICES[2:], draws=2)
        defence(batch(0.9), INDICES[:1])  # behind the last iteration
        trace = watch.trace()
        # The third was asked once and then fooled, the first not asked again; the second had been.
        assert trace.correct.tolist() == [[1, 1], [0.5, 0], [1, 0]]
        nan = torch.nan
        first = (loss(0.1, 0) + loss(0.3, 0)) / 2, (loss(0.2, 0) + loss(0.7, 0)) / 2, loss(0.9, 1)
        second = nan, nan, (loss(0.4, 1) + loss(0.45, 1)) / 2
        want = torch.tensor([first, second]).T
        torch.testing.assert_close(trace.loss, want, equal_nan=True)
        want = torch.tensor([[3, nan], [4, nan], [0, nan]])
        torch.testing.assert_close(trace.gradient_norm, want, equal_nan=True)

    def test_none_is_kept_unasked(self, defence: Defence) -> None:
        watch = Watch(torch.tensor([0, 0, 1]), INDICES)
        Defence(first_pixel).observed(watch)(batch(0.1, 0.2, 0.9), INDICES)
        assert [part.shape for part in watch.trace()] == [(3, 0)] * 3
