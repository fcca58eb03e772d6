"""Everything that decides the numbers of a run, from whoever knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer

from lit_purify.checkpoints.files import sha256
from lit_purify.modules.purified_classifier import PurifiedClassifier

HARDWARE = ("batch_size", "memory_budget_gib", "device", "processes")
"""Settings that may change between the sessions of a run: they move floats in the last digits."""


def run_settings(trainer: Trainer, module: PurifiedClassifier) -> dict[str, Any]:
    """What a report must say: of the defence, the attack, the measurements, the data, the machine.

    Every part that has a method ``settings`` adds its own.
    """
    settings: dict[str, Any] = {}
    for part in (module, *trainer.callbacks, trainer.datamodule):  # type: ignore[attr-defined]
        report: Callable[[], dict[str, Any]] | None = getattr(part, "settings", None)
        if callable(report):
            settings |= report()
    settings["models"] = {
        role: {"source": model.source, "sha256": model.file and sha256(model.file)}
        for role, model in module.models().items()
    }
    settings["device"] = str(trainer.strategy.root_device)
    settings["processes"] = trainer.world_size
    settings["precision"] = trainer.precision
    settings["deterministic"] = torch.are_deterministic_algorithms_enabled()
    return settings
