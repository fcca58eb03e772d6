"""The accuracy that a law gives the mean of what was measured."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lit_purify.functional import SigmoidFit, normal_interval
from lit_purify.metrics.base import Statistics
from lit_purify.metrics.mean import MeanWithDeviation


class LawOfMean(MeanWithDeviation):
    """A fitted law at the mean compression rate of the samples.

    The interval runs from the lower band of the curve at the upper end of the mean rate's interval
    to the upper band at the lower end. It says how well curve and rate are known, not how far a
    defence may be from the curve.

    Args:
        law: the curve, compression rate -> accuracy.
        **kwargs: options of :class:`torchmetrics.Metric`.

    Example:
        >>> from lit_purify.functional import fit_sigmoid
        >>> metric = LawOfMean(fit_sigmoid([0.0, 0.1, 0.2, 0.3], [0.98, 0.8, 0.2, 0.02]))
        >>> metric.update(torch.tensor([0.1, 0.2]))
        >>> f"{metric.compute():.2f}"
        '0.50'
    """

    def __init__(self, law: SigmoidFit, **kwargs: Any) -> None:
        super().__init__(unit="%", **kwargs)
        self.law = law

    def compute(self) -> Tensor:
        """The law at the mean as a scalar; nan without values."""
        return torch.tensor(self.law(super().compute().item()), dtype=torch.float32)

    def summary(self) -> Statistics:
        count, mean, deviation = self.moments.tolist()
        n, value, low, high = int(count), None, None, None
        if n:
            value = float(self.law(mean))
        if n > 1:
            nearest, farthest = normal_interval(mean, math.sqrt(deviation / (n - 1)), n)
            low = max(0.0, float(self.law.band(farthest)[0]))
            high = min(1.0, float(self.law.band(nearest)[1]))
        return {"value": value, "low": low, "high": high, "n": n, "missing": int(self.missing)}
