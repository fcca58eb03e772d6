"""The gradient through every step against plain autograd and finite differences, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import (
    TinyDenoiser,
    assert_exact,
    budget_for,
    fill,
    random_unet,
    reference_states,
    some_images,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from unets import PUBLISHED, Factory, small_guided

from lit_purify.diffusion import (
    PRESETS,
    DDIMSampler,
    DDPMSampler,
    Denoiser,
    DiffusionPurifier,
    FixedNoise,
)
from lit_purify.diffusion.recompute import activation_bytes

INDICES = torch.tensor([5, 2])
SEED = 1
KEPT = pytest.mark.parametrize("kept", [0, 2, 1000])
CLIP = pytest.mark.parametrize("clip", [True, False])
BUDGET = pytest.mark.parametrize("budget", [0.0, 1.0])
FORWARD = pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])


@KEPT
@CLIP
@pytest.mark.parametrize("preset", ["ddpm", "reverse", "ddim"])
def test_presets_through_a_unet(preset: Any, clip: bool, kept: int) -> None:
    forward, sampler = PRESETS[preset]
    denoiser, images = random_unet().double(), some_images(2, (3, 16, 16))
    purifier = DiffusionPurifier(
        denoiser,
        t_star=30,
        num_steps=4,
        forward_process=forward,
        sampler=type(sampler)(clip=clip),
        memory_budget_gib=budget_for(denoiser, images, kept),
    )
    assert_exact(purifier, images, SEED, INDICES)


@KEPT
@CLIP
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_other_variances(variance: Any, clip: bool, kept: int) -> None:
    denoiser = TinyDenoiser(learns_variance=variance == "learned_range", scale=3)
    purifier = DiffusionPurifier(
        denoiser,
        t_star=30,
        num_steps=4,
        sampler=DDPMSampler(variance=variance, clip=clip),
        memory_budget_gib=budget_for(denoiser, some_images(2), kept),
    )
    assert_exact(purifier, some_images(2), SEED, INDICES)


@FORWARD
@CLIP
def test_stochastic_ddim(forward: Any, clip: bool) -> None:
    purifier = DiffusionPurifier(
        TinyDenoiser(scale=3),
        t_star=30,
        num_steps=4,
        forward_process=forward,
        sampler=DDIMSampler(eta=0.5, clip=clip),
        memory_budget_gib=0,
    )
    assert_exact(purifier, some_images(2), SEED, INDICES)


@PUBLISHED
@CLIP
@BUDGET
@pytest.mark.parametrize(("num_steps", "resize_to"), [(4, None), (4, 8), (None, 8)])
def test_attention_and_resizing(
    factory: Factory, num_steps: int | None, resize_to: int | None, clip: bool, budget: float
) -> None:
    purifier = DiffusionPurifier(
        fill(factory().double(), seed=4, std=0.3),
        t_star=30 if num_steps else 5,
        num_steps=num_steps,
        sampler=DDPMSampler(
            variance="learned_range" if factory is small_guided else "fixed_large", clip=clip
        ),
        memory_budget_gib=budget,
        resize_to=resize_to,
    )
    for side in (8,) if resize_to is None else (7, 10):
        assert_exact(purifier, some_images(2, (3, side, side)), SEED, INDICES)


@pytest.mark.parametrize("resize_to", [None, 4])
@pytest.mark.parametrize(
    "sampler",
    [
        DDPMSampler(),
        DDPMSampler(variance="learned_range", clip=False),
        DDPMSampler(variance="learned_range"),
        DDIMSampler(),
        DDIMSampler(eta=0.5),
    ],
)
def test_finite_differences(sampler: Any, resize_to: int | None) -> None:
    purifier = DiffusionPurifier(
        TinyDenoiser(1, learns_variance=True, scale=3),
        t_star=30,
        num_steps=3,
        sampler=sampler,
        memory_budget_gib=0,
        resize_to=resize_to,
    )
    x = some_images(1, (1, 3, 3)).requires_grad_()
    index = torch.tensor([0])
    assert torch.autograd.gradcheck(lambda x: purifier.purify(x, FixedNoise(0), index), (x,))


def test_no_budget_differs_from_a_budget_in_nothing() -> None:
    """The recomputed steps run the same operations on the same numbers."""
    x = some_images(2).float().requires_grad_()
    gradients = []
    for budget in (0.0, 1.0):
        denoiser = TinyDenoiser(scale=3).float()
        purifier = DiffusionPurifier(denoiser, t_star=10, memory_budget_gib=budget)
        output = purifier.purify(x, FixedNoise(0), INDICES)
        gradients.append(torch.autograd.grad(output.square().sum(), x)[0])
    assert torch.equal(*gradients)


def test_every_state_of_the_trajectory_carries_its_gradient() -> None:
    purifier = DiffusionPurifier(TinyDenoiser(scale=3), t_star=30, num_steps=3, memory_budget_gib=0)
    x = some_images(2).requires_grad_()
    got = list(purifier.trajectory(x, FixedNoise(SEED), INDICES))
    want = reference_states(purifier, x, SEED, INDICES)
    for state, plain in zip(got, want, strict=True):
        (a,) = torch.autograd.grad(state.image.square().sum(), x, retain_graph=True)
        (b,) = torch.autograd.grad(plain.square().sum(), x, retain_graph=True)
        assert (a - b).norm() <= 1e-10 * b.norm()


@BUDGET
@pytest.mark.parametrize(
    "factory", [TinyDenoiser, lambda: fill(small_guided().double(), seed=4, std=0.2)]
)
def test_the_transforms_of_torch_func(factory: Callable[[], Denoiser], budget: float) -> None:
    """``vjp``, ``grad`` and ``jacrev`` give what autograd gives, and ``hessian`` its derivative."""
    purifier = DiffusionPurifier(
        factory(), t_star=6, num_steps=2, sampler=DDIMSampler(clip=False), memory_budget_gib=budget
    )
    images, cotangent, v = (some_images(2, seed=seed) for seed in (0, 1, 2))

    def purify(x: Tensor) -> Tensor:
        return purifier.purify(x, FixedNoise(0), INDICES)

    def plain_gradient(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((purify(x) * cotangent).sum(), x)
        return gradient

    def loss(x: Tensor) -> Tensor:
        return (purify(x) * cotangent).sum()

    want = plain_gradient(images)
    rows = torch.func.jacrev(lambda x: purify(x).flatten()[:3])(images)
    for found in (
        torch.func.vjp(purify, images)[1](cotangent)[0],
        torch.func.grad(loss)(images),
    ):
        torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12)
    x = images.clone().requires_grad_()
    (row,) = torch.autograd.grad(purify(x).flatten()[1], x)
    torch.testing.assert_close(rows[1], row, rtol=1e-10, atol=1e-12)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have one derivative
        _, curved = torch.func.jvp(torch.func.grad(loss), (images,), (v,))
    h = 1e-5
    slope = (plain_gradient(images + h * v) - plain_gradient(images - h * v)) / (2 * h)
    torch.testing.assert_close(curved, slope, rtol=1e-4, atol=1e-6)


def test_weights_are_frozen_and_get_no_gradient() -> None:
    denoiser = TinyDenoiser()
    purifier = DiffusionPurifier(denoiser, t_star=10, num_steps=2, memory_budget_gib=0)
    x = some_images(2).requires_grad_()
    purifier.purify(x, FixedNoise(0), INDICES).sum().backward()
    assert x.grad is not None
    assert not denoiser.training
    assert all(not p.requires_grad and p.grad is None for p in denoiser.parameters())


def test_weights_that_are_trained_get_theirs_without_a_budget_too() -> None:
    gradients = []
    for budget in (0.0, 1.0):
        denoiser = TinyDenoiser()
        purifier = DiffusionPurifier(denoiser, t_star=10, num_steps=2, memory_budget_gib=budget)
        denoiser.requires_grad_(True)
        output = purifier.purify(some_images(2).requires_grad_(), FixedNoise(0), INDICES)
        gradients.append(torch.autograd.grad(output.square().sum(), denoiser.first.weight)[0])
    assert gradients[0].any()
    assert torch.equal(*gradients)


@BUDGET
def test_a_gradient_can_be_differentiated(budget: float) -> None:
    """Also through the gradient of a step that is computed again."""
    purifier = DiffusionPurifier(
        TinyDenoiser(scale=3), t_star=30, num_steps=3, memory_budget_gib=budget
    )
    images, v = some_images(1, seed=3), some_images(1, seed=4)

    def gradient(x: Tensor) -> Tensor:
        output = purifier.purify(x, FixedNoise(0), INDICES[:1])
        return torch.autograd.grad(output.square().sum(), x, create_graph=True)[0]

    x = images.clone().requires_grad_()
    (curved,) = torch.autograd.grad((gradient(x) * v).sum(), x)
    h = 1e-5
    ends = [gradient((images + sign * h * v).requires_grad_()).detach() for sign in (1, -1)]
    torch.testing.assert_close(curved, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-7)


def test_a_step_is_computed_again_in_the_precision_that_it_was_computed_in() -> None:
    gradients = []
    for budget in (0.0, 1.0):
        denoiser = TinyDenoiser(scale=3).float()
        purifier = DiffusionPurifier(denoiser, t_star=10, num_steps=2, memory_budget_gib=budget)
        x = some_images(2).float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = purifier.purify(x, FixedNoise(0), INDICES)
        gradients.append(torch.autograd.grad(output.float().square().sum(), x)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize(("kept", "calls"), [(0, 10), (2, 8), (4, 6), (5, 5), (1000, 5)])
def test_network_passes_of_a_gradient(kept: int, calls: int) -> None:
    """One for each of 5 steps, and one more for each that the memory does not hold."""
    denoiser, images = TinyDenoiser(), some_images(2)
    budget = budget_for(denoiser, images, kept)
    purifier = DiffusionPurifier(denoiser, t_star=10, num_steps=5, memory_budget_gib=budget)
    for _ in range(2):  # the first time also measures a pass
        denoiser.calls = 0
        x = images.clone().requires_grad_()
        purifier.purify(x, FixedNoise(0), INDICES).sum().backward()
    assert denoiser.calls == calls


@BUDGET
def test_no_recomputation_without_a_gradient(budget: float) -> None:
    denoiser = TinyDenoiser()
    purifier = DiffusionPurifier(denoiser, t_star=10, num_steps=5, memory_budget_gib=budget)
    output = purifier.purify(some_images(2), FixedNoise(0), INDICES)
    assert denoiser.calls == 5
    assert not output.requires_grad
    with torch.no_grad():
        purifier.purify(some_images(2).requires_grad_(), FixedNoise(0), INDICES)
    assert denoiser.calls == 10


def test_without_a_budget_only_states_are_kept() -> None:
    """What the graph holds between the passes does not grow with the network."""

    class Wide(TinyDenoiser):
        def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
            wide = torch.tanh(x_t.repeat(1, 100, 1, 1)).square()
            return super().forward(x_t, t) + wide.unflatten(1, (100, 3)).mean(1)

    def held(budget: float) -> int:
        purifier = DiffusionPurifier(Wide(), t_star=10, num_steps=5, memory_budget_gib=budget)
        x = some_images(2).requires_grad_()
        purifier.purify(x, FixedNoise(0), INDICES)  # measures a pass, once
        return activation_bytes(lambda x: purifier.purify(x, FixedNoise(0), INDICES), x)

    state = some_images(2).nbytes
    assert held(0.0) <= 5 * state
    assert held(1.0) >= 5 * 100 * state
