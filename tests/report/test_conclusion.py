"""The sentence says what the numbers allow, and no more."""

import pytest

from lit_purify.functional import wilson_interval
from lit_purify.report import conclusion


def said(n=200, **successes):
    """What is concluded from so many correct images of n, by protocol (``clean``: base, clean)."""
    metrics = {}
    for name, number in successes.items():
        low, high = wilson_interval(number, n)
        key = "base/clean_accuracy" if name == "clean" else f"{name}/robust_accuracy"
        metrics[key] = {"value": number / n if n else None, "low": low, "high": high, "n": n}
    return conclusion({"metrics": metrics})


@pytest.mark.parametrize(
    ("numbers", "parts"),
    [
        ({"fresh": 104, "fixed": 12}, ["keeps 52 %", "only 6 % remain", "46 points of"]),
        # 51.5 - 6.5 is 45, but rounded to even the reader sees 52 and 6.
        ({"fresh": 103, "fixed": 13}, ["52 %", "only 6 %", "46 points"]),
        ({"fresh": 12, "fixed": 104}, ["keeps 52 % when", "only 6 % with fresh", "no robustness"]),
        ({"fresh": 30, "fixed": 28}, ["15 %", "14 %", "intervals overlap", "200 samples do not"]),
        ({"fresh": 700, "fixed": 237, "n": 1000}, ["70.0 %", "23.7 %", "46.3 points"]),
        ({"fixed": 237, "base": 0, "n": 1000}, ["alone keeps 0.0 %", "worth 23.7 points"]),
        ({"fixed": 12, "base": 11}, ["keeps 6 %", "too close to tell"]),
        ({"fixed": 2, "base": 50}, ["does harm"]),
        ({"fixed": 12, "transfer": 80}, ["34 points hang on knowing"]),
        ({"fixed": 80, "transfer": 12}, ["no weaker"]),
        ({"fixed": 12, "transfer": 13}, ["intervals overlap"]),
        ({"fresh": 104}, ["keeps 52 %", "was not measured"]),
        ({"base": 0, "clean": 188}, ["94 % of the clean", "0 % of the attacked"]),
    ],
)
def test_it_follows_the_numbers(numbers, parts):
    text = said(**numbers)
    for part in parts:
        assert part in text
    assert text.count(". ") <= 1


def test_what_has_no_samples_is_not_spoken_of():
    assert said(base=0) is said() is said(n=0, fixed=0) is None
    known = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 200}
    empty = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    alone = conclusion({"metrics": {"fresh/robust_accuracy": known}})
    both = {"fresh/robust_accuracy": known, "fixed/robust_accuracy": empty}
    assert conclusion({"metrics": both}) == alone
