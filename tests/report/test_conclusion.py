"""The sentence says what the numbers allow, and no more."""

import io

import pytest
from rich.console import Console

from lit_purify.functional import wilson_interval
from lit_purify.report import conclusion, summary_table


def said(n=200, noisy=True, settings=None, **successes):
    """What is concluded from so many correct images of n, by protocol (``clean``: base, clean)."""
    metrics = {}
    for name, number in successes.items():
        low, high = wilson_interval(number, n)
        key = "base/clean_accuracy" if name == "clean" else f"{name}/robust_accuracy"
        metrics[key] = {"value": number / n if n else None, "low": low, "high": high, "n": n}
    return conclusion(
        {"metrics": metrics, "preflight": {"draws_noise": noisy}, "settings": settings or {}}
    )


@pytest.mark.parametrize(
    ("numbers", "parts"),
    [
        ({"fresh": 104, "fixed": 12}, ["on 52.0 %", "only 6.0 %", "46.0 points of"]),
        # 70.04 - 23.65 is 46.39, but a reader sees 70.0 and 23.6.
        ({"fresh": 7004, "fixed": 2365, "n": 10000}, ["70.0 %", "23.6 %", "46.4 points"]),
        ({"fresh": 12, "fixed": 104}, ["on 52.0 %", "only 6.0 %", "no robustness"]),
        ({"fresh": 30, "fixed": 28}, ["15.0 %", "14.0 %", "intervals overlap", "200 samples"]),
        ({"fixed": 237, "base": 0, "n": 1000}, ["right on 0.0 %", "worth 23.7 points"]),
        ({"fixed": 12, "base": 11}, ["right on 6.0 %", "too close to tell"]),
        ({"fixed": 2, "base": 50}, ["does harm"]),
        ({"fixed": 12, "transfer": 80}, ["worth 34.0 points"]),
        ({"fixed": 80, "transfer": 12}, ["no weaker"]),
        ({"fixed": 12, "transfer": 13}, ["intervals overlap"]),
        ({"fresh": 104}, ["on 52.0 %", "was not measured"]),
        ({"base": 0, "clean": 188}, ["94.0 % of the clean", "0.0 % of the attacked"]),
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


@pytest.mark.parametrize(
    ("numbers", "parts"),
    [
        ({"fixed": 12, "transfer": 12, "base": 0}, ["no noise", "on 6.0 %", "on 0.0 %"]),
        ({"fresh": 30}, ["no noise", "on 15.0 %"]),
    ],
)
def test_without_noise_nothing_is_said_about_randomness(numbers, parts):
    text = said(noisy=False, **numbers)
    assert all(part in text for part in parts)
    assert not any(word in text for word in ("know", "fresh", "random"))


def test_its_digits_are_those_of_the_table():
    low, high = wilson_interval(5, 8)
    entry = {"value": 5 / 8, "low": low, "high": high, "n": 8}
    summary = {
        "metrics": {"fixed/robust_accuracy": entry},
        "labels": {"fixed/robust_accuracy": {"section": "", "label": "", "unit": "%"}},
    }
    console = Console(record=True, file=io.StringIO())
    console.print(summary_table(summary))
    assert "62.5 %" in console.export_text()
    assert "62.5 %" in conclusion(summary)


def test_a_surrogate_counts_where_it_was_attacked():
    settings = {"surrogate": {"purifier": "RepeatedPurifier"}}
    assert "surrogate" in said(fixed=12, base=0, settings=settings)
    assert "surrogate" not in said(base=0, clean=188, settings=settings)
