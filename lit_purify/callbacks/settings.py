"""Everything that decides the numbers of a run, from whoever knows it."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from lit_purify.callbacks.memory_use import MemoryUse
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.weights.content import sha256

_PACKAGE = "lit_purify."

HARDWARE = (
    *("batch_size", "device", "download", "memory_budget_gib", "num_workers", "processes", "root"),
)
"""Settings and arguments of this package's classes that may change between the sessions of a run:
they move floats in the last digits at most."""


def without_hardware(config: Any) -> Any:
    """A configuration without the arguments that :data:`HARDWARE` names.

    Args:
        config: mappings and lists, with ``class_path`` and ``init_args``. What a user's own class
            has under one of the names decides, and stays.
    """
    if isinstance(config, list):
        return [without_hardware(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    plain = {key: without_hardware(value) for key, value in config.items()}
    if isinstance(arguments := plain.get("init_args"), dict):
        made = pydoc.locate(str(plain.get("class_path", "")))
        plain["init_args"] = {
            name: value for name, value in arguments.items() if not _is_hardware(made, name)
        }
    return plain


def _is_hardware(made: object, name: str) -> bool:
    """Whether an argument of a class is one of :data:`HARDWARE`, as a class from here declares."""
    own = (base for base in getattr(made, "__mro__", ()) if base.__module__.startswith(_PACKAGE))
    return name in HARDWARE and any(
        name in inspect.signature(base.__init__).parameters for base in own
    )


def run_settings(trainer: Trainer, module: PurifiedClassifier) -> dict[str, Any]:
    """What a report must say: of the defence, the attack, the measurements, the data, the machine.

    Every part that has a method ``settings`` adds its own. A name that another part has given to
    something else gets the part's class before it.
    """
    settings: dict[str, Any] = {}
    data = trainer.datamodule  # type: ignore[attr-defined]
    for part in (module, *trainer.callbacks, data):  # type: ignore[attr-defined]
        report: Callable[[], dict[str, Any]] | None = getattr(part, "settings", None)
        for name, value in report().items() if callable(report) else ():
            taken = settings.get(name, value) != value
            taken |= name in HARDWARE and not (part is data or isinstance(part, MemoryUse))
            settings[f"{type(part).__name__}.{name}" if taken else name] = value
    settings["models"] = {
        role: {"source": model.source, "sha256": model.file and sha256(model.file)}
        for role, model in module.models().items()
    }
    settings["device"] = str(trainer.strategy.root_device)
    settings["processes"] = trainer.world_size
    settings["precision"] = trainer.precision
    settings["deterministic"] = torch.are_deterministic_algorithms_enabled()
    return settings
