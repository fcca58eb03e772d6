"""What takes numbers from a work queue, in threads and in processes of their own.

Processes import what they run by its name, which a test module of a folder has none of that is
sure, see ``metric_ranks``.
"""

from typing import Any

from lit_purify.data.queue import WorkQueue
from torch.distributed import Store, TCPStore


def take_below(store: Store, rank: int, processes: int, n: int) -> list[int]:
    """The numbers below ``n`` that this rank gets."""
    queue = WorkQueue(store, rank, processes)
    taken = []
    while (number := queue.take()) < n:
        taken.append(number)
    return taken


def take_in_process(port: int, rank: int, n: int, results: Any) -> None:
    """:func:`take_below` of three processes, by a server of this machine."""
    store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
    results.put(take_below(store, rank, 3, n))
