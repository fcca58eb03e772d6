"""Progress of an evaluation: images, attack iterations and the time left."""

from __future__ import annotations

import sys
import time
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
from typing_extensions import override

from lit_purify.data.queue import WorkQueue
from lit_purify.data.sampler import shared_sampler


class EvaluationProgress(ProgressBar):
    """A bar on a terminal; a line for every batch where the output is a file.

    It counts the images of all processes, and the first one shows it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._console = Console(stderr=True)
        self._task = TaskID(0)
        self._bar: Progress | None = None
        self._queue: WorkQueue | None = None
        self._seen = 0
        self._batch_size = 0
        self._total = 0
        self._started = 0.0

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def print(self, *args: Any, **kwargs: Any) -> None:
        self._console.print(*args, **kwargs)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer.test_dataloaders)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer.predict_dataloaders)

    @override
    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batch_size = len(batch["image"])

    def show_attack(
        self, surface: str, iteration: int, iterations: int | None, *, part: tuple[int, int]
    ) -> None:
        """Report an iteration of the attack on the current batch.

        Args:
            surface: what is attacked.
            iteration: iterations done.
            iterations: iterations in all, ``None`` if unknown.
            part: (surfaces done before this one, surfaces in all).
        """
        done, surfaces = part
        share = min(1.0, iteration / iterations) if iterations else 0.0
        of = f"/{iterations}" if iterations else ""
        self._show(
            self._batch_size * (done + share) / surfaces, f"attack ({surface}) {iteration}{of}"
        )

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._finish_batch(batch)

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._finish_batch(batch)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _start(self, loaders: Any) -> None:
        sampler = shared_sampler(loaders)
        self._queue = None if sampler is None else sampler.queue
        self._total = len(loaders.dataset) if sampler is None else sampler.num_items
        self._seen = 0
        self._started = time.monotonic()
        if self._enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.fields[images]}"),
                BarColumn(),
                TextColumn("{task.fields[activity]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._total, images="", activity="")
            self._bar.start()
            self._show(0.0, "")

    def _finish_batch(self, batch: Any) -> None:
        size = len(batch["image"])
        self._seen = self._seen + size if self._queue is None else self._queue.report(size)
        self._show(0.0, "")
        if self._enabled and self._bar is None:
            elapsed = time.monotonic() - self._started
            left = elapsed * (self._total - self._seen) / max(1, self._seen)
            print(
                f"images {self._seen}/{self._total}  "
                f"elapsed {_clock(elapsed)}  left about {_clock(left)}",
                file=sys.stderr,
                flush=True,
            )

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, part_of_batch: float, activity: str) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=self._seen + part_of_batch,
                images=f"images {self._seen}/{self._total}",
                activity=activity,
            )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
