"""Accuracy with its Wilson interval."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_purify.functional import wilson_interval
from lit_purify.metrics.base import Statistics, SummaryMetric


class IntervalAccuracy(SummaryMetric):
    """Share of correct samples, with its 95 % Wilson interval.

    The states are integer sums, so uneven ranks and batches give the exact share.

    Args:
        **kwargs: options of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = IntervalAccuracy()
        >>> metric.update(torch.tensor([True, True, True, False]))
        >>> metric.compute()
        tensor(0.7500)
        >>> metric.summary()["n"]
        4
    """

    higher_is_better = True

    successes: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zero = torch.zeros((), dtype=torch.int64)
        self.add_state("successes", zero, dist_reduce_fx="sum")
        self.add_state("total", zero.clone(), dist_reduce_fx="sum")

    def update(self, correct: Tensor) -> None:
        """Add samples.

        Args:
            correct: booleans, shape (B,).

        Raises:
            TypeError: not booleans; logits or labels were passed by mistake.
        """
        if correct.dtype != torch.bool:
            raise TypeError(
                f"IntervalAccuracy counts booleans, got {correct.dtype}; "
                "use lit_purify.functional.correct(logits, labels)"
            )
        self.successes += correct.sum()
        self.total += correct.numel()

    def compute(self) -> Tensor:
        """The accuracy in [0, 1] as a scalar; nan without samples."""
        return self.successes / self.total

    def summary(self) -> Statistics:
        successes, n = int(self.successes), int(self.total)
        low, high = wilson_interval(successes, n)
        return {"value": successes / n if n else None, "low": low, "high": high, "n": n}
