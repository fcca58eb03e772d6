"""The Trainer of a run, from arguments that a user chose."""

from __future__ import annotations

from collections.abc import Callable

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from lit_purify.types import InputError


def make_trainer(make: Callable[[], Trainer]) -> Trainer:
    """A Trainer whose processes all run the program, and so come back with its result.

    Raises:
        InputError: there is no such Trainer.
    """
    try:
        trainer = make()
    except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
        raise InputError(f"the trainer cannot be set up so: {error}") from error
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise InputError(
            "this strategy works in processes whose result does not come back; expected one that "
            "repeats the program in every process: ddp, as in --trainer.strategy ddp"
        )
    return trainer
