"""``weights``: list, fetch and verify published weights."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.filesize import decimal
from rich.table import Table

from lit_purify.cli import COMMANDS
from lit_purify.report.terminal import print_whole
from lit_purify.types import InputError
from lit_purify.weights import (
    CACHE,
    MIRROR,
    WEIGHTS,
    Weights,
    cache_folder,
    fetch,
    find,
    hash_in_words,
)

ALL = "all"
_NAMES = ", ".join(WEIGHTS)

ACTIONS = {
    "list": ("Show what there is and what is here.", ""),
    "fetch": (
        "Download and verify weights. What broke off goes on where it stopped; what is here and "
        "whole stays; what is damaged is replaced. The last line is the path.",
        f"{_NAMES}, or {ALL} that need no conversion.",
    ),
    "verify": (
        "Read weights that are here and compare their hashes. The exit status is 2 if one is "
        "damaged.",
        "Which; none stands for all that are here.",
    ),
}
"""Actions: what each does, and which names it takes, if any."""


def parser() -> ArgumentParser:
    """The options of the command."""
    found = ArgumentParser(
        prog="lit_purify weights",
        description=f"{COMMANDS['weights'][1]} Weights are kept in the folder {CACHE}, an "
        f"environment variable (default: {cache_folder()}), two files in PyTorch's folder of "
        f"checkpoints. {MIRROR} names a folder or an address that has copies. A test run fetches "
        "what it needs by itself.",
        exit_on_error=False,
    )
    actions = found.add_subcommands(dest="action", title="actions")
    for name, (description, names) in ACTIONS.items():
        action = ArgumentParser(description=description, exit_on_error=False)
        if names:
            action.add_argument(
                "names", nargs="*", type=str, metavar="NAME", default=[], help=names
            )
        if name == "fetch":
            action.add_argument(
                "--from",
                type=str,
                metavar="FILE_OR_URL",
                help="A copy of the one file that is named: it is verified, and stays there.",
            )
            action.add_argument(
                "--mirror",
                type=str,
                metavar="FOLDER_OR_URL",
                help=f"Where copies are, by the names of their files (default: {MIRROR}).",
            )
        actions.add_subcommand(name, action, help=description)
    return found


def command(args: Sequence[str]) -> int:
    """Run ``weights``; the exit status.

    Raises:
        InputError, ArgumentError: what was given is wrong, or weights are missing or damaged.
    """
    options = parser().parse_args(list(args[1:]))
    try:
        if options.action == "list":
            _list()
        elif options.action == "verify":
            _verify(options.verify.names)
        else:
            _fetch(options.fetch)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with it", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _list() -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), highlight=False)
    table.add_column("name", no_wrap=True)
    table.add_column("used for", overflow="fold", max_width=44)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold", max_width=24)
    table.add_column("licence", overflow="fold", max_width=18)
    for weights in WEIGHTS.values():
        size = weights.path.stat().st_size if weights.is_here else weights.size
        shown = "not known" if size is None else decimal(size)
        table.add_row(weights.name, weights.used_for, shown, _state(weights), weights.licence)
    print_whole(table)
    for weights in WEIGHTS.values():
        lines = weights.url, hash_in_words(weights.hash), weights.path
        print(f"{weights.name}:", *lines, sep="\n    ")
    print("'here' is judged by the size; 'weights verify' reads the files.")


def _state(weights: Weights) -> str:
    if weights.is_here:
        found = weights.path.stat().st_size
        if weights.size is not None and found != weights.size:
            return f"damaged: {found:,} bytes"
        return "here" if weights.hash is not None else "here; no hash was published"
    if weights.part.is_file():
        found = weights.part.stat().st_size
        share = f"{100 * found / weights.size:.0f} %" if weights.size else f"{found:,} bytes"
        return f"{share} here; fetch goes on"
    return "absent"


def _fetch(options: Namespace) -> None:
    names, source, mirror = list(dict.fromkeys(options.names)), options["from"], options.mirror
    if not names:
        raise InputError(f"weights fetch expects names: {_NAMES}, or {ALL}")
    if ALL in names:
        names = [weights.name for weights in WEIGHTS.values() if not weights.is_pickle]
    if source is not None and mirror is not None:
        raise InputError("--from and --mirror exclude each other; give one of them")
    if source is not None and len(names) != 1:
        raise InputError(f"--from is one file, for one name; got {len(names)} names")
    failed: dict[str, InputError] = {}
    for weights in [find(name) for name in names]:  # a wrong name is told before any download
        try:
            path = fetch(weights, source=source, mirror=mirror)
        except InputError as error:
            failed[weights.name] = error
            continue
        # Plain print: the last line is for scripts too.
        print(f"{weights.name}: {_verdict(weights)}", path, sep="\n", flush=True)
    if failed:
        first, *others = failed
        more = f" (and so {', '.join(others)})" if others else ""
        raise InputError(f"{failed[first]}{more}")


def _verify(names: Sequence[str]) -> None:
    damaged: dict[str, str] = {}
    absent = []
    for weights in [find(name) for name in names or WEIGHTS]:
        verdict = "absent"
        if not weights.is_here:
            absent.append(weights.name)
        elif (wrong := weights.fault()) is not None:
            damaged[weights.name] = f"{weights.path} is damaged or another file ({wrong})"
            verdict = "damaged"
        else:
            verdict = _verdict(weights)
        print(f"{weights.name}: {verdict}", flush=True)
    fetch_them = "'python -m lit_purify weights fetch"
    if damaged:
        raise InputError(
            f"{'; '.join(damaged.values())}; replace by {fetch_them} {' '.join(damaged)}'"
        )
    if names and absent:
        raise InputError(
            f"{', '.join(absent)}: not on this machine; {fetch_them} {' '.join(absent)}'"
        )


def _verdict(weights: Weights) -> str:
    """What is known of a file whose hash is not wrong."""
    if weights.hash is not None:
        return f"verified, {hash_in_words(weights.hash)}"
    if weights.known_hash is None:
        return "not verified: no hash was published, and none is recorded yet"
    return (
        "no hash was published to compare with; as at the first download, "
        f"{hash_in_words(weights.known_hash)}"
    )
