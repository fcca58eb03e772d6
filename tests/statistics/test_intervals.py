import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, multinomial

from lit_purify.statistics import (
    clopper_pearson_lower,
    normal_interval,
    paired_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (237, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes, n, confidence):
    oracle = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((oracle.low, oracle.high))


def test_wilson_ends_in_closed_form():
    z2 = 1.959963984540054**2
    assert wilson_interval(0, 100) == pytest.approx((0, z2 / (100 + z2)))
    assert wilson_interval(0, 100)[0] == 0
    assert wilson_interval(100, 100)[1] == 1


def test_without_trials_nothing_is_known():
    assert wilson_interval(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((2, 1), "successes"), ((-1, 3), "successes"), ((1, 2, 95), "confidence")],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        wilson_interval(*arguments)


@pytest.mark.parametrize(("successes", "n"), [(0, 9), (1, 9), (5, 9), (9, 9), (99_000, 100_000)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_clopper_pearson_agrees_with_scipy(successes, n, alpha):
    test = binomtest(successes, n, alternative="greater")
    oracle = test.proportion_ci(1 - alpha, method="exact").low
    assert clopper_pearson_lower(successes, n, alpha) == pytest.approx(oracle, rel=1e-9, abs=1e-15)


def test_clopper_pearson_in_closed_form():
    assert clopper_pearson_lower(0, 5, 0.05) == 0
    assert clopper_pearson_lower(50, 50, 0.05) == pytest.approx(0.05 ** (1 / 50), rel=1e-12)
    # So many successes or more are as rare as alpha says under the bound.
    bound = clopper_pearson_lower(30, 40, 0.05)
    assert binom.sf(29, 40, bound) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 1, 0.1), "successes"),
        ((-1, 3, 0.1), "successes"),
        ((0, 0, 0.1), "n >= 1"),
        ((1, 2, 0.0), "alpha"),
        ((1, 2, 1.0), "alpha"),
    ],
)
def test_impossible_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        clopper_pearson_lower(*arguments)


def test_normal_interval():
    half = 1.959963984540054 * 2 / math.sqrt(16)
    assert normal_interval(3, 2, 16) == pytest.approx((3 - half, 3 + half))
    with pytest.raises(ValueError, match="n >= 1"):
        normal_interval(3, 2, 0)


@pytest.mark.parametrize("n", [25, 60])
@pytest.mark.parametrize(("up", "down"), [(0.02, 0.02), (0.1, 0.05), (0.3, 0.1), (0.0, 0.2)])
def test_paired_intervals_cover_as_often_as_they_say(up, down, n):
    """Over every outcome of n pairs, each with its probability."""
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            chance = multinomial.pmf([b, c, n - b - c], n, [up, down, 1 - up - down])
            if chance > 1e-9:
                low, high = paired_interval([1] * b + [-1] * c + [0] * (n - b - c))
                covered += chance * (low <= up - down <= high)
    assert 0.94 < covered <= 1


def test_paired_intervals_end_where_the_score_test_rejects():
    """The likeliest rates under a given difference, found by a search."""
    b, c, n = 7, 2, 30
    for bound in paired_interval([1] * b + [-1] * c + [0] * (n - b - c)):
        rates = np.linspace(max(0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9, 200_001)
        likelihood = (
            b * np.log(rates + bound)
            + c * np.log(rates)
            + (n - b - c) * np.log1p(-2 * rates - bound)
        )
        variance = n * (2 * rates[likelihood.argmax()] + bound - bound**2)
        assert abs(b - c - n * bound) / math.sqrt(variance) == pytest.approx(1.959964, abs=1e-3)


def test_paired_intervals_in_closed_form():
    z = 1.959963984540054
    for n in (2, 100):
        bound = z**2 / (n + z**2)
        assert paired_interval([0] * n) == pytest.approx((-bound, bound))
    assert paired_interval([-1] * 9) == pytest.approx((-1, -(9 - z**2) / (9 + z**2)))
    low, high = paired_interval([1, 0, -1, 1, 0])
    assert paired_interval([-1, 0, 1, -1, 0]) == pytest.approx((-high, -low))
    assert paired_interval([0.2, 0, -0.2, 0.2, 0]) == pytest.approx((0.2 * low, 0.2 * high))
    with pytest.raises(ValueError, match="needs a sample"):
        paired_interval([])
