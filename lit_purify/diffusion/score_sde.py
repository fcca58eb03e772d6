r"""The network "DDPM++, deep, continuous" of score-based SDEs (Song et al. 2021, app. H).

It is made of residual blocks that, unlike Ho et al.'s, also change the resolution, and whose
outputs, as those of its attention, are divided by :math:`\sqrt 2`,

.. math:: y = \frac{S x + F(x, t)}{\sqrt 2},

with S the identity, or a 1x1 convolution wherever the width or the resolution changes. Nothing is
filtered before it is resampled: means of 2 x 2 pixels on the way down, each pixel four times on the
way up. The last layer's output is the noise; the score is minus that over its standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.diffusion.untrained import check_sizes, chosen_levels, untrained
from lit_purify.types import InputError

Resample = Literal["down", "up"]


def score_sde_unet(
    *,
    channels: int = 3,
    image_size: int = 32,
    block_out_channels: tuple[int, ...] = (128, 256, 256, 256),
    attention_levels: tuple[int, ...] = (1,),
    layers_per_block: int = 8,
    seed: int | None = 0,
) -> UNetDenoiser:
    """The U-Net "DDPM++, deep, continuous" of Score-SDE VP (Song et al. 2021), untrained.

    The defaults are its CIFAR-10 network of 106.6 M parameters, which DiffPure purifies with. It
    was trained in continuous time, in [0, 1], and is told 999 times that. Step t of the linear
    schedule is given as ``t - 1``, which the published ancestral sampler does, too: at t = 100 the
    network takes the noise for 0.5 % smaller than it is, at t = 10 for 5 %.

    Args:
        channels: image channels C.
        image_size: height and width of the images.
        block_out_channels: width of each resolution level, the finest first.
        attention_levels: levels with attention, 0 is the finest: on the way down after every
            residual block, on the way up after the last; the bottom always has one between.
        layers_per_block: residual blocks per level, besides the one that changes the resolution.
        seed: as in :func:`~lit_purify.diffusion.ddpm_unet`; the defaults take 0.4 GB of memory.

    Raises:
        InputError: sizes of which no network can be made.

    Example:
        >>> denoiser = score_sde_unet(block_out_channels=(8, 16), layers_per_block=1)
        >>> denoiser(torch.zeros(2, 3, 32, 32), 10).shape
        torch.Size([2, 3, 32, 32])
    """
    check_sizes(
        block_out_channels,
        channels=channels,
        image_size=image_size,
        layers_per_block=layers_per_block,
    )
    levels = range(len(block_out_channels))
    network = partial(
        ScoreSDEUNet,
        channels,
        block_out_channels,
        chosen_levels("attention_levels", attention_levels, levels),
        layers_per_block,
    )
    shape = (channels, image_size, image_size)
    return untrained("Score-SDE DDPM++", seed, network, image_shape=shape)


class ScoreSDEUNet(nn.Module):
    """The network itself: images (B, C, H, W), [-1, 1] scale, and labels (B,) to the noise.

    Args:
        channels: image channels C.
        widths: of each resolution level, the finest first.
        attention: whether a level has attention.
        blocks: residual blocks per level.
        first_width: of the first convolution, and of the label's sinusoids; ``None`` is that of the
            finest level.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        attention: Sequence[bool],
        blocks: int,
        *,
        first_width: int | None = None,
    ) -> None:
        super().__init__()
        self.config = {"in_channels": channels, "block_out_channels": tuple(widths)}
        width = widths[0] if first_width is None else first_width
        block = partial(_ResidualBlock, label_width=4 * width)
        self.label_in = nn.Linear(width, 4 * width)
        self.label_out = nn.Linear(4 * width, 4 * width)
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)

        self.encoder = nn.ModuleList()
        skips, last = [width], len(widths) - 1
        for level, wider in enumerate(widths):
            for _ in range(blocks):
                self.encoder.append(block(width, wider, attention=attention[level]))
                skips.append(width := wider)
            if level < last:
                self.encoder.append(block(width, width, resample="down"))
                skips.append(width)
        self.middle = nn.ModuleList([block(width, width, attention=True), block(width, width)])
        self.decoder = nn.ModuleList()
        for level, narrower in reversed(list(enumerate(widths))):
            for index in range(blocks + 1):
                has = attention[level] and index == blocks
                self.decoder.append(block(width + skips.pop(), narrower, attention=has))
                width = narrower
            if level:
                self.decoder.append(block(width, width, resample="up"))

        self.norm_out = _group_norm(width)
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor, *given: Tensor) -> Tensor:
        label = F.silu(self.label_out(F.silu(self.label_in(self.embed(labels, *given)))))
        h = self.conv_in(x)
        skips = [h]
        for block in self.encoder:
            h = block(h, label)
            skips.append(h)
        for block in self.middle:
            h = block(h, label)
        for block in self.decoder:
            if block.resample is None:
                h = torch.cat([h, skips.pop()], 1)
            h = block(h, label)
        prediction: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return prediction

    def embed(self, labels: Tensor) -> Tensor:
        """What the layers of the label are given, shape (B, width)."""
        weight = self.label_in.weight
        dtype = torch.promote_types(weight.dtype, torch.float)
        return _sinusoids(labels, weight.shape[1], dtype).to(weight.dtype)

    def named_blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """Residual blocks and attentions with their names, in the order of their use."""
        for name, module in self.named_modules():
            if isinstance(module, (_ResidualBlock, _Attention)):
                yield name, module


class _ResidualBlock(nn.Module):
    """A residual block, and the attention behind it where it has one."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        label_width: int,
        resample: Resample | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = _group_norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.label = nn.Linear(label_width, width)
        self.norm2 = _group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        changes = width != width_in or resample is not None
        self.shortcut = nn.Conv2d(width_in, width, 1) if changes else None
        self.attention = _Attention(width) if attention else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.resample == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        elif self.resample == "up":
            x, h = F.interpolate(x, scale_factor=2.0), F.interpolate(h, scale_factor=2.0)
        h = self.conv1(h) + self.label(label)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        y: Tensor = ((x if self.shortcut is None else self.shortcut(x)) + h) / math.sqrt(2)
        return y if self.attention is None else self.attention(y)


class _Attention(nn.Module):
    """Attention of every pixel to all, with a single head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _group_norm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        parts = (layer(rows)[:, None] for layer in (self.query, self.key, self.value))
        mixed = self.out(F.scaled_dot_product_attention(*parts)[:, 0])
        y: Tensor = (x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])) / math.sqrt(2)
        return y


def _group_norm(width: int) -> nn.GroupNorm:
    """Of 32 groups, but of four channels each where there are fewer than 128."""
    groups = max(min(width // 4, 32), 1)
    if width % 4 or width % groups:
        raise InputError(
            f"a layer has {width} channels; expected widths of the levels (block_out_channels) "
            "that are multiples of 4 and, from 64 on, of 32"
        )
    return nn.GroupNorm(groups, width, eps=1e-6)


def _sinusoids(labels: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sines, then cosines, of labels at frequencies from 1 to 1/10000, shape (B, width)."""
    half = width // 2
    exponents = torch.arange(half, device=labels.device, dtype=dtype) / (half - 1)
    angles = labels.to(dtype)[:, None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], 1)
