"""SIGTERM stops a run as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
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
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
    raise Terminated
