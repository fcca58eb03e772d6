r"""Low frequencies: the span of the first k x k functions of the discrete cosine transform.

The orthonormal DCT-II has :math:`b_u(i) = c_u \cos[\pi u (i + 1/2) / n]` with
:math:`c_0 = \sqrt{1/n}` and :math:`c_u = \sqrt{2/n}` else. The images of one channel that have
frequencies below k alone on both axes are a linear space, :math:`L_k`, of dimension k squared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDS = 30
"""Rounds of Dykstra's algorithm in a projection."""


def low_pass(images: Tensor, k: int) -> Tensor:
    """The nearest images with frequencies below k alone, on both axes of every channel.

    Args:
        images: shape (B, C, H, W), floating point.
        k: frequencies to keep of each axis, at least 1; an axis of at most k pixels keeps all.

    Returns:
        Images of the same shape and type, computed in float64.

    Example:
        >>> image = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> low_pass(image, 1)  # the mean
        tensor([[[[4., 4.],
                  [4., 4.]]]])
    """
    down, right = (_projector(n, k, images.device) for n in images.shape[-2:])
    return (down @ images.double() @ right).to(images)


def project_low_frequency(
    perturbation: Tensor, low: Tensor, high: Tensor, k: int, *, slack: float
) -> Tensor:
    """Perturbations with frequencies below k alone and between two bounds.

    Dykstra's algorithm (1986) comes close to the nearest ones in a fixed number of rounds. What is
    then left outside the bounds is taken away by shortening the perturbation, until it fits or
    cutting it off leaves at most ``slack`` outside of the frequencies.

    Args:
        perturbation: shape (B, C, H, W), floating point.
        low: lower bounds, at most 0, same shape.
        high: upper bounds, at least 0, same shape.
        k: frequencies to keep of each axis.
        slack: root mean square, over the pixels, of what the bounds cut off.

    Returns:
        Perturbations within the bounds, shape (B, C, H, W), of the type given.

    Example:
        >>> bound = torch.full((1, 1, 2, 2), 0.1)
        >>> project_low_frequency(4 * bound, -bound, bound, 1, slack=1e-3)
        tensor([[[[0.1000, 0.1000],
                  [0.1000, 0.1000]]]])
    """
    lower, upper = low.double(), high.double()
    found, excess = low_pass(perturbation.double(), k), torch.zeros_like(lower)
    for _ in range(ROUNDS):
        within = (found + excess).clamp(lower, upper)
        excess = found + excess - within
        found = low_pass(within, k)
    inside, tiny = found.clamp(lower, upper), torch.finfo(found.dtype).tiny
    fitting = torch.where(found == inside, 1, inside / found).flatten(1).amin(1)
    cutting = slack / rms(found - inside).clamp(min=tiny)
    scale = torch.maximum(fitting, cutting).clamp(max=1).view(-1, 1, 1, 1)
    return (scale * found).clamp(lower, upper).to(perturbation)


def rms(images: Tensor) -> Tensor:
    """Root mean square over the pixels and channels of each image, shape (B,)."""
    return images.flatten(1).square().mean(1).sqrt()


def _projector(n: int, k: int, device: torch.device) -> Tensor:
    """Onto the first k cosines of n pixels, (n, n), float64."""
    if k >= n:
        return torch.eye(n, dtype=torch.float64, device=device)
    place = torch.arange(n, dtype=torch.float64, device=device) + 0.5
    cosines = torch.cos(torch.arange(k, device=device)[:, None] * place * (math.pi / n))
    cosines /= torch.linalg.vector_norm(cosines, dim=1, keepdim=True)
    return cosines.T @ cosines
