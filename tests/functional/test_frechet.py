"""Fréchet distances with a closed form, from the samples themselves, and in pieces."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_purify.functional import feature_moments, frechet_distance, merge_feature_moments


def features(n: int, d: int, *, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Correlated features of a known, non-zero mean."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    return torch.from_numpy(scale * (rng.normal(size=(n, d)) @ mix + rng.normal(size=d)))


def distance(a: Tensor, b: Tensor) -> float:
    return frechet_distance(feature_moments(a), feature_moments(b)).item()


def by_samples(a: Tensor, b: Tensor) -> float:
    """From the samples themselves: the trace of the root is a nuclear norm of A B^T.

    S1 S2 = A^T A B^T B has the nonzero eigenvalues of (A B^T)(A B^T)^T. It needs no root of a
    covariance, so it is as exact where they are singular.
    """
    shift = a.mean(0) - b.mean(0)
    one, two = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    overlap = torch.linalg.svdvals(one @ two.T).sum()
    return float(shift @ shift + one.square().sum() + two.square().sum() - 2 * overlap)


def test_the_same_set_has_distance_zero():
    x = features(200, 20)
    assert distance(x, x) == pytest.approx(0, abs=1e-12)
    assert distance(x, x.flip(0)) == pytest.approx(0, abs=1e-12)  # the order says nothing


def test_a_shift_counts_by_its_square():
    x = features(200, 20)
    shift = torch.linspace(-1, 2, 20, dtype=torch.float64)
    assert distance(x, x + shift) == pytest.approx(shift.square().sum().item(), rel=1e-12)


def test_scaled_axes():
    """Commuting covariances: the squared difference of the roots of their eigenvalues."""
    x = features(300, 6)
    x -= x.mean(0)
    scale = torch.tensor([0.0, 0.1, 1.0, 2.0, 5.0, 0.7], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    scaled = (x @ vectors * scale) @ vectors.T
    expected = (values.sqrt() * (1 - scale)).square().sum().item()
    assert distance(x, scaled) == pytest.approx(expected, rel=1e-12)


def test_one_dimension():
    a = torch.tensor([[0.0], [2.0], [4.0]])  # mean 2, variance 4
    b = torch.tensor([[9.0], [10.0], [11.0]])  # mean 10, variance 1
    assert distance(a, b) == pytest.approx(64 + (2 - 1) ** 2, rel=1e-14)


@pytest.mark.parametrize("n", [2, 7, 40, 64, 65, 400])
@pytest.mark.filterwarnings("ignore:the Fréchet distance")
def test_against_the_samples_also_where_a_covariance_is_singular(n):
    a, b = features(n, 64), features(n + 3, 64, seed=1, scale=0.8)
    assert distance(a, b) == pytest.approx(by_samples(a, b), rel=1e-6)
    assert distance(b, a) == pytest.approx(distance(a, b), rel=1e-12)
    assert distance(a, a) == pytest.approx(0, abs=1e-10)


@pytest.mark.filterwarnings("ignore:the Fréchet distance")
def test_features_of_no_spread():
    x = torch.ones(5, 3)
    assert distance(x, x) == 0
    assert distance(x, 3 * x) == pytest.approx(12, rel=1e-14)


def test_too_few_samples_are_named_and_enough_are_not():
    a, b = features(9, 8), features(8, 8, seed=1)
    with pytest.warns(UserWarning, match="rank deficient"):
        distance(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distance(a, features(9, 8, seed=1))


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_samples_have_no_distance(n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(distance(features(n, 3), features(9, 3)))


def test_what_is_not_finite_has_no_distance():
    x = features(9, 3)
    x[0, 0] = np.inf
    assert np.isnan(distance(x, features(9, 3)))


def test_moments_are_those_of_the_whole():
    x = features(50, 4)
    found = feature_moments(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[0, 1:], x.mean(0))
    torch.testing.assert_close(found[1:, 1:] / 49, torch.cov(x.T))
    assert torch.equal(found, found.T)
    assert found[0, 0] == 50


@pytest.mark.parametrize("sizes", [[50], [1] * 50, [7, 0, 42, 1], [0, 50, 0]])
def test_pieces_merge_exactly(sizes):
    x = features(50, 4) + 1e6  # sums of squares would lose 12 digits
    pieces = torch.stack([feature_moments(part) for part in x.split(sizes)])
    torch.testing.assert_close(
        merge_feature_moments(pieces), feature_moments(x), rtol=1e-12, atol=1e-8
    )


def test_two_sets_merge_side_by_side():
    a, b = features(20, 3), features(20, 3, seed=1)
    pieces = [
        torch.stack([feature_moments(a[s]), feature_moments(b[s])])
        for s in (slice(8), slice(8, 20))
    ]
    merged = merge_feature_moments(torch.stack(pieces))
    torch.testing.assert_close(merged, torch.stack([feature_moments(a), feature_moments(b)]))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="moments of two sets"):
        frechet_distance(feature_moments(features(5, 2)), feature_moments(features(5, 3)))
