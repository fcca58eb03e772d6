"""Noise predictors: networks behind one contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from lit_purify.types import InputError


class Denoiser(nn.Module, ABC):
    """Predicts the noise in a diffused image.

    ``denoiser(x_t, t)`` takes states of shape (B, C, H, W) on the [-1, 1] scale and the step
    ``t`` (an integer 1 .. T, the same for the batch, or a tensor of shape (B,)), and returns the
    predicted noise, shape (B, C, H, W). A network that also learns its variance returns
    (B, 2C, H, W): the noise, then the interpolation values of ``learned_range``.
    """

    num_train_steps: int = 1000
    image_shape: tuple[int, int, int] | None = None
    """(C, H, W) the network is made for; ``None`` where any size goes."""
    source: str = "unnamed"
    """What a report calls this network: where its weights come from."""
    file: Path | None = None
    """Weights file, whose hash goes into the report."""

    @abstractmethod
    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor: ...


class UNetDenoiser(Denoiser):
    """A diffusers ``UNet2DModel`` as a :class:`Denoiser`.

    Args:
        network: the U-Net; its time index counts from 0, so step ``t`` is given as ``t - 1``.
        patch_size: side of the pixel blocks folded into channels before the network and unfolded
            after it (1: none). With 2 a 3x32x32 image becomes 12x16x16, a quarter of the cost.
        image_shape: (C, H, W) the network was trained on, checked against its input; ``None``
            accepts any.
        num_train_steps: length of the noise schedule the network was trained for.
    """

    def __init__(
        self,
        network: UNet2DModel,
        *,
        patch_size: int = 1,
        image_shape: tuple[int, int, int] | None = None,
        num_train_steps: int = 1000,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.patch_size = patch_size
        self.image_shape = image_shape
        self.num_train_steps = num_train_steps

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        if self.image_shape is not None and x_t.shape[1:] != self.image_shape:
            raise InputError(
                f"the denoiser is made for images of shape {self.image_shape}, got batches of "
                f"shape {tuple(x_t.shape)}; resize the images or choose another denoiser"
            )
        steps = torch.as_tensor(t, device=x_t.device).expand(len(x_t)) - 1
        x = F.pixel_unshuffle(x_t, self.patch_size) if self.patch_size > 1 else x_t
        # channels_last: without it UNet2DModel loses a third of its speed on CPUs.
        x = self.network(x.contiguous(memory_format=torch.channels_last), steps).sample
        return F.pixel_shuffle(x, self.patch_size) if self.patch_size > 1 else x


def small_unet(
    *,
    channels: int = 3,
    image_size: int = 32,
    patch_size: int = 2,
    block_out_channels: tuple[int, ...] = (64, 128, 128),
    layers_per_block: int = 1,
    norm_num_groups: int = 32,
) -> UNetDenoiser:
    """The untrained network of the shipped denoiser: a U-Net without attention on pixel blocks.

    Args:
        channels: image channels C.
        image_size: height and width of the images.
        patch_size: side of the pixel blocks folded into channels.
        block_out_channels: width of each resolution level.
        layers_per_block: residual blocks a level.
        norm_num_groups: groups of the group normalisation.

    Raises:
        InputError: sizes of which no network can be made.

    Example:
        >>> denoiser = small_unet(block_out_channels=(8, 16), norm_num_groups=4)
        >>> denoiser(torch.zeros(2, 3, 32, 32), 10).shape
        torch.Size([2, 3, 32, 32])
    """
    _check_sizes(
        channels=channels,
        image_size=image_size,
        patch_size=patch_size,
        layers_per_block=layers_per_block,
        norm_num_groups=norm_num_groups,
    )
    levels = len(block_out_channels)
    if levels == 0 or any(width < 1 or width % norm_num_groups for width in block_out_channels):
        raise InputError(
            f"block_out_channels is {list(block_out_channels)}; expected one or more multiples of "
            f"norm_num_groups = {norm_num_groups}"
        )
    if image_size % (patch_size * 2 ** (levels - 1)):
        raise InputError(
            f"image_size is {image_size}; expected a multiple of {patch_size * 2 ** (levels - 1)}, "
            f"which patch_size {patch_size} and {levels} levels ask for"
        )
    folded = channels * patch_size**2
    network = UNet2DModel(
        sample_size=image_size // patch_size,
        in_channels=folded,
        out_channels=folded,
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=norm_num_groups,
        add_attention=False,
        resnet_time_scale_shift="scale_shift",
    )
    return UNetDenoiser(
        network, patch_size=patch_size, image_shape=(channels, image_size, image_size)
    )


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} is {size}; expected 1 or more")
