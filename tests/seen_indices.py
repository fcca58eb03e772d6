"""What Lightning hands to a process: the dataset indices of its batches.

Processes of several import what they run by its name, see ``metric_ranks``.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lit_purify.data import CIFAR10DataModule, ImageFolderDataModule


class _Recorder(LightningModule):
    """Notes the dataset indices of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch["index"].tolist())

    predict_step = test_step


def seen(stage: str, n: int, **options: Any) -> list[list[int]]:
    """The batches of this process in a test or a prediction of n images, two per batch."""
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    module = _Recorder()
    trainer = Trainer(accelerator="cpu", **{"devices": 1, **dict.fromkeys(quiet, False), **options})
    if stage == "test":
        trainer.test(module, datamodule=CIFAR10DataModule(limit=n, batch_size=2), verbose=False)
    else:
        data = ImageFolderDataModule(source="embedded", limit=n, batch_size=2)
        trainer.predict(module, datamodule=data, return_predictions=False)
    return module.seen


def main(args: list[str]) -> None:
    """Print :func:`seen` of one of two processes; arguments: the stage and n."""
    stage, n, *_ = args
    print(json.dumps(seen(stage, int(n), strategy="ddp", devices=2)))
    # Leave together: a rank that exits while the other still talks to it can make that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
