"""From the records of a run to its metrics."""

from __future__ import annotations

from collections.abc import Mapping

from lit_purify.metrics import Statistics, SummaryMetric
from lit_purify.records.table import SampleTable


def reduce(table: SampleTable, metrics: Mapping[str, SummaryMetric]) -> dict[str, Statistics]:
    """Feed every metric with the column of its name, once and in the table's order.

    What a metric had counted before is forgotten. A metric whose column is missing knows nothing.

    Args:
        table: what was recorded.
        metrics: by the name of their column, which may hold a number per sample or, for metrics of
            the whole data set such as a Fréchet distance, a tensor.

    Returns:
        Metric name -> its statistics, in the order given.
    """
    statistics = {}
    for name, metric in metrics.items():
        metric.reset()
        if name in table:
            metric.update(table[name].to(metric.device))
        statistics[name] = metric.summary()
    return statistics
