"""The paper's tables beside what runs measured: plain data, for every way of showing it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from lit_purify.paper import PRINTED_TABLES, PrintedCell
from lit_purify.records.runs import FinishedRun, short_names
from lit_purify.report.matching import Match, nearest

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One value of a table: the paper's, these runs' and how far they are apart.

    Attributes:
        paper: as it is printed, such as ``23.7 ± 0.7``; empty where the paper has none.
        value: of these runs, in the unit of the print; the mean where several seeds were run;
            ``None`` where no run has it.
        low: lower end of its 95 % interval over the images, in the same unit.
        high: upper end, likewise.
        deviation: standard deviation over the seeds; ``None`` of a single one.
        seeds: how many runs the value is of.
        difference_se: ``value`` less the paper's, in standard errors; ``None`` where a setting
            differs, which ``note`` says, or where there is nothing to compare.
        note: what is different from the paper, or why there is no value; empty where nothing is.
        decimals: of the print, and so of the value.
        runs: what tells the folders apart that the value is of.
    """

    paper: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    seeds: int = 0
    difference_se: float | None = None
    note: str = ""
    decimals: int = 3
    runs: tuple[str, ...] = ()

    @property
    def measured(self) -> str:
        """The value as it is shown, such as ``23.5 ± 0.4 [21.0, 26.2]``; empty without one."""
        if self.value is None:
            return ""
        text = f"{self.value:.{self.decimals}f}"
        if self.deviation is not None:
            text += f" ± {self.deviation:.{self.decimals}f}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:.{self.decimals}f}, {self.high:.{self.decimals}f}]"
        return text

    @property
    def difference(self) -> str:
        """The difference as it is shown, such as ``+1.3 se``; empty where there is none."""
        return "" if self.difference_se is None else f"{self.difference_se:+.1f} se"


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One row: what it is of, and a cell for every column of values.

    Attributes:
        labels: one for every label column of the table.
        cells: one for every value column.
    """

    labels: tuple[str, ...]
    cells: tuple[PaperCell, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        number: ``1`` to ``7``, ``S2`` to ``S6``; values that only a figure or the text has are
            under ``Fig. 2``, ``Fig. 3a``.
        title: the paper's, shortened.
        labels: headings of the columns that say what a row is of.
        columns: headings of the columns of values, with their unit.
        rows: from top to bottom.
        remark: what of the print was put right; empty where nothing was.
    """

    number: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    remark: str = ""

    @property
    def measured(self) -> bool:
        """Whether these runs have at least one of its values."""
        return any(cell.value is not None for _, _, cell in self.lines())

    def lines(self) -> Iterator[tuple[tuple[str, ...], str, PaperCell]]:
        """Every value with the labels of its row and the heading of its column."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                yield row.labels, column, cell


def paper_tables(runs: Sequence[FinishedRun]) -> list[PaperTable]:
    """Every table of the paper with what these runs have of it, in the paper's order.

    A value is of the runs that differ from the paper in the fewest settings, if these are one run
    or seeds of one; otherwise it is left open, and the note says between which.
    """
    names = dict(zip((run.folder for run in runs), short_names(runs), strict=True))
    return [
        PaperTable(
            number=table.number,
            title=table.title,
            labels=table.labels,
            columns=table.columns,
            rows=tuple(
                PaperRow(
                    labels=row.labels,
                    cells=tuple(
                        _cell(
                            cell,
                            [
                                (match, tuple(str(names[run.folder]) for run in match.runs))
                                for match in nearest(cell, runs)
                            ],
                        )
                        for cell in row.cells
                    ),
                )
                for row in table.rows
            ),
            remark=table.remark,
        )
        for table in PRINTED_TABLES
    ]


def _cell(cell: PrintedCell, matches: Sequence[tuple[Match, tuple[str, ...]]]) -> PaperCell:
    """A value of the paper with what feeds it: matches and the names of their runs."""
    if len(matches) != 1:
        note = ""
        if matches:
            groups = "; ".join(", ".join(names) for _, names in matches)
            note = f"several runs fit that are not seeds of one another: {groups}"
        return PaperCell(paper=cell.text, note=note, decimals=cell.decimals)
    ((match, names),) = matches
    estimates = [
        tuple(cell.scale * number for number in estimate) for estimate in match.estimates()
    ]
    value, low, high = (fmean(numbers) for numbers in zip(*estimates, strict=True))
    known = low < high
    deviation = stdev(value for value, _, _ in estimates) if len(estimates) > 1 else None
    difference = None
    if cell.value is not None and known and not match.differences:
        over_seeds = (deviation or 0.0) / math.sqrt(len(estimates))
        error = math.hypot((high - low) / (2 * _Z), over_seeds, cell.error)
        difference = (value - cell.value) / error
    return PaperCell(
        paper=cell.text,
        value=value,
        low=low if known else None,
        high=high if known else None,
        deviation=deviation,
        seeds=len(estimates),
        difference_se=difference,
        note="; ".join(match.differences),
        decimals=cell.decimals,
        runs=names,
    )
