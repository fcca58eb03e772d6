r"""Signs of gradient masking: does the gradient that an attack follows tell where the loss rises?

A defence can look robust because its gradient is useless: zero, exploding, vanishing or not the
derivative of its loss. These functions measure that, sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LENGTHS = tuple(4.0**-k for k in range(8))
"""Lengths h of the steps of a numerical derivative, l2 over all pixels, longest first."""

ROUNDING = 64
"""Rounding error of a loss, in units of itself and of the machine precision of the images."""


def l2_norm(gradient: Tensor) -> Tensor:
    """Length of each sample's gradient, in float64: squares of float32 run out of its range.

    Args:
        gradient: shape (B, ...).

    Returns:
        Shape (B,), float64; nan or infinite where the gradient is.

    Example:
        >>> l2_norm(torch.full((1, 4), 1e-30))
        tensor([2.0000e-30], dtype=torch.float64)
    """
    return torch.linalg.vector_norm(gradient.double().flatten(1), dim=1)


def growth_log10(norms: Tensor) -> Tensor:
    r"""Decimal orders by which a gradient grew on its way back from the output to the input.

    .. math:: \log_{10} (\|\nabla_{x_0} L\|_2 / \|\nabla_{f(x_0)} L\|_2)

    A purifier that scales by c has log10 c; one of compression rate alpha (eq. 10) is near
    log10 alpha.

    Args:
        norms: gradient norm at every state, the input first and the output last, shape (B, S).

    Returns:
        Shape (B,); -inf where the gradient vanished to zero, nan where it was zero at the output.

    Example:
        >>> growth_log10(torch.tensor([[100.0, 7.0, 1.0]]))
        tensor([2.])
    """
    return (norms[:, 0] / norms[:, -1]).log10()


def zero_share(gradient: Tensor) -> Tensor:
    """Share of a gradient's entries that are exactly zero, where its sign gives no direction.

    Args:
        gradient: shape (B, ...).

    Returns:
        Shape (B,), float64, in [0, 1].

    Example:
        >>> zero_share(torch.tensor([[0.0, 1e-38, -2.0, 0.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    return (gradient == 0).flatten(1).double().mean(1)


def directional_derivative(
    loss: Callable[[Tensor], Tensor],
    images: Tensor,
    direction: Tensor,
    *,
    lengths: Sequence[float] = LENGTHS,
) -> Tensor:
    r"""Derivative of a loss along a direction by central differences, which know no gradient.

    .. math:: d_h = \frac{L(x + h u) - L(x - h u)}{2 h}

    errs by the curvature of the loss at long steps and by its rounding at short ones. Of a ladder
    of steps, for each sample, the one is taken at which d_h differs the least from that at the next
    longer and the next shorter step, relative to its size and with what rounding may have done
    added. No analytic gradient has a say in it, so a wrong one cannot find itself confirmed by the
    one step that happens to agree.

    Args:
        loss: images -> losses, shape (B,), each of its own image alone. In float64 they keep the
            digits of a loss near zero.
        images: shape (B, ...), float32 or float64. The probes leave [0, 1] where a pixel is at an
            end of it.
        direction: u, of l2 norm 1 per sample, same shape.
        lengths: steps h, three or more, longest first, l2 over all pixels.

    Returns:
        Shape (B,), in the type of the losses.

    Example:
        >>> x = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
        >>> directional_derivative(lambda x: x.square().sum(1), x, x)
        tensor([2.], dtype=torch.float64)
    """
    slopes, noises = [], []
    for h in lengths:
        above, below = loss(images + h * direction), loss(images - h * direction)
        slopes.append((above - below) / (2 * h))
        rounding = ROUNDING * torch.finfo(images.dtype).eps
        noises.append(rounding * (above.abs() + below.abs()) / (2 * h))
    slope = torch.stack(slopes)
    three = torch.stack([slope[:-2], slope[1:-1], slope[2:]])
    noise = torch.stack(noises[2:])  # that of the shortest of the three
    doubt = (three.amax(0) - three.amin(0) + noise) / (three.abs().amax(0) + noise)
    # Where the loss is not a number at the long steps, the short ones may still be.
    best = doubt.nan_to_num(nan=torch.inf).argmin(0, keepdim=True)
    return slope[1:-1].gather(0, best).squeeze(0)


def derivative_error(analytic: Tensor, numerical: Tensor) -> Tensor:
    """Relative error of an analytic derivative along its own gradient.

    Args:
        analytic: norm of the gradient, at least 0, shape (B,).
        numerical: :func:`directional_derivative` along the normalised gradient, shape (B,).

    Returns:
        |numerical - analytic| / analytic, shape (B,); nan where the gradient is zero. A gradient
        c times too long has |1 - 1 / c|, one at a right angle to the true one has 1.

    Example:
        >>> derivative_error(torch.tensor([4.0, 0.0]), torch.tensor([3.0, 0.0]))
        tensor([0.2500,    nan])
    """
    return (numerical - analytic).abs() / analytic.where(analytic > 0, torch.nan)


def first_to_last(values: Tensor) -> Tensor:
    """Last known value of a row minus its first: by how much an attack raised its loss.

    Args:
        values: shape (B, Q), nan where unknown.

    Returns:
        Shape (B,); nan where fewer than two values are known.

    Example:
        >>> nan = torch.nan
        >>> first_to_last(torch.tensor([[1.0, 2.0, 5.0, nan], [1.0, nan, nan, nan]]))
        tensor([4., nan])
    """
    known = ~values.isnan()
    places = torch.arange(values.shape[1], device=values.device).expand_as(values)
    first = places.where(known, values.shape[1]).amin(1).clamp(max=values.shape[1] - 1)
    last = places.where(known, -1).amax(1).clamp(min=0)
    change = values.gather(1, last[:, None]) - values.gather(1, first[:, None])
    return change.squeeze(1).where(known.sum(1) > 1, torch.nan)
