"""The gradient at every state of a purification against plain autograd, in float64."""

from typing import Any

import pytest
import tiny
import torch
from oracles import ChosenNoise, TinyDenoiser, random_unet, reference_states, some_images
from torch import Tensor

from lit_purify.diffusion import DDIMSampler, DDPMSampler, DiffusionPurifier, FixedNoise
from lit_purify.types import InputError

INDICES = torch.tensor([5, 2])
SEED = 1
FORWARDS = ("stepwise", "one_shot", "none")


def squares(images: Tensor) -> Tensor:
    """A loss whose gradient is the image itself, of each image alone."""
    return images.flatten(1).square().sum(1) / 2


@pytest.mark.parametrize("budget", [0.0, 1.0])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("resize_to", [None, 8])
@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("sampler", [DDPMSampler, DDIMSampler])
def test_each_pulled_back_to_the_input_is_the_gradient_there(
    sampler: Any, forward: Any, resize_to: int | None, clip: bool, budget: float
) -> None:
    """By the chain rule, (d state / d input)^T times the gradient at the state is that there.

    The maps from the input to the states are square and have full rank but for the resizing, so
    this fixes every gradient. The first and the last state have the size of the images, those
    between that of the chain.
    """
    purifier = DiffusionPurifier(
        TinyDenoiser(scale=3),
        t_star=30,
        num_steps=4,
        forward_process=forward,
        sampler=sampler(clip=clip),
        clip_output=clip,
        memory_budget_gib=budget,
        resize_to=resize_to,
    )
    images = some_images(2) if resize_to is None else some_images(2, (3, 6, 6))
    x = images.clone().requires_grad_()
    first, *plain = reference_states(purifier, x, SEED, INDICES, outside=False)
    assert first is x
    (total,) = torch.autograd.grad(squares(plain[-1]).sum(), x, retain_graph=True)
    gradients = purifier.state_gradients(images, FixedNoise(SEED), INDICES, squares)
    assert purifier.depths == [(state.process, state.t) for state in gradients]
    torch.testing.assert_close(gradients[-1].image, plain[-1].detach(), rtol=0, atol=1e-12)
    pulled = [gradients[0].image]
    for state, gradient in zip(plain, gradients[1:], strict=True):
        pulled += torch.autograd.grad(state, x, gradient.image, retain_graph=True)
    assert total.norm() > 0
    for gradient in pulled:
        assert (gradient - total).norm() <= 1e-10 * total.norm()


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
