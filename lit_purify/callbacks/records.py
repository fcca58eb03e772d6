"""One row for every sample, on the disk as soon as its batch is done; and going on after a stop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_purify.callbacks.run_folder import run_folder
from lit_purify.callbacks.settings import HARDWARE, run_settings
from lit_purify.data import ImageDataModule
from lit_purify.data.sampler import shared_sampler
from lit_purify.modules.purified_classifier import Outcomes, PurifiedClassifier
from lit_purify.report.aggregate import add_tensors, column
from lit_purify.report.header import (
    Header,
    Status,
    differences,
    new_header,
    read_header,
    write_header,
)
from lit_purify.report.journal import Journal, Row
from lit_purify.report.records import (
    journal_path,
    journals,
    merge,
    read_rows,
    read_tensors,
    records_folder,
)
from lit_purify.report.summary import versions
from lit_purify.types import Batch, InputError

T = TypeVar("T")


class Records(Callback):
    """Keeps one row for every (dataset index, protocol, seed) of a test in ``records/``.

    What the module and the measurements pass to :meth:`PurifiedClassifier.record` is appended
    batch by batch. A run that was killed goes on where it stopped: noise and random starts are
    keyed by sample and the batches are those of an uninterrupted run, so the records are the same.
    Put it behind the measurements in the list of callbacks.

    Args:
        config: the configuration that the settings of a run came from; part of its identity.
        resume: go on with the records in the run folder; without it such a folder is refused.

    Attributes:
        settings: what decides the numbers of the run; known from ``setup`` on.
        rows: the records, known to the first process at the end of the run.
        tensors: those beside the rows that a figure is computed from, likewise.
    """

    def __init__(self, *, config: dict[str, Any] | None = None, resume: bool = False) -> None:
        self.config = config
        self.resume = resume
        self.settings: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.tensors: dict[str, Tensor] = {}
        self._folder = Path()
        self._header: Header | None = None
        self._journal: Journal | None = None
        self._recorded = 0
        self._busy = 0.0
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "test" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # Lightning's smoke test leaves no trace
        assert isinstance(pl_module, PurifiedClassifier)
        if repr(trainer.limit_test_batches) != "1.0":  # 1 is one batch
            raise InputError(
                "trainer.limit_test_batches leaves out samples of the run; take fewer by the data "
                "module instead: --data.limit N"
            )
        self._folder = records_folder(run_folder(trainer))
        self.settings = settings = run_settings(trainer, pl_module)
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
        sitting = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            **{key: settings[key] for key in HARDWARE if key in settings},
        }
        header = new_header(identity, samples)
        # The first process alone looks at what is there; all learn what it found.
        header, rows = _on_first_process(trainer, lambda: self._open(header, sitting))
        if not trainer.is_global_zero:
            self._open_journal(trainer, header)
        self._header = header
        self._recorded, self._busy = 0, 0.0
        if shared:
            data.done = frozenset()
        if rows:
            self._continue(trainer, pl_module, rows)

    def _open(self, header: Header, sitting: dict[str, Any]) -> tuple[Header, list[Row]]:
        """Take the folder; returns the header of the run and the rows it has."""
        earlier = read_header(self._folder)
        rows: list[Row] = []
        if earlier is not None:
            run = self._folder.parent
            if not self.resume:
                raise InputError(
                    f"{run} holds a run already; go on with it by --resume {run}, or write "
                    "elsewhere: --trainer.default_root_dir FOLDER"
                )
            if changes := _changes(earlier["identity"], header["identity"]):
                raise InputError(
                    f"the configuration is not that of the run in {run}: {'; '.join(changes)}; "
                    f"--resume {run} alone repeats the run's own, without --resume a new run starts"
                )
            header = earlier
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in journals(self._folder):  # refuses where a process of the run is still at work
            Journal(path, header["run"]).close()
        journal = Journal(journal_path(self._folder, 0), header["run"])
        try:
            if earlier is not None:
                rows = read_rows(self._folder, header["run"])
                _warn_of_other_versions(earlier, sitting)
            header["status"] = "running"
            header["sittings"].append(sitting)
            write_header(self._folder, header)
        except BaseException:
            journal.close()
            raise
        self._journal = journal
        return header, rows

    def _open_journal(self, trainer: Trainer, header: Header) -> None:
        rank = trainer.global_rank
        try:
            if not self._folder.exists():
                raise InputError(
                    f"there is no {self._folder}; the run folder must be on a file system that all "
                    "nodes share: --trainer.default_root_dir FOLDER"
                )
            self._journal = Journal(journal_path(self._folder, rank), header["run"])
        except InputError as error:  # the first process, which speaks for all, knows nothing of it
            print(f"error: process {rank}: {error}", file=sys.stderr, flush=True)
            raise

    def _continue(self, trainer: Trainer, module: PurifiedClassifier, rows: list[Row]) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        data.done = frozenset(row["index"] for row in rows)
        self._recorded = len(data.done)
        if trainer.is_global_zero:
            print(
                f"resumed: {self._recorded} of {len(data.test_set)} images are recorded", flush=True
            )
            for name, metric in module.figures.items():
                metric.add_recorded(column(rows, name))
            add_tensors(module.figures, self._read_tensors(module))

    def _read_tensors(self, module: PurifiedClassifier) -> dict[str, Tensor]:
        """What was stored beside the rows under the name of a figure."""
        assert self._header is not None
        return read_tensors(self._folder, self._header["run"], module.figures)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: PurifiedClassifier,
        outputs: Outcomes,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._journal is None:
            return
        if sampler := shared_sampler(trainer.test_dataloaders):
            # Fails where the first process is gone: no orphan writes into what others resumed.
            sampler.queue.report(0)
        if late := pl_module.figures.keys() - pl_module.recorded.keys():
            raise InputError(
                f"nothing was recorded for {', '.join(sorted(late))}; put Records behind the "
                "callbacks that measure"
            )
        rows, tensors = _rows_and_tensors(pl_module, batch)
        self._journal.append(rows, tensors)
        self._busy = time.monotonic() - self._started
        self._recorded += len(batch["image"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Sums over processes follow; they would give up waiting for a process that is slow.
        if self._header and (sampler := shared_sampler(trainer.test_dataloaders)):
            self._header["sittings"][-1]["busy_seconds"] = sampler.queue.gather(self._busy)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Where nothing was missing Lightning calls no other hook.
        self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, module: LightningModule) -> None:
        if self._journal is None or self._header is None:
            return
        trainer.strategy.barrier("all batches are recorded")
        if trainer.is_global_zero:
            assert isinstance(module, PurifiedClassifier)
            self.rows = merge(self._folder, self._header["run"])
            self.tensors = self._read_tensors(module)
            self._close("finished")
        else:
            self._journal.close()
        self._journal = None
        # No process may go on, and look for the records, before they are merged.
        trainer.strategy.barrier("records are merged")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self._journal is None:
            return
        interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
        if trainer.is_global_zero:
            assert self._header is not None
            self._close("interrupted" if interrupted else "failed")
            if self._recorded:
                run = self._folder.parent
                print(
                    f"stopped; what was done is recorded, go on with --resume {run}",
                    file=sys.stderr,
                    flush=True,
                )
        else:
            self._journal.close()
        self._journal = None

    def _close(self, status: Status) -> None:
        assert self._journal is not None
        assert self._header is not None
        self._header["status"] = status
        try:
            write_header(self._folder, self._header)
        finally:
            self._journal.close()


def _rows_and_tensors(
    module: PurifiedClassifier, batch: Batch
) -> tuple[list[Row], dict[str, Tensor]]:
    """What a batch adds to the records."""
    index, label = batch["index"].tolist(), batch["label"].tolist()
    tensors = {}
    rows: dict[tuple[int, str], Row] = {}
    for name, (values, where) in module.recorded.items():
        if values.ndim > 1:
            tensors[name] = values.detach().cpu()
            continue
        protocol, _, key = name.partition("/")
        applies = [True] * len(index) if where is None else where.tolist()
        for place, value in enumerate(values.tolist()):
            row = rows.setdefault(
                (place, protocol),
                {
                    "index": index[place],
                    "protocol": protocol,
                    "seed": module.seed,
                    "label": label[place],
                },
            )
            if applies[place]:
                row[key] = value if math.isfinite(value) else None
    if tensors:
        tensors["index"] = batch["index"].cpu()
    return [rows[key] for key in sorted(rows)], tensors


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


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where two identities differ; the settings follow from the configuration, mostly."""
    config: list[str] = []
    if None not in (old["config"], new["config"]):  # runs from Python have none
        config = list(differences(old["config"], new["config"]))
    return config or list(differences(old["settings"], new["settings"]))


def _warn_of_other_versions(header: Header, sitting: dict[str, Any]) -> None:
    changes = list(differences(header["sittings"][-1]["versions"], sitting["versions"]))
    if changes:
        print(f"warning: the run goes on with other software: {'; '.join(changes)}", flush=True)
