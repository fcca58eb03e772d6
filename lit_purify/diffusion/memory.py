r"""What an attack through a purification costs, in bytes and in operations, without running it.

The networks are followed through one step on tensors without data, so this takes seconds on a
laptop, and the networks need no weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lit_purify.diffusion.diffusion_purifier import DiffusionPurifier
from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.recompute import ActivationBudget, Step, activation_bytes, run_chain
from lit_purify.diffusion.reverse_step import reverse_steps
from lit_purify.types import InputError

Network = TypeVar("Network", bound=nn.Module)

_ATTACK_IMAGES = 6
"""Batches of images that PGD holds: the clean ones, the iterate, its active rows, their copy that
takes the gradient, the sum of the gradients, and the purified images."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    r"""Bytes of the tensors alive when one gradient of an attack needs most.

    .. math:: \mathrm{peak} = W + I + N + S + \max(M + \max(k - 1, 0) A,\; k A + C)

    The chain runs up and keeps the activations A of its last k steps, the classifier runs up and
    down (C), then the chain runs down; M is what its last step needs to do so, which includes the
    step's own A, kept or computed again. What a step has no more use for is freed, so no later step
    needs more than M. These are tensors only: a GPU also holds its context, workspaces of its
    libraries, and gaps between the tensors.

    Attributes:
        batch_size: images in one pass; every draw of an EOT attack counts as one.
        steps_kept: k, the reverse steps whose activations the memory budget keeps.
        weights: W, parameters and buffers of the denoiser and of the classifier.
        images: I, the attack's own images and gradients: six batches at the size of the images.
        noise: N, the draws of the chain that a fixed noise keeps for the length of the attack: one
            state for each noising step and each reverse step but the last, where it draws.
        states: S, what the exact gradient keeps of every reverse step: the state it starts from,
            with what a sampler carries beside it.
        activations: A, what the backward pass of one step keeps.
        step: M, the most that is alive while one step is computed again and differentiated.
        classifier: C, the most that is alive while the classifier is differentiated.
    """

    batch_size: int
    steps_kept: int
    weights: int
    images: int
    noise: int
    states: int
    activations: int
    step: int
    classifier: int

    @property
    def kept(self) -> int:
        """k A, activations kept between the forward and the backward pass."""
        return self.steps_kept * self.activations

    @property
    def peak(self) -> int:
        """Most bytes alive at once."""
        steady = self.weights + self.images + self.noise + self.states
        down = self.step + max(self.steps_kept - 1, 0) * self.activations
        return steady + max(down, self.kept + self.classifier)


def memory_plan(
    purifier: DiffusionPurifier,
    classifier: nn.Module,
    image_shape: Sequence[int],
    batch_size: int,
    *,
    mixed: bool = False,
) -> MemoryPlan:
    """Memory of an attack's gradient through a purifier on a GPU, under fixed noise.

    Args:
        purifier: its networks may be on any device, ``meta`` included; they are not changed.
        classifier: the network behind it, on any device.
        image_shape: (C, H, W) of the images under attack.
        batch_size: images in one pass.
        mixed: the run's precision is ``bf16-mixed``; images and weights are float32 all the same.

    A GPU normalises in float32, also in mixed precision, and groups only in contiguous memory: both
    may take a copy, which the backward pass keeps. What else its libraries hold is not planned.

    Raises:
        InputError: a batch size below 1, or another shape than the purifier's.

    Example:
        >>> from lit_purify.diffusion import small_unet
        >>> purifier = DiffusionPurifier(small_unet(), t_star=100, memory_budget_gib=0)
        >>> plan = memory_plan(purifier, nn.Flatten(), (3, 32, 32), batch_size=8)
        >>> plan.states == 100 * 8 * 3 * 32 * 32 * 4
        True
    """
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; expected 1 or more images")
    steps = purifier.total_steps
    first, *_ = reverse_steps(purifier.timesteps, purifier.schedule)
    weights = [*_weights(purifier.denoiser), *_weights(classifier)]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    chain, behind = _without_data(purifier, mode), _without_data(classifier, mode)
    with mode, torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        images = torch.empty(batch_size, *image_shape)
        x = chain.to_chain(images).requires_grad_()
        state = x.repeat(1, 1 + chain.sampler.carried, 1, 1)
        step = partial(chain.reverse_step, first, _NoDraws(), torch.arange(batch_size))
        network = partial(chain.denoiser, t=purifier.t_star)
        budget = ActivationBudget(purifier.memory_budget_gib)
        return MemoryPlan(
            batch_size=batch_size,
            steps_kept=min(budget.steps(network, x) // purifier.passes_per_step, steps),
            weights=sum(tensor.nbytes for tensor in weights),
            images=_ATTACK_IMAGES * images.nbytes,
            noise=purifier.num_draws * x.nbytes,
            states=steps * state.nbytes,
            activations=activation_bytes(step, state),
            step=_peak(lambda x: next(run_chain([step], x)), state),
            classifier=_peak(behind, images),
        )


def count_operations(
    network: nn.Module, image_shape: Sequence[int], *inputs: object
) -> tuple[int, int]:
    """Floating-point operations of a network for one image, by PyTorch's counter.

    Args:
        network: called with images (1, C, H, W); its weights may be on any device.
        image_shape: (C, H, W).
        *inputs: further arguments of the call, such as the step t.

    Returns:
        Those of one call, and those of its gradient with respect to the image, the weights being
        frozen. A product and a sum count two.

    Example:
        >>> count_operations(nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 4, 4))
        (6912, 6912)
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    copied = _without_data(network, mode)
    with (
        mode,
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),  # the counter knows only the products attention is made of
    ):
        x = torch.empty(1, *image_shape, requires_grad=True)
        with FlopCounterMode(display=False) as up:
            y = copied(x, *inputs)
        with FlopCounterMode(display=False) as down:
            torch.autograd.grad(y, x, torch.empty_like(y))
    return up.get_total_flops(), down.get_total_flops()


class _NoDraws(NoiseConfiguration):
    """Memory for the draws of one step, without values."""

    def derived(self, purpose: str, k: int) -> _NoDraws:
        return self

    def _draw(self, indices: Tensor, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        return torch.empty_like(like)


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _without_data(network: Network, mode: FakeTensorMode) -> Network:
    """A copy whose weights have a shape and no data, that normalises as on a GPU.

    They pass for tensors of a CPU: on the ``meta`` device attention would come apart into
    products, which holds its whole matrix, and no run on a CPU or a GPU does.
    """
    with mode:
        weights: dict[int, Any] = {
            id(w): torch.empty_strided(w.shape, w.stride(), dtype=w.dtype)
            for w in _weights(network)
        }
    copied = copy.deepcopy(network, weights)  # which takes these for copies made already
    for module in copied.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.register_forward_pre_hook(_as_gpus_normalise)
    return copied


def _as_gpus_normalise(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """In float32, and groups in contiguous memory."""
    x = inputs[0].float()
    return (x.contiguous() if isinstance(module, nn.GroupNorm) else x,)


def _peak(function: Step, x: Tensor) -> int:
    """Most bytes alive on the way up and down."""
    x = x.detach().requires_grad_()
    with LiveBytes() as live:
        y = function(x)
        torch.autograd.grad(y, x, torch.empty_like(y))
    return live.peak
