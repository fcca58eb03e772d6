"""A run in a copy of this process: what is imported need not be imported again."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_purify.sweeps.process import Process, launch


def fork(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Start the command line like :func:`~lit_purify.sweeps.process.launch`, seconds sooner.

    Where processes cannot be copied it is launched.
    """
    if not sys.platform.startswith("linux"):
        return launch(words, log, environment)
    import lit_purify.cli.run  # noqa: F401  (here, once, and not in every copy)

    return _Forked(words, log, environment)


class _Forked:
    def __init__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_work, args=(words, log, environment))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _work(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    from lit_purify.cli import main

    os.setsid()
    os.environ.update(environment)
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    # Python's own objects may be those of a terminal, or of who captures them.
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.exit(main(words))
