"""The metric in batches, on ranks and from the records is the function of all samples."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_purify.functional import feature_moments, frechet_distance
from lit_purify.metrics import FrechetDistance
from lit_purify.report import aggregate

N, D = 37, 5


def pairs(n: int = N, d: int = D) -> Tensor:
    """Features of clean images and of others, float32 as they are recorded, (n, 2, d)."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(n, d))
    other = 1.5 * clean + rng.normal(size=(n, d)) + 2
    return torch.from_numpy(np.stack([clean, other], 1)).float()


def expected(data: Tensor) -> float:
    clean, other = data.double().unbind(1)
    return frechet_distance(feature_moments(clean), feature_moments(other)).item()


def filled(data: Tensor, sizes: list[int]) -> FrechetDistance:
    metric = FrechetDistance(data.shape[2])
    for part in data.split(sizes):
        metric.update(part)
    return metric


def join(*ranks: FrechetDistance) -> None:
    """Have metrics gather from each other as processes do."""
    states = [{name: getattr(rank, name) for name in rank._defaults} for rank in ranks]
    for rank in ranks:

        def gather(value: Tensor, group: object, rank: FrechetDistance = rank) -> list[Tensor]:
            (name,) = [name for name in rank._defaults if getattr(rank, name) is value]
            return [state[name] for state in states]

        rank.dist_sync_fn = gather
        rank.distributed_available_fn = lambda: True


@pytest.mark.parametrize("sizes", [[N], [1] * N, [20, 0, 17], [2, 35]])
def test_batches_do_not_matter(sizes: list[int]) -> None:
    metric, value = filled(pairs(), sizes), expected(pairs())
    assert metric.compute().item() == pytest.approx(value, rel=1e-6)
    assert metric.summary() == {
        "value": pytest.approx(value, rel=1e-12),
        "n": N,
        "missing": 0,
        "dimension": D,
    }


@pytest.mark.parametrize("cuts", [(0, 20), (1, 20), (N, N), (12, 13)])
def test_ranks_do_not_matter(cuts: tuple[int, int]) -> None:
    data = pairs()
    bounds = [0, *cuts, N]
    ranks = [filled(data[a:b], [b - a]) for a, b in pairwise(bounds)]
    join(*ranks)
    for rank, (a, b) in zip(ranks, pairwise(bounds), strict=True):
        assert rank.compute().item() == pytest.approx(expected(data), rel=1e-6)
        assert int(rank.moments[0, 0, 0]) == b - a  # the local state is back


def test_from_the_records() -> None:
    metric = filled(pairs()[:9], [9])
    counted = copy.deepcopy(metric.moments)
    figures = aggregate([], {"quality/fid_after": metric}, {"quality/fid_after": pairs()})
    assert figures["quality/fid_after"] == filled(pairs(), [N]).summary()
    assert torch.equal(metric.moments, counted)  # what it has counted before does not matter


def test_what_is_not_finite_is_left_out_on_both_sides() -> None:
    data = pairs()
    data[3, 0, 0], data[5, 1, 2] = torch.nan, torch.inf
    sound = torch.cat([data[:3], data[4:5], data[6:]])
    found = filled(data, [10, 27]).summary()
    assert found["value"] == pytest.approx(expected(sound), rel=1e-12)
    assert (found["n"], found["missing"]) == (N - 2, 2)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_samples_have_no_value(n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric = filled(pairs()[:n], [n])
        assert metric.summary() == {"value": None, "n": n, "missing": 0, "dimension": D}


def test_the_warning_names_samples_and_dimensions() -> None:
    with pytest.warns(UserWarning, match="5 samples in 5 dimensions"):
        filled(pairs()[:5], [5]).summary()


@pytest.mark.parametrize("make", [lambda m: m.half(), copy.deepcopy, lambda m: m.to("cpu")])
def test_the_state_stays_float64(make: Callable[[FrechetDistance], FrechetDistance]) -> None:
    metric = make(filled(pairs(), [N]))
    assert metric.moments.dtype == torch.float64
    assert pickle.loads(pickle.dumps(metric)).summary() == filled(pairs(), [N]).summary()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected features of shape \(B, 2, 5\), got \(4, 5\)"):
        FrechetDistance(D).update(torch.zeros(4, D))
