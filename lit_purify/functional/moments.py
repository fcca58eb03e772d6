r"""Mean and spread of samples that arrive in pieces.

A piece is kept as its moments :math:`(n, m, M)`: count, mean and summed squared deviation from
that mean. Pieces merge exactly (Chan, Golub and LeVeque),

.. math:: n = \sum_k n_k, \qquad m = \frac{1}{n} \sum_k n_k m_k, \qquad
   M = \sum_k M_k + \sum_k n_k (m_k - m)^2,

without the cancellation of :math:`\sum v^2 - n m^2` where the spread is small beside the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor


def moments(values: Tensor) -> Tensor:
    """Count, mean and summed squared deviation of a piece.

    Args:
        values: any shape; all entries are used.

    Returns:
        ``(n, m, M)`` in float64, shape (3,); zeros for no values.

    Example:
        >>> moments(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 2., 2.], dtype=torch.float64)
    """
    values = values.detach().flatten().double()
    if values.numel() == 0:
        return values.new_zeros(3)
    mean = values.mean()
    count = torch.full_like(mean, values.numel())
    return torch.stack([count, mean, (values - mean).square().sum()])


def merge_moments(pieces: Tensor) -> Tensor:
    """The moments of several pieces taken together.

    Args:
        pieces: ``(n, m, M)`` of each piece, shape (K, 3). A piece may be empty (zeros).

    Returns:
        ``(n, m, M)`` of all their samples, shape (3,).

    Example:
        >>> pieces = torch.stack([moments(torch.tensor([1.0])), moments(torch.tensor([2.0, 3.0]))])
        >>> merge_moments(pieces)
        tensor([3., 2., 2.], dtype=torch.float64)
    """
    count, mean, deviation = pieces.unbind(1)
    total = count.sum()
    merged = (count * mean).sum() / total.clamp(min=1)
    spread = deviation.sum() + (count * (mean - merged).square()).sum()
    return torch.stack([total, merged, spread])
