"""What a module under test records of every sample, and the metrics that are computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_purify.metrics import Statistics, SummaryMetric
from lit_purify.records import Column, MemoryStore, SampleTable, Store, reduce
from lit_purify.types import NOTED, OTHER, Batch, InputError


class Registered(NamedTuple):
    """A metric of a run, and how reports show it.

    Attributes:
        place: where the module keeps it.
        section: title of the rows that it stands among.
        label: its name in plain words.
        unit: ``%`` for a share in [0, 1] to be shown in percent; other text follows the number.
    """

    place: int
    section: str
    label: str
    unit: str


class RecordingModule(LightningModule):
    """Keeps what is recorded in a test, batch by batch, and computes the metrics at its end.

    A metric is fed once, with the column of its name. By default the records are kept in memory;
    the callback ``Records`` puts a folder in their place.

    Attributes:
        registered: metric name -> how reports show it.
        recorded: columns of the batch under test.
        store: where the columns of the batches go.
        table: the records of the whole run; known at its end.
        statistics: metric name -> its statistics, likewise.
    """

    def clear_records(self) -> None:
        """Forget the metrics and records of an earlier run."""
        self.metrics = nn.ModuleList()
        self.registered: dict[str, Registered] = {}
        self.recorded: dict[str, Column] = {}
        self._layout: dict[str, tuple[torch.dtype, torch.Size]] = {}
        self.store: Store = MemoryStore(self.registered)
        self.table = SampleTable({})
        self.statistics: dict[str, Statistics] = {}

    def add_metric(
        self, name: str, metric: SummaryMetric, *, section: str = OTHER, label: str | None = None
    ) -> None:
        """Register a metric; a callback does so in its ``setup``.

        Args:
            name: its name in the summary, and that of the column it is computed from.
            metric: unused so far.
            section: title that reports put it under.
            label: what reports call it; ``None`` is its name.

        Raises:
            InputError: the name is taken.
        """
        if name in self.registered:
            raise InputError(f"the metric {name!r} is measured twice; drop one of the callbacks")
        self.registered[name] = Registered(len(self.metrics), section, label or name, metric.unit)
        self.metrics.append(metric)

    @property
    def summary_metrics(self) -> dict[str, SummaryMetric]:
        """The registered metrics by their names in the summary."""
        return {
            name: cast(SummaryMetric, self.metrics[place])
            for name, (place, *_) in self.registered.items()
        }

    def drop_metric(self, name: str) -> None:
        """Leave out a metric that this run cannot know; a callback does so in its ``setup``."""
        del self.registered[name]

    def record(self, name: str, values: Tensor, *, where: Tensor | None = None) -> None:
        """Write down what was found for each sample of the batch under test.

        The values become a column of the run's records, from which a metric of that name is
        computed, where one is registered.

        Args:
            name: ``<protocol>/<column>``, such as ``fixed/robust_accuracy``.
            values: a number per sample, shape (B,), nan where it has none; or a tensor per sample,
                shape (B, ...).
            where: the samples that the name applies to, shape (B,), bool; ``None`` for all.
        """
        if not all(name.partition("/")) or name.startswith("where/"):
            raise ValueError(
                f"expected <protocol>/<column>, with another protocol than where, got {name!r}"
            )
        if name in self.recorded:
            raise ValueError(f"{name} is recorded already for this batch; choose another name")
        if values.is_complex():
            raise ValueError(f"{name} is complex; record its parts or its absolute value")
        if where is not None and (where.dtype != torch.bool or where.shape != values.shape[:1]):
            raise ValueError(
                f"where of {name} must be bool of shape ({len(values)},), got {where.dtype} of "
                f"shape {(*where.shape,)}"
            )
        # The records know float32, and it holds what mixed precision gives.
        half = values.dtype in (torch.bfloat16, torch.float16)
        self.recorded[name] = Column(values.detach().float() if half else values.detach(), where)

    def on_test_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.recorded.clear()

    def on_test_batch_end(
        self, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # After the callbacks' hook of that name, so that what they measured is recorded.
        if missing := self.registered.keys() - self.recorded.keys():
            raise ValueError(
                f"nothing was recorded for {', '.join(sorted(missing))}; whoever registers a "
                "metric must record its column for every batch"
            )
        size = len(batch["index"])
        for name, column in self.recorded.items():
            if any(len(part) != size for part in column if part is not None):
                raise ValueError(
                    f"{name} was recorded for {len(column.values)} samples of a batch of {size}"
                )
        layout = {name: (c.values.dtype, c.values.shape[1:]) for name, c in self.recorded.items()}
        self._layout = self._layout or layout
        if layout != self._layout:
            other = {name for name, _ in layout.items() ^ self._layout.items()}
            raise ValueError(
                f"{', '.join(sorted(other))}: every batch must record the same columns, of one "
                "type and shape; record nan where there is no value"
            )
        named = {"index": Column(batch["index"]), "label": Column(batch["label"])}
        self.store.append(SampleTable(named | self.recorded).cpu())

    def on_test_epoch_end(self) -> None:
        self.conclude(self.store.collect())
        for name, metric in self.summary_metrics.items():
            place = self.registered[name].place
            self.log(name, metric, metric_attribute=f"metrics.{place}", logger=False)

    def on_test_end(self) -> None:
        found = self.trainer.callback_metrics
        self.log_metrics({name: found[name].item() for name in self.registered if name in found})

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Hand the metrics of the run to its loggers, as of so many images."""
        for logger in self.loggers:
            logger.log_metrics(self.worth_telling(values), len(self.table))

    def worth_telling(self, values: Mapping[str, float]) -> dict[str, float]:
        """Metrics without those that are merely noted on the way and zero."""
        return {n: v for n, v in values.items() if v or self.registered[n].section != NOTED}

    def conclude(self, table: SampleTable) -> None:
        """Compute the metrics of a run.

        Args:
            table: the records, all on one process or to each process its own.
        """
        self.table = table
        self.statistics.update(reduce(table, self.summary_metrics))
