"""TensorBoard, while the run goes on and at its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from lit_purify.callbacks.hparams import hparams
from lit_purify.callbacks.measurement import Measurement, add_summary, board_writers
from lit_purify.callbacks.records import Records, find_records
from lit_purify.modules.protocols import PROTOCOLS
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import Column, MeanCurve, MemoryStore, SampleTable, running_mean
from lit_purify.records.table import INDEX
from lit_purify.types import NOTED, Batch

_GROWTH = 1.1
"""The curves are written again when there are so many times more images: rarely in a long run."""

Curves = dict[str, MeanCurve]


class Dashboard(Callback):
    """Writes curves to TensorBoard: of what this process has seen while the run goes on, and at its
    end of all that is recorded, by all processes and sessions.

    - A metric under its own name, such as ``fixed/robust_accuracy``: its mean over the first n
      images, against n. What is merely noted on the way is left out where it is zero.
    - What measurements give (:meth:`Measurement.curves`), such as ``attack/fixed/loss``.
    - ``interval/<name>/low`` and ``/high``: the 95 % interval of robust accuracies.
    - At the end ``per_image/<name>``: histograms of what was measured image by image; the settings
      and main metrics for the tab HParams; the charts of the tab Custom Scalars, which draw
      robust accuracies with their intervals.

    :class:`~lit_purify.callbacks.Records`, which knows the end of a run, must stand before it in
    the list of callbacks. Other loggers than TensorBoard's are left alone.
    """

    def __init__(self) -> None:
        self._records = Records()
        self._seen = MemoryStore()
        self._curves: Curves = {}
        self._images = 0
        self._written = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._records = find_records(trainer, self)
        self._seen, self._curves = MemoryStore(), {}
        self._images = self._written = 0

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: PurifiedClassifier,
        outputs: Any,
        batch: Batch,
        *_: Any,
        **__: Any,
    ) -> None:
        writers = list(board_writers(trainer))
        if not writers:
            return
        table = SampleTable({INDEX: Column(batch["index"]), **pl_module.recorded})
        numbers = {name: c for name, c in table.columns.items() if c.values.ndim == 1}
        self._seen.append(SampleTable(numbers).cpu())
        for name, curve in _measured(trainer, pl_module, table).items():
            self._curves[name] = self._curves[name] + curve if name in self._curves else curve
        self._images += len(table)
        if self._images >= _GROWTH * self._written:
            self._written = self._images
            curves = _running(pl_module, self._seen.collect()) | self._curves
            for writer in writers:
                write_curves(writer, curves)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        writers = list(board_writers(trainer))
        if stage != "test" or not writers or not self._records.finished:
            return
        module = PurifiedClassifier.tested_by(self, pl_module)
        table = module.table
        curves = _running(module, table) | _measured(trainer, module, table)
        for writer in writers:
            write_curves(writer, curves, last=True)
            # TensorBoard has forgotten these too.
            add_summary(writer, _pooled(module, curves), len(table))
            _write_histograms(writer, module)
            writer.add_custom_scalars(_charts(curves))
            for part in hparams(self._records.settings):
                add_summary(writer, part)
            writer.flush()


def write_curves(
    writer: SummaryWriter, curves: Mapping[str, MeanCurve], *, last: bool = False
) -> None:
    """Write curves in the place of those that were written before.

    Points at step 0, where images and histograms are too, cannot be replaced; they are written at
    last only.
    """
    points: dict[int, list[Summary.Value]] = defaultdict(list)
    for name, curve in curves.items():
        for step, mean in curve.points():
            if step == 0 and not last:
                continue
            points[step].append(Summary.Value(tag=name, simple_value=mean.value))
            for end in ("low", "high") if curve.share else ():
                tag, value = f"interval/{name}/{end}", getattr(mean, end)
                points[step].append(Summary.Value(tag=tag, simple_value=value))
    # TensorBoard forgets what came before of these steps.
    start = SessionLog(status=SessionLog.START)
    event = Event(step=1, session_log=start)
    writer.file_writer.add_event(event)  # type: ignore[attr-defined]
    for step in sorted(points):
        add_summary(writer, Summary(value=points[step]), step)
    writer.flush()


def _measured(trainer: Trainer, module: PurifiedClassifier, table: SampleTable) -> Curves:
    """The curves of the measurements."""
    found: Curves = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Measurement):
            found |= callback.curves(module, table)
    return found


def _running(module: PurifiedClassifier, table: SampleTable) -> Curves:
    """The running mean of every metric that is one."""
    found = {}
    for name, shown in module.registered.items():
        column = table.columns.get(name)
        if column is None or column.values.ndim > 1:
            continue
        protocol, _, what = name.partition("/")
        share = protocol in PROTOCOLS and what.startswith("robust_accuracy")
        curve = running_mean(column, share=share)
        if shown.section != NOTED or curve.total.any():
            found[name] = curve
    return found


def _pooled(module: PurifiedClassifier, curves: Curves) -> Summary:
    """The metrics that are of all images at once, such as a Fréchet distance, and have no curve."""
    found = {name: statistics["value"] for name, statistics in module.statistics.items()}
    known = {n: v for n, v in found.items() if v is not None and n not in curves}
    told = module.worth_telling(known)
    return Summary(value=[Summary.Value(tag=n, simple_value=v) for n, v in told.items()])


def _write_histograms(writer: SummaryWriter, module: PurifiedClassifier) -> None:
    """The numbers image by image; yes and no have no histogram."""
    measured = {name for name, shown in module.registered.items() if shown.section != NOTED}
    for name in measured & module.table.columns.keys():
        values = module.table[name]
        if values.ndim > 1 or not values.is_floating_point():
            continue
        finite = values[values.isfinite()].numpy()
        if len(finite):
            # Not under the name of the scalar: TensorBoard shows one kind under a name.
            writer.add_histogram(f"per_image/{name}", finite, 0)


def _charts(curves: Mapping[str, MeanCurve]) -> dict[str, dict[str, list[Any]]]:
    """Charts of several curves for the tab Custom Scalars, and of robust accuracies with bands."""
    charts: dict[str, dict[str, list[Any]]] = {}
    for name in sorted(curves, key=lambda name: (not curves[name].share, name)):
        if curves[name].share:
            section = "against iteration" if name.startswith("attack/") else "against images done"
            ends = [f"interval/{name}/low", f"interval/{name}/high"]
            charts.setdefault(f"Robust accuracy {section}", {})[name] = ["Margin", [name, *ends]]
        elif name.count("/") > 1:  # attack/fixed/loss, trajectory/l2/attack
            group = name.split("/")
            place = -1 if group[0] == "attack" else 1
            lines = charts.setdefault(group[0].capitalize(), {})
            lines.setdefault(group[place], ["Multiline", []])[1].append(name)
    return charts
