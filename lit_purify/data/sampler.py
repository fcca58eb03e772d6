"""Every sample exactly once, on any number of processes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from lit_purify.data.dataset import ImageDataset
from lit_purify.data.peers import Peers, peers_of
from lit_purify.data.plan import plan_batches
from lit_purify.types import Batch


class SharedBatchSampler(DistributedSampler[Any]):
    """The batches of this process: of N processes each takes every Nth batch of the run.

    Lightning's own sampler repeats samples until every process has as many, which biases every
    average. It leaves a sampler alone that already is a ``DistributedSampler``.

    Its length is the number of batches of all processes: Lightning leaves out the end of a test,
    in which processes wait for each other, on one whose loader is empty.

    Args:
        batches: positions in the dataset, batch by batch, of all processes.
        peers: the processes.
    """

    def __init__(self, batches: Sequence[list[int]], peers: Peers) -> None:
        super().__init__(batches, peers.processes, peers.rank, shuffle=False)  # type: ignore[arg-type]
        self.batches = batches
        self.peers = peers

    @property
    def num_items(self) -> int:
        """Samples of all processes."""
        return sum(map(len, self.batches))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches[self.peers.rank :: self.peers.processes])

    def __len__(self) -> int:
        return len(self.batches)


class _Batches(Dataset[Batch]):
    """A dataset of samples, asked for a batch of positions at a time."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, positions: list[int]) -> Batch:
        return default_collate([self.dataset[position] for position in positions])


def evaluation_loader(
    dataset: ImageDataset,
    *,
    batch_size: int,
    num_workers: int,
    trainer: Trainer | None,
    done: Collection[int] = (),
) -> DataLoader[Batch]:
    """Batches of a dataset in its order, each sample once over all processes.

    A collective under several processes: every one must call it.

    Args:
        dataset: what to evaluate on.
        batch_size: images a batch, for each process.
        num_workers: loading processes; 0 loads in the main one.
        trainer: says how many processes run; ``None`` stands for one.
        done: dataset indices to leave out.
    """
    peers = peers_of(trainer)
    batches = plan_batches(
        dataset.indices.tolist(), batch_size, done=done, processes=peers.processes
    )
    return DataLoader(
        _Batches(dataset),
        batch_size=None,
        sampler=SharedBatchSampler(batches, peers),
        num_workers=num_workers,
        # Without its own generator a DataLoader takes a number from the global one.
        generator=torch.Generator(),
    )


def shared_sampler(loader: object) -> SharedBatchSampler | None:
    """What hands out the batches of a loader; ``None`` for a loader of another kind."""
    sampler = getattr(loader, "sampler", None)
    return sampler if isinstance(sampler, SharedBatchSampler) else None
