"""Tables of a search, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from lit_purify.report.numbers import percent
from lit_purify.search.halving import Round, going_on
from lit_purify.search.space import Space
from lit_purify.search.verdict import Attacked
from lit_purify.types import Estimate


def round_table(space: Space, found: Round) -> Table:
    """Every purifier of a round, by group, the best first; those that go on are bold."""
    table = _table(f"Round of {found.images} clean images")
    for group, its in found.found.items():
        for place, each in enumerate(its):
            style = "bold" if place < going_on(space, len(its)) else ""
            cells = (group, each.name, _share(each.clean), _number(each.rate))
            table.add_row(*(Text(cell, style) for cell in (*cells, str(each.evaluations))))
    return table


def final_table(finalists: Sequence[Attacked]) -> Table:
    """The finalists under attack, the most robust first; a star is suspicious."""
    table = _table("Under attack, fixed noise")
    table.add_column("robust %", justify="right", no_wrap=True)
    for each in sorted(finalists, key=lambda each: -each.robust.value):
        table.add_row(
            each.found.group,
            each.name + (" *" if each.flags else ""),
            _share(each.clean),
            _number(each.rate),
            str(each.found.evaluations),
            _share(each.robust),
        )
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("group", no_wrap=True)
    table.add_column("purifier", overflow="fold")
    for heading in ("clean %", "compression rate", "evaluations"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _share(share: Estimate) -> str:
    return f"{percent(share.value)} [{percent(share.low)}, {percent(share.high)}]"


def _number(number: Estimate) -> str:
    return f"{number.value:.3f} [{number.low:.3f}, {number.high:.3f}]"
