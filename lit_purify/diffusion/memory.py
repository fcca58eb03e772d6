r"""What an attack through a purification costs, in bytes and in operations, without running it.

The networks are followed through one step on tensors without data, so this works on a laptop, for
networks whose weights are nowhere, and in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.purifier import DiffusionPurifier
from lit_purify.diffusion.recompute import ActivationBudget, Step, run_chain
from lit_purify.types import InputError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Precisions of a run, under the Trainer's names; images and weights are float32 in all of them."""

Device = Literal["cuda", "cpu"]

Result = TypeVar("Result")

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
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
        batch_size: images in one pass, the draws of an EOT attack counted.
        steps_kept: k, the reverse steps whose activations the memory budget keeps.
        weights: W, parameters and buffers of the denoiser and of the classifier.
        images: I, the attack's own images and gradients: six batches at the size of the images.
        noise: N, the draws of the chain that a fixed noise keeps for the length of the attack: one
            state for each noising step and each reverse step but the last, where it draws.
        states: S, what the exact gradient keeps of every reverse step: the state it starts from.
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


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Floating-point operations of one network for one image; a product and a sum count two.

    Attributes:
        forward: of one call.
        backward: of its gradient with respect to the image, the weights being frozen.
    """

    forward: int
    backward: int

    def gradient(self, steps: int, kept: int = 0) -> int:
        """Of the exact gradient through a chain of steps, ``kept`` of which are not recomputed."""
        return steps * (2 * self.forward + self.backward) - min(kept, steps) * self.forward


def memory_plan(
    purifier: DiffusionPurifier,
    image_shape: Sequence[int],
    batch_size: int,
    *,
    classifier: nn.Module | None = None,
    precision: Precision = "32-true",
    noise_is_fixed: bool = True,
    device: Device = "cuda",
) -> MemoryPlan:
    """Memory of an attack's gradient through a purifier.

    Args:
        purifier: its networks may be on any device, ``meta`` included; they are not changed.
        image_shape: (C, H, W) of the images under attack.
        batch_size: images in one pass.
        classifier: the network behind it; ``None`` plans the purifier alone.
        precision: of the run.
        noise_is_fixed: whether draws are kept for the length of the attack; not those of `fresh`.
        device: whose rules hold. GPUs keep more for normalisation, see below.

    On a GPU group normalisation copies what is in channels_last, and mixed precision normalises in
    float32; on a CPU neither. What else differs between their libraries is not planned.

    Raises:
        InputError: a batch size, precision or device there is none of, or another shape than the
            purifier's.

    Example:
        >>> from lit_purify.diffusion import small_unet
        >>> purifier = DiffusionPurifier(small_unet(), t_star=100, memory_budget_gib=0)
        >>> plan = memory_plan(purifier, (3, 32, 32), batch_size=8)
        >>> plan.states == 100 * 8 * 3 * 32 * 32 * 4
        True
    """
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; expected 1 or more images")
    for name, value, known in (
        ("precision", precision, get_args(Precision)),
        ("device", device, get_args(Device)),
    ):
        if value not in known:
            raise InputError(f"the {name} is {value!r}; expected one of {', '.join(known)}")
    steps = len(purifier.timesteps)
    noised = sum(process == "forward" and t > 0 for process, t in purifier.depths)
    draws = noised + (steps - 1) * purifier.sampler.draws_noise
    networks: list[nn.Module] = [purifier.denoiser, *([] if classifier is None else [classifier])]

    def images() -> Tensor:
        return torch.empty(batch_size, *image_shape)

    def follow_chain() -> tuple[int, int, int, int]:
        x = purifier.inside(images()).requires_grad_()
        kept = ActivationBudget(purifier.memory_budget_gib).steps(
            partial(purifier.denoiser, t=purifier.t_star), x
        )
        *_, t_prev, t = [0, *purifier.timesteps]
        step = partial(purifier.reverse_step, t, t_prev, _NoDraws(), torch.arange(batch_size))
        activations = _kept(lambda x: _only(run_chain([step], x, num_kept=1)), x)
        peak = _peak(lambda x: _only(run_chain([step], x, num_kept=0)), x)
        return x.nbytes, min(kept, steps), activations, peak

    with _arithmetic(precision, device):
        state, kept, activations, peak = _without_data(purifier.denoiser, follow_chain)
        behind = 0
        if classifier is not None:
            behind = _without_data(classifier, lambda: _peak(classifier, images()))
    return MemoryPlan(
        batch_size=batch_size,
        steps_kept=kept,
        weights=sum(_nbytes(network) for network in networks),
        images=_ATTACK_IMAGES * torch.empty(batch_size, *image_shape, device="meta").nbytes,
        noise=draws * state if noise_is_fixed else 0,
        states=steps * state,
        activations=activations,
        step=peak,
        classifier=behind,
    )


def count_operations(network: nn.Module, image_shape: Sequence[int], *inputs: object) -> Operations:
    """Floating-point operations of a network for one image, by PyTorch's counter.

    Args:
        network: called with images (1, C, H, W); its weights may be on any device.
        image_shape: (C, H, W).
        *inputs: further arguments of the call, such as the step t.

    Example:
        >>> layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        >>> count_operations(layer, (3, 4, 4))
        Operations(forward=6912, backward=6912)
    """

    def count() -> Operations:
        x = torch.empty(1, *image_shape, requires_grad=True)
        # The counter knows attention only as the products that it is made of.
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            with FlopCounterMode(display=False) as up:
                y = network(x, *inputs)
            with FlopCounterMode(display=False) as down:
                torch.autograd.grad(y, x, torch.empty_like(y))
        return Operations(forward=up.get_total_flops(), backward=down.get_total_flops())

    return _without_data(network, count)


class _NoDraws(NoiseConfiguration):
    """Memory for the draws of one step, without values."""

    def _draw(self, indices: Tensor, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        return torch.empty_like(like)


@contextmanager
def _arithmetic(precision: Precision, device: Device) -> Iterator[None]:
    """The precision of a run; tensors without data pass for a CPU's, a GPU's rules are added."""
    hook = register_module_forward_pre_hook(_as_gpus_normalise) if device == "cuda" else None
    mixed = precision != "32-true"
    try:
        with torch.autocast("cpu", dtype=_AUTOCAST.get(precision), enabled=mixed):
            yield
    finally:
        if hook is not None:
            hook.remove()


def _as_gpus_normalise(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """A GPU normalises in float32, also in mixed precision, and groups only in contiguous memory.

    Both may take a copy, which the backward pass keeps.
    """
    if isinstance(module, nn.GroupNorm):
        return tuple(x.float().contiguous() for x in inputs)
    return tuple(x.float() for x in inputs) if isinstance(module, nn.LayerNorm) else None


class _Holder(nn.Module):
    """Work to do while the weights of a module are others."""

    def __init__(self, module: nn.Module, work: Callable[[], Any]) -> None:
        super().__init__()
        self.module = module
        self.work = work

    def forward(self) -> Any:
        return self.work()


def _without_data(module: nn.Module, work: Callable[[], Result]) -> Result:
    """Do something with tensors that have a shape and no data, the weights of a module among them.

    They pass for tensors of a CPU: on the ``meta`` device attention would come apart into
    products, which holds its whole matrix, and no run on a CPU or a GPU does.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.compiler.set_stance("force_eager"):
        weights = {
            f"module.{name}": torch.empty_strided(w.shape, w.stride(), dtype=w.dtype)
            for name, w in [*module.named_parameters(), *module.named_buffers()]
        }
        with torch.enable_grad():
            result: Result = functional_call(_Holder(module, work), weights, ())
    return result


def _kept(function: Step, x: Tensor) -> int:
    """Bytes that are kept for the backward pass."""
    with LiveBytes() as live:
        y = function(x.detach().requires_grad_())
    return live.now - y.untyped_storage().nbytes()


def _peak(function: Step, x: Tensor) -> int:
    """Most bytes alive on the way up and down."""
    x = x.detach().requires_grad_()
    with LiveBytes() as live:
        y = function(x)
        torch.autograd.grad(y, x, torch.empty_like(y))
    return live.peak


def _only(states: Iterator[Tensor]) -> Tensor:
    (state,) = states
    return state


def _nbytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
