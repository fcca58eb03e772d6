"""Singular values of a matrix: all of them, the largest alone, and shares beyond a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from lit_purify.types import InputError

RowProduct = Callable[[Tensor], Tensor]
"""Multiplies every row by one matrix, (R, a) -> (R, b)."""

SLACK = 1e-5
"""Relative distance within which a singular value counts as equal to a threshold, so that rounding
does not decide: it is then neither below nor above."""


class Triplets(NamedTuple):
    """The largest singular values of a matrix of shape (m, n), with their vectors, in float64.

    Attributes:
        values: in descending order, shape (k,).
        left: unit vectors in the output, shape (k, m): J right = value left. Zeros for a
            value 0.
        right: unit vectors in the input, shape (k, n); zeros where the matrix is zero. Of the two
            signs that a pair may have, the one in which the entry of ``right`` of largest size is
            positive.
    """

    values: Tensor
    left: Tensor
    right: Tensor


def singular_values(matrix: Tensor) -> Tensor:
    """All singular values in descending order, float64.

    The decomposition is in float64 whatever the matrix was computed in: in float32 its rounding,
    about 1e-7 of the largest value for each of thousands of rows, would come on top of the matrix's
    own and drown the small ones.

    Args:
        matrix: shape (m, n).

    Example:
        >>> singular_values(torch.tensor([[0.0, 2.0], [0.5, 0.0]]))
        tensor([2.0000, 0.5000], dtype=torch.float64)
    """
    return torch.linalg.svdvals(matrix.double())


def share_below(values: Tensor, threshold: float) -> float:
    """Share of singular values below a threshold by more than :data:`SLACK`.

    Example:
        >>> share_below(torch.tensor([0.1, 0.25, 0.5, 2.0]), 0.25)
        0.25
    """
    return float((values < threshold * (1 - SLACK)).double().mean())


def share_above(values: Tensor, threshold: float) -> float:
    """Share of singular values above a threshold by more than :data:`SLACK`."""
    return float((values > threshold * (1 + SLACK)).double().mean())


def largest_singular(
    push: RowProduct, pull: RowProduct, start: Tensor, k: int, *, tolerance: float | None = None
) -> Triplets:
    """The k largest singular values by Lanczos iteration (ARPACK) on J^T J, without the matrix.

    Of a value that occurs several times an iteration from one vector may find fewer than are there.

    Args:
        push: v -> J v, row by row.
        pull: u -> J^T u, row by row.
        start: where the iteration starts, shape (n,); random, so that it leaves no direction out.
            It decides the last digits.
        k: how many, 1 <= k < n.
        tolerance: relative residual of the eigenvalues of J^T J. The relative error of a singular
            value is half of it at most, and about its square where no other value is near. ``None``
            is 1e-10 where the products are float64, else 1e-4.

    Raises:
        InputError: k is not in the range.

    Example:
        >>> scale = torch.tensor([1.0, 5.0, 3.0], dtype=torch.float64)
        >>> found = largest_singular(lambda v: v * scale, lambda u: u * scale, torch.ones(3), 2)
        >>> found.values.round(decimals=9)
        tensor([5., 3.], dtype=torch.float64)
    """
    n = start.numel()
    if not 1 <= k < n:
        raise InputError(f"asked for {k} of {n} singular values; expected 1 to {n - 1}")
    wide = torch.float64

    def apply(vector: np.ndarray) -> np.ndarray:
        row = torch.from_numpy(np.array(vector, dtype=np.float64)).to(start.device).view(1, -1)
        return pull(push(row)).to("cpu", wide).flatten().numpy()

    first = push(start.to(wide).view(1, -1))
    if not pull(first).any():  # a matrix of zeros, which has no Krylov space
        m = first.shape[1]
        zeros = (torch.zeros(shape, dtype=wide) for shape in ((k,), (k, m), (k, n)))
        return Triplets(*zeros)
    if tolerance is None:
        tolerance = 1e-10 if first.dtype == wide else 1e-4
    _, vectors = eigsh(
        LinearOperator((n, n), matvec=apply, dtype=np.float64),
        k=k,
        v0=start.to("cpu", wide).numpy(),
        ncv=min(n, max(2 * k + 1, 20)),
        tol=tolerance,
        rng=np.random.default_rng(0),  # for restarts from an invariant subspace
    )
    right = torch.from_numpy(vectors.T.copy())
    entry = right.abs().argmax(1, keepdim=True)
    right = right * right.gather(1, entry).sign()
    pushed = push(right.to(start.device)).to("cpu", wide)
    # |J v| is exact to second order in the error of v.
    values, order = pushed.norm(dim=1).sort(descending=True)
    left = pushed[order] / values.clamp(min=torch.finfo(wide).tiny).unsqueeze(1)
    return Triplets(values, left, right[order])
