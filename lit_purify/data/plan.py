"""Which samples are evaluated together: the batches of a run, fixed before it starts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np


def plan_batches(
    indices: Sequence[int], batch_size: int, *, done: Collection[int] = (), processes: int = 1
) -> list[list[int]]:
    """Cut a dataset into batches of positions, and leave out what is done.

    A batch does not depend on what was done before, so a resumed run meets the batches of an
    uninterrupted one. Several processes get equally many batches of about equal size.

    Args:
        indices: dataset index of every position, shape (N,).
        batch_size: most samples per batch.
        done: dataset indices that need no evaluation; a batch keeps the others.
        processes: how many processes share the work.

    Returns:
        Positions 0 .. N - 1 in order, those done left out; no batch is empty.

    Example:
        >>> plan_batches([30, 40, 50, 60], 2, done={30, 40, 60})
        [[2]]
        >>> [len(batch) for batch in plan_batches(range(40), 8, processes=2)]
        [7, 7, 7, 7, 6, 6]
    """
    n = len(indices)
    if processes == 1:
        cuts = np.arange(batch_size, n, batch_size)
        batches = np.split(np.arange(n), cuts)
    else:
        count = math.ceil(n / (batch_size * processes)) * processes
        batches = np.array_split(np.arange(n), max(1, count))
    left = [[p for p in batch.tolist() if indices[p] not in done] for batch in batches]
    return [batch for batch in left if batch]
