"""How purified images vary with the input and with the noise: all figures of Fig. 2d-f at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor

from lit_purify.functional.centroids import CentroidDistances, centroid_distances
from lit_purify.functional.directions import (
    DirectionAgreement,
    DirectionSums,
    add_directions,
    direction_agreement,
)
from lit_purify.functional.variance import (
    CrossedMoments,
    VarianceComponents,
    add_draw,
    variance_components,
)


class Variability(NamedTuple):
    """What purified images depend on, each part in figures of shape (B,).

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
