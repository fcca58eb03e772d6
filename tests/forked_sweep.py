"""Runs of a sweep as forks of it: they start in a moment, as everything is loaded."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from processes import Fork

from lit_purify.cli import main
from lit_purify.sweeps import process

PIDS = "SWEEP_TEST_PIDS"


class ForkedRun:
    """What :func:`lit_purify.sweeps.process.launch` returns, as far as it is used."""

    def __init__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._status: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            status = 70
            try:
                status = _child(words, log, environment)
            finally:
                os._exit(status)
        with Path(os.environ[PIDS]).open("a") as file:
            file.write(f"{self._pid}\n")

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        return self._wait(0)

    def terminate(self) -> None:
        os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self._pid, options)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status


def _child(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    status = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _use_forks() -> None:
    process.launch = ForkedRun  # type: ignore[assignment,misc]


class ForkedSweep(Fork):
    """``sweep`` in a process of its own, whose runs are forks of it.

    Args:
        args: arguments of ``sweep``.
        folder: gets what it prints, and the ids of its runs' processes.
    """

    def __init__(self, args: Sequence[str], folder: Path) -> None:
        self.pids = folder / "pids"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            ["sweep", *args],
            folder / "printed",
            environment={PIDS: str(self.pids)},
            before=_use_forks,
        )

    def kill_runs(self) -> None:
        """SIGKILL for the processes of its runs."""
        for pid in self.pids.read_text().split() if self.pids.exists() else ():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
