r"""Distances between images, :math:`\|a - b\|_p` over all pixels and channels."""

from __future__ import annotations

import math
from collections.abc import Iterable

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


def trajectory_distances(states: Iterable[Tensor], clean: Tensor) -> Tensor:
    """l2 and l_inf distance to the clean image at every state of a purification (Fig. 1c, S1-S3).

    The states may come from a generator: one at a time is held.

    Args:
        states: images on the [0, 1] scale, neither clipped nor rescaled, shape (B, C, H, W) each.
        clean: x0 in [0, 1], same shape.

    Returns:
        Distances in units of the pixels, shape (B, 2, S): l2, then l_inf.

    Raises:
        ValueError: no states, or one of another shape.

    Example:
        >>> clean = torch.zeros(1, 3, 2, 2)
        >>> trajectory_distances([clean + 0.5, clean + 1], clean)
        tensor([[[1.7321, 3.4641],
                 [0.5000, 1.0000]]])
    """
    found = [
        torch.stack([lp_distance(state, clean, p) for p in (2, math.inf)], 1) for state in states
    ]
    if not found:
        raise ValueError("expected one or more states, got none")
    return torch.stack(found, 2)


def init_max_end(distances: Tensor) -> dict[str, Tensor]:
    """The three numbers of a trajectory that the paper tabulates (Tables S2-S4).

    Args:
        distances: at every state, the input's first and the output's last, shape (..., S).

    Returns:
        ``init``, ``max`` (over all states) and ``end``, shape (...) each.

    Example:
        >>> init_max_end(torch.tensor([1.0, 9.0, 3.6]))
        {'init': tensor(1.), 'max': tensor(9.), 'end': tensor(3.6000)}
    """
    return {"init": distances[..., 0], "max": distances.amax(-1), "end": distances[..., -1]}
