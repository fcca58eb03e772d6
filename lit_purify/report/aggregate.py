"""From the records to the figures of a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor

from lit_purify.metrics import Statistics, SummaryMetric
from lit_purify.report.journal import Row


def column(rows: Sequence[Row], name: str) -> list[Any]:
    """What the rows hold under a name ``<protocol>/<column>``; ``None`` is nan.

    Example:
        >>> column([{"index": 0, "protocol": "fixed", "seed": 0, "ok": True}], "fixed/ok")
        [True]
    """
    protocol, _, key = name.partition("/")
    return [row[key] for row in rows if row["protocol"] == protocol and key in row]


def aggregate(
    rows: Sequence[Row],
    metrics: Mapping[str, SummaryMetric],
    tensors: Mapping[str, Tensor] | None = None,
) -> dict[str, Statistics]:
    """The statistics of every figure over all records.

    A figure is computed from the column of its name or, where a tensor of its name was recorded,
    from that: figures of the whole data set that no number a sample can give, such as a Fréchet
    distance, need it.

    Args:
        rows: the records of a run.
        metrics: a metric for every figure; what it has counted before does not matter.
        tensors: what is stored beside the rows, (N, ...) each.
    """
    figures = {}
    for name, metric in metrics.items():
        fresh = deepcopy(metric).cpu()
        fresh.reset()
        fresh.add_recorded(column(rows, name))
        add_tensors({name: fresh}, tensors or {})
        figures[name] = fresh.summary()
    return figures


def add_tensors(metrics: Mapping[str, SummaryMetric], tensors: Mapping[str, Tensor]) -> None:
    """Add what is stored beside the rows to the metrics that are computed from it."""
    for name in metrics.keys() & tensors.keys():
        metrics[name].update(tensors[name].to(metrics[name].device))
