"""The paper's tables beside what runs measured: plain data, for every way of showing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lit_purify.records.runs import FinishedRun


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
        run: the run folders' names, of the value.
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
        raise NotImplementedError

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
        return any(cell.value is not None for row in self.rows for cell in row.cells)


def paper_tables(runs: Sequence[FinishedRun]) -> list[PaperTable]:
    """Every table of the paper with what these runs have of it, in the paper's order."""
    raise NotImplementedError
