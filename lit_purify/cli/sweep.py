"""``sweep``: a file of axes becomes runs, each of which can be resumed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lit_purify.cli import COMMANDS, strict_yaml
from lit_purify.cli.shipped import find_config
from lit_purify.sweeps.display import Display
from lit_purify.sweeps.export import export
from lit_purify.sweeps.local import run_here
from lit_purify.sweeps.plan import expand
from lit_purify.sweeps.process import shell_line
from lit_purify.sweeps.slurm import Resources, run_on_slurm
from lit_purify.sweeps.states import Sweep
from lit_purify.types import InputError

FAILED = 1
"""Exit status where a run failed."""


def parser() -> ArgumentParser:
    """The options of the command."""
    found = ArgumentParser(
        prog="lit_purify sweep",
        description=f"{COMMANDS['sweep'][1]} What is finished stays, what was interrupted goes on: "
        "start it again as often as you like. Beside these options, --config NAME and options of "
        "test with a dot, such as --data.limit 20, go to every run.",
        exit_on_error=False,
    )
    found.add_argument(
        "file", type=str, metavar="FILE", help="A YAML file, or a name such as sweep/depth."
    )
    found.add_argument(
        "--root",
        type=str | None,
        metavar="FOLDER",
        help="Gets a folder for every run (default: lightning_logs/NAME_OF_FILE).",
    )
    found.add_argument("--jobs", type=int, default=1, help="Runs at once (default: 1).")
    found.add_argument(
        "--devices",
        type=str | None,
        metavar="0,1,...",
        help="GPUs of this machine, one for each run at once; also sets --jobs.",
    )
    found.add_argument("--list", action="store_true", help="Print the commands of the runs only.")
    found.add_argument(
        "--export",
        type=str | None,
        metavar="FOLDER",
        help="Copy what a report needs of the finished runs, without images, and run nothing.",
    )
    found.add_argument(
        "--slurm", action="store_true", help="An array of SLURM jobs; --jobs of them at once."
    )
    found.add_argument("--partition", type=str | None, help="Of the SLURM jobs.")
    found.add_argument(
        "--time", type=int, default=24 * 60, help="Minutes of a SLURM job, which then requeues."
    )
    found.add_argument("--gpus", type=int, default=1, help="Of a SLURM job (default: 1).")
    found.add_argument("--cpus", type=int, default=4, help="Of a SLURM job (default: 4).")
    return found


def command(args: Sequence[str]) -> int:
    """Run ``sweep``; the exit status.

    Raises:
        InputError, ArgumentError: what was given is wrong.
    """
    options, more = parsed(parser(), args[1:])
    runs = expand(read_plan(options.file), more)
    root = Path(options.root or f"lightning_logs/{Path(options.file).stem}").expanduser()
    if options.list:
        print(*(shell_line(run.command(root)) for run in runs), sep="", end="", flush=True)
        return 0
    sweep = Sweep(runs, root)
    if options.export is not None:
        for name in export(sweep, Path(options.export)):
            print(f"left out: {name}: its command has changed since it ran", file=sys.stderr)
        print(options.export, flush=True)
        return 0
    devices = [] if options.devices is None else options.devices.split(",")
    if not all(map(str.strip, devices)):
        raise InputError(f"--devices is {options.devices!r}; expected GPUs, such as 0,1")
    jobs = len(devices) or options.jobs

    def work() -> int:
        with Display(sweep, jobs) as watch:
            if options.slurm:
                asked = (options.partition, options.time, options.gpus, options.cpus)
                run_on_slurm(sweep, Resources(*asked), jobs=options.jobs, watch=watch)
            else:
                run_here(sweep, jobs=jobs, devices=devices, watch=watch)
        return _conclude(sweep)

    return stoppable(work)


def parsed(parser: ArgumentParser, args: Sequence[str]) -> tuple[Namespace, list[str]]:
    """A command's own options, and the arguments of its runs, see :func:`split`.

    Raises:
        InputError, ArgumentError: what was given is wrong.
    """
    own, more = split(args)
    options = parser.parse_args(own)
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}; expected 1 or more")
    return options, more


def split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments of the sweep itself, and those of its runs, as ``--name=value``.

    Raises:
        InputError: one of its runs' has no value.

    Example:
        >>> split(["depth", "--data.limit", "8", "--jobs", "2", "--config=hardware/cpu"])
        (['depth', '--jobs', '2'], ['--data.limit=8', '--config=hardware/cpu'])
    """
    own, more = [], []
    words = iter(args)
    for word in words:
        name, equals, _ = word.partition("=")
        if not name.startswith("--") or ("." not in name and name != "--config"):
            own.append(word)
        elif equals:
            more.append(word)
        elif (value := next(words, "--")).startswith("--"):
            raise InputError(f"{name} has no value; expected one, as in --data.limit 20")
        else:
            more.append(f"{name}={value}")
    return own, more


def read_plan(given: str) -> Any:
    """The plan in a file.

    Raises:
        InputError: it cannot be read.
    """
    file = find_config(given)
    try:
        return strict_yaml.load(Path(file).read_text(encoding="utf-8"), file)
    except OSError as error:
        raise InputError(f"the sweep {file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the sweep {file} is not YAML: it is not UTF-8 text ({error})") from error
    except InputError as error:
        raise InputError(f"the sweep {file} {error}") from error


def _conclude(sweep: Sweep) -> int:
    """Report what is finished and name what failed; the exit status."""
    if folders := sweep.finished_folders():
        from lit_purify.report.comparison import report  # loads Matplotlib, which no run waits for

        try:
            # Plain print: the last line is for scripts too.
            print(report(folders, sweep.root / "report"), flush=True)
        except InputError as error:
            print(f"there is no report: {error}", file=sys.stderr)
    for name, told in sweep.errors.items():
        print(f"failed: {name}: {told}", file=sys.stderr)
        print(f"  see {sweep.root / name / 'log.txt'}", file=sys.stderr, flush=True)
    return FAILED if sweep.errors else 0


def stoppable(work: Callable[[], int]) -> int:
    """The status of work that can be gone on with; SIGTERM and hang-up stop it as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGTERM,)
    handlers = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        return work()
    except KeyboardInterrupt as stopped:
        print("stopped; the same command goes on with it", file=sys.stderr, flush=True)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
