"""Every sample exactly once, on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lit_purify.types import Batch, InputError


class UnpaddedDistributedSampler(DistributedSampler[Any]):
    """Rank r of W takes the items r, r + W, r + 2W, ...: none repeated, none lost, in order.

    The base class repeats samples until every rank has as many, which biases every average.
    Lightning leaves a sampler alone that already is a ``DistributedSampler``. A rank with no
    items left over iterates over nothing and has length 0.

    Args:
        dataset: anything with a length.
        num_replicas: number of processes W; ``None`` asks ``torch.distributed``, and is 1 where
            that is not initialised.
        rank: this process, 0 .. W - 1; ``None`` as for ``num_replicas``, and is 0.

    Example:
        >>> [list(UnpaddedDistributedSampler(range(5), 2, rank)) for rank in (0, 1)]
        [[0, 2, 4], [1, 3]]
        >>> list(UnpaddedDistributedSampler(range(1), 2, 1))
        []
    """

    def __init__(
        self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        running = distributed.is_available() and distributed.is_initialized()
        if num_replicas is None:
            num_replicas = distributed.get_world_size() if running else 1
        if rank is None:
            rank = distributed.get_rank() if running else 0
        super().__init__(dataset, num_replicas, rank, shuffle=False)  # type: ignore[arg-type]
        self.items = range(rank, len(dataset), num_replicas)
        self.num_samples = len(self.items)
        self.total_size = len(dataset)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return self.num_samples


def evaluation_loader(
    dataset: Dataset[Batch], *, batch_size: int, num_workers: int, trainer: Trainer | None
) -> DataLoader[Batch]:
    """Batches of this process in dataset order, each sample once over all processes.

    Args:
        dataset: what to evaluate on.
        batch_size: images a batch, for each process.
        num_workers: loading processes; 0 loads in the main one.
        trainer: says how many processes run; ``None`` stands for one.
    """
    world_size, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
    return DataLoader(
        dataset,
        # By name: Lightning rebuilds the loader for predict, and fails on a positional one.
        batch_size=batch_size,
        sampler=UnpaddedDistributedSampler(dataset, world_size, rank),  # type: ignore[arg-type]
        num_workers=num_workers,
        # Without its own generator a DataLoader takes a number from the global one.
        generator=torch.Generator(),
    )


def check_loading(batch_size: int, num_workers: int, limit: int | None) -> None:
    """Raise :class:`InputError` for loading options that can load nothing."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected 1 or more images a batch.")
    if num_workers < 0:
        raise InputError(f"num_workers is {num_workers}; expected 0 (no extra process) or more.")
    if limit is not None and limit < 1:
        raise InputError(
            f"limit is {limit}; expected 1 or more images, or null to take every image."
        )
