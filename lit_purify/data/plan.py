"""Which samples are evaluated together: the batches of a run, fixed before it starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

SMALLEST_SHARE = 8
"""With several processes the last batches shrink, down to this part of a batch."""


def plan_batches(
    indices: Sequence[int], batch_size: int, *, done: Collection[int] = (), processes: int = 1
) -> list[list[int]]:
    """Cut a dataset into batches of positions, and leave out what is done.

    A batch does not depend on what was done before, on the process that evaluates it or on the
    speed of the others, so a resumed run meets the batches of an uninterrupted one. With several
    processes the batches shrink towards the end (guided self-scheduling: half of an even share of
    what is left), so that the processes finish close to each other.

    Args:
        indices: dataset index of every position, shape (N,).
        batch_size: most samples of a batch.
        done: dataset indices that need no evaluation; a batch keeps the others.
        processes: how many processes share the work.

    Returns:
        Positions 0 .. N - 1 in order, those done left out; no batch is empty.

    Example:
        >>> plan_batches([30, 40, 50, 60], 2, done={30, 40, 60})
        [[2]]
        >>> [len(batch) for batch in plan_batches(range(40), 8, processes=2)]
        [8, 8, 6, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    """
    n = len(indices)
    smallest = max(1, batch_size // SMALLEST_SHARE)
    batches = []
    start = 0
    while start < n:
        size = batch_size
        if processes > 1:
            size = min(batch_size, max(smallest, (n - start) // (2 * processes)))
        batches.append([p for p in range(start, min(n, start + size)) if indices[p] not in done])
        start += size
    return [batch for batch in batches if batch]
