"""The unpadded sampler, alone and under Lightning."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DistributedSampler

from lit_purify.data.cifar10 import CIFAR10DataModule
from lit_purify.data.image_folder import ImageFolderDataModule
from lit_purify.data.sampler import UnpaddedDistributedSampler


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_item_once_and_lengths_agree(n: int, world: int) -> None:
    samplers = [UnpaddedDistributedSampler(range(n), world, rank) for rank in range(world)]
    taken = [list(sampler) for sampler in samplers]
    assert sorted(item for items in taken for item in items) == list(range(n))
    assert [len(sampler) for sampler in samplers] == [len(items) for items in taken]
    assert all(items == list(range(rank, n, world)) for rank, items in enumerate(taken))


def test_single_process_needs_no_torch_distributed() -> None:
    sampler = UnpaddedDistributedSampler(range(3))
    assert isinstance(sampler, DistributedSampler)
    sampler.set_epoch(4)
    assert list(sampler) == [0, 1, 2]


def test_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="rank"):
        UnpaddedDistributedSampler(range(3), 2, 2)


class Recorder(LightningModule):
    """Notes the dataset indices of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch["index"].tolist())

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch["index"].tolist())


QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def _data(stage: str, n: int) -> LightningDataModule:
    if stage == "test":
        return CIFAR10DataModule(limit=n, batch_size=2)
    return ImageFolderDataModule(source="embedded", limit=n, batch_size=2)


def _seen(stage: str, n: int, **arguments: Any) -> list[list[int]]:
    module, trainer = Recorder(), Trainer(**QUIET | arguments)
    if stage == "test":
        trainer.test(module, datamodule=_data(stage, n), verbose=False)
    else:
        trainer.predict(module, datamodule=_data(stage, n), return_predictions=False)
    return module.seen


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_lightning_single_process(stage: str) -> None:
    assert _seen(stage, 3) == [[0, 1], [2]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "n", "expected"),
    [
        ("test", 7, [[[0, 2], [4, 6]], [[1, 3], [5]]]),
        ("test", 1, [[[0]], []]),
        ("predict", 5, [[[0, 2], [4]], [[1, 3]]]),
        ("predict", 1, [[[0]], []]),
    ],
)
def test_lightning_two_processes(tmp_path: Path, stage: str, n: int, expected: list) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # This file is the program of both processes.
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, stage, str(n), str(tmp_path / f"{rank}.json")],
            env=os.environ
            | {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "LOCAL_RANK": str(rank),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(180) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert seen == expected


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = _seen(sys.argv[1], int(sys.argv[2]), strategy="ddp", devices=2)
    Path(sys.argv[3]).write_text(json.dumps(found))
    # Leave together: a rank that exits while the other still talks to it can make that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
