"""The numbers of a run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lit_purify.report.numbers import percent
from lit_purify.types import NOTED, OTHER


def summary_table(summary: Mapping[str, Any]) -> Table:
    """A table of the metrics of a summary, in human words.

    Args:
        summary: as in ``summary.json``; its ``metrics`` may be any subset. Section, label and unit
            of a metric come from its ``labels``; one that they lack is shown by its name.

    Returns:
        A rich table with the columns measurement, result, 95 % interval and n. Shares are in
        percent. What an attack noted of no sample is left out.
    """
    metrics: Mapping[str, Mapping[str, Any]] = summary["metrics"]
    labels: Mapping[str, Mapping[str, str]] = summary.get("labels", {})
    table = Table(highlight=False)
    table.add_column("Measurement", ratio=1)
    table.add_column("Result", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    sections: dict[str, list[str]] = {}
    for name, entry in metrics.items():
        section = labels.get(name, {}).get("section", OTHER)
        if entry.get("value") or section != NOTED:
            sections.setdefault(section, []).append(name)
    for section, names in sections.items():
        table.add_section()
        table.add_row(Text(section, style="bold"))
        for name in names:
            shown = labels.get(name, {})
            cells = _cells(metrics[name], shown.get("unit", ""))
            label = Padding(Text(shown.get("label", name)), (0, 0, 0, 2))
            table.add_row(label, *map(Text, cells))
    return table


def _cells(entry: Mapping[str, Any], unit: str) -> tuple[str, str, str]:
    value, low, high, n = (entry.get(key) for key in ("value", "low", "high", "n"))
    result = interval = "-"
    if value is not None:
        result = f"{_number(value, unit)} {unit}".rstrip()
        if low is not None and high is not None:
            interval = f"{_number(low, unit)} to {_number(high, unit)}"
    return result, interval, "-" if n is None else str(n)


def _number(value: float, unit: str) -> str:
    return percent(value) if unit == "%" else f"{value:#.3g}".rstrip(".")
