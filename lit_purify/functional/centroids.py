r"""Distances of inputs and of purified images to their centroids (Fig. 2f, Table S6).

For one image, :math:`y_{mn} = f_{\xi_n}(x_m)` are its M perturbed inputs purified under N
randomness configurations. The figures are means of l2 distances over all pixels, to the centroid

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

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


def centroid_distance(points: Tensor, centroid: Tensor | None = None) -> Tensor:
    """Mean l2 distance of a sample's points to their centroid.

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
