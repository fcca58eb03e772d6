"""Every sample exactly once, on any number of processes; a training that goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler

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
        return self.dataset.batch(positions)

    __getitems__ = __getitem__  # by which a loader with a ``batch_size`` asks

    def __len__(self) -> int:
        return len(self.dataset)


def as_batch(batch: Any) -> Batch:
    """What a loader of :class:`Batches` collates by: there is nothing left to do."""
    return batch


def shared_sampler(loader: object) -> SharedBatchSampler | None:
    """What hands out the batches of a loader; ``None`` for a loader of another kind."""
    sampler = getattr(loader, "sampler", None)
    return sampler if isinstance(sampler, SharedBatchSampler) else None


class TrainingSampler(DistributedSampler[Any]):
    """A new order in every epoch, of which a resumed training takes up the rest.

    The order follows from the seed and the epoch. Epoch and place in it follow from the batches
    that the Trainer has processed, which a checkpoint holds, wherever in an epoch it was saved.

    Args:
        dataset: what is sampled.
        batch_size: samples per batch, for each process.
        seed: base seed of the orders.
        trainer: whose progress counts; ``None`` for a loader of one's own, which starts at the
            beginning of the epoch of ``set_epoch``.
    """

    def __init__(
        self, dataset: Dataset[Any], *, batch_size: int, seed: int, trainer: Trainer | None
    ) -> None:
        processes, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        super().__init__(dataset, processes, rank, shuffle=True, seed=seed, drop_last=True)
        self.batch_size = batch_size
        self.trainer = trainer

    def __iter__(self) -> Iterator[int]:
        done = 0
        if self.trainer is not None:
            trained = batches_trained(self.trainer)
            epoch, done = divmod(trained, self._batches_per_epoch(self.trainer))
            # Lightning sets it too, but after worker processes have begun.
            self.set_epoch(epoch)
        return iter([*super().__iter__()][done * self.batch_size :])

    def _batches_per_epoch(self, trainer: Trainer) -> int:
        whole, limit = len(self) // self.batch_size, trainer.limit_train_batches
        return max(1, min(whole, limit) if isinstance(limit, int) else int(whole * limit))


def batches_trained(trainer: Trainer) -> int:
    """Batches that this process is done with, over all epochs and all sessions of a training.

    Unlike Lightning's ``total_batch_idx`` it does not count one that was interrupted.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress.total
    return progress.processed  # type: ignore[attr-defined]


class ResumableLoader(DataLoader[Batch]):
    """Tells Lightning that it can be resumed: by its :class:`TrainingSampler`, without a state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
