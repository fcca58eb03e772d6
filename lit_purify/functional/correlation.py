r"""Correlation of perturbations, or of gradients, image by image (Table 5),

.. math:: r(a, b) = \frac{\langle a - \bar a, \; b - \bar b \rangle}
   {\|a - \bar a\|_2 \, \|b - \bar b\|_2},

where the mean is one number, over all pixels and channels of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each image with its partner, over all pixels and channels (Table 5).

    The paper says correlation, so the mean is taken off: that two perturbations both brighten an
    image is no agreement on where it is weak. Perturbations of l_inf attacks go up in about as many
    pixels as down, so their mean is next to nothing and the cosine nearly the same number.

    Args:
        a: perturbations or gradients, shape (B, ...), floating point, in any unit.
        b: the others, same shape.

    Returns:
        Correlations in [-1, 1], shape (B,), float64. An image on one of whose sides every pixel is
        the same (no perturbation, say), or any pixel is not finite, has none: nan.

    Raises:
        ValueError: the shapes differ (nothing is broadcast), or an image has no pixel.

    Example:
        >>> a = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [3.0, 3.0, 3.0]])
        >>> b = torch.tensor([[1.0, 3.0, 5.0], [2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
        >>> correlation(a, b).round(decimals=12).tolist()
        [1.0, -1.0, nan]
    """
    if a.shape != b.shape:
        raise ValueError(f"expected two batches of one shape, got {(*a.shape,)} and {(*b.shape,)}")
    if a[:1].numel() == 0 < len(a):
        raise ValueError(f"expected images with pixels, got shape {(*a.shape,)}")
    a, b = (_direction(side.flatten(1).double()) for side in (a, b))
    return (a * b).sum(1).clamp(-1, 1)  # rounding may lead out of the interval


def _direction(rows: Tensor) -> Tensor:
    """Rows without their mean, of length 1; nan where a row is constant or not finite."""
    # Scaled first: the squares of very small gradients would be 0.
    rows = rows / rows.abs().amax(1, keepdim=True)
    constant = (rows == rows[:, :1]).all(1, keepdim=True)  # the rounded mean may differ from it
    centred = rows - rows.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return torch.where(constant, torch.nan, centred / length)
