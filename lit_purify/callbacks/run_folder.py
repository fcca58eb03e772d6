"""Where a run writes."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """The run's folder, the same on every rank.

    The ranks agree on it by a broadcast, so every one of them must ask: in ``setup``, never behind
    a test of the rank.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)
