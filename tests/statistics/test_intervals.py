import math

import pytest
from scipy.stats import binomtest

from lit_purify.statistics import normal_interval, wilson_interval


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


def test_normal_interval():
    half = 1.959963984540054 * 2 / math.sqrt(16)
    assert normal_interval(3, 2, 16) == pytest.approx((3 - half, 3 + half))
    with pytest.raises(ValueError, match="n >= 1"):
        normal_interval(3, 2, 0)
