"""``report``: many runs as tables and figures, and the sigmoid law (Fig. 3b)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from lit_purify.cli import COMMANDS
from lit_purify.records.runs import LAST_ITERATION, RATE
from lit_purify.report.comparison import report


def parser() -> ArgumentParser:
    """The options of the command."""
    found = ArgumentParser(
        prog="lit_purify report", description=COMMANDS["report"][1], exit_on_error=False
    )
    words = "Run folders, or folders of runs."
    found.add_argument("runs", nargs="+", type=str, metavar="RUN_FOLDER", help=words)
    found.add_argument(
        "--output",
        type=str,
        default="lightning_logs/report",
        metavar="FOLDER",
        help="Where the tables, law.json and the figures go, in place of older ones "
        "(default: lightning_logs/report).",
    )
    found.add_argument(
        "--key",
        type=str,
        default=RATE,
        help=f"The measured value that robustness is drawn against (default: {RATE}).",
    )
    found.add_argument(
        "--accuracy",
        type=str,
        metavar="NAME",
        help=f"The measured robust accuracy (default: {LAST_ITERATION}, or that at any iteration "
        "where every attack stopped early); A|B is A among the images that have B.",
    )
    found.add_argument(
        "--free_ceiling",
        action="store_true",
        help="Fit the accuracy at the top too; otherwise it is 1.",
    )
    found.add_argument(
        "--weighted", action="store_true", help="Weigh runs by the widths of their intervals."
    )
    found.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="Also write all of it, with verdict, images and settings, as one HTML page that needs "
        "nothing beside it.",
    )
    return found


def command(args: Sequence[str]) -> int:
    """Run ``report``; the exit status.

    Raises:
        InputError, ArgumentError: what was given is wrong.
    """
    options = parser().parse_args(list(args[1:])).as_dict()
    # Plain print: the last line is for scripts too.
    print(report(options.pop("runs"), options.pop("output"), **options), flush=True)
    return 0
