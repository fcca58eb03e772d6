r"""Distances between images, :math:`\|a - b\|_p` over all pixels and channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lp_distance(a: Tensor, b: Tensor, p: float = 2) -> Tensor:
    """Distance of each image to its partner, l1, l2 or l_inf (Fig. 1c, Tables 1, S2-S4).

    Args:
        a: images, shape (B, ...), floating point. Any range; the paper's figures are for [0, 1].
        b: images of the same shape.
        p: 1, 2 or ``math.inf``.

    Returns:
        Distances in the units of the pixels, shape (B,).

    Raises:
        ValueError: the shapes differ (nothing is broadcast), or another p.

    Example:
        >>> a = torch.zeros(1, 3, 2, 2)
        >>> lp_distance(a, a + 0.5, 2)
        tensor([1.7321])
        >>> lp_distance(a, a + 0.5, math.inf)
        tensor([0.5000])
    """
    if p not in (1, 2, math.inf):
        raise ValueError(f"p must be 1, 2 or inf, got {p}")
    if a.shape != b.shape:
        raise ValueError(f"expected two batches of one shape, got {(*a.shape,)} and {(*b.shape,)}")
    return torch.linalg.vector_norm((a - b).flatten(1), ord=p, dim=1)
