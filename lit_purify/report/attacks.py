"""Attacks beside each other: what each leaves of one defence, image by image against the first."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from lit_purify.records.rows import read_numbers
from lit_purify.records.runs import ATTACK, FinishedRun, in_255ths, short_names
from lit_purify.report.numbers import percent
from lit_purify.statistics import normal_interval
from lit_purify.types import Estimate, InputError

_ANY = "robust_accuracy_any_iteration"

PROTOCOLS = {
    "base": ("base", ("base/robust_accuracy", f"base/{_ANY}")),
    "blind": ("base", ("blind/robust_accuracy",)),
    "fixed": ("fixed", ("fixed/robust_accuracy", f"fixed/{_ANY}")),
    "transfer": ("fixed", ("transfer/robust_accuracy",)),
    "fresh": ("fresh", ("fresh/robust_accuracy",)),
    "fresh, worst of n": ("fresh", ("fresh/robust_accuracy_worst_of_n",)),
}
"""What is attacked, and what attacks are compared by: the metric that most runs have."""

_DEFENCE = (
    *("purifier", "purifier_options", "t_star", "num_steps", "schedule", "forward_process"),
    *("sampler", "sampler_options", "clip_output", "resize_to", "surrogate"),
    *("seed", "test_draws", "data", "data_sha256", "eps", "threat_model"),
)
"""Settings that runs share whose attacks are compared; models are compared by their weights."""


class AttackRow(NamedTuple):
    """What an attack left.

    Attributes:
        run: the name of its run.
        attack: its class, and the rungs of a ladder.
        accuracy: robust accuracy with its interval over the images.
        less: the same less that of the first attack, image by image, with the normal interval of
            the mean; ``None`` of the first, and without rows.
        image_steps: per image (:class:`~lit_purify.attacks.Cost`), where the attack counted them.
    """

    run: str
    attack: str
    accuracy: Estimate
    less: Estimate | None
    image_steps: float | None


class AttackTable(NamedTuple):
    """Attacks on the same images behind the same defence.

    Attributes:
        defence: what they attack, and the budget.
        protocol: under which noise.
        metric: which of the runs' metrics is compared.
        rows: the attacks in the order of the runs; the others are compared with the first.
    """

    defence: str
    protocol: str
    metric: str
    rows: list[AttackRow]


def compared_attacks(runs: Sequence[FinishedRun]) -> list[AttackTable]:
    """A table for every defence that several of the runs attack, each in another way.

    Runs belong together that share images, models, purifier, seed and budget. Within a table runs
    need not have the same protocols.
    """
    groups: dict[str, list[tuple[str, FinishedRun]]] = {}
    for name, run in zip(short_names(runs), runs, strict=True):
        if run.setting("attack") is not None:
            groups.setdefault(_defence(run), []).append((name, run))
    tables = (
        _table(group, protocol)
        for group in groups.values()
        if len({_ways(run) for _, run in group}) > 1
        for protocol in PROTOCOLS
    )
    return [table for table in tables if len(table.rows) > 1]


def attacks_console(tables: Sequence[AttackTable]) -> Iterator[Table]:
    """A rich table for each; below a number stands its 95 % interval."""
    for table in tables:
        shown = Table(
            title=Text(f"{table.defence}: {table.protocol}"),
            caption=Text(""),
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title_justify="left",
            highlight=False,
        )
        shown.add_column("run", overflow="fold", min_width=9, max_width=24)
        shown.add_column("attack", overflow="fold", min_width=9, max_width=24)
        for heading in ("robust\naccuracy, %", "less than\nthe first", "image-steps\nper image"):
            shown.add_column(heading, justify="right", no_wrap=True)
        for row in table.rows:
            cells = ("\n".join(lines) for lines in cell_lines(row))
            shown.add_row(Text(row.run), Text(row.attack), *cells)
        yield shown


def cell_lines(row: AttackRow) -> list[list[str]]:
    """The numbers of a row as they are shown, each above its interval."""
    value, low, high = map(percent, row.accuracy)
    cells = [[value, f"{low}–{high}"]]
    if row.less is None:
        cells.append(["-"])
    else:
        less, low, high = (f"{100 * number:+.1f}" for number in row.less)
        cells.append([less, f"{low} to {high}"])
    return [*cells, ["-" if row.image_steps is None else f"{row.image_steps:.4g}"]]


def attacks_csv(tables: Sequence[AttackTable]) -> str:
    """A line for every attack: shares in [0, 1], image-steps per image; the unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("value", "low", "high")
    less = [f"less_{part}" for part in parts]
    writer.writerow(["defence", "metric", "run", "attack", *parts, *less, "image_steps"])
    for table in tables:
        for row in table.rows:
            numbers = (*row.accuracy, *(row.less or [None] * 3), row.image_steps)
            shown = ["" if number is None else f"{number:.6g}" for number in numbers]
            writer.writerow([table.defence, table.metric, row.run, row.attack, *shown])
    return text.getvalue()


def _table(group: Sequence[tuple[str, FinishedRun]], protocol: str) -> AttackTable:
    surface, metrics = PROTOCOLS[protocol]
    metric = max(metrics, key=lambda name: sum(name in run.metrics for _, run in group))
    having = [(name, run, value) for name, run in group if (value := run.estimate(metric))]
    rows: list[AttackRow] = []
    for name, run, value in having:
        less = _less(run, having[0][1], metric) if rows else None
        steps = run.estimate(f"{surface}/attack_image_steps")
        rows.append(AttackRow(name, _named(run), value, less, steps and steps.value))
    _, first = group[0]
    depth = f", t* = {first.settings['t_star']}" if "t_star" in first.settings else ""
    where = f"{first.method}{depth}, eps {in_255ths(first.settings['eps'])}"
    return AttackTable(f"{where}, {first.settings['images']} images", protocol, metric, rows)


def _less(run: FinishedRun, first: FinishedRun, metric: str) -> Estimate | None:
    """The mean over the images that both have of a metric less the first run's."""
    try:
        its, others = (read_numbers(each.folder, metric) for each in (run, first))
    except InputError:  # a summary alone has no rows
        return None
    apart = [value - others[index] for index, value in its.items() if index in others]
    if len(apart) < 2:
        return None
    mean = fmean(apart)
    return Estimate(mean, *normal_interval(mean, stdev(apart), len(apart)))


def _defence(run: FinishedRun) -> str:
    facts = [run.setting(name) for name in _DEFENCE]
    models = [run.fact(role) for role in ("classifier", "denoiser")]
    return json.dumps([facts, models], sort_keys=True)


def _ways(run: FinishedRun) -> str:
    """What tells attacks apart."""
    return json.dumps([run.setting(name) for name in ATTACK], sort_keys=True)


def _named(run: FinishedRun) -> str:
    rungs = run.setting("rungs")
    return f"{run.setting('attack')}{': ' + ', '.join(rungs) if rungs else ''}"
