"""From the records to the figures of a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

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


def aggregate(rows: Sequence[Row], metrics: Mapping[str, SummaryMetric]) -> dict[str, Statistics]:
    """The statistics of every figure over all rows.

    Args:
        rows: the records of a run.
        metrics: a metric for every figure; what it has counted before does not matter.
    """
    figures = {}
    for name, metric in metrics.items():
        fresh = deepcopy(metric).cpu()
        fresh.reset()
        fresh.add_recorded(column(rows, name))
        figures[name] = fresh.summary()
    return figures
