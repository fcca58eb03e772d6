"""Means against a step, and how they come together."""

from itertools import pairwise

import pytest
import torch

from lit_purify.functional import wilson_interval
from lit_purify.records import Column, mean_curve, running_mean

NAN = torch.nan


def points(curve):
    return [(step, tuple(mean)) for step, mean in curve.points()]


def test_batches_add_up_to_the_whole():
    values = torch.rand(7, 3, generator=torch.Generator().manual_seed(0))
    values[2, 1] = NAN
    whole = mean_curve(values, [0, 10, 20])
    parts = mean_curve(values[:3], [0, 10, 20]) + mean_curve(values[3:], [0, 10, 20])
    want = values.double().nanmean(0).tolist()
    for curve in (whole, parts):
        assert curve.count.tolist() == [7, 6, 7]
        assert points(curve) == [
            (step, pytest.approx((mean,) * 3)) for step, mean in zip((0, 10, 20), want, strict=True)
        ]


def test_shares_have_wilson_intervals():
    values = torch.tensor([[True, False], [True, True], [False, False]])
    curve = mean_curve(values, [1, 2], share=True) + mean_curve(values[:1], [1, 2], share=True)
    assert points(curve) == [
        (1, (3 / 4, *wilson_interval(3, 4))),
        (2, (1 / 4, *wilson_interval(1, 4))),
    ]


def test_a_step_without_values_has_no_point():
    assert points(mean_curve(torch.tensor([[1.0, NAN]]), [1, 2])) == [(1, (1, 1, 1))]


@pytest.mark.parametrize("size", [0, 1, 49, 50, 51, 1234])
def test_a_running_mean_ends_with_the_whole(size):
    values = torch.rand(size, generator=torch.Generator().manual_seed(0))
    found = points(running_mean(Column(values)))
    assert len(found) == min(size, 50)
    for n, (mean, *_) in found:
        assert mean == pytest.approx(values[:n].double().mean().item())
    assert [n for n, _ in found][-1:] == [size][:size]
    gaps = {after - before for (before, _), (after, _) in pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_running_mean_leaves_out_what_does_not_apply():
    values, where = torch.tensor([9.0, 1.0, NAN, 3.0]), torch.tensor([False, True, True, True])
    found = [(n, mean) for n, (mean, *_) in points(running_mean(Column(values, where)))]
    assert found == [(2, 1), (3, 1), (4, 2)]
    right = Column(torch.tensor([True, False]))
    (_, (share, *ends)) = points(running_mean(right, share=True))[-1]
    assert (share, *ends) == (0.5, *wilson_interval(1, 2))
