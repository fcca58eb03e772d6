"""The command line: ``python -m lit_purify COMMAND``.

A command is imported when it is asked for: each is a module here with ``command(args)``, which
returns the exit status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from jsonargparse import ArgumentParser

from lit_purify.cli import errors

COMMANDS = {
    "test": ("run", "Attack a defence and measure it."),
    "predict": ("run", "Purify images."),
    "fit": ("run", "Train a denoiser."),
    "report": ("report", "Compare finished runs, and fit robustness to compression."),
    "predict-robustness": (
        "predict_robustness",
        "Predict robust accuracy without an attack.",
    ),
    "sweep": ("sweep", "Run a file of many runs, such as every preset at every depth."),
    "search": (
        "search",
        "Search for better purifiers, and attack the best.",
    ),
    "weights": ("weights", "List, fetch and verify published weights."),
}
"""Commands: the module that runs it, and what it does."""


def overview() -> ArgumentParser:
    """What the command line has: for the help, and to refuse what is no command."""
    parser = ArgumentParser(
        prog="lit_purify",
        description="Measure how diffusion purification makes classifiers robust.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands()
    for name, (_, description) in COMMANDS.items():
        commands.add_subcommand(name, ArgumentParser(description=description), help=description)
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: arguments; ``None`` takes the process's own.

    Returns:
        The exit status: 0, or 2 after one line on what was wrong with the input; 130 after Ctrl-C.
        Without any argument it is 2, after the help.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args:
        print(overview().format_help(), file=sys.stderr)
        return 2
    try:
        first = args[0]
        if first in ("-h", "--help") or not (first in COMMANDS or first.startswith("-")):
            overview().parse_args(args)  # prints the help, or refuses the command
        module, _ = COMMANDS.get(first, COMMANDS["test"])
        status = import_module(f"lit_purify.cli.{module}").command(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # 'weights list | head': who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:  # also while PyTorch is loaded
        return 128 + signal.SIGINT
    except Exception as error:
        return errors.tell(error)
