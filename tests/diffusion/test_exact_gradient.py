"""The gradient through every step against plain autograd and finite differences, in float64."""

from typing import Any

import pytest
import torch
from oracles import TinyDenoiser, random_unet, reference_chain, some_images
from torch import Tensor, nn

from lit_purify.diffusion import (
    PRESETS,
    DDIMSampler,
    DDPMSampler,
    Denoiser,
    DiffusionPurifier,
    FixedNoise,
    Sampler,
)
from lit_purify.diffusion.recompute import activation_bytes

INDICES = torch.tensor([5, 2])
SEED = 1


def budget_for(denoiser: nn.Module, images: Tensor, steps: int) -> float:
    """Memory in GiB that holds the activations of so many network passes and half a pass more."""
    each = activation_bytes(lambda x: denoiser(x, 10), images[:1]) * len(images)
    return (steps + 0.5) * each / 2**30


def assert_exact(
    denoiser: Denoiser, sampler: Sampler, forward: Any, images: Tensor, kept: int, **options: Any
) -> None:
    """Same images and, for a random cotangent, same gradient as a plain loop of the equations."""
    budget = budget_for(denoiser, images, kept) if kept else 0.0
    purifier = DiffusionPurifier(
        denoiser,
        t_star=30,
        num_steps=4,
        forward_process=forward,
        sampler=sampler,
        memory_budget_gib=budget,
    )
    cotangent = some_images(len(images), images.shape[1:], seed=9) - 0.5
    x = images.clone().requires_grad_()
    output = purifier.purify(x, FixedNoise(SEED), INDICES)
    (got,) = torch.autograd.grad(output, x, cotangent)
    plain = reference_chain(
        denoiser,
        x,
        SEED,
        INDICES,
        purifier.timesteps,
        forward=forward,
        clip=sampler.clip,
        **options,
    )[-1]
    (want,) = torch.autograd.grad(plain, x, cotangent)
    torch.testing.assert_close(output, plain, rtol=0, atol=1e-12)
    assert (got - want).norm() <= 1e-10 * want.norm()
    assert want.norm() > 0


@pytest.mark.parametrize("kept", [0, 2, 1000])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("preset", ["ddpm", "reverse", "ddim"])
def test_presets_through_a_unet(preset: Any, clip: bool, kept: int) -> None:
    forward, sampler = PRESETS[preset]
    sampler = type(sampler)(clip=clip)
    options: Any = {"variance": getattr(sampler, "variance", None)}
    images = some_images(2, (3, 16, 16))
    assert_exact(random_unet().double(), sampler, forward, images, kept, **options)


@pytest.mark.parametrize("kept", [0, 2, 1000])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_other_variances(variance: Any, clip: bool, kept: int) -> None:
    denoiser = TinyDenoiser(learns_variance=variance == "learned_range", scale=3)
    sampler = DDPMSampler(variance=variance, clip=clip)
    assert_exact(denoiser, sampler, "stepwise", some_images(2), kept, variance=variance)


@pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])
@pytest.mark.parametrize("clip", [True, False])
def test_stochastic_ddim(forward: Any, clip: bool) -> None:
    sampler = DDIMSampler(eta=0.5, clip=clip)
    denoiser = TinyDenoiser(scale=3)
    assert_exact(denoiser, sampler, forward, some_images(2), 0, variance=None, eta=0.5)


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
def test_finite_differences(sampler: DDPMSampler) -> None:
    learns = getattr(sampler, "variance", "") == "learned_range"
    denoiser = TinyDenoiser(1, learns_variance=learns, scale=3)
    purifier = DiffusionPurifier(
        denoiser, t_star=30, num_steps=3, sampler=sampler, memory_budget_gib=0
    )
    x = some_images(1, (1, 2, 3)).requires_grad_()
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
    denoiser = TinyDenoiser(scale=3)
    purifier = DiffusionPurifier(
        denoiser,
        t_star=30,
        num_steps=3,
        sampler=DDPMSampler(variance="fixed_large"),
        memory_budget_gib=0,
    )
    x = some_images(2).requires_grad_()
    got = list(purifier.trajectory(x, FixedNoise(SEED), INDICES))
    want = reference_chain(denoiser, x, SEED, INDICES, purifier.timesteps)
    for state, plain in zip(got, want, strict=True):
        (a,) = torch.autograd.grad(state.image.square().sum(), x, retain_graph=True)
        (b,) = torch.autograd.grad(plain.square().sum(), x, retain_graph=True)
        assert (a - b).norm() <= 1e-10 * b.norm()


def test_weights_are_frozen_and_get_no_gradient() -> None:
    denoiser = TinyDenoiser()
    purifier = DiffusionPurifier(denoiser, t_star=10, num_steps=2, memory_budget_gib=0)
    x = some_images(2).requires_grad_()
    purifier.purify(x, FixedNoise(0), INDICES).sum().backward()
    assert x.grad is not None
    assert not denoiser.training
    assert all(not p.requires_grad and p.grad is None for p in denoiser.parameters())


@pytest.mark.parametrize(("kept", "calls"), [(0, 10), (2, 8), (4, 6), (5, 5), (1000, 5)])
def test_network_passes_of_a_gradient(kept: int, calls: int) -> None:
    """One for each of 5 steps, and one more for each that the memory does not hold."""
    denoiser, images = TinyDenoiser(), some_images(2)
    budget = budget_for(denoiser, images, kept) if kept else 0.0
    purifier = DiffusionPurifier(denoiser, t_star=10, num_steps=5, memory_budget_gib=budget)
    for _ in range(2):  # the first time also measures a pass
        denoiser.calls = 0
        x = images.clone().requires_grad_()
        purifier.purify(x, FixedNoise(0), INDICES).sum().backward()
    assert denoiser.calls == calls


@pytest.mark.parametrize("budget", [0.0, 1.0])
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


def test_activation_bytes_counts_what_backward_needs() -> None:
    x = torch.zeros(2, 3, 4, 4)
    # exp keeps its result; the second exp's input is the same tensor and is not needed.
    assert activation_bytes(torch.exp, x) == x.nbytes
    assert activation_bytes(lambda x: x.exp().exp(), x) == 2 * x.nbytes
    # A product with a frozen weight keeps no activation, a sum neither.
    weight = torch.ones(3, 1, 1)
    assert activation_bytes(lambda x: x * weight + 1, x) == 0
    assert x.grad is None
