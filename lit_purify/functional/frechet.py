r"""Fréchet distance between two sets of features, each taken for Gaussian (FID, Table 1),

.. math:: d^2 = \|m_1 - m_2\|^2 + \operatorname{tr}\left(S_1 + S_2 - 2 (S_1 S_2)^{1/2}\right),

with means :math:`m` and covariances :math:`S` (n - 1). The trace of the last term is computed as
the sum of the singular values of :math:`S_1^{1/2} S_2^{1/2}`, the roots from symmetric
eigendecompositions: real by construction, and exact also where a covariance is singular. The usual
root of the product :math:`S_1 S_2`, which is not symmetric, can turn complex.

Features arrive in pieces. A piece is kept as one symmetric matrix of count n, mean m and scatter
:math:`M = \sum (x - m)(x - m)^T`,

.. math:: \begin{pmatrix} n & m^T \\ m & M \end{pmatrix},

and pieces merge exactly (Chan, Golub and LeVeque), so memory does not grow with the samples.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def feature_moments(features: Tensor) -> Tensor:
    """Count, mean and scatter of a piece.

    Args:
        features: shape (B, D), floating point.

    Returns:
        The matrix of count, mean and scatter in float64, shape (D + 1, D + 1); zeros for no sample.

    Example:
        >>> feature_moments(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        tensor([[2., 2., 0.],
                [2., 2., 0.],
                [0., 0., 0.]], dtype=torch.float64)
    """
    features = features.detach().double()
    if len(features) == 0:
        return features.new_zeros(features.shape[1] + 1, features.shape[1] + 1)
    mean = features.mean(0)
    centred = features - mean
    return _packed(mean.new_tensor(len(features)), mean, centred.T @ centred)


def merge_feature_moments(pieces: Tensor) -> Tensor:
    """The moments of several pieces taken together.

    Args:
        pieces: shape (K, ..., D + 1, D + 1). A piece may be empty (zeros).

    Returns:
        The moments of all their samples, shape (..., D + 1, D + 1).

    Example:
        >>> parts = [feature_moments(torch.tensor(rows)) for rows in ([[1.0]], [[2.0], [3.0]])]
        >>> merge_feature_moments(torch.stack(parts))
        tensor([[3., 2.],
                [2., 2.]], dtype=torch.float64)
    """
    count, mean, scatter = _unpacked(pieces)
    total = count.sum(0)
    merged = (count[..., None] * mean).sum(0) / total.clamp(min=1)[..., None]
    shift = mean - merged
    # Of each piece the outer product, summed without holding K of them.
    between = torch.einsum("k...,k...i,k...j->...ij", count, shift, shift)
    return _packed(total, merged, scatter.sum(0) + between)


def frechet_distance(first: Tensor, second: Tensor) -> Tensor:
    r"""Fréchet distance d^2 of two sets of features; with Inception features it is the FID.

    Args:
        first: :func:`feature_moments` of one set, shape (D + 1, D + 1).
        second: of the other.

    Returns:
        d^2, at least 0, scalar, float64; nan where a set has fewer than two samples, which have no
        covariance, or moments that are not finite.

    Warns:
        UserWarning: a set has no more samples than dimensions, so that its covariance is rank
            deficient. The distance is then the one of the samples at hand and far above, or below,
            that of the distributions behind them.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [4.0]])
        >>> frechet_distance(feature_moments(x), feature_moments(3 + x))
        tensor(9., dtype=torch.float64)
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] != first.shape[1]:
        raise ValueError(
            "expected the moments of two sets, (D + 1, D + 1) each, got "
            f"{(*first.shape,)} and {(*second.shape,)}"
        )
    counts, means, scatters = _unpacked(torch.stack([first, second]).detach().double())
    n, dimension = int(counts.min()), means.shape[-1]
    if n < 2 or not bool(scatters.isfinite().all() and means.isfinite().all()):
        return counts.new_tensor(torch.nan)
    if n <= dimension:
        warnings.warn(
            f"the Fréchet distance compares {n} samples in {dimension} dimensions: a covariance "
            f"is rank deficient, and the value is only comparable with others of {n} samples; "
            f"take more than {dimension}",
            stacklevel=1,  # one place, so that a run says it once
        )
    covariances = scatters / (counts - 1)[:, None, None]
    one, two = (_root(covariance) for covariance in covariances)
    overlap = torch.linalg.svdvals(one @ two).sum()
    spread = covariances.diagonal(dim1=-2, dim2=-1).sum() - 2 * overlap
    distance = (means[0] - means[1]).square().sum() + spread
    return distance.clamp(min=0)  # rounding of traces that cancel


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a symmetric, positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    # Zeros come out as rounding errors of either sign, whose root is far larger than they are.
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
    return (vectors * values.where(values > rounding, 0).sqrt()) @ vectors.T


def _packed(count: Tensor, mean: Tensor, scatter: Tensor) -> Tensor:
    top = torch.cat([count[..., None], mean], -1)
    below = torch.cat([mean[..., None], scatter], -1)
    return torch.cat([top[..., None, :], below], -2)


def _unpacked(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return moments[..., 0, 0], moments[..., 0, 1:], moments[..., 1:, 1:]
