"""Fréchet distance between the features of images and of what became of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_purify.functional import feature_moments, frechet_distance, merge_feature_moments
from lit_purify.metrics.base import Statistics, SummaryMetric


class FrechetDistance(SummaryMetric):
    """Fréchet distance between two sets of features, the FID if they are Inception's (Table 1).

    It is a number of the whole data set and no mean over samples, so it has no standard deviation
    and no interval. The state is count, mean and scatter of both sets in float64, merged exactly
    across batches and ranks (:func:`~lit_purify.functional.merge_feature_moments`).

    A sample with a feature that is not finite is left out of both sets and counted.

    It is computed from the column of its own name in the records, (N, 2, D).

    Args:
        dimension: number of features D.
        **kwargs: options of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = FrechetDistance(1)
        >>> x = torch.tensor([[0.0], [2.0], [4.0]])
        >>> metric.update(torch.stack([x, x + 3], 1))
        >>> metric.compute()
        tensor(9.)
    """

    higher_is_better = False

    moments: Tensor
    missing: Tensor

    def __init__(self, dimension: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dimension = dimension
        size = dimension + 1
        self.add_state(
            "moments",
            torch.zeros(2, size, size, dtype=torch.float64),
            dist_reduce_fx=merge_feature_moments,
        )
        self.add_state("missing", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Add samples.

        Args:
            features: of each sample in the first set and in the second, shape (B, 2, D).

        Raises:
            ValueError: another shape.
        """
        if features.ndim != 3 or features.shape[1:] != (2, self.dimension):
            raise ValueError(
                f"expected features of shape (B, 2, {self.dimension}), got {(*features.shape,)}"
            )
        finite = features.isfinite().all(-1).all(-1)
        piece = torch.stack([feature_moments(part) for part in features[finite].unbind(1)])
        self.moments = merge_feature_moments(torch.stack([self.moments, piece]))
        self.missing += (~finite).sum()

    def compute(self) -> Tensor:
        """The distance as a scalar; nan with fewer than two samples."""
        return frechet_distance(*self.moments).float()

    def summary(self) -> Statistics:
        n = int(self.moments[0, 0, 0])
        distance = float(frechet_distance(*self.moments))
        return {
            "value": distance if n > 1 else None,
            "n": n,
            "missing": int(self.missing),
            "dimension": self.dimension,
        }
