"""Filters that take a mean of the surroundings of every pixel, with weights of its own."""

from __future__ import annotations

import math

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

    Returns:
        Images of the same shape, within the range of the given ones, differentiable in both.

    Example:
        >>> import torch
        >>> image = torch.eye(3).view(1, 1, 3, 3)
        >>> bilateral(image, torch.zeros(1, 9, 3, 3), float("inf"))[0, 0, 1]
        tensor([0.3333, 0.3333, 0.3333])
    """
    k = math.isqrt(logits.shape[1])
    height, width = images.shape[-2:]
    padded = F.pad(images, (k // 2,) * 4, mode="reflect")
    around = F.unfold(padded, k).view(*images.shape[:2], k * k, height, width)
    apart = (around - images.unsqueeze(2)).square().sum(1)
    weights = (logits - apart / (2 * colour_sigma**2)).softmax(1)
    return (around * weights.unsqueeze(1)).sum(2)
