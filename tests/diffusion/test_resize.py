"""Purification at another size against bilinear interpolation written as two matrices."""

import re
from typing import Any

import pytest
import torch
from oracles import (
    ALPHA_BAR,
    ChosenNoise,
    GaussianDenoiser,
    TinyDenoiser,
    bilinear,
    by_matrices,
    random_unet,
    reference_states,
    some_images,
)
from tiny import Float64Denoiser, classifier, evaluate
from torch import Tensor

from lit_purify.callbacks import DistanceTrajectories, MaskingDiagnostics
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import DDIMSampler, DDPMSampler, DiffusionPurifier, FixedNoise
from lit_purify.diffusion.resize import resize
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

INDICES = torch.tensor([5, 2])
SEED = 1
SIZES = [
    ((7, 7), (8, 8)),
    ((14, 14), (16, 16)),
    ((12, 12), (8, 8)),
    ((5, 5), (16, 16)),
    ((16, 16), (5, 5)),
    ((8, 8), (8, 8)),
    ((224, 224), (256, 256)),
    ((256, 256), (224, 224)),
    ((6, 9), (4, 12)),
]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_is_two_matrices(old: tuple[int, int], new: tuple[int, int]) -> None:
    images = some_images(2, (3, *old)).requires_grad_()
    want = by_matrices(images, *new)
    torch.testing.assert_close(resize(images, new), want, rtol=0, atol=1e-12)
    # On either scale: the rows of the matrices sum to one.
    other = (resize(2 * images - 1, new) + 1) / 2
    torch.testing.assert_close(other, want, rtol=0, atol=1e-12)
    cotangent = some_images(2, (3, *new), seed=1)
    (got,) = torch.autograd.grad(resize(images, new), images, cotangent)
    (plain,) = torch.autograd.grad(want, images, cotangent)
    torch.testing.assert_close(got, plain, rtol=0, atol=1e-11)


def test_what_has_the_size_is_left_alone() -> None:
    images = some_images(1)
    assert resize(images, (8, 8)) is images


@pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])
@pytest.mark.parametrize("sampler", [DDPMSampler, DDIMSampler])
def test_the_trajectory_has_the_size_of_the_input(sampler: Any, forward: Any) -> None:
    purifier = DiffusionPurifier(
        TinyDenoiser(scale=3),
        t_star=30,
        num_steps=3,
        forward_process=forward,
        sampler=sampler(),
        resize_to=8,
    )
    images = some_images(2, (3, 7, 7))
    states = list(purifier.trajectory(images, FixedNoise(SEED), INDICES))
    assert purifier.depths == [(state.process, state.t) for state in states]
    assert states[0].image is images
    plain = reference_states(purifier, images, SEED, INDICES)
    for state, want in zip(states, plain, strict=True):
        torch.testing.assert_close(state.image, want, rtol=0, atol=1e-12)


def test_a_silent_chain_is_the_two_resizings() -> None:
    """Without noise and prediction DDIM gives back what it got: D U x, and gradient (D U)^T."""
    purifier = DiffusionPurifier(
        TinyDenoiser(1, scale=0),
        t_star=40,
        num_steps=3,
        sampler=DDIMSampler(clip=False),
        resize_to=9,
    )
    there_and_back = bilinear(9, 6) @ bilinear(6, 9)
    x = some_images(1, (1, 6, 6)).requires_grad_()
    output = purifier.purify(x, ChosenNoise(), torch.tensor([0]))
    want = there_and_back @ x[0, 0] @ there_and_back.T
    torch.testing.assert_close(output[0, 0], want, rtol=0, atol=1e-12)
    cotangent = some_images(1, (1, 6, 6), seed=1)
    (got,) = torch.autograd.grad(output, x, cotangent)
    want = there_and_back.T @ cotangent[0, 0] @ there_and_back
    torch.testing.assert_close(got[0, 0], want, rtol=0, atol=1e-12)
    assert not torch.allclose(got, cotangent, atol=1e-3)  # the resizings blur


