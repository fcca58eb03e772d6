"""McNemar's exact test against the binomial distribution by hand."""

from math import comb

import pytest

from lit_purify.functional.paired import mcnemar


@pytest.mark.parametrize(("one", "other"), [(5, 0), (7, 2), (3, 3), (1, 9)])
def test_it_counts_where_the_outcomes_differ(one, other):
    first = [True] * one + [False] * other + [True] * 4 + [False] * 6
    second = [False] * one + [True] * other + [True] * 4 + [False] * 6
    n, least = one + other, min(one, other)
    tail = sum(comb(n, k) for k in range(least + 1)) / 2**n
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(second, first) == pytest.approx(mcnemar(first, second))


def test_outcomes_that_never_differ():
    assert mcnemar([True, False], [True, False]) == 1.0
    with pytest.raises(ValueError, match="zip"):
        mcnemar([True], [True, False])
