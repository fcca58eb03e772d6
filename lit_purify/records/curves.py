"""Means over samples that belong to a step: an attack's iteration, a place of a chain, n images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from lit_purify.functional import wilson_interval
from lit_purify.records.table import Column
from lit_purify.types import Estimate

_POINTS = 50
"""Most points of a running mean."""


@dataclass(frozen=True)
class MeanCurve:
    """A mean for every step. Curves of the same steps and of different samples add up.

    Attributes:
        steps: whole numbers, one per point.
        total: sums of the values, float64.
        count: how many values, float64.
        share: whether the values are shares in [0, 1], whose mean has a Wilson interval.
    """

    steps: tuple[int, ...]
    total: Tensor
    count: Tensor
    share: bool = False

    def __add__(self, other: MeanCurve) -> MeanCurve:
        return MeanCurve(self.steps, self.total + other.total, self.count + other.count, self.share)

    def points(self) -> Iterator[tuple[int, Estimate]]:
        """Step and mean, with its interval if it has one, wherever there are values."""
        for step, total, n in zip(
            self.steps, self.total.tolist(), self.count.tolist(), strict=True
        ):
            if n:
                value = total / n
                low, high = wilson_interval(total, int(n)) if self.share else (value, value)
                yield step, Estimate(value, low, high)


def mean_curve(values: Tensor, steps: Sequence[int], *, share: bool = False) -> MeanCurve:
    """Means over the samples, without what is not finite.

    Args:
        values: shape (N, S).
        steps: S whole numbers.
        share: as in :class:`MeanCurve`.

    Example:
        >>> import torch
        >>> curve = mean_curve(torch.tensor([[1.0, 2.0], [3.0, torch.nan]]), [1, 2])
        >>> [(step, mean.value) for step, mean in curve.points()]
        [(1, 2.0), (2, 2.0)]
    """
    known = values.isfinite()
    total = values.double().where(known, 0).sum(0)
    return MeanCurve(tuple(steps), total.cpu(), known.sum(0).double().cpu(), share)


def running_mean(column: Column, *, share: bool = False) -> MeanCurve:
    """Mean over the first n samples of a column, for at most 50 n as far apart as can be.

    Args:
        column: numbers, shape (N,); what is not finite or does not apply is left out.
        share: as in :class:`MeanCurve`.

    Example:
        >>> import torch
        >>> curve = running_mean(Column(torch.tensor([1.0, 2.0, 6.0])))
        >>> [(step, mean.value) for step, mean in curve.points()]
        [(1, 1.0), (2, 1.5), (3, 3.0)]
    """
    size = len(column.values)
    steps = sorted({math.ceil(size * part / _POINTS) for part in range(1, _POINTS + 1)} - {0})
    known = column.applies & column.values.isfinite()
    total = column.values.double().where(known, 0).cumsum(0).cpu()
    last = [step - 1 for step in steps]
    return MeanCurve(tuple(steps), total[last], known.cumsum(0).double().cpu()[last], share)
