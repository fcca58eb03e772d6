"""The arithmetic of a run, set at its beginning and put back at its end."""

from __future__ import annotations

from contextlib import ExitStack

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_purify.precision import check_tf32, float32_mode
from lit_purify.types import InputError

PRECISIONS = ("32-true", "bf16-mixed")
"""Precisions of a trainer whose weights, images and attack states are float32, and whose gradients
do not underflow: in float16 a third of an attack's gradient is 0."""


def check_precision(trainer: Trainer) -> None:
    """Raise :class:`InputError` unless a trainer has one of the :data:`PRECISIONS`."""
    if trainer.precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision is {trainer.precision}; expected one of {', '.join(PRECISIONS)}, "
            "in which images and attacks stay float32"
        )


class Float32Mode(Callback):
    """Holds :func:`~lit_purify.precision.float32_mode` from a run's setup to its end, early or not.

    Args:
        tf32: as in :func:`~lit_purify.precision.float32_mode`.

    Raises:
        InputError: in ``setup``, TF32 is asked of a device without it.
    """

    def __init__(self, *, tf32: bool) -> None:
        self.tf32 = tf32
        self._mode = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.tf32:
            check_tf32(trainer.strategy.root_device)
        self._mode.enter_context(float32_mode(tf32=self.tf32))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._mode.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._mode.close()  # Lightning tears nothing down then
