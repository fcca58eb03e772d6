"""One run of a sweep in a process of its own: the command that a user would type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from lit_purify.records.files import write_whole
from lit_purify.sweeps.plan import SweepRun
from lit_purify.sweeps.progress import at_work, read_progress

COMMAND = "command.txt"
LOG = "log.txt"
_LOCK = ".sweep.lock"


class Busy(Exception):
    """Another process works on the run, or has just finished it."""


class Process(Protocol):
    """A process at work, such as one of :mod:`subprocess`."""

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


Launcher = Callable[[Sequence[str], Path, Mapping[str, str]], Process]
"""Starts the command line with arguments, the file that gets its output, and variables."""


def launch(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Start the command line in a process that adds what it prints to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "lit_purify", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            start_new_session=True,
        )


class RunProcess:
    """A run at work; no other sweep on the folder takes it meanwhile.

    The process is not in the terminal's group: of Ctrl-C it learns by :meth:`stop`, once. What it
    prints is in ``log.txt`` beside its ``lightning_logs``.

    Args:
        run: the run.
        root: folder of the sweep.
        environment: added to that of this process.
        launcher: how it is started.

    Raises:
        Busy: another process works on the run.
    """

    def __init__(
        self,
        run: SweepRun,
        root: Path,
        environment: Mapping[str, str] | None = None,
        launcher: Launcher = launch,
    ) -> None:
        self.run = run
        self.folder = root / run.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / _LOCK)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise Busy from None
        try:
            # Left by a sweep that was killed; or another one has finished it since we looked.
            if at_work(read_progress(self.folder).folder) or is_finished(run, root):
                raise Busy
            self._log = self.folder / LOG
            self._before = self._log.stat().st_size if self._log.exists() else 0
            if not read_progress(self.folder).finished:  # a result keeps the command it is by
                self._note()
            self._process = launcher(run.command(root), self._log, environment or {})
        except BaseException:
            self._lock.release()
            raise

    def poll(self) -> int | None:
        """The exit status; ``None`` while it works."""
        status = self._process.poll()
        if status is not None and self._lock.is_locked:
            if status == 0:
                self._note()
            self._lock.release()
        return status

    def wait(self) -> int:
        """The exit status, when there is one."""
        self._process.wait()
        status = self.poll()
        assert status is not None
        return status

    def _note(self) -> None:
        write_whole(self.folder / COMMAND, _identity(self.run).encode())

    def stop(self) -> None:
        """Let it stop: what is done is recorded."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    @property
    def error(self) -> str:
        """What it said last of what went wrong."""
        with self._log.open("rb") as log:
            log.seek(self._before)
            lines = log.read().decode(errors="replace").split("\n")
        told = [line.strip() for line in lines if line.strip()]
        errors = [line for line in told if line.startswith("error: ")]
        return (errors or told or ["it said nothing"])[-1].removeprefix("error: ")


def shell_line(words: Sequence[str]) -> str:
    """A command line as it is typed."""
    return f"python -m lit_purify {shlex.join(words)}\n"


def is_finished(run: SweepRun, root: Path) -> bool:
    """Whether a run has its result, by the command that it has now.

    Of a result by another command the run itself says whether it is the same, and if not in what it
    differs: so it is started.
    """
    folder = root / run.name
    command = folder / COMMAND
    if not command.is_file() or not read_progress(folder).finished:
        return False
    return command.read_text(encoding="utf-8") == _identity(run)


def _identity(run: SweepRun) -> str:
    """The command of a run wherever its folder is."""
    return shell_line(["test", *run.options])
