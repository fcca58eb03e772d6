"""The paper's tables beside what runs measured, as text: terminal, Markdown, LaTeX and CSV.

All have one line per value with the columns paper, these runs and difference.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from lit_purify.report.paper_tables import PaperTable
from lit_purify.report.terminal import plain_table

_HEADINGS = ("measure", "paper", "these runs", "difference")
_LEGEND = (
    "Beside a value of these runs stand its standard deviation over seeds, where there are "
    "several, and its 95 % interval over the images. The difference to the paper is in standard "
    "errors (se) of both together; it is empty where a setting differs, which the note says."
)
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "*": r"$^*$",
}


def paper_console(tables: Sequence[PaperTable]) -> Iterator[Table]:
    """A rich table for every one of which these runs have a value, with the lines they have."""
    for table in tables:
        if not table.measured:
            continue
        rows, notes = _lines(table, all_of_them=False)
        below = (f"({number}) {note}" for number, note in enumerate(notes, 1))
        shown = plain_table(
            title=Text(_name(table)),
            caption=Text("\n".join((*below, ""))),
        )
        for heading in (*table.labels, *_HEADINGS):
            shown.add_column(heading, no_wrap=heading in _HEADINGS[1:])
        for row in rows:
            shown.add_row(*map(Text, row))
        yield shown


def paper_markdown(tables: Sequence[PaperTable]) -> str:
    """Every table in Markdown; what differs from the paper is in a list below it."""
    parts = ["# The paper's tables and these runs", _LEGEND]
    for table in tables:
        rows, notes = _lines(table)
        headings = [*table.labels, *_HEADINGS]
        lines = [headings, ["---"] * len(headings), *(map(_escaped, row) for row in rows)]
        below = [f"{number}. {_escaped(note)}" for number, note in enumerate(notes, 1)]
        parts += [
            f"## {_escaped(_name(table))}",
            "\n".join(f"| {' | '.join(line)} |" for line in lines),
            *filter(None, ["\n".join(below), _escaped(table.remark)]),
        ]
    return "\n\n".join(parts) + "\n"


def paper_latex(tables: Sequence[PaperTable]) -> str:
    r"""Every table in LaTeX, to be read by ``\input``; it needs the package booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for table in tables:
        rows, notes = _lines(table)
        headings = (*table.labels, *_HEADINGS)
        below = [f"({number}) {note}." for number, note in enumerate(notes, 1)]
        lines = [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_latex(f'Of the paper, {_name(table)}')}}}",
            f"\\begin{{tabular}}{{{'l' * (len(headings) - 3)}rrr}}",
            "\\toprule",
            f"{' & '.join(map(_latex, headings))} \\\\",
            "\\midrule",
            *(f"{' & '.join(map(_latex, row))} \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            *(f"\n{_latex(line)}" for line in (*below, table.remark) if line),
            "\\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def paper_csv(tables: Sequence[PaperTable]) -> str:
    """Every value as a line of CSV, in the unit of the print; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ("value", "low", "high", "deviation", "difference_se")
    writer.writerow(["table", "row", "measure", "paper", *numbers, "seeds", "runs", "note"])
    for table in tables:
        for labels, column, cell in table.lines():
            values = [getattr(cell, name) for name in numbers]
            writer.writerow(
                [
                    *(table.number, ", ".join(labels), column, cell.paper),
                    *("" if value is None else f"{value:.6g}" for value in values),
                    *(cell.seeds or "", " ".join(cell.runs), cell.note),
                ]
            )
    return text.getvalue()


def _name(table: PaperTable) -> str:
    kind = "" if table.number.startswith("Fig") else "Table "
    return f"{kind}{table.number}: {table.title}"


def _lines(table: PaperTable, *, all_of_them: bool = True) -> tuple[list[list[str]], list[str]]:
    """A line of text for every value, or every one that these runs have; and what it notes.

    Args:
        table: of the paper.
        all_of_them: also where these runs have nothing to say.
    """
    rows: list[list[str]] = []
    notes: list[str] = []
    for labels, column, cell in table.lines():
        if not (all_of_them or cell.measured or cell.note):
            continue
        measured = cell.measured
        if cell.note:
            if cell.note not in notes:
                notes.append(cell.note)
            measured = f"{measured} ({notes.index(cell.note) + 1})".strip()
        rows.append([*labels, column, cell.paper, measured, cell.difference])
    return rows, notes


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\|*_`<" else c for c in text)


def _latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_SPECIAL.get(character, character) for character in text)
