r"""How purified images vary with the input and with the noise: all values of Fig. 2d-f at once.

For one image, :math:`y_{mn} = f_{\xi_n}(x_m)` are its M perturbed inputs purified under N
randomness configurations. The parts of the variance are in :mod:`lit_purify.functional.variance`.

**Agreement of directions (Fig. 2d, e).** The direction of a purification is :math:`d_{mn} = y_{mn}
- x_m`, minus the *input* and not the clean image. Two directions agree by their cosine, and n unit
vectors :math:`u_k` by the mean over all pairs of different ones, which needs no pair to be formed:

.. math:: \frac{1}{n (n - 1)} \sum_{k \ne l} u_k \cdot u_l =
   \frac{\|\sum_k u_k\|^2 - \sum_k \|u_k\|^2}{n (n - 1)}.

**Distances to centroids (Fig. 2f, Table S6)** are means of l2 distances over all pixels, to the
centroid

- of the inputs: :math:`\|x_m - \bar x\|`;
- of the outputs under one noise, the inputs varying: :math:`\|y_{mn} - \bar y_{\cdot n}\|`
  (the paper's 0.241; Table S6 has the headers of this column and the next one swapped);
- of the outputs of one input, the noise varying: :math:`\|y_{mn} - \bar y_{m\cdot}\|` (3.282);
- of all: :math:`\|y_{mn} - \bar y\|` (3.288).

A centroid is the mean of the points that were drawn, and so lies a little nearer to them than the
centre of what they were drawn from: n points are :math:`\sqrt{1 - 1/n}` times as far from it, root
mean square. (The paper's 1.004 for the inputs is the distance to the clean image,
:math:`\epsilon \sqrt{d / 3} = 1.0039`; to the centroid of 50 it is 0.994.)

A mean of distances, unlike one of squares, cannot be had before the centroid is known. The draws
are therefore gone through after their means are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lit_purify.functional.variance import (
    CrossedMoments,
    VarianceComponents,
    add_draw,
    variance_components,
)


def mean_cosine(directions: Tensor) -> Tensor:
    """Mean cosine over all pairs of different directions of each sample.

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


def centroid_distance(points: Tensor, centroid: Tensor | None = None) -> Tensor:
    """Mean l2 distance of each sample's points to their centroid.

    Args:
        points: shape (B, n, ...), n at least 1.
        centroid: shape (B, ...), or one for each point, (B, n, ...); ``None`` is the points' mean.

    Returns:
        In the units of the points, shape (B,), float64.

    Example:
        >>> centroid_distance(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]))
        tensor([2.5000], dtype=torch.float64)
    """
    points = points.double()
    if centroid is None:
        centroid = points.mean(1)
    if centroid.ndim < points.ndim:
        centroid = centroid.unsqueeze(1)
    return torch.linalg.vector_norm((points - centroid).flatten(2), dim=2).mean(1)


class CentroidDistances(NamedTuple):
    """Mean l2 distances, each of shape (B,), float64, in units of pixels in [0, 1].

    Attributes:
        inputs: the inputs to their centroid.
        fixed_noise: outputs to their centroid under one noise.
        fixed_input: outputs to their centroid for one input.
        both: outputs to the centroid of all.
    """

    inputs: Tensor
    fixed_noise: Tensor
    fixed_input: Tensor
    both: Tensor


def centroid_distances(
    inputs: Tensor, draws: Iterable[Tensor], mean_of_input: Tensor
) -> CentroidDistances:
    """How far inputs and purified images lie from their centroids.

    Args:
        inputs: perturbed images x_m, shape (B, M, ...).
        draws: the inputs purified under each configuration, shape (B, M, ...) each; one is held
            at a time.
        mean_of_input: mean of ``draws`` over the configurations, shape (B, M, ...).

    Raises:
        ValueError: no draw.
    """
    mean = mean_of_input.mean(1)
    sums, count = mean.new_zeros(3, len(inputs)), 0
    for outputs in draws:
        count += 1
        for row, centroid in zip(sums, (None, mean_of_input, mean), strict=True):
            row += centroid_distance(outputs, centroid)
    if not count:
        raise ValueError("expected one or more draws, got none")
    return CentroidDistances(centroid_distance(inputs), *(sums / count))


class Variability(NamedTuple):
    """What purified images depend on, each part in values of shape (B,).

    Attributes:
        variance: parts of the variance, and their ratio (eqs. 7 and 11, Table S5).
        direction: agreement of the directions of purification (Fig. 2d, e).
        centroid: distances to the centroids (Fig. 2f, Table S6).
    """

    variance: VarianceComponents
    direction: DirectionAgreement
    centroid: CentroidDistances


def variability(inputs: Tensor, draws: Iterable[Tensor]) -> Variability:
    """Compare M perturbed inputs of an image, each purified under the same N configurations.

    The draws are gone through twice, since distances to a centroid need the centroid first. One is
    held at a time, and what is kept of them is the size of ``inputs``, however many there are.

    Args:
        inputs: perturbed images x_m, shape (B, M, ...), M at least 2.
        draws: the inputs purified under each configuration, N tensors of that shape, N at least 1;
            the same when they are gone through again: a list, or something that reads a file.

    Returns:
        Figures of each image, float64. What needs two or more draws is nan for a single one.

    Raises:
        ValueError: no draws, shapes that differ, fewer than two inputs, or draws that can be gone
            through only once.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])  # B, M, pixels
        >>> found = variability(x, [x + torch.tensor([2.0, 0.0]), x - torch.tensor([2.0, 0.0])])
        >>> [part.item() for part in found.variance]
        [2.125, 0.125, 2.0, 4.0, 0.0625]
        >>> [part.item() for part in found.direction]
        [1.0, -1.0]
    """
    if isinstance(draws, Iterator):
        raise ValueError(
            "the draws are gone through twice, and a generator can be only once; give a list"
        )
    moments: CrossedMoments | None = None
    sums: DirectionSums | None = None
    for outputs in draws:
        sums = add_directions(sums, inputs, outputs)
        moments = add_draw(moments, outputs)
    if moments is None or sums is None:
        raise ValueError("expected one or more draws, got none")
    return Variability(
        variance_components(moments),
        direction_agreement(sums),
        centroid_distances(inputs, draws, moments.mean_of_input),
    )


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
