"""Accuracy with its Wilson interval."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_purify.functional import wilson_interval
from lit_purify.metrics.base import Statistics, SummaryMetric


class IntervalAccuracy(SummaryMetric):
    """Share of correct samples, with its 95 % Wilson interval.

    A sample tested N times may count in part, as its share of correct answers. It remains one
    sample: N tests of the same image are not N independent trials, so the interval is that of the
    number of samples.

    The states are sums, so uneven ranks and batches give the exact share.

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
    unit = "%"

    successes: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("successes", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, correct: Tensor) -> None:
        """Add samples.

        Args:
            correct: booleans or shares in [0, 1], shape (B,).

        Raises:
            TypeError: neither; logits or labels were passed by mistake.
        """
        share = correct.dtype.is_floating_point and correct.ndim == 1
        if correct.dtype != torch.bool and not (
            share and bool(((correct >= 0) & (correct <= 1)).all())
        ):
            raise TypeError(
                "IntervalAccuracy counts booleans or shares in [0, 1], got "
                f"{correct.dtype} of shape {(*correct.shape,)}; "
                "use lit_purify.functional.correct(logits, labels)"
            )
        self.successes += correct.double().sum()
        self.total += correct.numel()

    def compute(self) -> Tensor:
        """The accuracy in [0, 1] as a scalar; nan without samples."""
        return (self.successes / self.total).float()

    def summary(self) -> Statistics:
        successes, n = float(self.successes), int(self.total)
        low, high = wilson_interval(successes, n)
        return {"value": successes / n if n else None, "low": low, "high": high, "n": n}
