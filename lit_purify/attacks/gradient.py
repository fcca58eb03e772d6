"""The gradient that attacks follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_purify.defence import Defence
from lit_purify.types import InputError

_cross_entropy = partial(F.cross_entropy, reduction="none")


def input_gradient(
    defence: Defence,
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = _cross_entropy,
    draws: int = 1,
    rows_per_pass: int | None = None,
    straight_through: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Gradient of the summed loss with respect to the images, and the logits.

    With several draws it is the mean over randomness configurations,
    :math:`E_\xi \nabla_x L[g(f_\xi(x)), t]` (eq. 9).

    Args:
        defence: bound to these samples, or to more.
        images: shape (B, C, H, W).
        labels: shape (B,).
        indices: dataset indices, shape (B,).
        loss: (logits, labels) -> losses, shape (B,); by default the cross-entropy.
        draws: randomness configurations that the gradient is averaged over.
        rows_per_pass: most images in one pass, draws counted; at least one draw of the whole batch
            is taken. ``None`` sets no limit. Changes memory and time, not the mean.
        straight_through: let the backward pass take the purifier for the identity.

    Returns:
        Gradient (B, C, H, W) and logits (draws * B, K), both detached. A draw whose gradient is
        not a number in some pixel adds nothing there.

    Raises:
        InputError: the logits do not depend differentiably on the images.
    """
    total = torch.zeros_like(images)
    found = []
    for n in passes(draws, len(images), rows_per_pass):
        with torch.enable_grad():
            x = images.detach().repeat(n, 1, 1, 1).requires_grad_()
            logits = defence(x, indices, draws=n, straight_through=straight_through)
            check_differentiable(logits)
            (gradient,) = torch.autograd.grad(loss(logits, labels.repeat(n)).sum(), x)
        for draw in gradient.view(n, *images.shape):  # one by one: the order of the sum is fixed
            total += torch.where(draw.isnan(), 0, draw)
        found.append(logits.detach())
    return total / draws, torch.cat(found)


def passes(draws: int, rows: int, rows_per_pass: int | None) -> Iterator[int]:
    """How many draws of a batch of so many rows go into each pass, at least one.

    Example:
        >>> list(passes(5, 3, 8))
        [2, 2, 1]
    """
    per_pass = draws if rows_per_pass is None else max(1, rows_per_pass // max(1, rows))
    for start in range(0, draws, per_pass):
        yield min(per_pass, draws - start)


def check_differentiable(logits: Tensor) -> None:
    """Raise :class:`InputError` where logits do not depend differentiably on the images."""
    if not logits.requires_grad:
        raise InputError(
            "the defence gives no gradient: its logits do not depend differentiably on the "
            "images; use an attack without gradients, or make the purifier differentiable"
        )
