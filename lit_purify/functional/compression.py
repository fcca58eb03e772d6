r"""Compression rate of a purifier under one randomness configuration (eq. 10),

.. math:: \alpha_{f_\xi}(x, x_0) = \frac{\|f_\xi(x) - f_\xi(x_0)\|_2}{\|x - x_0\|_2},

with :math:`x_0` the clean image and :math:`x` the perturbed one (the paper's text swaps the two;
the rate is symmetric, its limit :math:`\|J_{f_\xi}(x_0) \eta\|` is not).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_purify.functional.distances import lp_distance


def compression_rate(
    purified_perturbed: Tensor, purified_clean: Tensor, perturbed: Tensor, clean: Tensor
) -> Tensor:
    """By how much a purifier changes the length of a perturbation (eq. 10), l2 over all pixels.

    Below 1 the purifier compresses. Both purifications must use the same noise, or the rate
    measures the noise.

    Args:
        purified_perturbed: f_xi(x), shape (B, C, H, W).
        purified_clean: f_xi(x0), the anchor points, same shape.
        perturbed: x in [0, 1], shape (B, C, H, W).
        clean: x0 in [0, 1], same shape.

    Returns:
        Rates, at least 0, shape (B,). A sample without perturbation has no rate: nan.

    Raises:
        ValueError: the shapes of a pair differ.

    Example:
        >>> clean = torch.zeros(2, 3, 4, 4)
        >>> compression_rate(clean + 0.01, clean, clean + 0.04, clean)
        tensor([0.2500, 0.2500])
    """
    after = lp_distance(purified_perturbed, purified_clean)
    before = lp_distance(perturbed, clean)
    return torch.where(before > 0, after / before, torch.nan)
