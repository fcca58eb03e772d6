"""Figures of the records are the metrics' own, in any order and any batches."""

import math
import random

import pytest
import torch
from lit_purify.report.aggregate import column

from lit_purify.functional import wilson_interval
from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation
from lit_purify.report import aggregate

N = 101


def rows(*, mean=1.0):
    """Rows of N samples: a protocol ``fixed`` and one, ``attack``, that lacks some columns."""
    rng = random.Random(0)
    found = []
    for index in range(N):
        name = {"index": index, "seed": 0, "label": 1}
        found.append({**name, "protocol": "fixed", "ok": rng.random() < 0.7})
        rate = None if index % 10 == 3 else mean + rng.random() - 0.5
        attack = {**name, "protocol": "attack", "rate": rate}
        if index % 3:
            attack["rate_robust"] = rate
        found.append(attack)
    return found


METRICS = {
    "fixed/ok": IntervalAccuracy,
    "attack/rate": MeanWithDeviation,
    "attack/rate_robust": MeanWithDeviation,
}


def fresh():
    return {name: kind() for name, kind in METRICS.items()}


def fed(rows, size):
    """The metrics' own statistics of tensors that arrive in batches."""
    metrics = fresh()
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        for name, metric in metrics.items():
            protocol, key = name.split("/")
            values = [r[key] for r in part if r["protocol"] == protocol and key in r]
            if metric.__class__ is IntervalAccuracy:
                metric.update(torch.tensor(values, dtype=torch.bool))
            else:
                nan = [math.nan if value is None else value for value in values]
                metric.update(torch.tensor(nan, dtype=torch.float64))
    return {name: metric.summary() for name, metric in metrics.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, statistics in expected.items():
        assert found[name] == pytest.approx(statistics, rel=1e-12, abs=0), name


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_batches_do_not_matter(size):
    assert_same(aggregate(rows(), fresh()), fed(rows(), size))


@pytest.mark.parametrize("seed", range(5))
def test_order_does_not_matter(seed):
    shuffled = rows()
    random.Random(seed).shuffle(shuffled)
    assert_same(aggregate(shuffled, fresh()), fed(rows(), 8))


def test_a_spread_far_below_its_mean():
    """Rounding is that of the values, eps mean / std = 1e-9; sums of squares would lose it all."""
    found = aggregate(rows(mean=1e6), fresh())["attack/rate"]
    values = [row["rate"] - 1e6 for row in rows(mean=1e6) if row.get("rate") is not None]
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    assert found["std"] == pytest.approx(std, rel=1e-9)
    assert found["value"] == pytest.approx(1e6 + mean, rel=1e-15)


def test_by_hand():
    found = aggregate(rows(), fresh())
    right = [row["ok"] for row in rows() if row["protocol"] == "fixed"]
    low, high = wilson_interval(sum(right), N)
    assert found["fixed/ok"] == {"value": sum(right) / N, "low": low, "high": high, "n": N}
    rates = [row["rate"] for row in rows() if row.get("rate") is not None]
    mean = math.fsum(rates) / len(rates)
    std = math.sqrt(math.fsum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1))
    half = 1.959963984540054 * std / math.sqrt(len(rates))
    missing = N - len(rates)
    assert missing > 0
    expected = {"value": mean, "low": mean - half, "high": mean + half, "std": std}
    expected |= {"n": len(rates), "missing": missing}
    assert found["attack/rate"] == pytest.approx(expected, rel=1e-12)


def test_what_a_metric_counted_before_does_not_matter_and_stays():
    metrics = fresh()
    metrics["fixed/ok"].update(torch.tensor([False] * 50))
    metrics["attack/rate"].update(torch.tensor([1.0, 2.0]))
    assert aggregate(rows(), metrics) == aggregate(rows(), fresh())
    assert metrics["fixed/ok"].summary()["n"] == 50
    assert metrics["attack/rate"].summary()["value"] == 1.5


def test_without_rows_nothing_is_known():
    found = aggregate([], fresh())
    assert [found[name]["value"] for name in METRICS] == [None] * 3
    assert [found[name]["n"] for name in METRICS] == [0] * 3


def test_where_no_sample_has_a_value():
    found = aggregate(
        [{"index": i, "protocol": "attack", "seed": 0, "rate": None} for i in range(4)], fresh()
    )
    assert (found["attack/rate"]["n"], found["attack/rate"]["missing"]) == (0, 4)
    assert found["attack/rate"]["value"] is None
    assert found["attack/rate_robust"]["missing"] == 0


def test_a_column():
    some = rows()[:6]
    assert column(some, "fixed/ok") == [row["ok"] for row in some[::2]]
    assert column(some, "attack/rate_robust") == [row["rate_robust"] for row in some[3::2]]
    assert column(some, "base/ok") == []
    assert column(some, "fixed/nothing") == []


class Largest(MeanWithDeviation):
    """A figure that is no mean of the samples' numbers: of a tensor a sample, here its largest."""

    def update(self, values):
        super().update(values if values.ndim == 1 else values.flatten(1).amax(1))


def test_a_figure_of_which_a_tensor_was_recorded_is_computed_from_that():
    tensors = {"whole/figure": torch.arange(12.0).view(3, 2, 2), "other/tensor": torch.zeros(3)}
    metrics = {**fresh(), "whole/figure": Largest()}
    found = aggregate(rows(), metrics, tensors)
    assert found["whole/figure"]["value"] == (3 + 7 + 11) / 3
    assert found["whole/figure"]["n"] == 3
    assert {name: found[name] for name in METRICS} == aggregate(rows(), fresh())
    assert metrics["whole/figure"].summary()["n"] == 0  # what it has counted itself stays
