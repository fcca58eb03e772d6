r"""One defence of several purifications: the mean over K fixed noises, of images or of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.purifier import Purifier, State, gradients_at, identity
from lit_purify.diffusion.recompute import can_recompute
from lit_purify.types import InputError, Model, is_whole

Average = Literal["images", "logits"]


class AveragedPurifier(Purifier):
    r"""Purifies each image under K noises and averages; attacked as one differentiable defence.

    .. math:: g\Big(\frac1K \sum_k f_{\xi_k}(x)\Big) \quad\text{or}\quad
       \frac1K \sum_k g(f_{\xi_k}(x))

    The noises are keyed by (base seed, dataset index, k): the first is that of the purifier alone,
    so that K = 1 is the purifier alone; the others are derived from it. Under fixed noise the
    defence is deterministic.

    The draws are made one after another, and the backward pass makes each again when it reaches it,
    so that a gradient takes the memory of one draw. It is exact where that of the purifier is.

    Args:
        purifier: what is averaged, of any kind but this one.
        draws: K, 1 or more.
        average: ``images`` shows the classifier the mean purified image; ``logits`` averages what
            the classifier makes of each. The purified image is the mean either way, and what is
            measured of images (the compression rate, say) is measured of it.

    Raises:
        InputError: a purifier that is none, fewer than one draw, or another kind of average.
    """

    def __init__(self, purifier: Purifier, *, draws: int = 4, average: Average = "images") -> None:
        super().__init__()
        if not isinstance(purifier, Purifier):
            raise InputError(
                f"AveragedPurifier got a {type(purifier).__name__} to average; expected a "
                "lit_purify.Purifier, such as DiffusionPurifier(embedded_denoiser())"
            )
        if isinstance(purifier, AveragedPurifier):
            raise InputError(
                "AveragedPurifier got an average to average; expected the purifier itself: give "
                "the draws of both, multiplied, to one AveragedPurifier"
            )
        if not (is_whole(draws) and draws >= 1):
            raise InputError(
                f"draws of AveragedPurifier must be a whole number, at least 1, got {draws!r}; the "
                "noises that an image is purified under"
            )
        if average not in ("images", "logits"):
            raise InputError(f"average must be images or logits, got {average!r}")
        self.purifier = purifier
        self.draws = draws
        self.average = average
        self.approximate_gradient = purifier.approximate_gradient

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return self._mean(images, noise, indices, lambda purified: (purified,))[0]

    def answer(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        classifier: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        if self.average == "images":
            return super().answer(images, noise, indices, classifier)
        purified, logits = self._mean(
            images, noise, indices, lambda purified: (purified, classifier(purified))
        )
        return purified, logits

    def _mean(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        seen: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        """Means over the draws of what is seen in each purified image."""

        def one(images: Tensor, k: int) -> tuple[Tensor, ...]:
            xi = noise.derived("average", k) if k else noise
            return seen(self.purifier.purify(images, xi, indices))

        again = self.draws > 1 and can_recompute(images)
        total: tuple[Tensor, ...] = ()
        for k in range(self.draws):
            if again:
                found = checkpoint(one, images, k, use_reentrant=False, preserve_rng_state=False)
            else:
                found = one(images, k)
            total = tuple(a + b for a, b in zip(total, found, strict=True)) if k else found
        return tuple(value / self.draws for value in total)

    @property
    def total_steps(self) -> int:
        return self.draws * self.purifier.total_steps

    def state_gradients(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        loss: Callable[[Tensor], Tensor],
        classifier: Callable[[Tensor], Tensor] = identity,
    ) -> list[State]:
        """As that of every purifier. The output's is the gradient at all purified images together:
        by how much the loss changes where the same is added to each."""
        with torch.enable_grad():
            image = images.detach().requires_grad_()
            added = torch.zeros_like(image).requires_grad_()
            _, logits = self.answer(image, noise, indices, lambda seen: classifier(seen + added))
            first, last = gradients_at(loss(logits), [image, added])
        return [State("forward", 0, first), State("reverse", 0, last)]

    def use_classifier(self, classifier: Callable[[Tensor], Tensor]) -> None:
        self.purifier.use_classifier(classifier)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        self.purifier.check_shape(shape)

    def settings(self) -> dict[str, object]:
        inner = self.purifier.settings()
        # Options are part of what a report calls it: the average of a preset is not the preset.
        options = cast("dict[str, object]", inner.get("purifier_options", {}))
        own = {"averaged": self.average, "averaged_draws": self.draws}
        return {**inner, "purifier_options": {**options, **own}}

    def models(self) -> dict[str, Model]:
        return self.purifier.models()
