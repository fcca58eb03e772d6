r"""Lengths of perturbations: :math:`\|a - b\|_p` over all pixels and channels of an image.

From it the distances along a purification, the compression rate of a purifier (eq. 10), and the
ball in which an attack searches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def lp_distance(a: Tensor, b: Tensor, p: float = 2) -> Tensor:
    """Distance of each image to its partner, l1, l2 or l_inf (Fig. 1c, Tables 1, S2-S4).

    Args:
        a: images, shape (B, ...), floating point. Any range; the paper's values are for [0, 1].
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

    Raises:
        ValueError: another p, or for p = 1 and 2 shapes that differ.

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
    length = lp_distance(perturbed, clean, p)
    scale = (eps / length.clamp(min=torch.finfo(length.dtype).tiny)).clamp(max=1)
    return (clean + delta * scale.view(-1, *[1] * (delta.ndim - 1))).clamp(0, 1)


def compression_rate(
    purified_perturbed: Tensor, purified_clean: Tensor, perturbed: Tensor, clean: Tensor
) -> Tensor:
    r"""By how much a purifier changes the length of a perturbation (eq. 10), l2 over all pixels,

    .. math:: \alpha_{f_\xi}(x, x_0) = \frac{\|f_\xi(x) - f_\xi(x_0)\|_2}{\|x - x_0\|_2},

    with :math:`x_0` the clean image and :math:`x` the perturbed one (the paper's text swaps the
    two; the rate is symmetric, its limit :math:`\|J_{f_\xi}(x_0) \eta\|` is not).

    Below 1 the purifier compresses. Both purifications must use the same noise, or the rate
    measures the noise.

    Args:
        purified_perturbed: f_xi(x), shape (B, C, H, W).
        purified_clean: f_xi(x0), the anchor points, same shape.
        perturbed: x in [0, 1], shape (B, C, H, W).
        clean: x0 in [0, 1], same shape.

    Returns:
        Rates, at least 0, shape (B,). A sample without perturbation has no rate: nan.

    Raises:
        ValueError: the shapes of a pair differ.

    Example:
        >>> clean = torch.zeros(2, 3, 4, 4)
        >>> compression_rate(clean + 0.01, clean, clean + 0.04, clean)
        tensor([0.2500, 0.2500])
    """
    after = lp_distance(purified_perturbed, purified_clean)
    before = lp_distance(perturbed, clean)
    return torch.where(before > 0, after / before, torch.nan)


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
