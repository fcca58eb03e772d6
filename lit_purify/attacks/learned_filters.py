"""Smoothing filters that are learned for every pixel, in a ball of what a network sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_purify.attacks.feature_ball import FeatureBall
from lit_purify.defence import Defence
from lit_purify.functional import bilateral
from lit_purify.types import InputError

CENTRE = 5.0
"""Logit of a pixel itself at the start, of its surroundings 0: in a 5 x 5 filter it weighs 0.86."""


class LearnedFilters(FeatureBall):
    r"""Raises the loss by filtering an image, within a distance of the features of a network.

    The images are :math:`F_\theta(x + \delta)`, F a chain of bilateral filters whose weights
    :math:`\theta` are learned for every pixel and image (:func:`~lit_purify.functional.bilateral`),
    with the change :math:`\delta` before it. What such filters do to an image is smooth, so a
    purifier that takes away what is fine leaves it: the low-frequency attack of DiffBreak (Kassis
    et al., 2025), after the filters of UnMarker (Kassis & Hengartner, 2024).

    The threat model is that of :class:`~lit_purify.attacks.Perceptual`: the filters are another way
    through the same ball. DiffBreak weighs LPIPS against the loss with a factor that it searches
    for; here a filtered image outside the ball goes back on the straight way to the clean one, and
    the part that is left of its change is the attack. Adam climbs along the Lagrangian's gradient
    there, taken through the filters exactly. The last image is returned.

    Args:
        eps: radius of the ball in units of the features, a number or a fraction.
        features: the network, as for :class:`FeatureBall`.
        steps: iterations.
        kernels: k of the filters in their order, odd; they look k // 2 pixels far.
        colour_sigma: difference of colour, in the [0, 1] scale, from which on a filter mixes less.
        filter_stepsize: step of Adam in the logits of the weights; it falls to 0 linearly.
        change_stepsize: its step in the pixels of the change; next to 0 it takes the filters alone.
        draws: randomness configurations that a gradient is averaged over, where there are several.
        rows_per_pass: as for :class:`FeatureBall`.

    Raises:
        InputError: a kernel that is no odd number from 3 on, or an image that is too small for it.
    """

    def __init__(
        self,
        *,
        eps: float | str,
        features: nn.Module,
        steps: int = 100,
        kernels: Sequence[int] = (5, 3),
        colour_sigma: float | str = 0.1,
        filter_stepsize: float | str = 0.3,
        change_stepsize: float | str = "2/255",
        draws: int = 15,
        rows_per_pass: int = 128,
    ) -> None:
        super().__init__(
            eps=eps, features=features, steps=steps, draws=draws, rows_per_pass=rows_per_pass
        )
        self.kernels = list(kernels) if isinstance(kernels, Sequence) else []
        if not self.kernels or not all(k in range(3, 1001, 2) for k in self.kernels):
            raise InputError(
                f"kernels of LearnedFilters is {kernels!r}; expected odd numbers from 3 on, such "
                "as [5, 3]"
            )
        self.colour_sigma = self._positive("colour_sigma", colour_sigma)
        self.filter_stepsize = self._positive("filter_stepsize", filter_stepsize)
        self.change_stepsize = self._positive("change_stepsize", change_stepsize)

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        self._check_size(images)
        change = torch.zeros_like(images, requires_grad=True)
        weights = [self._identity(images, k).requires_grad_() for k in self.kernels]
        adam = torch.optim.Adam(
            [
                {"params": [change], "lr": self.change_stepsize},
                {"params": weights, "lr": self.filter_stepsize},
            ]
        )
        falling = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=self.steps)
        seen = self._seen(images)
        for _ in range(self.steps):
            with torch.enable_grad():
                filtered = self._filter(images + change, weights)
            x = self.project(filtered.detach(), images)
            rise = self._rise(defence, x, labels, indices, seen)
            torch.autograd.backward(filtered, -rise)
            adam.step()
            falling.step()
            adam.zero_grad()
        with torch.no_grad():
            return self.project(self._filter(images + change, weights), images)

    def _filter(self, images: Tensor, weights: Sequence[Tensor]) -> Tensor:
        for each in weights:
            images = bilateral(images, each, self.colour_sigma)
        return images

    @staticmethod
    def _identity(images: Tensor, k: int) -> Tensor:
        """Logits of a filter that hardly changes an image."""
        logits = images.new_zeros(len(images), k * k, *images.shape[-2:])
        logits[:, k * k // 2] = CENTRE
        return logits

    def _check_size(self, images: Tensor) -> None:
        if min(images.shape[-2:]) <= max(self.kernels) // 2:
            raise InputError(
                f"images of {images.shape[-2]} x {images.shape[-1]} pixels are too small for "
                f"kernels of {max(self.kernels)}; expected more than {max(self.kernels) // 2} "
                "pixels: lower attack.kernels"
            )
