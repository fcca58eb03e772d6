"""Noise predictors: networks behind one contract."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_purify.arguments import NamesItself
from lit_purify.diffusion.schedule import LinearSchedule, Schedule, checked_schedule
from lit_purify.types import InputError

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class Denoiser(NamesItself, nn.Module, ABC):
    """Predicts the noise in a diffused image.

    ``denoiser(x_t, t)`` takes states of shape (B, C, H, W) on the [-1, 1] scale and the step
    ``t`` (an integer 1 .. T, the same for the batch, or a tensor of shape (B,)), and returns the
    predicted noise, shape (B, C, H, W). A network that also learns its variance returns
    (B, 2C, H, W): the noise, then the interpolation values of ``learned_range``. The result has the
    type of ``x_t``; a purifier refuses anything else. Solvers that choose their steps also ask
    between whole ones, by a tensor of floats.
    """

    schedule: Schedule = LinearSchedule()
    """The noise schedule the network was trained for; images are noised and denoised by it."""
    image_shape: tuple[int, int, int] | None = None
    """(C, H, W) the network is made for; ``None`` where any size goes."""
    file: Path | None = None
    """Weights file, whose hash goes into the report."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "num_train_steps" in vars(cls):
            raise TypeError(
                f"{cls.__name__} sets num_train_steps, which follows from the schedule; set "
                "schedule = LinearSchedule(num_train_steps) or another one"
            )

    @property
    def num_train_steps(self) -> int:
        """T, the length of the noise schedule."""
        return self.schedule.num_train_steps

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise :class:`InputError` unless the network takes images of this shape, (C, H, W)."""
        expected = self.image_shape
        if len(shape) != 3 or expected not in (None, shape):
            raise InputError(
                f"the denoiser expects batches of {expected or '(C, H, W)'} images, got images of "
                f"shape {shape}; set the purifier's resize_to, resize the images, or choose "
                "another denoiser"
            )

    def check_steps(self, steps: Sequence[int]) -> None:
        """Raise :class:`InputError` unless the network knows these steps of its schedule.

        Here it knows all of them.
        """

    @abstractmethod
    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor: ...


def frozen_copy(denoiser: Denoiser) -> Denoiser:
    """The same network as an object of its own, frozen, in evaluation mode; weights are shared.

    What is done to the copy (its mode, its type, its device) leaves the original alone.
    """
    weights = {id(x): nn.Parameter(x.detach(), requires_grad=False) for x in denoiser.parameters()}
    return copy.deepcopy(denoiser, weights).eval()  # deepcopy takes these for copies made already


class UNetDenoiser(Denoiser):
    """A U-Net as a :class:`Denoiser`.

    Args:
        network: a diffusers ``UNet2DModel``, or a module that is called with images and labels,
            returns its prediction, and has ``in_channels`` and ``block_out_channels`` in a mapping
            ``config``. Labels count from 0, so step ``t`` is given as ``t - 1``.
        patch_size: side of the pixel blocks folded into channels before the network and unfolded
            after it (1: none). With 2 a 3x32x32 image becomes 12x16x16, a quarter of the cost.
        image_shape: (C, H, W) the network was trained on, checked against its input; ``None``
            accepts any.
        schedule: the noise schedule it was trained for; ``None`` is the linear one of 1000 steps.
        rescale_timesteps: give step ``t`` as ``1000 (t - 1) / T``, as improved diffusion does by
            default (Nichol & Dhariwal 2021), whatever the length T of the schedule is.

    Raises:
        InputError: a schedule by which no image can be noised.
    """

    def __init__(
        self,
        network: UNet2DModel | nn.Module,
        *,
        patch_size: int = 1,
        image_shape: tuple[int, int, int] | None = None,
        schedule: Schedule | None = None,
        rescale_timesteps: bool = False,
    ) -> None:
        super().__init__()
        self.network: Any = network.to(memory_format=torch.channels_last)
        self.patch_size = patch_size
        self.image_shape = image_shape
        self.schedule = LinearSchedule() if schedule is None else checked_schedule(schedule)
        self.rescale_timesteps = rescale_timesteps

    @property
    def unit(self) -> int:
        """What height and width of an image must be multiples of."""
        levels = len(self.network.config["block_out_channels"])
        return self.patch_size * int(2 ** (levels - 1))

    def check_shape(self, shape: tuple[int, ...]) -> None:
        super().check_shape(shape)
        if any(side % self.unit for side in shape[1:]):
            raise InputError(
                f"the denoiser halves its images down to a {self.unit}th, got images of shape "
                f"{shape}; resize the images to multiples of {self.unit}"
            )

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        self.check_shape(tuple(x_t.shape[1:]))
        labels = torch.as_tensor(t, device=x_t.device).expand(len(x_t)) - 1
        if self.rescale_timesteps:
            labels = labels * (1000 / self.num_train_steps)
        return self.evaluate(x_t, labels)

    def evaluate(self, x: Tensor, labels: Tensor) -> Tensor:
        """What the network itself gives for an input (B, C, H, W) and labels (B,)."""
        x = F.pixel_unshuffle(x, self.patch_size) if self.patch_size > 1 else x
        # channels_last: without it UNet2DModel loses a third of its speed on CPUs.
        with _attention_kernels(x):
            output = self.network(x.contiguous(memory_format=torch.channels_last), labels)
        x = output if isinstance(output, Tensor) else output.sample
        return F.pixel_shuffle(x, self.patch_size) if self.patch_size > 1 else x


def _attention_kernels(x: Tensor) -> AbstractContextManager[None]:
    """Fused attention kernels, but the plain one in forward-mode differentiation: it has the rule.

    A forward pass cannot know that it will be differentiated twice, which the fused kernels do not
    allow either: who does so must choose the plain one, as ``functional.jacobian`` does.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    moving = forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
    return sdpa_kernel(SDPBackend.MATH) if moving else nullcontext()
