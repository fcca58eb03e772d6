"""The gradient at every state of a purification against plain autograd, in float64."""

from typing import Any

import pytest
import tiny
import torch
from oracles import ChosenNoise, TinyDenoiser, random_unet, reference_chain, some_images
from torch import Tensor
from torch.nn import functional as F

from lit_purify.diffusion import DDIMSampler, DDPMSampler, DiffusionPurifier, FixedNoise
from lit_purify.types import InputError

INDICES = torch.tensor([5, 2])
SEED = 1
FORWARDS = ("stepwise", "one_shot", "none")


def squares(images: Tensor) -> Tensor:
    """A loss whose gradient is the image itself, of each image alone."""
    return images.flatten(1).square().sum(1) / 2


def pulled_back(
    purifier: DiffusionPurifier, images: Tensor, **options: Any
) -> tuple[list[Tensor], Tensor]:
    """The gradient at each state, taken back to the input by plain autograd; the gradient there.

    By the chain rule they are all equal: (d state / d input)^T times the gradient at the state.
    """
    x = images.clone().requires_grad_()
    states = reference_chain(purifier.denoiser, x, SEED, INDICES, purifier.timesteps, **options)
    (total,) = torch.autograd.grad(squares(states[-1]).sum(), x, retain_graph=True)
    gradients = purifier.state_gradients(images, FixedNoise(SEED), INDICES, squares)
    assert len(gradients) == len(states)
    pulled = []
    for state, plain in zip(gradients, states, strict=True):
        if plain is x:
            pulled.append(state.image)
        else:
            pulled += torch.autograd.grad(plain, x, state.image, retain_graph=True)
    torch.testing.assert_close(gradients[-1].image, states[-1].detach(), rtol=0, atol=1e-12)
    return pulled, total


@pytest.mark.parametrize("budget", [0.0, 1.0])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("sampler", [DDPMSampler, DDIMSampler])
def test_each_pulled_back_to_the_input_is_the_gradient_there(
    sampler: Any, forward: Any, clip: bool, budget: float
) -> None:
    purifier = DiffusionPurifier(
        TinyDenoiser(scale=3),
        t_star=30,
        num_steps=4,
        forward_process=forward,
        sampler=sampler(clip=clip),
        memory_budget_gib=budget,
    )
    variance = getattr(purifier.sampler, "variance", None)
    pulled, total = pulled_back(
        purifier, some_images(2), forward=forward, variance=variance, clip=clip
    )
    for gradient in pulled:
        assert (gradient - total).norm() <= 1e-10 * total.norm()
    assert total.norm() > 0


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("sampler", [DDPMSampler(variance="fixed_large"), DDIMSampler()])
def test_between_two_resizings_they_have_the_size_of_the_chain(sampler: Any, forward: Any) -> None:
    """The first and the last have that of the images; the chain rule holds across all of them."""
    purifier = DiffusionPurifier(
        TinyDenoiser(scale=3),
        t_star=30,
        num_steps=3,
        forward_process=forward,
        sampler=sampler,
        memory_budget_gib=0,
        resize_to=8,
    )
    variance = getattr(sampler, "variance", None)
    images, noise = some_images(2, (3, 6, 6)), FixedNoise(SEED)
    x = images.clone().requires_grad_()
    inner = F.interpolate(x, size=(8, 8), mode="bilinear")
    states = reference_chain(
        purifier.denoiser,
        inner,
        SEED,
        INDICES,
        purifier.timesteps,
        forward=forward,
        variance=variance,
    )
    output = F.interpolate(states[-1], size=(6, 6), mode="bilinear")
    (total,) = torch.autograd.grad(squares(output).sum(), x, retain_graph=True)
    first, *between, last = purifier.state_gradients(images, noise, INDICES, squares)
    assert (first.image - total).norm() <= 1e-10 * total.norm()
    torch.testing.assert_close(last.image, output.detach(), rtol=0, atol=1e-12)
    assert len(between) == len(states) - 2
    for gradient, plain in zip(between, states[1:-1], strict=True):
        assert gradient.image.shape == (2, 3, 8, 8)
        (pulled,) = torch.autograd.grad(plain, x, gradient.image, retain_graph=True)
        assert (pulled - total).norm() <= 1e-10 * total.norm()
    assert purifier.depths == [(s.process, s.t) for s in (first, *between, last)]


