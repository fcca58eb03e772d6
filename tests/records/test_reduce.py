"""Figures of the records are the metrics' own, in any order and any batches."""

import math

import pytest
import torch

from lit_purify.functional import wilson_interval
from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation
from lit_purify.records import Column, SampleTable, reduce

N = 101
METRICS = {
    "fixed/ok": IntervalAccuracy,
    "attack/rate": MeanWithDeviation,
    "attack/rate_robust": MeanWithDeviation,
}


def fresh():
    return {name: kind() for name, kind in METRICS.items()}


def records(mean=1.0):
    """N samples: some without a rate, and a column that some of them lack."""
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(N)
    rate = torch.rand(N, generator=generator, dtype=torch.float64) + mean - 0.5
    rate[index % 10 == 3] = math.nan
    return SampleTable(
        {
            "index": Column(index),
            "fixed/ok": Column(torch.rand(N, generator=generator) < 0.7),
            "attack/rate": Column(rate),
            "attack/rate_robust": Column(rate, index % 3 > 0),
        }
    )


def some(table, rows):
    return SampleTable({name: column.take(rows) for name, column in table.columns.items()})


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, statistics in expected.items():
        assert found[name] == pytest.approx(statistics, rel=1e-12, abs=0), name


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_do_not_matter(size):
    metrics = fresh()
    for rows in torch.arange(N).split(size):
        for name, metric in metrics.items():
            metric.update(some(records(), rows)[name])
    fed = {name: metric.summary() for name, metric in metrics.items()}
    assert_same(reduce(records(), fresh()), fed)


@pytest.mark.parametrize("seed", range(3))
def test_order_does_not_matter(seed):
    rows = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    assert_same(reduce(some(records(), rows), fresh()), reduce(records(), fresh()))


def mean_and_std(values):
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def test_a_spread_far_below_its_mean():
    """Rounding is that of the values, eps mean / std = 1e-9; sums of squares would lose it all."""
    found = reduce(records(1e6), fresh())["attack/rate"]
    mean, std = mean_and_std([value - 1e6 for value in records(1e6).known("attack/rate")])
    assert found["std"] == pytest.approx(std, rel=1e-9)
    assert found["value"] == pytest.approx(1e6 + mean, rel=1e-15)


def test_by_hand():
    found = reduce(records(), fresh())
    right = int(records()["fixed/ok"].sum())
    low, high = wilson_interval(right, N)
    assert found["fixed/ok"] == {"value": right / N, "low": low, "high": high, "n": N}
    rates = records().known("attack/rate")
    mean, std = mean_and_std(rates)
    half = 1.959963984540054 * std / math.sqrt(len(rates))
    expected = {"value": mean, "low": mean - half, "high": mean + half, "std": std}
    expected |= {"n": len(rates), "missing": N - len(rates)}
    assert expected["missing"] > 0
    assert found["attack/rate"] == pytest.approx(expected, rel=1e-12)


def test_what_a_metric_counted_before_is_forgotten():
    metrics = fresh()
    metrics["fixed/ok"].update(torch.tensor([False] * 50))
    metrics["attack/rate"].update(torch.tensor([1.0, 2.0]))
    for _ in range(2):
        assert reduce(records(), metrics) == reduce(records(), fresh())


@pytest.mark.parametrize("table", [SampleTable({}), some(records(), torch.arange(0))])
def test_without_samples_nothing_is_known(table):
    metrics = fresh()
    reduce(records(), metrics)
    for statistics in reduce(table, metrics).values():
        assert (statistics["value"], statistics["n"]) == (None, 0)


def test_where_no_sample_has_a_value():
    nowhere = Column(torch.full((4,), math.nan), torch.zeros(4, dtype=torch.bool))
    columns = {"index": Column(torch.arange(4)), "attack/rate": Column(nowhere.values)}
    found = reduce(SampleTable(columns | {"attack/rate_robust": nowhere}), fresh())
    assert (found["attack/rate"]["n"], found["attack/rate"]["missing"]) == (0, 4)
    assert found["attack/rate"]["value"] is None
    assert found["attack/rate_robust"]["missing"] == 0


class Largest(MeanWithDeviation):
    """A figure of a tensor per sample, here its largest number."""

    def update(self, values):
        super().update(values.flatten(1).amax(1))


def test_a_figure_of_a_tensor_per_sample():
    tensors = {"index": Column(torch.arange(3)), "x": Column(torch.arange(12.0).view(3, 2, 2))}
    found = reduce(SampleTable(tensors), {"x": Largest()})["x"]
    assert (found["value"], found["n"]) == ((3 + 7 + 11) / 3, 3)
