"""Many runs side by side: a table for the terminal and the same numbers as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lit_purify.records.runs import FinishedRun, short_names
from lit_purify.report.numbers import percent
from lit_purify.report.terminal import plain_table

COLUMNS = {
    "purified/clean_accuracy": "clean\n%",
    "fixed/robust_accuracy": "fixed\n%",
    "transfer/robust_accuracy": "transfer\n%",
    "fresh/robust_accuracy": "fresh\n%",
}
"""Accuracies that every table has, and their headings."""

OPTIONAL = {
    "blind/robust_accuracy": "blind\n%",
    "magnitude/l2": "attack's\nl2",
    "magnitude/linf": "attack's\nl_inf",
}
"""Metrics that a table has where a run has them."""

_MORE = (
    *("base/clean_accuracy", "base/robust_accuracy", "fixed/robust_accuracy_any_iteration"),
    *("attack/compression_rate", "magnitude/l2_robust", "magnitude/l2_nonrobust"),
)
_SETTINGS = (
    *("t_star", "sampler", "forward_process", "num_steps", "seed", "images"),
    *("attack", "eps", "steps", "uniform_eps"),
)
_PARTS = ("value", "low", "high", "std", "n")


def runs_table(
    runs: Sequence[FinishedRun], key: str, accuracy: str = "fixed/robust_accuracy"
) -> Table:
    """A row for every run: how it purified and what became of it.

    Args:
        runs: finished runs.
        key: the metric in the place of the compression rate, such as ``uniform/compression_rate``.
        accuracy: the metric for the robust accuracy; it has a column, whatever it is.

    Returns:
        A rich table. Below each value stands its 95 % interval; accuracies are in percent.
    """
    columns = _columns(runs, key, accuracy)
    table = plain_table()
    table.add_column("run", overflow="fold", min_width=9, max_width=24)
    table.add_column("t*\nsteps", justify="right", no_wrap=True)
    table.add_column("sampler\nforward", no_wrap=True)
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, run in zip(short_names(runs), runs, strict=True):
        table.add_row(
            Text(name),
            "\n".join(_setting(run, setting) for setting in ("t_star", "num_steps")),
            _purification(run),
            *(_cell(run, metric) for metric in columns),
        )
    return table


def _columns(runs: Sequence[FinishedRun], key: str, accuracy: str) -> dict[str, str]:
    """The metrics of a table, with their headings."""
    what, _, measure = key.partition("/")
    heading = f"{what}\n{measure.removeprefix('compression_').replace('_', ' ')}"
    headings = {key: heading} | COLUMNS
    if accuracy not in COLUMNS:
        share, _, condition = accuracy.partition("|")
        what, _, measure = share.partition("/")
        if condition:
            what += f" of {condition.partition('/')[0]}"
        words = measure.removeprefix("robust_accuracy").replace("_", " ").strip()
        headings[accuracy] = f"{what}\n{words} %"
    for name, heading in OPTIONAL.items():
        if any(run.estimate(name) is not None for run in runs):
            headings.setdefault(name, heading)
    return headings


def _purification(run: FinishedRun) -> str:
    """Sampler and forward process, and what else it is than a single chain, such as guided."""
    if run.settings.get("sampler") is None:
        return run.method
    lines = [_setting(run, "sampler").removesuffix("Sampler"), _setting(run, "forward_process")]
    if (purifier := run.settings.get("purifier", "DiffusionPurifier")) != "DiffusionPurifier":
        lines.append(purifier)
    if "averaged" in run.settings.get("purifier_options", {}):
        lines.append("averaged")
    return "\n".join(lines)


def _setting(run: FinishedRun, name: str) -> str:
    return str(run.settings.get(name, "-"))


def _cell(run: FinishedRun, name: str) -> str:
    estimate = run.estimate(name)
    if estimate is None:
        return "-"
    value, low, high = (
        percent(number) if run.is_share(name) else f"{number:.3g}" for number in estimate
    )
    return f"{value}\n{low}–{high}"


def runs_csv(runs: Sequence[FinishedRun], key: str, names: Sequence[str] | None = None) -> str:
    """The runs as CSV: settings, then value, low, high, std and n of every metric.

    Runs have their ``names``, or those of their folders. Accuracies are shares in [0, 1]; what a
    run does not have is empty.
    """
    metrics = list(dict.fromkeys([key, *COLUMNS, *_MORE, *OPTIONAL]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [
        f"{name}{'' if part == 'value' else '_' + part}" for name in metrics for part in _PARTS
    ]
    writer.writerow(["run", "method", "version", *_SETTINGS, *columns])
    for run, its_name in zip(runs, names or [str(run.folder) for run in runs], strict=True):
        entries = [run.metrics.get(name, {}) for name in metrics]
        writer.writerow(
            [
                *(its_name, run.method, run.version),
                *(run.setting(name) for name in _SETTINGS),
                *(entry.get(part) for entry in entries for part in _PARTS),
            ]
        )
    return text.getvalue()
