"""Hands the batches of a run out to its processes."""

from __future__ import annotations

import time
from datetime import timedelta

from lightning.pytorch import Trainer
from torch.distributed import HashStore, Store, TCPStore  # type: ignore[attr-defined]

_PATIENCE = timedelta(minutes=5)
_POLL_SECONDS = 0.1


class WorkQueue:
    """Counts 0, 1, 2, ... over all processes: each number goes to one of them.

    A process asks for its next number when it is done with the last, so a fast one, or one whose
    attacks ended early, takes more. The first number of a process is its rank.

    Args:
        store: counters that all processes share.
        rank: this process, 0 .. ``processes`` - 1.
        processes: how many there are.

    Example:
        >>> queue = WorkQueue(HashStore())
        >>> queue.take(), queue.take()
        (0, 1)
    """

    def __init__(self, store: Store, rank: int = 0, processes: int = 1) -> None:
        self.store = store
        self.rank = rank
        self.processes = processes
        self._started = False

    def take(self) -> int:
        """The next number that no process has."""
        if not self._started:
            self._started = True
            return self.rank
        return self.processes - 1 + self.store.add("taken", 1)

    def report(self, samples: int) -> int:
        """Add samples that this process has evaluated; returns those of all processes."""
        return self.store.add("samples", samples)

    def gather(self, value: float = 0.0) -> list[float]:
        """Return when every process has called this: the value that each of them gave, by rank.

        Unlike a collective it waits without a limit: a batch can take hours.
        """
        self.store.set(f"value {self.rank}", repr(value))
        finished = self.store.add("finished", 1)
        while finished < self.processes:
            time.sleep(_POLL_SECONDS)
            finished = self.store.add("finished", 0)
        return [float(self.store.get(f"value {rank}")) for rank in range(self.processes)]


def shared_queue(trainer: Trainer | None) -> WorkQueue:
    """The queue of a run; a collective, so every process must call it. ``None``: one process."""
    if trainer is None or trainer.world_size == 1:
        return WorkQueue(HashStore())
    store: Store | None = None
    address = ("", 0)
    if trainer.is_global_zero:
        host = trainer.strategy.cluster_environment.main_address  # type: ignore[attr-defined]
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        address = (host, store.port)
    host, port = trainer.strategy.broadcast(address)
    if store is None:
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_PATIENCE)
    return WorkQueue(store, trainer.global_rank, trainer.world_size)
