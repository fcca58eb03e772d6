"""What an attack sees of a defence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_purify.diffusion.noise import FixedNoise, NoiseConfiguration, NoiseSource, StackedNoise
from lit_purify.types import InputError


class Target:
    """A defence under attack: a classifier, alone or behind a purifier.

    Args:
        classify: images in [0, 1] -> logits (B, K).
        purify: (images, randomness configuration, dataset indices) -> purified images. The indices
            key the noise, so any subset of a batch in any order meets the noise it would meet in
            the whole. ``None`` for a classifier alone.
        noise: where the passes take their randomness from; needed with ``purify``.
    """

    def __init__(
        self,
        classify: Callable[[Tensor], Tensor],
        purify: Callable[[Tensor, NoiseConfiguration, Tensor], Tensor] | None = None,
        noise: NoiseSource | None = None,
    ) -> None:
        if (purify is None) != (noise is None):
            raise ValueError("a target with a purifier needs a noise source, one without has none")
        self.classify = classify
        self.purify = purify
        self.noise = noise

    @property
    def deterministic(self) -> bool:
        """Whether the same images always give the same logits."""
        return self.noise is None or isinstance(self.noise, FixedNoise)

    def __call__(
        self, images: Tensor, indices: Tensor, *, draws: int = 1, straight_through: bool = False
    ) -> Tensor:
        """Logits under the next randomness configurations.

        Args:
            images: in [0, 1], shape (B, C, H, W); with several draws as many copies of a batch,
                one after the other, each of which meets a configuration of its own.
            indices: dataset indices of the images, shape (B,).
            draws: number of randomness configurations.
            straight_through: let the backward pass take the purifier for the identity.

        Returns:
            Shape (B, K).
        """
        if self.purify is None or self.noise is None:
            return self.classify(images)
        configurations = [self.noise.configuration() for _ in range(draws)]
        noise = configurations[0] if draws == 1 else StackedNoise(configurations)
        if not straight_through:
            return self.classify(self.purify(images, noise, indices))
        with torch.no_grad():
            purified = self.purify(images, noise, indices)
        return self.classify(purified + (images - images.detach()))


def input_gradient(
    model: Target,
    loss: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
    *,
    draws: int = 1,
    rows_per_pass: int | None = None,
    straight_through: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Gradient of the summed loss with respect to the images, and the logits.

    With several draws it is the mean over randomness configurations,
    :math:`E_\xi \nabla_x L[g(f_\xi(x)), t]` (eq. 9).

    Args:
        model: the defence.
        loss: (logits, labels) -> losses, shape (B,).
        images: shape (B, C, H, W).
        labels: shape (B,).
        indices: dataset indices, shape (B,).
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
    per_pass = draws if rows_per_pass is None else max(1, rows_per_pass // max(1, len(images)))
    total = torch.zeros_like(images)
    found = []
    for start in range(0, draws, per_pass):
        n = min(per_pass, draws - start)
        with torch.enable_grad():
            x = images.detach().repeat(n, 1, 1, 1).requires_grad_()
            logits = model(x, indices.repeat(n), draws=n, straight_through=straight_through)
            check_differentiable(logits)
            (gradient,) = torch.autograd.grad(loss(logits, labels.repeat(n)).sum(), x)
        for draw in gradient.view(n, *images.shape):  # one by one: the order of the sum is fixed
            total += torch.where(draw.isnan(), 0, draw)
        found.append(logits.detach())
    return total / draws, torch.cat(found)


def check_differentiable(logits: Tensor) -> None:
    """Raise :class:`InputError` where logits do not depend differentiably on the images."""
    if not logits.requires_grad:
        raise InputError(
            "the defence gives no gradient: its logits do not depend differentiably on the "
            "images; use an attack without gradients, or make the purifier differentiable"
        )
