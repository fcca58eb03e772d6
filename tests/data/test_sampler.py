"""The shared batch sampler, alone and under Lightning."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lit_purify.data.queue import WorkQueue
from torch.distributed import HashStore
from torch.utils.data import DataLoader, DistributedSampler

from lit_purify.data.arrays import ImageArrays
from lit_purify.data.cifar10 import CIFAR10DataModule
from lit_purify.data.image_folder import ImageFolderDataModule
from lit_purify.data.plan import plan_batches
from lit_purify.data.sampler import SharedBatchSampler, evaluation_loader, shared_sampler


def _samplers(batches: list[list[int]], world: int) -> list[SharedBatchSampler]:
    store = HashStore()
    return [SharedBatchSampler(batches, WorkQueue(store, rank, world)) for rank in range(world)]


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_batch_goes_to_one_process(n: int, world: int) -> None:
    batches = [[2 * k, 2 * k + 1] for k in range(n)]
    samplers = _samplers(batches, world)
    taken = [list(sampler) for sampler in samplers]
    assert sorted(batch for own in taken for batch in own) == batches
    # The first batch of a process is that of its rank; process 0, which ran alone, took the rest.
    assert [own[:1] for own in taken] == [batches[rank : rank + 1] for rank in range(world)]
    assert {len(sampler) for sampler in samplers} == {n}
    assert {sampler.num_items for sampler in samplers} == {2 * n}


def test_a_slow_process_takes_fewer() -> None:
    slow, fast = map(iter, _samplers([[k] for k in range(9)], 2))
    assert [next(slow), next(fast)] == [[0], [1]]
    assert [next(fast) for _ in range(5)] == [[2], [3], [4], [5], [6]]
    assert next(slow) == [7]
    assert [*fast] == [[8]]
    assert [*slow] == []


def test_single_process_needs_no_torch_distributed() -> None:
    (sampler,) = _samplers([[0, 1], [2]], 1)
    assert isinstance(sampler, DistributedSampler)  # or Lightning would put its own in its place
    sampler.set_epoch(4)
    assert list(sampler) == [[0, 1], [2]]


def test_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="rank"):
        SharedBatchSampler([[0]], WorkQueue(HashStore(), 2, 2))


def _arrays(n: int) -> ImageArrays:
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1).repeat(3, axis=3)
    data = ImageArrays(images, np.arange(n) % 3)
    data.indices = 10 * (data.indices + 1)
    return data


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_the_samples_of_the_plan(num_workers: int) -> None:
    loader = evaluation_loader(
        _arrays(7), batch_size=3, num_workers=num_workers, trainer=None, done={20, 70}
    )
    before = torch.get_rng_state()
    batches = list(loader)
    assert torch.equal(torch.get_rng_state(), before)
    assert [batch["index"].tolist() for batch in batches] == [[10, 30], [40, 50, 60]]
    assert [batch["label"].tolist() for batch in batches] == [[0, 2], [0, 1, 2]]
    seen = torch.cat([batch["image"] for batch in batches])
    assert (seen[:, 0, 0, 0] * 255).round().tolist() == [0, 2, 3, 4, 5]


def test_the_sampler_of_a_loader_is_found() -> None:
    loader = evaluation_loader(_arrays(3), batch_size=2, num_workers=0, trainer=None)
    assert shared_sampler(loader) is loader.sampler
    assert shared_sampler(DataLoader(_arrays(3))) is None
    assert shared_sampler(None) is None


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
@pytest.mark.parametrize(("stage", "n"), [("test", 7), ("test", 1), ("predict", 5), ("predict", 1)])
def test_lightning_two_processes(tmp_path: Path, stage: str, n: int) -> None:
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
    batches = plan_batches(range(n), 2, processes=2)
    assert sorted(batch for own in seen for batch in own) == batches
    assert [own[:1] for own in seen] == [batches[rank : rank + 1] for rank in (0, 1)]
    assert all(own == sorted(own) for own in seen)


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = _seen(sys.argv[1], int(sys.argv[2]), strategy="ddp", devices=2)
    Path(sys.argv[3]).write_text(json.dumps(found))
    # Leave together: a rank that exits while the other still talks to it can make that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
