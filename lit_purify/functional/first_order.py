r"""First-order robustness: how far an image is from another class, by its gradient alone.

With the margin :math:`m(x) = z_y(x) - \max_{k \ne y} z_k(x)` of the true class y and Hölder's
inequality, :math:`1/p + 1/q = 1`,

.. math:: m(x + \delta) \approx m(x) + \langle \nabla m, \delta \rangle
   \ge m(x) - \epsilon \, \|\nabla m\|_q \qquad (\|\delta\|_p \le \epsilon),

so that the class changes at the radius :math:`r = m / \|\nabla m\|_q`: the l1 norm for l_inf, l2
for l2 (DeepFool, Moosavi-Dezfooli et al., 2016). It is the distance to the other class where the
margin is affine, behind an affine purifier a linear classifier of two classes say, short of the
ends of [0, 1]. Elsewhere it is an estimate and no bound: an attack may change the class sooner.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lit_purify.functional.distances import project
from lit_purify.functional.masking import l2_norm


class Linearised(NamedTuple):
    """Margins at a batch of images and their gradients, under N randomness configurations.

    Attributes:
        margin: m, shape (N, B).
        gradient: of the margins, shape (N, B, ...).
    """

    margin: Tensor
    gradient: Tensor


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the true class less the largest other.

    Args:
        logits: shape (B, K).
        labels: class indices, shape (B,).

    Returns:
        Shape (B,), above 0 where the true class wins. Others that are equal share the gradient.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), torch.tensor([0, 2]))
        tensor([ 2., -3.])
    """
    true = one_hot(labels, logits.shape[1]).bool()
    return logits[true] - logits.masked_fill(true, -math.inf).amax(1)


def steepest(gradient: Tensor, p: float = math.inf) -> Tensor:
    r"""Direction of l_p length 1 along which a linear function rises the fastest.

    Its slope there, :math:`\langle g, u \rangle`, is the dual norm :math:`\|g\|_q`.

    Args:
        gradient: shape (B, ...).
        p: ``math.inf`` (the sign of the gradient) or 2 (the gradient at length 1).

    Returns:
        Same shape; zero where the gradient is.

    Raises:
        ValueError: another p.

    Example:
        >>> gradient = torch.tensor([[3.0, -4.0]])
        >>> steepest(gradient), steepest(gradient, 2)
        (tensor([[ 1., -1.]]), tensor([[ 0.6000, -0.8000]]))
    """
    if p == math.inf:
        return gradient.sign()
    if p != 2:
        raise ValueError(f"p must be 2 or inf, got {p}")
    length = l2_norm(gradient)
    length = length.where(length > 0, 1).view(-1, *[1] * (gradient.ndim - 1))
    return (gradient / length).to(gradient)


def radius_along(margins: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
    r"""How far against a direction a linear margin lasts: :math:`m / \langle \nabla m, u \rangle`.

    Along ``steepest(gradient, p)`` it is the first-order radius :math:`m / \|\nabla m\|_q`.

    Args:
        margins: m, shape (B,).
        gradient: of the margins, shape (B, ...).
        direction: u, of l_p length 1, same shape.

    Returns:
        Shape (B,), float64, in units of the pixels. At most 0 where another class wins already;
        infinite where the margin does not fall along the way, nan where it is 0 besides.

    Example:
        >>> m, g = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([[3.0, -1.0], [0, 0], [1, 1]])
        >>> radius_along(m, g, steepest(g))
        tensor([ 0.5000,     inf, -0.5000], dtype=torch.float64)
    """
    slope = (gradient.double() * direction.double()).flatten(1).sum(1)
    return margins.double() / slope.clamp(min=0)


def standing_share(
    linearise: Callable[[Tensor], Linearised],
    images: Tensor,
    start: Linearised,
    eps: float,
    *,
    gradients: int,
    p: float = math.inf,
) -> Tensor:
    r"""Share of the randomness configurations under which an image stands, to first order.

    With one gradient it stands where its first-order radius is larger than eps. With more of them
    one walks: each of :math:`n` gradients leads a part :math:`\epsilon / n` down the mean margin,
    inside [0, 1], and the last is trusted for the last part of the way. What is lost on the way
    stays lost.

    Under several configurations that part is taken by each against the mean gradient of the
    *others*, as an attacker's perturbation meets a configuration that it was not made for.

    Args:
        linearise: images -> margins and gradients; under N configurations, N at least 1.
        images: shape (B, ...), in [0, 1].
        start: what ``linearise`` says of them.
        eps: radius of the ball, in units of the pixels.
        gradients: n, at least 1. Beyond the first each is a call of ``linearise``.
        p: norm of the ball, ``math.inf`` or 2.

    Returns:
        Shape (B,), float64, in [0, 1].

    Example:
        >>> start = Linearised(torch.tensor([[0.3]]), torch.tensor([[[1.0, -2.0]]]))
        >>> x = torch.tensor([[0.5, 0.5]])
        >>> [standing_share(None, x, start, eps, gradients=1).item() for eps in (0.09, 0.11)]
        [1.0, 0.0]
    """
    here, x = start, images
    stands = start.margin > 0
    for _ in range(gradients - 1):
        uphill = steepest(here.gradient.mean(0), p)
        x = project(x - eps / gradients * uphill, images, eps, p)
        here = linearise(x)
        stands &= here.margin > 0
    radii = [
        radius_along(margins, gradient, steepest(others, p))
        for margins, gradient, others in zip(*here, _means_of_others(here.gradient), strict=True)
    ]
    return (stands & (torch.stack(radii) > eps / gradients)).double().mean(0)


def _means_of_others(gradient: Tensor) -> Tensor:
    """The mean over all configurations but one, for each of them; a single one's own."""
    n = len(gradient)
    return gradient if n == 1 else (gradient.sum(0) - gradient) / (n - 1)
