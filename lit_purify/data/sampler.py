"""Every sample exactly once, on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, DistributedSampler, default_collate

from lit_purify.data.dataset import ImageDataset
from lit_purify.data.peers import Peers
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


class Batches(Dataset[Batch]):
    """A dataset of samples, asked for a batch of positions at a time."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, positions: list[int]) -> Batch:
        return default_collate([self.dataset[position] for position in positions])


def shared_sampler(loader: object) -> SharedBatchSampler | None:
    """What hands out the batches of a loader; ``None`` for a loader of another kind."""
    sampler = getattr(loader, "sampler", None)
    return sampler if isinstance(sampler, SharedBatchSampler) else None
