"""The contract of every attack: (model, images, labels, indices) -> adversarial images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lit_purify.types import InputError, ratio


class Target:
    """What an attack sees of the defence.

    Args:
        predict: (images in [0, 1], dataset indices) -> logits (B, K). The indices key the noise,
            so any subset of a batch in any order meets the noise it would meet in the whole.
        deterministic: whether the same images always give the same logits.
    """

    def __init__(
        self, predict: Callable[[Tensor, Tensor], Tensor], *, deterministic: bool = True
    ) -> None:
        self.predict = predict
        self.deterministic = deterministic

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        return self.predict(images, indices)


class Attack(ABC):
    """Finds adversarial images in the l_inf ball. Whether they succeed is judged elsewhere.

    Args:
        eps: radius of the ball in the [0, 1] scale, a number or a fraction such as ``"8/255"``.
    """

    def __init__(self, *, eps: float | str) -> None:
        self.eps = ratio(eps)
        if not 0 <= self.eps <= 1:
            raise InputError(
                f"eps must lie in [0, 1], the scale of the images, got {self.eps}; "
                "write 8/255 for eight grey levels"
            )

    def __call__(
        self, model: Target, images: Tensor, labels: Tensor, indices: Tensor, *, seed: int = 0
    ) -> Tensor:
        """Attack a batch.

        Args:
            model: the defence.
            images: clean images in [0, 1], shape (B, C, H, W); the attack works in float32.
            labels: true classes, shape (B,).
            indices: dataset indices, shape (B,).
            seed: base seed of the attack's own randomness, keyed by sample.

        Returns:
            Adversarial images, detached, inside the ball and inside [0, 1].

        Raises:
            InputError: images outside [0, 1] or not finite.
        """
        if not ((images >= 0) & (images <= 1)).all():
            raise InputError(
                "an attack needs finite images in [0, 1], got values from "
                f"{images.min():.4g} to {images.max():.4g}; divide 8-bit images by 255"
            )
        clean = images.detach().float()
        found = self.perturb(model, clean, labels, indices, seed)
        if not found.isfinite().all():
            raise RuntimeError(f"{type(self).__name__} returned images that are not finite")
        return self.project(found.detach().float(), clean)

    @abstractmethod
    def perturb(
        self, model: Target, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        """Search for adversarial images; the caller projects what comes back."""

    def project(self, perturbed: Tensor, clean: Tensor) -> Tensor:
        """The nearest images inside the eps-ball around ``clean`` and inside [0, 1]."""
        return (clean + (perturbed - clean).clamp(-self.eps, self.eps)).clamp(0, 1)

    @property
    def num_queries(self) -> int | None:
        """Calls of the model an attack on a batch makes, for progress; ``None`` if unknown."""
        return None

    @property
    def stops_early(self) -> bool:
        """Whether a sample fooled on a deterministic defence keeps the image that fooled it.

        Its success after the last iteration is then unknown, and is not reported.
        """
        return False

    def settings(self) -> dict[str, object]:
        """What a report must say about this attack."""
        return {"attack": type(self).__name__, **vars(self)}


def input_gradient(
    model: Target,
    loss: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    indices: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradient of the summed loss with respect to the images, and the logits.

    Args:
        model: the defence.
        loss: (logits, labels) -> losses, shape (B,).
        images: shape (B, C, H, W).
        labels: shape (B,).
        indices: dataset indices, shape (B,).

    Returns:
        Gradient (B, C, H, W) and logits (B, K), both detached.

    Raises:
        InputError: the logits do not depend differentiably on the images.
    """
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = model(x, indices)
        if not logits.requires_grad:
            raise InputError(
                "the defence gives no gradient: its logits do not depend differentiably on the "
                "images; use an attack without gradients, or make the purifier differentiable"
            )
        (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), x)
    return gradient, logits.detach()
