"""Mean of per-sample values with its spread and interval."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lit_purify.functional import merge_moments, moments, normal_interval
from lit_purify.metrics.base import Statistics, SummaryMetric


class MeanWithDeviation(SummaryMetric):
    """Mean over samples, sample standard deviation (n - 1) and 95 % normal interval of the mean.

    The state is (count, mean, summed squared deviation) in float64. It is merged with
    :func:`~lit_purify.functional.merge_moments` across batches and ranks, which weighs each by its
    samples like a sum, and, unlike sums of values and squares, loses no digits to cancellation.

    Values that are not finite (the compression rate of no perturbation, say) are left out and
    counted.

    Args:
        unit: see :class:`~lit_purify.metrics.SummaryMetric`; ``%`` where the values are shares.
        **kwargs: options of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = MeanWithDeviation()
        >>> metric.update(torch.tensor([1.0, 3.0, float("nan")]))
        >>> metric.compute()
        tensor(2.)
        >>> metric.summary()["n"], metric.summary()["missing"]
        (2, 1)
    """

    moments: Tensor
    missing: Tensor

    def __init__(self, *, unit: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unit = unit
        self.add_state("moments", torch.zeros(3, dtype=torch.float64), dist_reduce_fx=merge_moments)
        self.add_state("missing", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add per-sample values, shape (B,), nan where a sample has none."""
        missing = ~values.isfinite()
        self.moments = merge_moments(torch.stack([self.moments, moments(values[~missing])]))
        self.missing += missing.sum()

    def compute(self) -> Tensor:
        """The mean as a scalar; nan without values."""
        count, mean, _ = self.moments
        return torch.where(count > 0, mean, torch.nan).float()

    def summary(self) -> Statistics:
        count, mean, deviation = self.moments.tolist()
        n, missing = int(count), int(self.missing)
        std = low = high = None
        if n > 1:
            std = math.sqrt(deviation / (n - 1))
            low, high = normal_interval(mean, std, n)
            if self.unit == "%":  # shares are in [0, 1]
                low, high = max(low, 0.0), min(high, 1.0)
        return {
            "value": mean if n else None,
            "low": low,
            "high": high,
            "std": std,
            "n": n,
            "missing": missing,
        }
