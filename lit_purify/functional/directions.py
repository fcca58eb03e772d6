r"""Agreement of the directions in which images are purified (Fig. 2d, e).

The direction of a purification is :math:`d_{mn} = f_{\xi_n}(x_m) - x_m`, minus the *input* and not
the clean image. Two directions agree by their cosine, and n unit vectors :math:`u_k` by the mean
over all pairs of different ones, which needs no pair to be formed:

.. math:: \frac{1}{n (n - 1)} \sum_{k \ne l} u_k \cdot u_l =
   \frac{\|\sum_k u_k\|^2 - \sum_k \|u_k\|^2}{n (n - 1)}.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def mean_cosine(directions: Tensor) -> Tensor:
    """Mean cosine over all pairs of different directions of a sample.

    Args:
        directions: shape (B, n, ...), n at least 2; in any unit.

    Returns:
        In [-1 / (n - 1), 1], shape (B,), float64; nan where a direction has length zero.

    Raises:
        ValueError: fewer than two directions.

    Example:
        >>> mean_cosine(torch.tensor([[[3.0, 0.0], [0.0, 0.1], [2.0, 0.0]]]))
        tensor([0.3333], dtype=torch.float64)
    """
    if directions.ndim < 3 or directions.shape[1] < 2:
        raise ValueError(f"expected 2 or more directions (B, n, ...), got {(*directions.shape,)}")
    units = _units(directions)
    return _mean_over_pairs(units.sum(1), _squares(units).sum(1), units.shape[1])


class DirectionSums(NamedTuple):
    """What is known of B images after some draws, M inputs each, in float64.

    Attributes:
        draws: N, the draws so far.
        units: sum over the draws of each input's unit direction, shape (B, M, ...).
        squares: sum over the draws of its squared length, 1 but for rounding, shape (B, M).
        fixed_noise: sum over the draws of the mean cosine over pairs of inputs, shape (B,).
    """

    draws: int
    units: Tensor
    squares: Tensor
    fixed_noise: Tensor


def add_directions(sums: DirectionSums | None, inputs: Tensor, outputs: Tensor) -> DirectionSums:
    """Take in one more randomness configuration.

    Args:
        sums: what the earlier ones gave, ``None`` for the first.
        inputs: perturbed images x_m, shape (B, M, ...), M at least 2.
        outputs: the same purified, same shape.

    Raises:
        ValueError: the shapes differ, or fewer than two inputs.
    """
    if inputs.shape != outputs.shape:
        raise ValueError(
            f"expected purified inputs of shape {(*inputs.shape,)}, got {(*outputs.shape,)}"
        )
    # In float64 the difference of two float32 images is exact.
    directions = outputs.double() - inputs.double()
    units, cosine = _units(directions), mean_cosine(directions)
    squares = _squares(units)
    if sums is None:
        return DirectionSums(1, units, squares, cosine)
    return DirectionSums(
        sums.draws + 1, sums.units + units, sums.squares + squares, sums.fixed_noise + cosine
    )


class DirectionAgreement(NamedTuple):
    """Mean cosines, each of shape (B,), float64; nan where a purification changed nothing.

    Attributes:
        fixed_noise: over pairs of inputs under one noise, mean over the noises (Fig. 2e).
        fixed_input: over pairs of noises at one input, mean over the inputs (Fig. 2d); nan for a
            single draw.
    """

    fixed_noise: Tensor
    fixed_input: Tensor


def direction_agreement(sums: DirectionSums) -> DirectionAgreement:
    """How well the directions of purification agree, where only one of noise and input varies."""
    fixed_input = torch.full_like(sums.fixed_noise, torch.nan)
    if sums.draws > 1:
        images, inputs = sums.units.shape[:2]
        by_input = _mean_over_pairs(
            sums.units.flatten(0, 1), sums.squares.flatten(), sums.draws
        ).view(images, inputs)
        fixed_input = by_input.mean(1)
    return DirectionAgreement(sums.fixed_noise / sums.draws, fixed_input)


def _units(directions: Tensor) -> Tensor:
    """Directions of length 1, shape (B, n, ...); nan where the length was zero."""
    vectors = directions.double().flatten(2)
    # Scaled first: the squares of very small differences would be 0.
    vectors = vectors / vectors.abs().amax(2, keepdim=True)
    return (vectors / torch.linalg.vector_norm(vectors, dim=2, keepdim=True)).view_as(directions)


def _squares(units: Tensor) -> Tensor:
    """Squared lengths, shape (B, n)."""
    return units.flatten(2).square().sum(2)


def _mean_over_pairs(total: Tensor, squares: Tensor, n: int) -> Tensor:
    """Mean cosine of n unit vectors by their sum, shape (B, ...), and summed squares, (B,)."""
    pairs = (total.flatten(1).square().sum(1) - squares) / (n * (n - 1))
    return pairs.clamp(-1, 1)  # rounding may lead out of the interval
