"""SIGTERM stops a run as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


class Interruption(Callback):
    """Drops the batch in flight on SIGTERM, which schedulers send before they kill.

    Lightning itself would finish the batch first, and would wait for the other processes, neither
    of which a scheduler does. Its own handlers come back at the end of the run.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _in_main_thread():  # in the place of Lightning's
            signal.signal(signal.SIGTERM, _terminate)


@contextmanager
def interruptible(*, by_sigterm: bool = True) -> Iterator[None]:
    """Inside, an interruption is raised as what it is: Lightning makes it ``SystemExit(1)``.

    Args:
        by_sigterm: also before Lightning listens to it, while a run is set up.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        Terminated: after SIGTERM.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    if by_sigterm and _in_main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    finally:
        for number, handler in handlers.items():
            if _in_main_thread() and handler is not None:  # None: it is not Python's
                signal.signal(number, handler)


def _in_main_thread() -> bool:
    """Whether this is the thread that may change what a signal does."""
    return threading.current_thread() is threading.main_thread()


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
    raise Terminated
