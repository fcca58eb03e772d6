"""Two outcomes of the same samples."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import binomtest


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    r"""Exact test of whether two rates of success on the same samples differ (McNemar, 1947).

    Only samples count in which one succeeds and the other does not: if the rates were equal, either
    would be the one with probability 1/2.

    Args:
        first: whether each sample succeeded, in one way.
        second: in the other way, in the same order.

    Returns:
        Two-sided p-value; 1 where the outcomes never differ.

    Raises:
        ValueError: they are not of the same length.

    Example:
        >>> mcnemar([True] * 5 + [False], [False] * 5 + [False])
        0.0625
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differ = only_first + only_second
    return float(binomtest(only_first, differ).pvalue) if differ else 1.0
