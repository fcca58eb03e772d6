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
    table = Table(highlight=False)
    table.add_column("Measurement", ratio=1)
    table.add_column("Result", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for section, rows in summary_rows(summary).items():
        table.add_section()
        table.add_row(Text(section, style="bold"))
        for label, *cells in rows:
            table.add_row(Padding(Text(label), (0, 0, 0, 2)), *map(Text, cells))
    return table


def summary_rows(summary: Mapping[str, Any]) -> dict[str, list[tuple[str, str, str, str]]]:
    """The rows of :func:`summary_table`: section -> label, result, 95 % interval, n of each."""
    metrics: Mapping[str, Mapping[str, Any]] = summary["metrics"]
    labels: Mapping[str, Mapping[str, str]] = summary.get("labels", {})
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    for name, entry in metrics.items():
        shown = labels.get(name, {})
        section = shown.get("section", OTHER)
        if entry.get("value") or section != NOTED:
            row = (shown.get("label", name), *_cells(entry, shown.get("unit", "")))
            sections.setdefault(section, []).append(row)
    return sections


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
