"""torchmetrics classes that keep state; their formulas are in :mod:`lit_purify.functional`."""

from lit_purify.metrics.accuracy import IntervalAccuracy
from lit_purify.metrics.base import Statistics, SummaryMetric
from lit_purify.metrics.mean import MeanWithDeviation

__all__ = ["IntervalAccuracy", "MeanWithDeviation", "Statistics", "SummaryMetric"]
