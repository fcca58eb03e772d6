"""Tables on a terminal."""

from __future__ import annotations

from rich.console import Console, RenderableType


def print_whole(*tables: RenderableType) -> None:
    """Print tables as wide as they are: what is cut off is worse than a line that is folded."""
    console = Console()
    for table in tables:
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(table)
