"""The plan of batches, over many sizes: properties, and a second way to compute it."""

import itertools
import random

import pytest

from lit_purify.data.plan import SMALLEST_SHARE, plan_batches

SIZES = list(
    itertools.product([0, 1, 2, 3, 7, 8, 9, 31, 64, 100, 1000], [1, 2, 3, 4, 5, 8, 50, 64, 2000])
)
"""Samples and batch sizes."""

every_number_of_processes = pytest.mark.parametrize("processes", [1, 2, 3, 8])


def guided(n: int, batch_size: int, processes: int) -> list[int]:
    """Sizes by the rule as it is written: half of an even share of what is left, within bounds."""
    sizes = []
    while n:
        size = n if processes == 1 else int(n / processes / 2)
        if processes > 1 and size < batch_size // SMALLEST_SHARE:
            size = batch_size // SMALLEST_SHARE
        sizes.append(min(n, batch_size, max(1, size)))
        n -= sizes[-1]
    return sizes


@every_number_of_processes
def test_every_position_once_and_in_order(processes):
    for n, batch_size in SIZES:
        batches = plan_batches(range(n), batch_size, processes=processes)
        assert list(itertools.chain(*batches)) == list(range(n))
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert [len(batch) for batch in batches] == guided(n, batch_size, processes)


@every_number_of_processes
def test_what_is_done_is_left_out_of_the_full_plan(processes):
    rng = random.Random(processes)
    for n, batch_size in SIZES:
        indices = rng.sample(range(10 * n + 1), n)  # a dataset index is not a position
        full = plan_batches(indices, batch_size, processes=processes)
        positions = set(rng.sample(range(n), rng.randint(0, n)))
        done = {indices[p] for p in positions}
        rest = plan_batches(indices, batch_size, done=done, processes=processes)
        expected = [[p for p in batch if p not in positions] for batch in full]
        assert rest == [batch for batch in expected if batch]
        assert plan_batches(indices, batch_size, done=set(indices), processes=processes) == []


@every_number_of_processes
def test_a_resumed_run_meets_the_batches_of_the_full_one(processes):
    rng = random.Random(processes)
    for n, batch_size in SIZES:
        full = plan_batches(range(n), batch_size, processes=processes)
        finished = [batch for batch in full if rng.random() < 0.5]
        done = set(itertools.chain(*finished))
        rest = plan_batches(range(n), batch_size, done=done, processes=processes)
        assert rest == [batch for batch in full if batch[0] not in done]


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_the_last_batches_of_several_processes_are_small(processes):
    sizes = [len(batch) for batch in plan_batches(range(5000), 64, processes=processes)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 64
    # Large ones while there is much to do, and the smallest ones for every process at the end.
    assert sizes.count(64) > 0.8 * len(sizes) - 10 * processes
    assert sizes[-processes:-1] == [64 // SMALLEST_SHARE] * (processes - 1)
    assert 1 <= sizes[-1] <= 64 // SMALLEST_SHARE


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_of_equal_speed_finish_together(processes):
    """Whoever is free takes the next batch: the last to finish is at most one small batch late."""
    finished = [0] * processes
    for batch in plan_batches(range(1003), 32, processes=processes):
        free = finished.index(min(finished))
        finished[free] += len(batch)
    assert max(finished) - min(finished) <= 32 // SMALLEST_SHARE


def test_alone_every_batch_but_the_last_is_full():
    sizes = [len(batch) for batch in plan_batches(range(130), 64)]
    assert sizes == [64, 64, 2]
