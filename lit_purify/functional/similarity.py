r"""The gradient of the structural similarity (SSIM, Wang et al. 2004) in closed form.

With local means :math:`\mu`, variances and covariance :math:`\sigma` under a Gaussian window, SSIM
is the mean over all pixels and channels of

.. math:: l \, c = \frac{2 \mu_x \mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1} \cdot
   \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}.

Both denominators are at least their constant, so it has derivatives of every order; the closed form
of the first can be differentiated by whoever needs the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_purify.types import InputError

SMALLEST = 6
"""Height and width that an image must have: the 11x11 window is reflected at the border."""

C1, C2 = 0.01**2, 0.03**2
"""Wang's constants for values in [0, 1]."""


def similarity_gradient(x: Tensor, y: Tensor) -> Tensor:
    r"""Gradient of each image's SSIM with its partner with respect to x.

    The window is Wang's, 11x11 with sigma 1.5, the border reflected, as in
    :func:`~lit_purify.metrics.structural_similarity`. With W the local mean and N the number of
    values of an image,

    .. math:: \nabla_x \text{SSIM} = \frac1N \Big( W^\top \Big[\frac{2 c}{B_1} (\mu_y - \mu_x l)
       - \mu_y p - 2 \mu_x q\Big] + y \, W^\top p + 2 x \, W^\top q \Big), \qquad
       p = \frac{2 l}{B_2}, \quad q = -\frac{l c}{B_2},

    where :math:`B_1` and :math:`B_2` are the denominators of l and c.

    Args:
        x: shape (B, C, H, W), in the scale where images lie in [0, 1]; not clipped.
        y: same shape and scale.

    Returns:
        Shape (B, C, H, W), in the type of x, differentiable in both.

    Raises:
        InputError: an image is smaller than 6x6.

    Example:
        >>> x = torch.linspace(0, 1, 192, dtype=torch.float64).view(1, 3, 8, 8)
        >>> bool(similarity_gradient(x, x).abs().max() < 1e-12)  # the maximum is at y
        True
    """
    if min(x.shape[-2:]) < SMALLEST:
        raise InputError(
            f"SSIM needs images of {SMALLEST}x{SMALLEST} pixels or more, got "
            f"{x.shape[-2]}x{x.shape[-1]}; take the squared error, or larger images"
        )
    rows, columns = (_window(size, x) for size in x.shape[-2:])

    def mean(values: Tensor) -> Tensor:
        return rows @ values @ columns.T

    def spread(values: Tensor) -> Tensor:
        return rows.T @ values @ columns

    of_x, of_y = mean(x), mean(y)
    covariance = mean(x * y) - of_x * of_y
    variances = mean(x * x) - of_x**2 + mean(y * y) - of_y**2
    below_l, below_c = of_x**2 + of_y**2 + C1, variances + C2
    light, contrast = (2 * of_x * of_y + C1) / below_l, (2 * covariance + C2) / below_c
    p, q = 2 * light / below_c, -light * contrast / below_c
    of_mean = 2 * contrast / below_l * (of_y - of_x * light) - of_y * p - 2 * of_x * q
    return (spread(of_mean) + y * spread(p) + 2 * x * spread(q)) / x[0].numel()


def _window(size: int, like: Tensor) -> Tensor:
    """The matrix (size, size) of local means along one side."""
    offsets = torch.arange(-5, 6, device=like.device)
    weights = torch.exp(-(offsets.to(like.dtype) ** 2) / (2 * 1.5**2))
    last = size - 1
    places = torch.arange(size, device=like.device)[:, None] + offsets
    reflected = last - (last - places.abs()).abs()
    matrix = torch.zeros(size, size, device=like.device, dtype=like.dtype)
    return matrix.scatter_add(1, reflected, (weights / weights.sum()).expand(size, -1))
