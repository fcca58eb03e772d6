"""Attacks beside each other: what each leaves of one defence, image by image against the first."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from lit_purify.records.rows import read_numbers
from lit_purify.records.runs import FinishedRun, alike, in_255ths, short_names
from lit_purify.report.matching import ATTACKED, PLAIN, PURIFIER
from lit_purify.report.numbers import percent
from lit_purify.report.terminal import plain_table
from lit_purify.statistics import paired_interval
from lit_purify.types import Estimate, InputError

LATE = "robust_accuracy"
ANY = "robust_accuracy_any_iteration"

PROTOCOLS = {
    "base": f"base/{LATE}",
    "base, at any iteration": f"base/{ANY}",
    "blind": f"blind/{LATE}",
    "fixed": f"fixed/{LATE}",
    "fixed, at any iteration": f"fixed/{ANY}",
    "transfer": f"transfer/{LATE}",
    "fresh": f"fresh/{LATE}",
    "fresh, worst of n": f"fresh/{LATE}_worst_of_n",
}
"""What attacks are compared by."""

_IMAGES = (
    *("classifier", "classifier_preprocessing", "precision", "tf32", "ball", "eps", "seed"),
    *("dataset", "data", "data_sha256", "images"),
)
_CHAIN = ("purifier", *PURIFIER, "denoiser", "denoiser_label")
"""Settings that runs share whose attacks are compared; of the classifier alone the first suffice,
and where several draws judge, their number is one more."""

_WAYS = (*ATTACKED, "features")


class AttackRow(NamedTuple):
    """What an attack left.

    Attributes:
        run: the name of its run.
        attack: its class, the rungs of a ladder, and what tells it from others of its class.
        accuracy: robust accuracy with its interval over the images.
        difference: the same minus that of the first attack, in [-1, 1], over the images that both
            have, with its interval; ``None`` of the first, and without rows.
        pairs: how many these are.
        image_steps: per image (:class:`~lit_purify.attacks.Cost`), where the attack counted them.
    """

    run: str
    attack: str
    accuracy: Estimate
    difference: Estimate | None
    pairs: int
    image_steps: float | None


class AttackTable(NamedTuple):
    """Attacks on the same images behind the same defence.

    Attributes:
        defence: what they attack, and the budget.
        protocol: under which noise.
        metric: which of the runs' metrics is compared.
        rows: the attacks in the order of the runs; the others are compared with the first that has
            rows.
    """

    defence: str
    protocol: str
    metric: str
    rows: list[AttackRow]


def compared_attacks(runs: Sequence[FinishedRun]) -> list[AttackTable]:
    """A table for every defence and protocol that several of the runs attack in different ways.

    Runs belong together that share images, models, purifier, precision, seed, ball and budget, as
    far as they say so. An accuracy at any iteration has no table where it is that after the last.
    """
    names = dict(zip((run.folder for run in runs), short_names(runs), strict=True))
    attacked = [run for run in runs if run.setting("attack") is not None]
    tables: list[AttackTable] = []
    for protocol, metric in PROTOCOLS.items():
        having = [run for run in attacked if run.estimate(metric) is not None]
        for group in alike(having, _shared(metric)):
            if len({_way(run) for run in group}) > 1:
                tables.append(_table(group, protocol, names))
    return _told_apart([table for table in tables if not _said_before(table, tables)])


def attacks_console(tables: Sequence[AttackTable]) -> Iterator[Table]:
    """A rich table for each; below a number stands its 95 % interval."""
    for table in tables:
        shown = plain_table(title=Text(f"{table.defence}: {table.protocol}"), caption=Text(""))
        shown.add_column("run", overflow="fold", min_width=9, max_width=24)
        shown.add_column("attack", overflow="fold", min_width=9, max_width=32)
        for heading in (
            "robust\naccuracy, %",
            "minus the\nfirst, points",
            "image-steps\nper image",
        ):
            shown.add_column(heading, justify="right", no_wrap=True)
        for row in table.rows:
            cells = ("\n".join(lines) for lines in cell_lines(row))
            shown.add_row(Text(row.run), Text(row.attack), *cells)
        yield shown


def cell_lines(row: AttackRow) -> list[list[str]]:
    """The numbers of a row as they are shown, each above its interval."""
    value, low, high = map(percent, row.accuracy)
    cells = [[value, f"{low}–{high}"]]
    if row.difference is None:
        cells.append(["-"])
    else:
        value, low, high = (f"{round(100 * number, 1) + 0.0:+.1f}" for number in row.difference)
        cells.append([value, f"{low} to {high}"])
    return [*cells, ["-" if row.image_steps is None else f"{row.image_steps:.4g}"]]


def attacks_csv(tables: Sequence[AttackTable]) -> str:
    """A line for every attack: shares in [0, 1], image-steps per image; the unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("value", "low", "high")
    differences = [f"difference_{part}" for part in parts]
    writer.writerow(
        ["defence", "metric", "run", "attack", *parts, *differences, "pairs", "image_steps"]
    )
    for table in tables:
        for row in table.rows:
            numbers = (*row.accuracy, *(row.difference or [None] * 3), row.pairs, row.image_steps)
            shown = ["" if number is None else f"{number:.6g}" for number in numbers]
            writer.writerow([table.defence, table.metric, row.run, row.attack, *shown])
    return text.getvalue()


