"""Filters that take a mean of the surroundings of every pixel, with weights of its own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def bilateral(images: Tensor, logits: Tensor, colour_sigma: float) -> Tensor:
    r"""Every pixel becomes a mean of the k x k pixels around it.

    Pixel q weighs :math:`\exp(\ell_{pq} - \|x_p - x_q\|^2 / 2 \sigma^2)` for pixel p, over the sum
    of these: with logits that depend on the distance alone it is the bilateral filter of Tomasi &
    Manduchi (1998), which leaves edges standing. Images are continued by reflection.

    Args:
        images: shape (B, C, H, W), floating point, with H and W above k // 2.
        logits: :math:`\ell`, shape (B, k * k, H, W), k odd, the surroundings row by row.
        colour_sigma: :math:`\sigma` in units of the images; ``inf`` leaves colours out.

    Raises:
        ValueError: the logits are not of an odd k x k, or the images too small for it.

    Returns:
        Images of the same shape, within the range of the given ones, differentiable in both.

    Example:
        >>> image = torch.eye(3).view(1, 1, 3, 3)
        >>> bilateral(image, torch.zeros(1, 9, 3, 3), float("inf"))[0, 0, 1]
        tensor([0.3333, 0.3333, 0.3333])
    """
    k = math.isqrt(logits.shape[1])
    height, width = images.shape[-2:]
    if k % 2 == 0 or k * k != logits.shape[1] or k // 2 >= min(height, width):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} for images of {height} x {width} pixels; "
            "expected an odd k x k of them, with k // 2 below both"
        )
    around = F.unfold(_reflected(images, k // 2), k).view(*images.shape[:2], k * k, height, width)
    apart = (around - images.unsqueeze(2)).square().sum(1)
    weights = (logits - apart / colour_sigma / colour_sigma / 2).softmax(1)
    return (around * weights.unsqueeze(1)).sum(2)


def _reflected(images: Tensor, width: int) -> Tensor:
    """Images with a border by reflection; unlike that of ``pad`` its gradient is deterministic."""
    for axis in (2, 3):
        size = images.shape[axis]
        before = images.narrow(axis, 1, width).flip(axis)
        after = images.narrow(axis, size - 1 - width, width).flip(axis)
        images = torch.cat([before, images, after], axis)
    return images
