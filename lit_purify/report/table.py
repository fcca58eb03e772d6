"""The numbers of a run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from lit_purify.report.labels import is_finding, is_share, sections


def summary_table(summary: Mapping[str, Any]) -> Table:
    """A table of the metrics of a summary, in human words.

    Args:
        summary: as in ``summary.json``; its ``metrics`` may be any subset.

    Returns:
        A rich table with the columns measurement, result, 95 % interval and n. Shares are in
        percent. What an attack noted of no sample is left out. The caption says so when the run is
        not finished.
    """
    metrics: Mapping[str, Mapping[str, Any]] = summary["metrics"]
    shown = [name for name in metrics if metrics[name].get("value") or not is_finding(name)]
    table = Table(title_justify="left", caption_justify="left", highlight=False)
    table.add_column("Measurement", ratio=1)
    table.add_column("Result", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for title, rows in sections(shown).items():
        table.add_section()
        table.add_row(Text(title, style="bold"))
        for name, label in rows.items():
            table.add_row(Text(f"  {label}"), *_cells(name, metrics[name]))
    status = summary.get("status", "unknown")
    if status != "finished":
        table.caption = f"Status: {status}. The numbers cover the samples measured so far."
    return table


def _cells(name: str, entry: Mapping[str, Any]) -> tuple[str, str, str]:
    value, low, high, n = (entry.get(key) for key in ("value", "low", "high", "n"))
    result = "-" if value is None else _number(name, value) + (" %" if is_share(name) else "")
    # Without a sample the interval is all of [0, 1] and says nothing.
    interval = "-"
    if value is not None and low is not None and high is not None:
        interval = f"{_number(name, low)} to {_number(name, high)}"
    return result, interval, "-" if n is None else str(n)


def _number(name: str, value: float) -> str:
    return f"{100 * value:.1f}" if is_share(name) else f"{value:#.3g}".rstrip(".")
