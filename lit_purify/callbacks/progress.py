"""Progress of an evaluation: images, attack iterations and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lit_purify.data.peers import Peers
from lit_purify.data.sampler import shared_sampler
from lit_purify.modules.protocols import PROTOCOLS
from lit_purify.modules.recording import RecordingModule
from lit_purify.records import Column


class EvaluationProgress(ProgressBar):
    """A bar on a terminal; a line for every batch where the output is a file.

    It counts the images of all processes, and the first one shows it, beside the robust accuracy of
    the images that it has evaluated itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._console = Console(stderr=True)
        self._task = TaskID(0)
        self._bar: Progress | None = None
        self._peers: Peers | None = None
        self._seen = 0
        self._accuracy = RunningAccuracy()
        self._batch_size = 0
        self._total = 0
        self._started = 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        self._console.print(*args, **kwargs)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.predict_dataloaders
        sampler = shared_sampler(loaders)
        self._peers = None if sampler is None else sampler.peers
        self._total = len(loaders.dataset) if sampler is None else sampler.num_items
        self._seen, self._batch_size = 0, 0
        self._accuracy = RunningAccuracy()
        self._started = time.monotonic()
        if self._enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.fields[images]}"),
                BarColumn(),
                TextColumn("{task.fields[accuracy]}"),
                TextColumn("{task.fields[activity]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(
                "", total=self._total, images="", accuracy="", activity=""
            )
            self._bar.start()
            self._show(0.0, "")

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any, **__: Any
    ) -> None:
        self._finish_batch(pl_module)
        self._batch_size = len(batch["image"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A batch is done when it is measured: at its end those that measure it are still to come.
        self._finish_batch(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.on_test_end(trainer, pl_module)

    on_predict_start = on_test_start
    on_predict_batch_start = on_test_batch_start
    on_predict_epoch_end = on_test_epoch_end
    on_predict_end = on_test_end

    def show(
        self,
        activity: str,
        done: int = 0,
        total: int | None = None,
        *,
        part: tuple[int, int] | None = None,
    ) -> None:
        """Say what is being done with the current batch.

        Args:
            activity: what, in a few words.
            done: how many steps of it are done.
            total: steps in all, ``None`` if unknown.
            part: of an activity that moves the bar, (parts of the batch's way done before this
                one, parts in all); ``None`` leaves the bar where it is.
        """
        if self._bar is None:
            return
        if done or total:
            activity += f" {done}/{total}" if total else f" {done}"
        if part is None:
            self._bar.update(self._task, activity=activity)
            return
        before, parts = part
        share = min(1.0, done / total) if total else 0.0
        self._show(self._batch_size * (before + share) / parts, activity)

    def _finish_batch(self, module: LightningModule) -> None:
        size = self._batch_size
        if size == 0:  # there was none yet
            return
        self._seen = self._seen + size if self._peers is None else self._peers.report(size)
        if isinstance(module, RecordingModule):  # it still holds what was recorded for that batch
            self._accuracy.add(module.recorded)
        self._show(0.0, "")
        if self._enabled and self._bar is None:
            elapsed = time.monotonic() - self._started
            left = elapsed * (self._total - self._seen) / max(1, self._seen)
            print(
                f"images {self._seen}/{self._total}  {self._accuracy}"
                f"elapsed {_clock(elapsed)}  left about {_clock(left)}",
                file=sys.stderr,
                flush=True,
            )

    def _show(self, part_of_batch: float, activity: str) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=self._seen + part_of_batch,
                images=f"images {self._seen}/{self._total}",
                accuracy=str(self._accuracy).rstrip(),
                activity=activity,
            )


class RunningAccuracy:
    """Robust accuracy by protocol of the samples so far, as a progress line says it."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}

    def add(self, recorded: Mapping[str, Column]) -> None:
        """Count in what was recorded for a batch."""
        for protocol in PROTOCOLS:
            # An attack that stops early leaves the second alone known.
            for name in ("robust_accuracy", "robust_accuracy_any_iteration"):
                column = recorded.get(f"{protocol}/{name}")
                if column is not None:
                    right, n = self._counts.get(protocol, (0.0, 0))
                    found = column.values.double().sum().item()
                    self._counts[protocol] = right + found, n + len(column.values)
                    break

    def __str__(self) -> str:
        shares = [f"{name} {100 * right / n:.0f}" for name, (right, n) in self._counts.items()]
        return f"robust {', '.join(shares)} %  " if shares else ""


def show_activity(
    trainer: Trainer,
    activity: str,
    done: int = 0,
    total: int | None = None,
    *,
    part: tuple[int, int] | None = None,
) -> None:
    """:meth:`EvaluationProgress.show` of a run that has such a bar; nothing without one."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, EvaluationProgress):
        bar.show(activity, done, total, part=part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