@pytest.mark.parametrize("budget", [0.0, 1.0])
@pytest.mark.parametrize("clip_output", [True, False])
def test_each_equals_autograd_from_its_own_state_on(clip_output: bool, budget: float) -> None:
    """The chain is started at the state itself, by the sampler's own steps."""
    sampler = DDPMSampler(variance="fixed_large")
    purifier = DiffusionPurifier(
        TinyDenoiser(scale=3),
        t_star=30,
        num_steps=3,
        sampler=sampler,
        clip_output=clip_output,
        memory_budget_gib=budget,
    )
    images, noise = some_images(2), FixedNoise(SEED)
    states = list(purifier.trajectory(images, noise, INDICES))
    got = purifier.state_gradients(images, noise, INDICES, squares)
    a = purifier._alpha_bar
    for start in range(len(states)):
        pixels = states[start].image.clone().requires_grad_()
        x, done = 2 * pixels - 1, start == len(states) - 1
        for before, after in zip(states[start:-1], states[start + 1 :], strict=True):
            if after.process == "forward":
                z = noise.normal(INDICES, "forward", after.t, like=x)
                alpha = a[after.t] / a[before.t]
                x = alpha**0.5 * x + (1 - alpha) ** 0.5 * z
            else:
                z = noise.normal(INDICES, "reverse", before.t, like=x)
                x = sampler.step(x, purifier.denoiser(x, before.t), a[before.t], a[after.t], z)
        output = pixels if done else (x + 1) / 2
        if clip_output and not done:
            output = output.clamp(0, 1)
        (want,) = torch.autograd.grad(squares(output).sum(), pixels)
        assert (got[start].image - want).norm() <= 1e-10 * want.norm()


def test_a_chain_without_a_network_scales_by_what_is_left_of_the_image() -> None:
    """With a noise prediction of zero every step is a multiplication known from the schedule."""
    denoiser = TinyDenoiser(scale=0)
    purifier = DiffusionPurifier(
        denoiser, t_star=40, num_steps=2, sampler=DDIMSampler(clip=False), memory_budget_gib=0
    )
    images = some_images(2)
    gradients = purifier.state_gradients(
        images, ChosenNoise(), INDICES, lambda x: x.flatten(1).sum(1)
    )
    # DDIM of no noise divides by sqrt(alpha_bar) what the forward process multiplied by it, and a
    # state x_t of the chain differs from the output by that factor alone.
    for state in gradients:
        want = purifier._alpha_bar[state.t] ** -0.5
        torch.testing.assert_close(state.image, torch.full_like(images, want), rtol=1e-12, atol=0)


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("num_steps", [1, 3, None])
def test_depths_are_those_of_the_trajectory(forward: Any, num_steps: int | None) -> None:
    purifier = DiffusionPurifier(
        TinyDenoiser(), t_star=7, num_steps=num_steps, forward_process=forward
    )
    images, noise = some_images(2), FixedNoise(SEED)
    states = list(purifier.trajectory(images, noise, INDICES))
    assert purifier.depths == [(state.process, state.t) for state in states]
    gradients = purifier.state_gradients(images, noise, INDICES, squares)
    assert purifier.depths == [(state.process, state.t) for state in gradients]


def test_any_purifier_has_those_of_its_input_and_output() -> None:
    images, noise = some_images(2, (3, 32, 32)), FixedNoise(SEED)
    first, last = tiny.ScalingPurifier(factor=0.5).state_gradients(images, noise, INDICES, squares)
    torch.testing.assert_close(first.image, images / 4)
    torch.testing.assert_close(last.image, images / 2)
    assert (first.process, first.t, last.process, last.t) == ("forward", 0, "reverse", 0)
    for state in tiny.IdentityPurifier().state_gradients(images, noise, INDICES, squares):
        assert torch.equal(state.image, images)


def test_it_works_where_gradients_are_off_and_leaves_no_graph() -> None:
    purifier = DiffusionPurifier(random_unet(), t_star=10, num_steps=2)
    images = some_images(2, (3, 16, 16)).float()
    with torch.no_grad():
        off = purifier.state_gradients(images, FixedNoise(SEED), INDICES, squares)
    on = purifier.state_gradients(images, FixedNoise(SEED), INDICES, squares)
    for a, b in zip(off, on, strict=True):
        assert torch.equal(a.image, b.image)
        assert not a.image.requires_grad
        assert not b.image.requires_grad
    assert not images.requires_grad


def test_a_purifier_without_a_gradient_is_refused() -> None:
    class Rounding(tiny.IdentityPurifier):
        def purify(self, images: Tensor, noise: Any, indices: Tensor) -> Tensor:
            return (images * 8).long().to(images) / 8

    with pytest.raises(InputError, match="gives no gradient"):
        Rounding().state_gradients(some_images(2), FixedNoise(0), INDICES, squares)
