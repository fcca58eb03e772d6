"""What the processes of a run tell each other while they evaluate."""

from __future__ import annotations

import time
from datetime import timedelta

from lightning.pytorch import Trainer
from torch.distributed import HashStore, Store, TCPStore  # type: ignore[attr-defined]

_PATIENCE = timedelta(minutes=5)
_POLL_SECONDS = 0.1


class Peers:
    """The processes of a run, each with a part of its batches.

    Args:
        store: counters that all processes share.
        rank: this process, 0 .. ``processes`` - 1.
        processes: how many there are.

    Example:
        >>> peers = Peers(HashStore())
        >>> peers.report(3), peers.report(2), peers.gather(1.5)
        (3, 5, [1.5])
    """

    def __init__(self, store: Store, rank: int = 0, processes: int = 1) -> None:
        self.store = store
        self.rank = rank
        self.processes = processes

    def report(self, samples: int) -> int:
        """Add samples that this process has evaluated; returns those of all processes."""
        return self.store.add("samples", samples)

    def gather(self, value: float = 0.0) -> list[float]:
        """Return when every process has called this: the value that each of them gave, by rank.

        Unlike a collective it waits without a limit: a batch can take hours. The first process,
        which keeps the store of :func:`peers_of`, returns when all others are done with it. Once:
        a second call would find the values of the first.
        """
        self.store.set(f"value {self.rank}", repr(value))
        everyone = range(self.processes)
        self._wait_for([f"value {rank}" for rank in everyone])
        values = [float(self.store.get(f"value {rank}")) for rank in everyone]
        self.store.set(f"done {self.rank}", "")
        if self.rank == 0:
            self._wait_for([f"done {rank}" for rank in everyone])
        return values

    def _wait_for(self, keys: list[str]) -> None:
        while not self.store.check(keys):
            time.sleep(_POLL_SECONDS)


def peers_of(trainer: Trainer | None) -> Peers:
    """The processes of a run; a collective, so every one must call it. ``None``: one process."""
    if trainer is None or trainer.world_size == 1:
        return Peers(HashStore())
    store: Store | None = None
    address = ("", 0)
    if trainer.is_global_zero:
        host = trainer.strategy.cluster_environment.main_address  # type: ignore[attr-defined]
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        address = (host, store.port)
    host, port = trainer.strategy.broadcast(address)
    if store is None:
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_PATIENCE)
    return Peers(store, trainer.global_rank, trainer.world_size)
