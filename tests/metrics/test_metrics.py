"""What every metric keeps: batches, ranks, copies; and what each of them counts."""

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from metric_ranks import CORRECT, VALUES, measure
from torch import Tensor

from lit_purify.functional import (
    SigmoidFit,
    feature_moments,
    fit_sigmoid,
    frechet_distance,
    normal_interval,
    wilson_interval,
)
from lit_purify.metrics import (
    FrechetDistance,
    IntervalAccuracy,
    LawOfMean,
    MeanWithDeviation,
    SummaryMetric,
)

N, D = 7, 2


def pairs(n: int = N, d: int = D) -> Tensor:
    """Features of clean images and of others, float32 as they are recorded, (n, 2, d)."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(n, d))
    other = 1.5 * clean + rng.normal(size=(n, d)) + 2
    return torch.from_numpy(np.stack([clean, other], 1)).float()


def distance(data: Tensor) -> float:
    clean, other = data.double().unbind(1)
    return frechet_distance(feature_moments(clean), feature_moments(other)).item()


def frechet() -> FrechetDistance:
    return FrechetDistance(D)


def law() -> SigmoidFit:
    """A curve that its points do not lie on exactly."""
    return fit_sigmoid([0.0, 0.5, 1.0, 2.0, 3.0], [0.95, 0.7, 0.55, 0.2, 0.03])


KINDS: list[tuple[Callable[..., SummaryMetric], Tensor]] = [
    (IntervalAccuracy, CORRECT),
    (MeanWithDeviation, VALUES),
    (lambda: LawOfMean(law()), VALUES),
    (frechet, pairs()),
]


def filled(kind: Callable[..., SummaryMetric], data: Tensor, *sizes: int) -> SummaryMetric:
    metric = kind()
    for part in data.split(list(sizes) or [len(data)]):
        metric.update(part)
    return metric


def join(*ranks: SummaryMetric) -> None:
    """Have metrics gather from each other as processes do."""
    states = [{name: getattr(rank, name) for name in rank._reductions} for rank in ranks]
    for rank in ranks:

        def gather(value: Tensor, group: object = None, rank: Any = rank) -> list[Tensor]:
            (name,) = [name for name in rank._reductions if getattr(rank, name) is value]
            return [state[name] for state in states]

        rank.dist_sync_fn = gather
        rank.distributed_available_fn = lambda: True


@pytest.mark.parametrize(("kind", "data"), KINDS)
class TestAll:
    @pytest.mark.parametrize("sizes", [[1] * N, [1, 4, 0, 2], [2, 5]])
    def test_batches_do_not_matter(
        self, kind: Callable[..., SummaryMetric], data: Tensor, sizes: list[int]
    ) -> None:
        whole = filled(kind, data)
        parts = filled(kind, data, *sizes)
        assert parts.summary() == pytest.approx(whole.summary(), rel=1e-12)
        assert parts.compute() == pytest.approx(whole.compute())

    @pytest.mark.parametrize("cuts", [(0, 3), (3, 3), (7, 7)])
    @pytest.mark.filterwarnings("ignore:The ``compute`` method")
    def test_uneven_and_empty_ranks_are_exact(
        self, kind: Callable[..., SummaryMetric], data: Tensor, cuts: tuple[int, int]
    ) -> None:
        whole = filled(kind, data).compute().item()
        ranks = [kind() for _ in range(3)]
        for rank, part in zip(ranks, data.tensor_split(cuts), strict=True):
            if len(part):
                rank.update(part)
        local = [rank.summary() for rank in ranks]
        join(*ranks)
        for rank, own in zip(ranks, local, strict=True):
            assert rank.summary() == own  # a rank speaks of what it saw itself
            for _ in range(2):  # nothing is synced twice
                assert rank.compute().item() == pytest.approx(whole, rel=1e-6)
            assert rank.summary() == own  # the local state is back

    @pytest.mark.parametrize("empty", [False, True])
    def test_without_samples_it_is_silent(
        self, kind: Callable[..., SummaryMetric], data: Tensor, empty: bool
    ) -> None:
        metric = kind()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if empty:
                metric.update(data[:0])
            summary = metric.summary()
        assert (summary["value"], summary["n"]) == (None, 0)

    @pytest.mark.parametrize("make", [lambda m: m.half(), copy.deepcopy, lambda m: m.to("cpu")])
    def test_the_state_stays_exact_until_it_is_reset(
        self, kind: Callable[..., SummaryMetric], data: Tensor, make: Callable[[Any], Any]
    ) -> None:
        whole = filled(kind, data).summary()
        metric = make(filled(kind, data))
        assert metric.summary() == whole
        assert pickle.loads(pickle.dumps(metric)).summary() == whole
        assert metric.compute().dtype == torch.float32
        metric.reset()
        assert metric.summary()["n"] == 0


class TestAccuracy:
    def test_it_has_its_interval(self) -> None:
        metric = filled(IntervalAccuracy, CORRECT)
        assert metric.compute().item() == pytest.approx(5 / 7)
        low, high = wilson_interval(5, 7)
        assert metric.summary() == {"value": 5 / 7, "low": low, "high": high, "n": 7}

    @pytest.mark.parametrize(
        "values",
        [torch.zeros(3, 10), torch.tensor([3, 5]), torch.tensor([0.2, 1.5]), -torch.ones(2)],
    )
    def test_logits_and_labels_are_refused(self, values: Tensor) -> None:
        with pytest.raises(TypeError, match="booleans"):
            IntervalAccuracy().update(values)

    def test_samples_count_in_part(self) -> None:
        """Ten samples tested four times each are ten samples, not forty."""
        metric = IntervalAccuracy()
        metric.update(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
        metric.update(torch.tensor([True] * 2 + [False] * 3))
        low, high = wilson_interval(4.5, 10)
        assert metric.summary() == {"value": 0.45, "low": low, "high": high, "n": 10}
        assert metric.compute().item() == pytest.approx(0.45)

    def test_summary_inside_a_sync_keeps_the_sync(self) -> None:
        a, b = (filled(IntervalAccuracy, part) for part in (CORRECT[:2], CORRECT[2:]))
        join(a, b)
        with a.sync_context(dist_sync_fn=a.dist_sync_fn):
            assert a.summary()["n"] == 7
            assert a._is_synced
        assert int(a.total) == 2


class TestLawOfMean:
    def test_its_interval_has_that_of_the_mean_and_of_the_curve(self) -> None:
        found = filled(lambda: LawOfMean(law()), VALUES).summary()
        mean = filled(MeanWithDeviation, VALUES).summary()
        near, far = normal_interval(mean["value"], mean["std"], 5)
        curve = law()
        assert found["value"] == pytest.approx(float(curve(mean["value"])))
        assert found["low"] == pytest.approx(max(0, float(curve.band(far)[0])))
        assert found["high"] == pytest.approx(min(1, float(curve.band(near)[1])))
        assert (found["n"], found["missing"]) == (5, 2)

    def test_one_value_has_no_interval(self) -> None:
        found = filled(lambda: LawOfMean(law()), torch.tensor([1.0])).summary()
        assert (found["value"], found["low"]) == (pytest.approx(float(law()(1.0))), None)


class TestMean:
    def test_nan_is_left_out_and_counted(self) -> None:
        metric = filled(MeanWithDeviation, VALUES)
        known = VALUES[~VALUES.isnan()].double()
        mean, std = known.mean().item(), known.std().item()
        half = 1.959963984540054 * std / math.sqrt(5)
        assert metric.compute().item() == pytest.approx(mean)
        expected = {"value": mean, "low": mean - half, "high": mean + half, "std": std}
        assert metric.summary() == pytest.approx({**expected, "n": 5, "missing": 2})

    def test_one_value_has_no_spread(self) -> None:
        summary = filled(MeanWithDeviation, torch.tensor([3.0])).summary()
        assert (summary["value"], summary["n"]) == (3, 1)
        assert (summary["std"], summary["low"]) == (None, None)

    def test_equal_values_have_exactly_no_spread(self) -> None:
        assert filled(MeanWithDeviation, torch.full((4,), 0.25), 1, 3).summary()["std"] == 0


class TestFrechet:
    def test_it_is_the_function_of_all_samples(self) -> None:
        metric, value = filled(frechet, pairs(), 3, 4), distance(pairs())
        assert metric.compute().item() == pytest.approx(value, rel=1e-6)
        expected = {"value": pytest.approx(value, rel=1e-12), "n": N, "missing": 0, "dimension": D}
        assert metric.summary() == expected

    def test_what_is_not_finite_is_left_out_on_both_sides(self) -> None:
        data = pairs()
        data[3, 0, 0], data[5, 1, 1] = torch.nan, torch.inf
        found = filled(frechet, data, 2, 5).summary()
        sound = torch.cat([data[:3], data[4:5], data[6:]])
        assert found["value"] == pytest.approx(distance(sound), rel=1e-12)
        assert (found["n"], found["missing"]) == (N - 2, 2)

    def test_one_sample_has_no_value(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = filled(frechet, pairs(1)).summary()
        assert found == {"value": None, "n": 1, "missing": 0, "dimension": D}

    def test_the_warning_names_samples_and_dimensions(self) -> None:
        with pytest.warns(UserWarning, match="5 samples in 5 dimensions"):
            filled(lambda: FrechetDistance(5), pairs(5, 5)).summary()

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="shape"):
            FrechetDistance(D).update(torch.zeros(4, D))


@pytest.mark.slow
def test_two_real_processes(tmp_path: Path) -> None:
    mp.spawn(measure, (f"file://{tmp_path}/store", str(tmp_path)), nprocs=2)
    whole = filled(MeanWithDeviation, VALUES)
    for rank, own in enumerate((slice(6), slice(6, 7))):
        accuracy, mean, counts, spread = torch.load(tmp_path / f"{rank}.pt")
        assert accuracy == pytest.approx(5 / 7)
        assert mean == pytest.approx(whole.compute().item())
        assert counts == pytest.approx(filled(IntervalAccuracy, CORRECT[own]).summary())
        assert spread == pytest.approx(filled(MeanWithDeviation, VALUES[own]).summary())


def test_the_interval_of_a_mean_of_shares_stays_among_shares():
    few, other = MeanWithDeviation(unit="%"), MeanWithDeviation()
    for metric in (few, other):
        metric.update(torch.tensor([0.0, 0.0, 1.0]))
    assert (few.summary()["low"], few.summary()["high"]) == (0.0, pytest.approx(0.9867, abs=1e-4))
    assert other.summary()["low"] == pytest.approx(-0.32, abs=1e-3)
    few.update(torch.ones(1))
    assert few.summary()["high"] == 1.0
