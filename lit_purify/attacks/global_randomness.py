"""The global random generators, which attacks of other libraries draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


class GlobalRandomness:
    """State of the generators of torch (the CPU's), numpy and Python when this is made."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._numpy = np.random.get_state()  # noqa: NPY002 - the libraries use it
        self._python = random.getstate()

    def restore(self) -> None:
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)


def seed_all(seed: int) -> None:
    """Seed the global generators."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators, those of all devices too, and put their states back after."""
    # All devices, as torch.manual_seed seeds all. A CUDA that is not in use is not woken up.
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if cuda else ()
    before = GlobalRandomness()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            seed_all(seed)
            yield
        finally:
            before.restore()