def test_a_gaussian_prior_in_closed_form() -> None:
    r"""For x_0 ~ N(mu, v I) a DDIM step shrinks x_t - sqrt(a_t) mu by a number, so

    output = mu + c (U x - mu) inside, and D of that outside.
    """
    side, variance, steps = 6, 0.3, [10, 20, 30, 40]
    mean = torch.linspace(-0.5, 0.5, side * side, dtype=torch.float64)
    purifier = DiffusionPurifier(
        GaussianDenoiser(mean, variance * torch.eye(side * side, dtype=torch.float64)),
        t_star=40,
        num_steps=4,
        sampler=DDIMSampler(clip=False),
        resize_to=side,
    )
    assert purifier.timesteps == steps
    factor = ALPHA_BAR[40] ** 0.5
    for t, s in zip(steps[::-1], [*steps[-2::-1], 0], strict=True):
        a, b = ALPHA_BAR[t], ALPHA_BAR[s]
        marginal = a * variance + 1 - a
        kept, noise = (b / a) ** 0.5 * (1 - (1 - a) / marginal), ((1 - a) * (1 - b)) ** 0.5
        factor *= kept + noise / marginal
    images = some_images(2, (1, 4, 4))
    got = purifier.purify(images, ChosenNoise(), INDICES)
    centre = mean.view(1, 1, side, side)
    inner = 2 * by_matrices(images, side) - 1
    want = by_matrices((centre + factor * (inner - centre) + 1) / 2, 4)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_noise_has_the_inner_size_and_belongs_to_the_sample() -> None:
    shapes = set()

    class Watching(FixedNoise):
        def normal(self, indices: Tensor, process: Any, t: int, *, like: Tensor) -> Tensor:
            shapes.add((process, *like.shape[1:]))
            return super().normal(indices, process, t, like=like)

    images = some_images(4, (3, 6, 6)).float()
    indices = torch.tensor([8, 3, 11, 0])
    noise = Watching(SEED)
    purifier = DiffusionPurifier(
        TinyDenoiser().float(), t_star=10, num_steps=3, resize_to=8, memory_budget_gib=0
    )
    together = purifier.purify(images, noise, indices)
    assert shapes == {("forward", 3, 8, 8), ("reverse", 3, 8, 8)}
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(purifier.purify(images[order], noise, indices[order]), together[order])


def test_channels_last_images_are_resized_to_the_bit_alike() -> None:
    """PyTorch's routines for the two layouts round differently, and a lone image may have both."""
    images = some_images(3, (3, 14, 14)).float()
    want = resize(images, (16, 16))
    other = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(resize(other, (16, 16)), want)
    for row in range(3):
        assert torch.equal(resize(other[row : row + 1], (16, 16)), want[row : row + 1])


def test_images_of_the_inner_size_are_purified_as_without() -> None:
    noise, images = FixedNoise(SEED), some_images(2, (3, 16, 16)).float()
    plain = DiffusionPurifier(random_unet(), t_star=10, num_steps=2)
    sized = DiffusionPurifier(random_unet(), t_star=10, num_steps=2, resize_to=16)
    for a, b in zip(
        plain.trajectory(images, noise, INDICES),
        sized.trajectory(images, noise, INDICES),
        strict=True,
    ):
        assert torch.equal(a.image, b.image)


def test_deterministic_algorithms() -> None:
    purifier = DiffusionPurifier(random_unet(), t_star=10, num_steps=2, resize_to=16)
    x = some_images(2, (3, 14, 14)).float().requires_grad_()

    def gradient() -> Tensor:
        output = purifier.purify(x, FixedNoise(SEED), INDICES)
        return torch.autograd.grad(output.square().sum(), x)[0]

    want = gradient()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(gradient(), want)
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_measures_states_takes_them() -> None:
    """Distances, at the size of the images, and gradient norms, at the size of the chain."""
    denoiser = Float64Denoiser(TinyDenoiser())
    purifier = DiffusionPurifier(denoiser, t_star=20, num_steps=2, resize_to=36)
    module = PurifiedClassifier(purifier, classifier(), protocols=("fixed",))
    metrics, recorder = evaluate(
        module,
        CIFAR10DataModule(limit=2, batch_size=2),
        MaskingDiagnostics(samples=0),
        DistanceTrajectories(levels=["8/255"]),
    )
    assert metrics["masking/derivative_error"] < 1e-3
    assert metrics["masking/nonfinite_gradient"] == 0
    # The end of the trajectory is the purified image that was tested.
    (outcome,), (batch,) = recorder.outcomes, recorder.batches
    moved = (outcome["fixed/adversarial"].image - batch["image"]).double().flatten(1).norm(dim=1)
    assert metrics["distance/l2_end"] == pytest.approx(moved.mean().item(), rel=1e-6)


@pytest.mark.parametrize(("side", "message"), [(0, "is 0"), (-1, "is -1"), (32, "16 x 16")])
def test_impossible_sizes_are_refused_at_once(side: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DiffusionPurifier(random_unet(16), resize_to=side)


@pytest.mark.parametrize(
    ("shape", "resize_to", "message"),
    [
        ((2, 3, 14, 12), 16, "square"),
        ((2, 1, 14, 14), 16, "(3, 16, 16)"),
        ((3, 14, 14), 16, "square"),
        ((2, 3, 14, 14), None, "resize_to"),
        ((2, 3, 8, 8), None, "(3, 16, 16)"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    shape: tuple[int, ...], resize_to: int | None, message: str
) -> None:
    purifier = DiffusionPurifier(random_unet(16), resize_to=resize_to)
    with pytest.raises(InputError, match=re.escape(message)):
        purifier.purify(torch.zeros(shape), FixedNoise(0), torch.arange(shape[0]))
