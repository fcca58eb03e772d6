"""Which tensor memory a computation allocates, and how much of it is alive at once."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
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
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._meet(tensor, made=False)
        results = func(*args, **kwargs)
        for tensor in _tensors(results):
            self._meet(tensor, made=True)
        return results

    def _meet(self, tensor: Tensor, *, made: bool) -> None:
        storage = tensor.untyped_storage()
        name = storage._cdata  # its address is 0 without data
        if name in self._known:
            return
        nbytes = storage.nbytes() if made else 0

        def gone(_: object) -> None:
            self.now -= nbytes
            self._known.pop(name, None)

        self._known[name] = weakref.ref(storage, gone)
        self.now += nbytes
        self.peak = max(self.peak, self.now)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
