"""Every batch on the disk as soon as it is done; and going on after a stop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_purify.callbacks.attack import AdversarialExamples
from lit_purify.callbacks.measurement import Measurement, save_figure
from lit_purify.callbacks.run_folder import run_folder
from lit_purify.callbacks.settings import HARDWARE, run_settings
from lit_purify.data import ImageDataModule
from lit_purify.data.sampler import shared_sampler
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import RunStore, SampleTable, records_folder, versions
from lit_purify.records.header import Header, Status, new_header, write_header
from lit_purify.records.opening import open_run
from lit_purify.records.store import read_merged
from lit_purify.types import InputError

T = TypeVar("T")


def find_records(trainer: Trainer, asking: Callback) -> Records:
    """The records of a run, for a callback that stands behind them.

    Raises:
        InputError: there are none before it.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks[: callbacks.index(asking)]:
        if isinstance(callback, Records):
            return callback
    name = type(asking).__name__
    raise InputError(
        f"{name} needs the callback lit_purify.callbacks.Records(); put it before {name} in the "
        "Trainer's callbacks"
    )


class Records(Callback):
    """Keeps what is found for every image of a test in ``records/``, batch by batch.

    A run that was killed goes on where it stopped: noise and random starts are keyed by sample and
    the batches are those of an uninterrupted run, so the records are the same.

    Args:
        config: the configuration that the settings of a run came from; part of its identity.
        resume: go on with the records in the run folder; without it such a folder is refused.

    Attributes:
        settings: what decides the numbers of the run; known from ``setup`` on.
        run_folder: where the run writes, the same on every process; likewise.
    """

    def __init__(self, *, config: dict[str, Any] | None = None, resume: bool = False) -> None:
        self.config = config
        self.resume = resume
        self.settings: dict[str, Any] = {}
        self.run_folder = Path()
        self._folder = Path()
        self._header: Header | None = None
        self._store: RunStore | None = None
        self._concluded = False
        self._busy = 0.0
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "test" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # Lightning's smoke test leaves no trace
        module = PurifiedClassifier.tested_by(self, pl_module)
        if repr(trainer.limit_test_batches) != "1.0":  # 1 is one batch
            raise InputError(
                "trainer.limit_test_batches leaves out samples of the run; take fewer by the data "
                "module instead: --data.limit N"
            )
        self.run_folder = run_folder(trainer)
        self._folder = records_folder(self.run_folder)
        self.settings = settings = run_settings(trainer, module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        shared = isinstance(data, ImageDataModule)
        if not shared and (self.resume or trainer.world_size > 1):
            raise InputError(
                "only a lit_purify.data.ImageDataModule can share its images out to several "
                "processes or leave out those that are done; give the Trainer one as datamodule"
            )
        if shared and not hasattr(data, "test_set"):
            raise InputError(
                f"data is a {type(data).__name__}, which holds no test images; test expects one "
                "such as lit_purify.data.CIFAR10DataModule"
            )
        samples = len(data.test_set) if shared else None
        identity = {
            "config": self.config,
            "settings": {key: settings[key] for key in settings if key not in HARDWARE},
        }
        session = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            **{key: settings[key] for key in HARDWARE if key in settings},
        }
        header = new_header(identity, samples)
        # The first process alone looks at what is there; all learn what it found.
        self._header, done = _on_first_process(trainer, lambda: self._open(header, session))
        if not trainer.is_global_zero:
            self._open_on_others(trainer, self._header)
        assert self._store is not None
        module.store = self._store
        self._concluded = False
        self._busy = 0.0
        if shared:
            data.done = done
        if done and trainer.is_global_zero:
            print(f"resumed: {len(done)} of {samples} images are recorded", flush=True)

    def _open(self, header: Header, session: dict[str, Any]) -> tuple[Header, frozenset[int]]:
        """Take the folder; returns the header of the run and the samples it has."""
        self._store, header, done = open_run(self._folder, header, session, resume=self.resume)
        return header, done

    def _open_on_others(self, trainer: Trainer, header: Header) -> None:
        rank = trainer.global_rank
        try:
            if not self._folder.exists():
                raise InputError(
                    f"there is no {self._folder}; the run folder must be on a file system that all "
                    "nodes share: --trainer.default_root_dir FOLDER"
                )
            self._store = RunStore(self._folder, header["run"], rank)
        except InputError as error:  # the first process, which speaks for all, knows nothing of it
            print(f"error: process {rank}: {error}", file=sys.stderr, flush=True)
            raise

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_test_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self._store is not None and (sampler := shared_sampler(trainer.test_dataloaders)):
            # Fails where the first process is gone: no orphan writes into what others resumed.
            sampler.peers.report(0)
        self._busy = time.monotonic() - self._started

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Before the module merges: every process must have come here, and one may be hours late.
        if self._header and (sampler := shared_sampler(trainer.test_dataloaders)):
            session = self._header["sessions"][-1]
            session["busy_seconds"] = sampler.peers.gather(self._busy)
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, AdversarialExamples) and callback.seconds:
                    session["attack_seconds_per_image"] = {
                        part: seconds / images
                        for part, (seconds, images) in callback.seconds.items()
                    }
        self._concluded = True

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Where nothing was missing Lightning calls no other hook.
        self._finish(trainer, pl_module)
        self._forget_done(trainer)
        if stage == "test" and self.finished:
            if trainer.is_global_zero:
                self._draw(trainer, PurifiedClassifier.tested_by(self, pl_module))
            # No process may go on, and look for the figures, before they are drawn.
            trainer.strategy.barrier("figures are drawn")

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end, and the first process's module has its records."""
        return self._header is not None and self._header["status"] == "finished"

    def _draw(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Measurement):
                for name, figure in callback.figures(trainer, module, module.table).items():
                    save_figure(trainer, self.run_folder, name, figure)

    @staticmethod
    def _forget_done(trainer: Trainer) -> None:
        """Let the data module serve all images to the next test, which may be another run's."""
        if isinstance(data := trainer.datamodule, ImageDataModule):  # type: ignore[attr-defined]
            data.done = frozenset()

    def _finish(self, trainer: Trainer, module: LightningModule) -> None:
        if self._store is None:
            return
        assert isinstance(module, PurifiedClassifier)
        if not self._concluded:
            trainer.strategy.barrier("all processes have come here")
            module.conclude(self._store.collect())
        self._close(trainer, "finished")
        # No process may go on, and look for the records, before they are merged.
        trainer.strategy.barrier("records are merged")

    def read(self) -> SampleTable:
        """The records of the finished run, on any process; the first one's module has them."""
        assert self._header is not None
        return read_merged(self._folder, self._header["run"])

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self._store is None:
            return
        self._forget_done(trainer)
        interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
        recorded = not self._store.empty
        self._close(trainer, "interrupted" if interrupted else "failed")
        if trainer.is_global_zero and recorded:
            # A run from Python has no configuration that the command line could repeat.
            by = "resume=" if self.config is None else "--resume "
            print(
                f"stopped; what was done is recorded, go on with {by}{self.run_folder}",
                file=sys.stderr,
                flush=True,
            )

    def _close(self, trainer: Trainer, status: Status) -> None:
        assert self._store is not None
        assert self._header is not None
        store, self._store = self._store, None
        self._header["status"] = status
        try:
            if trainer.is_global_zero:
                write_header(self._folder, self._header)
        finally:
            store.close()


def _on_first_process(trainer: Trainer, function: Callable[[], T]) -> T:
    """Run a function on one process; all get its result, or raise its :class:`InputError`."""
    result: T | None = None
    error: str | None = None
    if trainer.is_global_zero:
        try:
            result = function()
        except InputError as exception:
            error = str(exception)
    result, error = trainer.strategy.broadcast((result, error))
    if error is not None:
        raise InputError(error)
    return result  # type: ignore[return-value]
