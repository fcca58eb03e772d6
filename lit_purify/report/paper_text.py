"""The paper's tables beside what runs measured, as text: terminal, Markdown, LaTeX and CSV.

All have one line per value with the columns paper, these runs and difference.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from lit_purify.report.paper_tables import PaperCell, PaperTable

_HEADINGS = ("measure", "paper", "these runs", "difference")
_LEGEND = (
    "Beside a value of these runs stand its standard deviation over seeds, where there are several, "
    "and its 95 % interval over the images. The difference to the paper is in standard errors (se) "
    "of both together; it is empty where a setting differs, which the note says."
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
        shown = Table(
            title=_name(table),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            highlight=False,
        )
        for heading in (*table.labels, *_HEADINGS, "note"):
            shown.add_column(heading, overflow="fold")
        for labels, column, cell in table.lines():
            if cell.measured or cell.note:
                shown.add_row(*map(Text, (*labels, *_texts(column, cell), cell.note)))
        yield shown


def paper_markdown(tables: Sequence[PaperTable]) -> str:
    """Every table in Markdown; what differs from the paper is in footnotes below it."""
    parts = ["# The paper's tables and these runs", _LEGEND]
    for table in tables:
        notes: list[str] = []
        lines = [_row((*table.labels, *_HEADINGS))]
        lines.append(_row(["---"] * (len(table.labels) + len(_HEADINGS))))
        for labels, column, cell in table.lines():
            texts = [*labels, *_texts(column, cell)]
            if cell.note:
                texts[-2] = f"{texts[-2]} ({_number(notes, cell.note)})".strip()
            lines.append(_row(texts))
        parts += [f"## {_name(table)}", "\n".join(lines)]
        below = [f"{n}. {_escaped(note)}" for n, note in enumerate(notes, 1)]
        parts += filter(None, ["\n".join(below), _escaped(table.remark)])
    return "\n\n".join(parts) + "\n"


def paper_latex(tables: Sequence[PaperTable]) -> str:
    r"""Every table in LaTeX, to be read by ``\input``; it needs the package booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for table in tables:
        notes: list[str] = []
        lines = []
        for labels, column, cell in table.lines():
            texts = [_latex(text) for text in (*labels, *_texts(column, cell))]
            if cell.note:
                texts[-2] += f"$^{{{_number(notes, cell.note)}}}$"
            lines.append(f"{' & '.join(texts)} \\\\")
        below = [f"$^{{{n}}}$ {_latex(note)}." for n, note in enumerate(notes, 1)]
        below += filter(None, [_latex(table.remark)])
        headings = " & ".join(map(_latex, (*table.labels, *_HEADINGS)))
        parts.append(
            "\n".join(
                [
                    "\\begin{table}",
                    "\\centering",
                    f"\\caption{{{_latex(_name(table))}}}",
                    f"\\begin{{tabular}}{{{'l' * (len(table.labels) + 1)}rrr}}",
                    "\\toprule",
                    f"{headings} \\\\",
                    "\\midrule",
                    *lines,
                    "\\bottomrule",
                    "\\end{tabular}",
                    *(f"\n{line}" for line in below),
                    "\\end{table}",
                ]
            )
        )
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


def _texts(column: str, cell: PaperCell) -> tuple[str, str, str, str]:
    return column, cell.paper, cell.measured, cell.difference


def _number(notes: list[str], note: str) -> int:
    """The number of a footnote, which is added where it is new."""
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, texts))} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\|*_`<" else c for c in text)


def _latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_SPECIAL.get(character, character) for character in text)
