"""What runs say of themselves, as rows that a page shows: numbers, settings, versions, doubts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_purify.records.header import read_header
from lit_purify.records.runs import FinishedRun, in_255ths
from lit_purify.records.summary import read_summary
from lit_purify.report.conclusion import conclusion
from lit_purify.report.numbers import percent
from lit_purify.report.table import summary_rows


class Column(NamedTuple):
    """A column of the table of runs.

    Attributes:
        metric: what it shows.
        group: what stands above the headings of several columns.
        heading: its own.
        span: how many columns the group has; 0 but for its first.
    """

    metric: str
    group: str
    heading: str
    span: int = 0


COLUMNS = (
    Column("base/clean_accuracy", "classifier alone, %", "clean"),
    Column("base/robust_accuracy", "classifier alone, %", "attacked"),
    Column("purified/clean_accuracy", "purified, %", "clean"),
    Column("blind/robust_accuracy", "purified, %", "blind"),
    Column("fixed/robust_accuracy", "purified, %", "fixed"),
    Column("fixed/robust_accuracy_any_iteration", "purified, %", "fixed, at any iteration"),
    Column("transfer/robust_accuracy", "purified, %", "transfer"),
    Column("fresh/robust_accuracy", "purified, %", "fresh"),
    Column("uniform/compression_rate", "compression rate", "uniform"),
    Column("attack/compression_rate", "compression rate", "attack"),
)
"""In their order; those that no run has are left out."""

_SESSION = (
    *("started", "device", "processes", "batch_size", "busy_seconds"),
    "attack_seconds_per_image",
)


class Cell(NamedTuple):
    """A number with its interval, both as they are shown."""

    value: str
    interval: str


class RunFacts(NamedTuple):
    """One run.

    Attributes:
        name: what tells it apart from the others.
        method: how it purifies.
        conclusion: its result in a sentence or two; ``None`` where the numbers allow none.
        cells: for the table of runs, by metric.
        sections: every number, as in the table that a run prints.
        settings: what is set, by name.
        versions: of the software.
        sessions: when and on what it ran, one row for each.
        identity: hash of everything that decides its numbers; ``None`` where it has no records.
        flags: what looks wrong; ``None`` where the run did not look.
        nonfinite: what was counted -> in how many images a number was not finite, and of how many.
        class_names: may be empty.
        tensors: where its images are.
    """

    name: str
    method: str
    conclusion: str | None
    cells: dict[str, Cell]
    sections: dict[str, list[tuple[str, str, str, str]]]
    settings: dict[str, str]
    versions: dict[str, str]
    sessions: list[dict[str, str]]
    identity: str | None
    flags: list[str] | None
    nonfinite: dict[str, tuple[int, int]]
    class_names: list[str]
    tensors: Path


def run_facts(run: FinishedRun, name: str) -> RunFacts:
    """Everything that a page says about a run.

    Args:
        run: a finished run, whose folder is there.
        name: what it is called.

    Raises:
        InputError: its records are damaged.
    """
    summary = read_summary(run.folder / "summary.json")
    records = run.folder / "records"
    header = read_header(records)
    return RunFacts(
        name,
        run.method,
        conclusion(summary),
        {name: cell for name, *_ in COLUMNS if (cell := _cell(run, name))},
        summary_rows(summary),
        dict(_flat(summary["settings"])),
        summary["versions"],
        [
            {key: _shown(key, session[key]) for key in _SESSION if key in session}
            for session in (header["sessions"] if header else [])
        ],
        header and header["run"],
        summary.get("flags"),
        dict(_nonfinite(run)),
        summary.get("class_names", []),
        records / "tensors.safetensors",
    )


def shared(tables: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all tables have, with one value.

    Example:
        >>> shared([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}])
        {'a': '1'}
    """
    first, *others = tables
    return {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}


def _cell(run: FinishedRun, metric: str) -> Cell | None:
    found = run.estimate(metric)
    if found is None:
        return None
    value, low, high = (
        percent(number) if run.is_share(metric) else f"{number:.3f}" for number in found
    )
    return Cell(value, f"{low}–{high}")


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings by name, those within others with both names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}: {inner}", text) for inner, text in _flat(value))
        else:
            yield name, _shown(name, value)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, float) and name.endswith("eps"):
        return in_255ths(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_shown(name, item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(key, item)}" for key, item in value.items())
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return value if isinstance(value, str) else json.dumps(value)


def _nonfinite(run: FinishedRun) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, entry in run.metrics.items():
        value, n = entry.get("value"), entry.get("n")
        if name.endswith(("_nonfinite", "/nonfinite_gradient")) and value is not None and n:
            label = run.labels.get(name, {}).get("label", name)
            yield label, (round(value * n), n)


def columns(facts: Sequence[RunFacts]) -> list[Column]:
    """The columns that runs fill.

    Success at any iteration is shown where the last one is unknown, as of attacks that stop early.
    """
    last = "fixed/robust_accuracy"
    filled = {metric for fact in facts for metric in fact.cells}
    if all(last in fact.cells for fact in facts if f"{last}_any_iteration" in fact.cells):
        filled.discard(f"{last}_any_iteration")
    shown = [column for column in COLUMNS if column.metric in filled]
    groups = [column.group for column in shown]
    starts = {groups.index(group): groups.count(group) for group in groups}
    return [column._replace(span=starts.get(place, 0)) for place, column in enumerate(shown)]
