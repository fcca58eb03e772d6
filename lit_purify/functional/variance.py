r"""Variance of purified images from the input and from the noise (eqs. 7 and 11, Table S5).

For one image, :math:`y_{mn} = f_{\xi_n}(x_m)` with M perturbed inputs and N randomness
configurations, every input under every configuration. In each pixel, with variances over what was
drawn (divided by M and N, so that the law of total variance is exact),

.. math:: \underbrace{\mathrm{Var}_{mn}\, y}_{\text{total}} =
   \underbrace{E_\xi[\mathrm{Var}_x\, y]}_{\text{input}} +
   \underbrace{\mathrm{Var}_\xi[E_x\, y]}_{\text{internal}}, \qquad
   \mathrm{SNR} = \frac{E_\xi[\mathrm{Var}_x\, y]}{\mathrm{Var}_\xi[E_x\, y]}.

**The corrected internal variance.** Write :math:`f = \mu + a(x) + b(\xi) + c(x, \xi)`, each of the
three with mean zero, b and c also given the other argument. What is sought is :math:`\mathrm{Var}\,
b`. The mean over the M inputs of a draw is :math:`\mu + \bar a + b_n + \bar c_n`. All draws share
the inputs, so :math:`\bar a` does not vary from draw to draw, while :math:`\bar c_n` adds
:math:`\mathrm{Var}(c) / M`. With the interaction's mean square
:math:`S = \sum_{mn} (y_{mn} - \bar y_{m\cdot} - \bar y_{\cdot n} + \bar y)^2 / (M - 1)(N - 1)`,
whose mean is :math:`\mathrm{Var}\, c`,

.. math:: \frac{1}{N - 1} \sum_n (\bar y_{\cdot n} - \bar y)^2 - \frac{S}{M}

is unbiased. (Subtracting :math:`E_\xi[\mathrm{Var}_x] / (M - 1)` instead would be right if every
draw had inputs of its own.)

The draws arrive one by one. What is kept of them does not grow with their number, and is updated as
Welford does, without differences of large sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class CrossedMoments(NamedTuple):
    """What is known of B images after some draws, M inputs each, in float64.

    Attributes:
        draws: N, the draws so far.
        mean: of all purified images, shape (B, ...).
        offset: mean over the draws of what an input adds to the mean of its draw, (B, M, ...).
        within: sum over the draws of the variance over the inputs, mean over pixels, (B,).
        between: squared deviations of the draws' means, summed, mean over pixels, (B,).
        interaction: squared deviations from ``offset``, summed, mean over pixels, (B,).
    """

    draws: int
    mean: Tensor
    offset: Tensor
    within: Tensor
    between: Tensor
    interaction: Tensor

    @property
    def mean_of_input(self) -> Tensor:
        """Mean of each input's purified images over the draws, shape (B, M, ...)."""
        return self.mean.unsqueeze(1) + self.offset


def add_draw(moments: CrossedMoments | None, outputs: Tensor) -> CrossedMoments:
    """Take in one more randomness configuration.

    Args:
        moments: what the earlier ones gave, ``None`` for the first.
        outputs: the inputs purified under it, shape (B, M, ...), M at least 2.

    Raises:
        ValueError: fewer than two inputs, no pixels, or another shape than before.
    """
    if outputs.ndim < 3 or outputs.shape[1] < 2 or outputs[:1].numel() == 0 < len(outputs):
        raise ValueError(
            f"expected images of 2 or more inputs, (B, M, ...), got shape {(*outputs.shape,)}"
        )
    outputs = outputs.double()
    mean = outputs.mean(1)
    offset = outputs - mean.unsqueeze(1)
    zero = torch.zeros(len(outputs), dtype=torch.float64, device=outputs.device)
    if moments is None:
        moments = CrossedMoments(0, torch.zeros_like(mean), torch.zeros_like(offset), *[zero] * 3)
    if moments.offset.shape != offset.shape:
        raise ValueError(
            f"expected draws of one shape, got {(*offset.shape,)} after {(*moments.offset.shape,)}"
        )
    n, inputs = moments.draws + 1, outputs.shape[1]
    new_mean = moments.mean + (mean - moments.mean) / n
    new_offset = moments.offset + (offset - moments.offset) / n
    return CrossedMoments(
        draws=n,
        mean=new_mean,
        offset=new_offset,
        within=moments.within + _pixels(offset.square()),
        between=moments.between + _pixels((mean - moments.mean) * (mean - new_mean)),
        interaction=moments.interaction
        + inputs * _pixels((offset - moments.offset) * (offset - new_offset)),
    )


class VarianceComponents(NamedTuple):
    """Means over pixels, in units of squared pixels in [0, 1]; each of shape (B,), float64.

    Attributes:
        total: Var y (eq. 11), the sum of the next two.
        input: E_xi[Var_x y].
        internal: Var_xi[E_x y].
        internal_unbiased: the same, unbiased where inputs and noise are drawn independently; it may
            be negative. nan for a single draw.
        snr: input over internal (eq. 7), of the means over pixels. Infinite where the purified
            image does not depend on the noise at all, nan where it depends on neither.
    """

    total: Tensor
    input: Tensor
    internal: Tensor
    internal_unbiased: Tensor
    snr: Tensor


def variance_components(moments: CrossedMoments) -> VarianceComponents:
    """The parts that the variance of purified images comes from (eq. 11), and their ratio (eq. 7).

    Args:
        moments: of all draws.

    Example:
        >>> draws = torch.tensor([[[[0.0], [2.0]]], [[[4.0], [6.0]]]])  # N, B, M, pixels
        >>> moments = None
        >>> for outputs in draws:
        ...     moments = add_draw(moments, outputs)
        >>> [round(part.item(), 3) for part in variance_components(moments)]
        [5.0, 1.0, 4.0, 8.0, 0.25]
    """
    n, inputs = moments.draws, moments.offset.shape[1]
    within, between = moments.within / n, moments.between / n
    corrected = torch.full_like(between, torch.nan)
    if n > 1:
        square = moments.interaction / ((inputs - 1) * (n - 1))
        corrected = moments.between / (n - 1) - square / inputs
    return VarianceComponents(
        total=within + between,
        input=within,
        internal=between,
        internal_unbiased=corrected,
        snr=within / between,
    )


def _pixels(values: Tensor) -> Tensor:
    """Mean over everything but the first dimension, shape (B,)."""
    return values.flatten(1).mean(1)
