"""The command line in processes of their own, which tests kill.

A process that has imported everything once forks them (``multiprocessing``'s forkserver), so that
one starts in a moment, and none inherits what the tests have done to this process.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lit_purify.cli import main

PATIENCE = 120.0
"""Seconds after which a process is taken to hang."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["lit_purify.cli.run", "torch.distributed", "matplotlib.pyplot"])


class Fork:
    """A program, ``lit_purify.cli.main`` unless another is given, in a process of its own.

    Args:
        args: the command line.
        log: file that takes what it prints.
        environment: added to its environment.
        before: called in it before the program.
        program: called with the command line; it and ``before`` are functions of modules on the
            path.
    """

    def __init__(
        self,
        args: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        program: Callable[[list[str]], object] = main,
    ) -> None:
        self.log = log
        self.process = _CONTEXT.Process(
            target=_run,
            args=(program, list(args), log, dict(environment or {}), before),
            daemon=True,
        )
        self.process.start()

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit status (minus the signal that ended it); ``None`` if it goes on."""
        self.process.join(seconds)
        return self.process.exitcode

    def finish(self, seconds: float = PATIENCE) -> int:
        """The exit status; a process that hangs is killed, and fails the test."""
        status = self.wait(seconds)
        if status is None:
            self.kill()
            raise AssertionError(f"still going on after {seconds} s:\n{self.printed}")
        return status

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL; it is gone on return."""
        self.process.kill()
        self.process.join()

    @property
    def printed(self) -> str:
        """What it has printed to standard output and error."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


def forks(args: Sequence[str], logs: Path, processes: int, **options: Any) -> list[Fork]:
    """A command line on several processes, started from outside as torchrun or SLURM do."""
    if processes == 1:
        return [Fork(args, logs / "rank_0.log", **options)]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(processes), "NODE_RANK": "0"}
    args = [*args, "--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
    return [
        Fork(
            args,
            logs / f"rank_{rank}.log",
            environment={**shared, "LOCAL_RANK": str(rank)},
            **options,
        )
        for rank in range(processes)
    ]


def start(
    words: Sequence[str], root: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Python as the first of a process group; prints to the files ``out`` and ``err``."""
    shared = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    root.mkdir(exist_ok=True)
    with (root / "out").open("w") as out, (root / "err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **shared, **(environment or {})},
            stdout=out,
            stderr=err,
            start_new_session=True,
            # Tests that a shell runs in the background would hand their deafness to Ctrl-C down.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )


def launch(
    root: Path, *commands: Sequence[str], environments: Sequence[Mapping[str, str]] = ({},)
) -> list[str]:
    """Run Python commands side by side to a good end; what each printed to standard output.

    Args:
        root: gets a folder for every command.
        commands: the words behind ``python``; each runs once in every environment.
        environments: added to that of the tests.
    """
    pairs = [*itertools.product(commands, environments)]
    roots = [root / str(number) for number in range(len(pairs))]
    running = [
        start(words, folder, environment)
        for (words, environment), folder in zip(pairs, roots, strict=True)
    ]
    try:
        statuses = [process.wait(PATIENCE) for process in running]
    finally:
        for process in running:
            process.kill()
    assert statuses == [0] * len(running), [(folder / "err").read_text() for folder in roots]
    return [(folder / "out").read_text() for folder in roots]


def finish(running: Sequence[Fork], seconds: float = PATIENCE) -> list[int]:
    """The exit statuses; processes that hang are killed, and fail the test."""
    try:
        return [fork.finish(seconds) for fork in running]
    finally:
        for fork in running:
            fork.kill()


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return when a condition holds, which is asked every millisecond."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.001)


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _run(
    program: Callable[[list[str]], object],
    args: list[str],
    log: Path,
    environment: dict[str, str],
    before: Callable[[], None] | None,
) -> None:
    os.setsid()  # Ctrl-C on the tests is not for it
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Children of multiprocessing read nothing and ignore no signal, as a shell's foreground job.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    os.environ.update(environment)
    # Ended with the tests, as a daemon is, but with loading processes of its own.
    multiprocessing.current_process()._config["daemon"] = False
    multiprocessing.set_start_method(None, force=True)  # not forkserver, which outlives it
    torch.set_num_threads(1)
    if before is not None:
        before()
    sys.exit(program(args))


def kill_at(number: int) -> None:
    """Make this process kill itself before it changes the files of its run once more.

    Args:
        number: of the changes before that. A change opens a file for writing, or renames or removes
            one; those of TensorBoard, which a thread of its own writes, do not count.
    """
    changes = itertools.count()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if _changes(event, arguments) and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an event of :func:`sys.addaudithook` changes a file of a run."""
    if event == "open":
        writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    else:  # a file that is not there is removed without effect
        writes = event in ("os.rename", "os.remove") and os.path.lexists(arguments[0])
    path = Path(str(arguments[0])) if writes else Path()
    return "lightning_logs" in path.parts and "tfevents" not in path.name
