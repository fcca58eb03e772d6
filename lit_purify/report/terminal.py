"""Tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table


def plain_table(**options: Any) -> Table:
    """A table with a line below its headings and none else, as every report of runs has it."""
    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_justify="left",
        caption_justify="left",
        highlight=False,
        **options,
    )


def print_whole(*tables: RenderableType) -> None:
    """Print tables as wide as they are: what is cut off is worse than a line that is folded."""
    console = Console()
    for table in tables:
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(table)
