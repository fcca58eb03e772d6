"""Which tensor memory a computation allocates, and how much of it is alive at once."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the tensors that operations inside the block allocate, forward and backward.

    A storage counts once, however many views it has, from the operation that makes it until its
    last owner lets it go. Storages are known by identity and not by address, so it counts tensors
    without data (the ``meta`` device, fake tensors) as well. What an operation allocates and frees
    within itself is not seen.

    Attributes:
        now: bytes allocated inside the block that are still alive.
        peak: largest value that ``now`` has had.

    Example:
        >>> with LiveBytes() as live:
        ...     total = (torch.zeros(1000).exp() + 1).sum()
        >>> live.now, live.peak
        (4, 8000)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = _storages((args, kwargs))
        results = func(*args, **(kwargs or {}))
        made = _storages(results)
        for name in made.keys() - given.keys() - self._alive.keys():
            self._count(name, made[name])
        return results

    def _count(self, name: int, storage: Any) -> None:
        nbytes = storage.nbytes()

        def gone(_: object) -> None:
            self.now -= nbytes
            del self._alive[name]

        self._alive[name] = weakref.ref(storage, gone)
        self.now += nbytes
        self.peak = max(self.peak, self.now)


def _storages(tree: Any) -> dict[int, Any]:
    """By identity: without data the address is 0."""
    found = [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return {storage._cdata: storage for storage in found}
