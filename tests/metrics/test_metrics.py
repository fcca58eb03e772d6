import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from metric_ranks import CORRECT, VALUES, measure
from torch import Tensor

from lit_purify.functional import wilson_interval
from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation, SummaryMetric

KINDS: list[tuple[Callable[..., SummaryMetric], Tensor]] = [
    (IntervalAccuracy, CORRECT),
    (MeanWithDeviation, VALUES),
]


def filled(kind: Callable[..., SummaryMetric], data: Tensor, *sizes: int) -> SummaryMetric:
    metric = kind()
    for part in data.split(list(sizes)):
        metric.update(part)
    return metric


def recorded(data: Tensor) -> list[float | bool | None]:
    """A column of the records, in which None stands for nan."""
    return [None if math.isnan(value) else value for value in data.tolist()]


def join(a: SummaryMetric, b: SummaryMetric) -> None:
    """Let two metrics of one process act as the two ranks of a run."""
    for own, other in ((a, b), (b, a)):
        theirs: list[Tensor] = []

        def gather(
            state: Tensor,
            group: object = None,
            own: SummaryMetric = own,
            other: SummaryMetric = other,
            theirs: list[Tensor] = theirs,
        ) -> list[Tensor]:
            if not theirs:
                theirs.extend(getattr(other, name) for name in own._reductions)
            pair = [state, theirs.pop(0)]
            return pair if own is a else pair[::-1]

        own.dist_sync_fn = gather
        own.distributed_available_fn = lambda: True


def test_accuracy_and_its_interval() -> None:
    metric = filled(IntervalAccuracy, CORRECT, 7)
    assert metric.compute().item() == pytest.approx(5 / 7)
    low, high = wilson_interval(5, 7)
    assert metric.summary() == {"value": 5 / 7, "low": low, "high": high, "n": 7}


@pytest.mark.parametrize(
    "values", [torch.zeros(3, 10), torch.tensor([3, 5]), torch.tensor([0.2, 1.5]), -torch.ones(2)]
)
def test_accuracy_refuses_logits_and_labels(values: torch.Tensor) -> None:
    with pytest.raises(TypeError, match="booleans"):
        IntervalAccuracy().update(values)


def test_samples_count_in_part() -> None:
    """Ten samples tested four times each are ten samples, not forty."""
    metric = IntervalAccuracy()
    metric.update(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    metric.update(torch.tensor([True] * 2 + [False] * 3))
    low, high = wilson_interval(4.5, 10)
    assert metric.summary() == {"value": 0.45, "low": low, "high": high, "n": 10}
    assert metric.compute().item() == pytest.approx(0.45)


def test_mean_leaves_nan_out_and_counts_it() -> None:
    metric = filled(MeanWithDeviation, VALUES, 7)
    known = VALUES[~VALUES.isnan()].double()
    mean, std = known.mean().item(), known.std().item()
    half = 1.959963984540054 * std / math.sqrt(5)
    assert metric.compute().item() == pytest.approx(mean)
    assert metric.summary() == pytest.approx(
        {"value": mean, "low": mean - half, "high": mean + half, "std": std, "n": 5, "missing": 2}
    )


def test_one_value_has_no_spread() -> None:
    summary = filled(MeanWithDeviation, torch.tensor([3.0]), 1).summary()
    assert (summary["value"], summary["std"], summary["low"], summary["n"]) == (3, None, None, 1)


def test_equal_values_have_exactly_no_spread() -> None:
    assert filled(MeanWithDeviation, torch.full((4,), 0.25), 1, 3).summary()["std"] == 0


@pytest.mark.parametrize(("kind", "data"), KINDS)
def test_batches_do_not_matter(kind: Callable[..., SummaryMetric], data: Tensor) -> None:
    whole = filled(kind, data, 7).summary()
    assert filled(kind, data, 1, 4, 2).summary() == pytest.approx(whole)
    forward = kind()
    for part in data.split(3):
        forward(part)
    assert forward.summary() == pytest.approx(whole)


@pytest.mark.parametrize(("kind", "data"), KINDS)
@pytest.mark.parametrize("cut", [0, 3, 7])
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_uneven_and_empty_ranks_are_exact(
    kind: Callable[..., SummaryMetric], data: Tensor, cut: int
) -> None:
    whole = filled(kind, data, 7)
    a, b = kind(), kind()
    for rank, part in ((a, data[:cut]), (b, data[cut:])):
        if len(part):
            rank.update(part)
    local = [rank.summary() for rank in (a, b)]
    join(a, b)
    for rank, own in zip((a, b), local, strict=True):
        assert rank.summary() == own  # a rank speaks of what it saw itself
        assert rank.compute() == pytest.approx(whole.compute())
        assert rank.compute() == pytest.approx(whole.compute())  # nothing is synced twice
        assert rank.summary() == own  # the local state is back
    # What the report says of all ranks it computes from their records.
    records = kind()
    for part in (data[:cut], data[cut:]):
        records.add_recorded(recorded(part))
    assert records.summary() == pytest.approx(whole.summary(), rel=1e-12)


def test_summary_inside_a_sync_keeps_the_sync() -> None:
    a, b = (filled(IntervalAccuracy, part, len(part)) for part in (CORRECT[:2], CORRECT[2:]))
    join(a, b)
    with a.sync_context(dist_sync_fn=a.dist_sync_fn):
        assert a.summary()["n"] == 7
        assert a._is_synced
    assert int(a.total) == 2


@pytest.mark.parametrize(("kind", "data"), KINDS)
def test_a_recorded_column_counts_like_its_tensor(
    kind: Callable[..., SummaryMetric], data: Tensor
) -> None:
    metric = kind()
    for part in data.split([1, 4, 0, 2]):
        metric.add_recorded(recorded(part))
    assert metric.summary() == pytest.approx(filled(kind, data, 7).summary(), rel=1e-12)
    metric.add_recorded([])
    assert metric.summary()["n"] == filled(kind, data, 7).summary()["n"]


def test_a_recorded_accuracy_must_be_booleans() -> None:
    with pytest.raises(TypeError, match="booleans"):
        IntervalAccuracy().add_recorded([True, None])


@pytest.mark.parametrize(("kind", "data"), KINDS)
def test_an_empty_metric_is_silent(kind: Callable[..., SummaryMetric], data: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = kind().summary()
    assert summary["value"] is None
    assert summary["n"] == 0


@pytest.mark.parametrize(("kind", "data"), KINDS)
def test_precision_reset_and_pickle(kind: Callable[..., SummaryMetric], data: Tensor) -> None:
    metric = filled(kind, data, 7).half()
    assert pickle.loads(pickle.dumps(metric)).summary() == metric.summary()
    assert metric.compute().dtype == torch.float32
    metric.reset()
    assert metric.summary()["n"] == 0


@pytest.mark.slow
def test_two_real_processes(tmp_path: Path) -> None:
    mp.spawn(measure, (f"file://{tmp_path}/store", str(tmp_path)), nprocs=2)
    whole = filled(MeanWithDeviation, VALUES, 7)
    for rank, own in enumerate((slice(6), slice(6, 7))):
        accuracy, mean, counts, spread = torch.load(tmp_path / f"{rank}.pt")
        assert accuracy == pytest.approx(5 / 7)
        assert mean == pytest.approx(whole.compute().item())
        for kind, data, found in (
            (IntervalAccuracy, CORRECT[own], counts),
            (MeanWithDeviation, VALUES[own], spread),
        ):
            assert found == pytest.approx(filled(kind, data, len(data)).summary())
