"""What all measurements have in common: when they are called, and where their figures go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from lit_purify.callbacks.progress import show_activity
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.protocols import ProtocolName
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import MeanCurve, SampleTable
from lit_purify.types import Batch, InputError


class Measurement(Callback, ABC):
    """Measures something of every image of a test.

    A subclass implements :meth:`prepare` and :meth:`measure`; where it has them, it adds
    :meth:`settings`, :meth:`figures` and :meth:`curves`. Training, validation and prediction are
    left alone.

    Attributes:
        needs_protocol: the run must have one of these protocols; empty where it needs none.
        rounded_away: what mixed precision would round away, so that such a run is refused; empty
            where there is nothing.
    """

    needs_protocol: tuple[ProtocolName, ...] = ()
    rounded_away: ClassVar[str] = ""

    @abstractmethod
    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        """Refuse what cannot be measured, and register the metrics (``module.add_metric``).

        Called once, on every process, before the test.

        Args:
            trainer: the trainer of the run.
            module: the defence under test.

        Raises:
            InputError: the run is not one that this measurement can be taken of.
        """

    @abstractmethod
    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        """Measure one batch and hand in a value for every image of it (``module.record``).

        Args:
            trainer: the trainer of the run.
            module: the defence under test.
            outputs: what the defence made of it, by ``<protocol>/clean`` or ``/adversarial``.
            batch: the batch, with its adversarial images.
        """

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        return {}

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        """Draw what the whole run has recorded, all processes and sessions together.

        Called once, on the first process, at the end of a test with the callback
        :class:`~lit_purify.callbacks.Records`.

        Args:
            trainer: the trainer of the run.
            module: the defence under test.
            table: the records, sorted by dataset index.

        Returns:
            Figures by their name in TensorBoard; in the run folder ``a/b`` is ``a_b.png``.
        """
        return {}

    def curves(self, module: PurifiedClassifier, table: SampleTable) -> Mapping[str, MeanCurve]:
        """Curves for TensorBoard: of each batch as it is measured, and at the end of all records.

        Args:
            module: the defence under test.
            table: the samples, with the columns that this measurement has recorded.

        Returns:
            Means against steps of at least 0, by their names in TensorBoard.
        """
        return {}

    def show_progress(self, trainer: Trainer, done: int, total: int) -> None:
        """Say on the progress bar how far this batch is measured, where :meth:`measure` takes long.

        Args:
            trainer: the trainer of the run.
            done: parts of the batch's measurement that are done.
            total: parts in all.
        """
        show_activity(trainer, type(self).__name__, done, total)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test":
            module = PurifiedClassifier.tested_by(self, pl_module)
            self._check(trainer, module)
            self.prepare(trainer, module)

    def _check(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        name = type(self).__name__
        if self.needs_protocol and not set(self.needs_protocol) & set(module.protocols):
            raise InputError(
                f"{name} needs the protocol {' or '.join(self.needs_protocol)}, and the run has "
                f"{list(module.protocols)}; add {self.needs_protocol[0]} to model.protocols, or "
                f"drop {name}"
            )
        if self.rounded_away and trainer.precision != "32-true":
            raise InputError(
                f"precision {trainer.precision} rounds away {self.rounded_away}; use 32-true, or "
                f"drop {name}"
            )

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: PurifiedClassifier,
        outputs: Outcomes,
        batch: Batch,
        *_: Any,
        **__: Any,
    ) -> None:
        show_activity(trainer, type(self).__name__)
        self.measure(trainer, pl_module, outputs, batch)


def save_figure(trainer: Trainer, folder: Path, name: str, figure: Figure) -> None:
    """Write a figure into the run folder and to every TensorBoard logger.

    Args:
        trainer: the trainer of the run.
        folder: the run folder; made where it is missing.
        name: the name in TensorBoard; the file of ``a/b`` is ``a_b.png``.
        figure: the figure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace('/', '_')}.png"
    figure.savefig(path)
    width, height = figure.canvas.get_width_height()
    picture = Summary.Image(width=width, height=height, encoded_image_string=path.read_bytes())
    for writer in board_writers(trainer):  # the same file: drawing takes long
        add_summary(writer, Summary(value=[Summary.Value(tag=name, image=picture)]))


def add_summary(writer: SummaryWriter, summary: Summary, step: int = 0) -> None:
    """Write what TensorBoard is to show, many values at once."""
    writer.file_writer.add_summary(summary, step)  # type: ignore[attr-defined]


def board_writers(trainer: Trainer) -> Iterator[SummaryWriter]:
    """TensorBoard's writers of a run: those of the first process, which the others do not have."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, TensorBoardLogger):
            yield logger.experiment
