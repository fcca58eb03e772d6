r"""Projection of perturbed images into a ball around the clean ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def project(perturbed: Tensor, clean: Tensor, eps: float, p: float = math.inf) -> Tensor:
    r"""Images with :math:`\|x - x_0\|_p \le \epsilon` inside [0, 1].

    For p = inf the nearest ones; for p = 1 and 2 a perturbation that is too long keeps its
    direction.

    Args:
        perturbed: shape (B, ...), floating point.
        clean: images in [0, 1] of the same shape.
        eps: radius of the ball, in the units of the pixels.
        p: 1, 2 or ``math.inf``.

    Returns:
        Images of the same shape.

    Example:
        >>> clean = torch.full((1, 4), 0.5)
        >>> project(clean + 0.4, clean, 0.1)
        tensor([[0.6000, 0.6000, 0.6000, 0.6000]])
        >>> project(clean + 0.4, clean, 0.4, p=2)
        tensor([[0.7000, 0.7000, 0.7000, 0.7000]])
    """
    delta = perturbed - clean
    if p == math.inf:
        return (clean + delta.clamp(-eps, eps)).clamp(0, 1)
    length = torch.linalg.vector_norm(delta.flatten(1), ord=p, dim=1)
    scale = (eps / length.clamp(min=torch.finfo(length.dtype).tiny)).clamp(max=1)
    return (clean + delta * scale.view(-1, *[1] * (delta.ndim - 1))).clamp(0, 1)
