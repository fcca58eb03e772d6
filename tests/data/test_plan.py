"""The plan of batches, over many sizes: properties, and sizes by hand."""

import itertools
import random

import pytest

from lit_purify.data.plan import plan_batches

SIZES = list(
    itertools.product([0, 1, 2, 3, 7, 8, 9, 31, 64, 100, 1000], [1, 2, 3, 4, 5, 8, 50, 64, 2000])
)
"""Samples and batch sizes."""

every_number_of_processes = pytest.mark.parametrize("processes", [1, 2, 3, 8])


@every_number_of_processes
def test_every_position_once_in_equally_many_batches_of_about_equal_size(processes):
    for n, batch_size in SIZES:
        batches = plan_batches(range(n), batch_size, processes=processes)
        assert list(itertools.chain(*batches)) == list(range(n))
        sizes = [len(batch) for batch in batches]
        assert all(1 <= size <= batch_size for size in sizes)
        if processes == 1:  # all full but the last
            whole, rest = divmod(n, batch_size)
            assert sizes == [batch_size] * whole + [rest] * (rest > 0)
        else:
            assert len(sizes) % processes == 0 or set(sizes) == {1}
            shares = [sum(sizes[rank::processes]) for rank in range(processes)]
            for numbers in (sizes, shares):
                assert max(numbers, default=0) - min(numbers, default=0) <= 1


@every_number_of_processes
def test_a_resumed_run_meets_the_batches_of_the_full_one_without_what_is_done(processes):
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
