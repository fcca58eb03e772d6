"""Purification at another size against bilinear interpolation written as two matrices."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from oracles import (
    ALPHA_BAR,
    ChosenNoise,
    GaussianDenoiser,
    TinyDenoiser,
    fill,
    random_unet,
    reference_chain,
    some_images,
)
from tiny import Float64Denoiser, classifier, evaluate
from torch import Tensor

from lit_purify.callbacks import DistanceTrajectories, MaskingDiagnostics
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import (
    DDIMSampler,
    DDPMSampler,
    DiffusionPurifier,
    FixedNoise,
    UNetDenoiser,
)
from lit_purify.diffusion.resize import resize
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

INDICES = torch.tensor([5, 2])
SEED = 1
PAIRS = [(7, 8), (14, 16), (8, 12), (12, 8), (5, 16), (16, 5), (8, 8), (224, 256), (256, 224)]


def bilinear(old: int, new: int) -> Tensor:
    """The matrix (new, old) that interpolates a row of pixels, each seen at its centre.

    Pixel i of the new row lies at (i + 1/2) old / new - 1/2 of the old one. Before the first and
    behind the last centre the row goes on as it ends.
    """
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        place = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        left = min(int(place), old - 2) if old > 1 else 0
        matrix[i, left] += 1 - (place - left)
        if old > 1:
            matrix[i, left + 1] += place - left
    return matrix


def by_matrices(images: Tensor, size: int) -> Tensor:
    """Rows and columns, one after the other."""
    down = bilinear(images.shape[2], size)
    right = bilinear(images.shape[3], size)
    return torch.einsum("ih,bchw,jw->bcij", down, images, right)


def attention_unet(side: int) -> UNetDenoiser:
    """A U-Net of the guided diffusion's kind, with attention and 6 output channels, in float64."""
    with torch.random.fork_rng():
        network = UNet2DModel(
            sample_size=side,
            in_channels=3,
            out_channels=6,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=8,
            norm_num_groups=4,
        )
    fill(network.double(), seed=0, std=0.1)
    return UNetDenoiser(network, image_shape=(3, side, side))


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_bilinear_is_two_matrices(old: int, new: int) -> None:
    images = some_images(2, (3, old, old))
    want = by_matrices(images, new)
    torch.testing.assert_close(resize(images, (new, new)), want, rtol=0, atol=1e-12)
    # On either scale: the rows of the matrices sum to one.
    other = (resize(2 * images - 1, (new, new)) + 1) / 2
    torch.testing.assert_close(other, want, rtol=0, atol=1e-12)