def _shared(metric: str) -> tuple[str, ...]:
    """Names of the settings that runs share which are compared by a metric."""
    protocol = metric.partition("/")[0]
    chain = () if protocol == "base" else _CHAIN
    return (*_IMAGES, *chain, *(["test_draws"] if protocol in ("transfer", "fresh") else []))


def _table(group: Sequence[FinishedRun], protocol: str, names: Mapping[Path, str]) -> AttackTable:
    metric = PROTOCOLS[protocol]
    surface = {"blind": "base", "transfer": "fixed"}.get(where := metric.partition("/")[0], where)
    first: Mapping[int, float] = {}
    rows = []
    for run, attack in zip(group, _named(group), strict=True):
        accuracy, steps = run.estimate(metric), run.estimate(f"{surface}/attack_image_steps")
        assert accuracy is not None
        own = _column(run.folder, metric)
        apart = [value - first[index] for index, value in own.items() if index in first]
        difference = Estimate(fmean(apart), *paired_interval(apart)) if apart else None
        row = (names[run.folder], attack, accuracy, difference, len(apart), steps and steps.value)
        rows.append(AttackRow(*row))
        first = first or own
    return AttackTable(_defence(group[0], protocol), protocol, metric, rows)


def _defence(run: FinishedRun, protocol: str) -> str:
    """What is attacked, in words."""
    known = {key: value for key, value in run.settings.items() if value is not None}
    alone = protocol.startswith("base")
    words = ["Classifier alone" if alone else run.method]
    if "t_star" in known and not alone:
        steps = f" in {known['num_steps']} steps" if "num_steps" in known else ""
        words.append(f"t* = {known['t_star']}{steps}")
    words += [f"eps {in_255ths(known['eps'])}"] if "eps" in known else []
    words += [f"{known['images']} images"] if "images" in known else []
    return ", ".join(words)


def _told_apart(tables: Sequence[AttackTable]) -> list[AttackTable]:
    """The tables; those of other defences that would be called the same are numbered."""
    called = Counter((table.defence, table.protocol) for table in tables)
    met: Counter[tuple[str, str]] = Counter()
    found = []
    for table in tables:
        met[table[:2]] += 1
        number = f" ({met[table[:2]]})" if called[table[:2]] > 1 else ""
        found.append(table._replace(defence=f"{table.defence}{number}"))
    return found


def _said_before(table: AttackTable, tables: Sequence[AttackTable]) -> bool:
    """Whether success at any iteration is that after the last one, which has a table."""
    if not table.metric.endswith(ANY):
        return False
    late = table.metric.removesuffix("_any_iteration")
    rows = [other.rows for other in tables if other.metric == late]
    return table.rows in rows


@lru_cache(maxsize=1024)
def _column(folder: Path, metric: str) -> Mapping[int, float]:
    """A metric by image; nothing where a summary has no rows."""
    try:
        return read_numbers(folder, metric)
    except InputError:
        return {}


def _facts(run: FinishedRun) -> dict[str, Any]:
    """What decides how a run attacks; old runs do not say what was the only way then."""
    found = {name: run.setting(name) for name in _WAYS if name != "rungs"}
    for rung, arguments in (run.setting("rungs") or {}).items():
        found |= {f"{rung} {name}": value for name, value in arguments.items()}
    found |= {name: plain for name, plain in PLAIN.items() if found.get(name) is None}
    models = run.settings.get("models", {})
    found["surrogate's denoiser"] = models.get("surrogate's denoiser", {}).get("sha256")
    return found


def _way(run: FinishedRun) -> str:
    return json.dumps(_facts(run), sort_keys=True, default=str)


def _named(group: Sequence[FinishedRun]) -> Iterator[str]:
    """An attack's class with the rungs of a ladder, and what differs among those called so."""
    called = [_called(run) for run in group]
    facts = [_facts(run) for run in group]
    for name, own in zip(called, facts, strict=True):
        others = [other for other, its in zip(facts, called, strict=True) if its == name]
        differ = [
            f"{key.replace('_', ' ')} {_short(value)}"
            for key, value in own.items()
            if any(other.get(key) != value for other in others)
        ]
        yield f"{name} ({', '.join(differ)})" if differ else name


def _called(run: FinishedRun) -> str:
    rungs = run.setting("rungs")
    return f"{run.setting('attack')}{': ' + ', '.join(rungs) if rungs else ''}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return str(value.get("sampler", "yes"))
    return "none" if value is None else str(value)
