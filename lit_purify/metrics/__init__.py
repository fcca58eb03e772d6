"""torchmetrics classes that keep state; their formulas are in :mod:`lit_purify.functional`."""

from lit_purify.metrics.accuracy import IntervalAccuracy
from lit_purify.metrics.base import Statistics, SummaryMetric
from lit_purify.metrics.frechet import FrechetDistance
from lit_purify.metrics.mean import MeanWithDeviation
from lit_purify.metrics.ssim import structural_similarity

__all__ = [
    "FrechetDistance",
    "IntervalAccuracy",
    "MeanWithDeviation",
    "Statistics",
    "SummaryMetric",
    "structural_similarity",
]
