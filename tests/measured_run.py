"""A test of a small defence that leaves its records, and how the tests read them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from tiny import Recorder, evaluate
from torch import Tensor

from lit_purify.attacks import Attack
from lit_purify.callbacks import Records, Summary
from lit_purify.data import CIFAR10DataModule
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary


@dataclass(frozen=True)
class MeasuredRun:
    """What a finished run has in its folder, and what was seen of it.

    Attributes:
        folder: the run folder.
        logged: what the Trainer logged.
        seen: batches and outcomes.
    """

    folder: Path
    logged: dict[str, float] = field(default_factory=dict)
    seen: Recorder = field(default_factory=Recorder)

    @property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.folder / "summary.json")

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.summary["metrics"]
        return found

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.summary["settings"]
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows_of(self.folder)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "records" / "tensors.safetensors")

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


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run folder, one per image."""
    return [json.loads(line) for line in (folder / "records" / "rows.jsonl").open()]


def measured_run(
    folder: Path,
    module: PurifiedClassifier,
    data: CIFAR10DataModule,
    *callbacks: Callback,
    attack: Attack | None = None,
    resume: bool = False,
) -> MeasuredRun:
    """:func:`tiny.evaluate` with records and a summary; it leaves the global generators alone."""
    callbacks = (*callbacks, Records(resume=resume), Summary())
    before = _global_generators()
    found = MeasuredRun(folder, *evaluate(module, data, *callbacks, attack=attack, folder=folder))
    assert _global_generators() == before
    return found


def _global_generators() -> tuple[bytes, list[int]]:
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tolist()  # noqa: NPY002
