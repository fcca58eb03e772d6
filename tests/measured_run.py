"""A test of a small defence that leaves its records, and how the tests read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from lightning.pytorch import Callback
from run_files import RunFiles
from tiny import Recorder

from lit_purify.attacks import Attack
from lit_purify.callbacks import Records, Summary
from lit_purify.classifiers import Classifier
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import Purifier
from lit_purify.modules import PurifiedClassifier


@dataclass(frozen=True)
class MeasuredRun(RunFiles):
    """What a finished run has in its folder, and what was seen of it.

    Attributes:
        logged: what the Trainer logged.
        seen: batches and outcomes.
    """

    logged: dict[str, float] = field(default_factory=dict)
    seen: Recorder = field(default_factory=Recorder)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.summary["metrics"]
        return found

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.summary["settings"]
        return found

    def of(self, start: str) -> dict[str, dict[str, Any]]:
        """The metrics whose names begin so, by what follows."""
        return {
            name.removeprefix(start): metric
            for name, metric in self.metrics.items()
            if name.startswith(start)
        }

    def column(self, name: str) -> list[Any]:
        """A column of the rows that have it, in the order of the index."""
        return [row[name] for row in self.rows if name in row]


def measured_run(
    folder: Path,
    source: str,
    purifier: Purifier,
    *callbacks: Callback,
    classifier: Classifier | None = None,
    protocols: Any = ("base", "fixed"),
    seed: int = 0,
    data: type[CIFAR10DataModule] = CIFAR10DataModule,
    batch_size: int = 3,
    indices: Sequence[int] | None = None,
    attack: Attack | None = None,
    resume: bool = False,
    surrogate: Purifier | None = None,
    test_draws: int = 1,
) -> MeasuredRun:
    """:func:`tiny.evaluate` with records and a summary; it leaves the global generators alone."""
    module = PurifiedClassifier(
        purifier,
        classifier or tiny.classifier(),
        protocols=protocols,
        seed=seed,
        surrogate=surrogate,
        test_draws=test_draws,
    )
    images = data(source=source, batch_size=batch_size, indices=indices)
    callbacks = (*callbacks, Records(resume=resume), Summary())
    before = _global_generators()
    found = tiny.evaluate(module, images, *callbacks, attack=attack, folder=folder)
    assert _global_generators() == before
    return MeasuredRun(folder, *found)


def _global_generators() -> tuple[bytes, list[int]]:
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tolist()  # noqa: NPY002