def test_a_picture_that_is_not_square() -> None:
    images = some_images(1, (2, 6, 9))
    want = torch.einsum("ih,bchw,jw->bcij", bilinear(6, 4), images, bilinear(9, 12))
    torch.testing.assert_close(resize(images, (4, 12)), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_its_gradient_is_the_transposed_matrices(old: int, new: int) -> None:
    x = some_images(1, (1, old, old)).requires_grad_()
    cotangent = some_images(1, (1, new, new), seed=1)
    (got,) = torch.autograd.grad(resize(x, (new, new)), x, cotangent)
    m = bilinear(old, new)
    want = m.T @ cotangent[0, 0] @ m
    torch.testing.assert_close(got[0, 0], want, rtol=0, atol=1e-11)


def test_a_constant_comes_back_as_it_was() -> None:
    images = torch.rand(3, 2, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    there = resize(images.expand(3, 2, 14, 14), (16, 16))
    torch.testing.assert_close(there, images.expand(3, 2, 16, 16), rtol=0, atol=1e-15)
    back = resize(there, (14, 14))
    torch.testing.assert_close(back, images.expand(3, 2, 14, 14), rtol=0, atol=1e-15)


def test_what_has_the_size_is_left_alone() -> None:
    images = some_images(1)
    assert resize(images, (8, 8)) is images


@pytest.mark.parametrize("kept", [0.0, 1.0])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("num_steps", [4, None])
@pytest.mark.parametrize("outer", [14, 20])
def test_the_guided_diffusion_chain_and_its_gradient(
    outer: int, num_steps: int | None, clip: bool, kept: float
) -> None:
    """Learned variance, attention, respacing and both resizings, against plain autograd."""
    denoiser = attention_unet(16)
    purifier = DiffusionPurifier(
        denoiser,
        t_star=40 if num_steps else 6,
        num_steps=num_steps,
        sampler=DDPMSampler(variance="learned_range", clip=clip),
        memory_budget_gib=kept,
        resize_to=16,
    )
    x = some_images(2, (3, outer, outer)).requires_grad_()
    output = purifier.purify(x, FixedNoise(SEED), INDICES)
    inner = reference_chain(
        denoiser,
        by_matrices(x, 16),
        SEED,
        INDICES,
        purifier.timesteps,
        variance="learned_range",
        clip=clip,
    )
    want = by_matrices(inner[-1], outer)
    torch.testing.assert_close(output, want, rtol=0, atol=1e-12)
    cotangent = some_images(2, (3, outer, outer), seed=9) - 0.5
    (got,) = torch.autograd.grad(output, x, cotangent)
    (plain,) = torch.autograd.grad(want, x, cotangent)
    assert plain.norm() > 0
    assert (got - plain).norm() <= 1e-10 * plain.norm()


@pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])
@pytest.mark.parametrize("sampler", [DDPMSampler, DDIMSampler])
def test_the_trajectory_has_the_size_of_the_input(sampler: Any, forward: Any) -> None:
    denoiser = TinyDenoiser(scale=3)
    purifier = DiffusionPurifier(
        denoiser,
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
    inner = reference_chain(
        denoiser,
        by_matrices(images, 8),
        SEED,
        INDICES,
        purifier.timesteps,
        forward=forward,
        variance=getattr(purifier.sampler, "variance", None),
    )
    for state, want in zip(states[1:], inner[1:], strict=True):
        torch.testing.assert_close(state.image, by_matrices(want, 7), rtol=0, atol=1e-12)


def test_finite_differences() -> None:
    purifier = DiffusionPurifier(
        TinyDenoiser(1, learns_variance=True, scale=3),
        t_star=30,
        num_steps=3,
        sampler=DDPMSampler(variance="learned_range"),
        memory_budget_gib=0,
        resize_to=4,
    )
    x = some_images(1, (1, 3, 3)).requires_grad_()
    index = torch.tensor([0])
    assert torch.autograd.gradcheck(lambda x: purifier.purify(x, FixedNoise(0), index), (x,))


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
    want = plain.purify(images, noise, INDICES)
    assert torch.equal(sized.purify(images, noise, INDICES), want)
    for a, b in zip(
        plain.trajectory(images, noise, INDICES),
        sized.trajectory(images, noise, INDICES),
        strict=True,
    ):
        assert torch.equal(a.image, b.image)


@pytest.mark.parametrize("outer", [6, 12])
def test_clipped_outputs_lie_in_the_range(outer: int) -> None:
    options: Any = {
        "t_star": 20,
        "num_steps": 4,
        "sampler": DDPMSampler(clip=False),
        "resize_to": 8,
    }
    free = DiffusionPurifier(TinyDenoiser(scale=3), **options)
    bound = DiffusionPurifier(TinyDenoiser(scale=3), clip_output=True, **options)
    x = (3 * some_images(2, (3, outer, outer)) - 1).requires_grad_()
    output = free.purify(x, FixedNoise(0), INDICES)
    assert output.min() < 0
    assert output.max() > 1
    clipped = bound.purify(x, FixedNoise(0), INDICES)
    assert torch.equal(clipped, output.clamp(0, 1))
    inside = ((output >= 0) & (output <= 1)).double()
    (want,) = torch.autograd.grad(output, x, inside)
    (got,) = torch.autograd.grad(clipped.sum(), x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


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


def test_the_settings_name_it() -> None:
    assert DiffusionPurifier(TinyDenoiser(), resize_to=256).settings()["resize_to"] == 256
    assert DiffusionPurifier(TinyDenoiser()).settings()["resize_to"] is None


@pytest.mark.parametrize("side", [0, -1])
def test_a_size_there_is_none_of_is_refused(side: int) -> None:
    with pytest.raises(InputError, match=f"resize_to is {side}"):
        DiffusionPurifier(TinyDenoiser(), resize_to=side)


def test_another_size_than_the_denoisers_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="resize_to is 32, but the denoiser is made for 16 x 16"):
        DiffusionPurifier(random_unet(16), resize_to=32)


@pytest.mark.parametrize("shape", [(2, 3, 14, 12), (2, 1, 14, 14), (3, 14, 14)])
def test_images_that_cannot_be_brought_to_the_size_are_refused(shape: tuple[int, ...]) -> None:
    purifier = DiffusionPurifier(random_unet(16), resize_to=16)
    with pytest.raises(InputError, match=r"square images \(3, S, S\)"):
        purifier.purify(torch.zeros(shape), FixedNoise(0), torch.arange(shape[0]))


def test_images_of_another_size_are_told_about_it() -> None:
    purifier = DiffusionPurifier(random_unet(16))
    with pytest.raises(InputError, match="set the purifier's resize_to"):
        purifier.purify(torch.zeros(2, 3, 14, 14), FixedNoise(0), INDICES)
