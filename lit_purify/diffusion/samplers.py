r"""One reverse step, :math:`x_t \to x_s` with s < t, of DDPM (eq. 2) and DDIM (eq. 3).

Both first predict the clean image from the network's noise,

.. math:: \hat x_0 = \frac{x_t - \sqrt{1 - \bar\alpha_t}\, \epsilon_\theta}{\sqrt{\bar\alpha_t}},

and clip it to [-1, 1] if asked. Between neighbours of a respaced chain the step's own alpha is
:math:`\alpha' = \bar\alpha_t / \bar\alpha_s`; with s = t - 1 this is the equation as printed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.types import InputError

Variance = Literal["fixed_small", "fixed_large", "learned_range"]
Number = float | Tensor
Predict = Callable[[Tensor, Number], Tensor]
"""(state x of shape (B, C, H, W), its step t) -> what the denoiser returns for it."""


class Sampler(ABC):
    """The rule of one reverse step.

    Its two halves are what depends on the step, in numbers, and what is done with them, in tensors:
    the second is the same for every step, so that it can be compiled once for all of them.

    Args:
        clip: clip the predicted clean image to [-1, 1]. Off, the DDPM step is eq. 2 as printed.
    """

    carried = 0
    """Images that a step hands to the next beside its state, in further channels; zeros at first.
    Trajectories do not show them, and the gradient at a state takes them for given."""

    def __init__(self, *, clip: bool = True) -> None:
        self.clip = clip

    @property
    @abstractmethod
    def draws_noise(self) -> bool:
        """Whether steps before the last one need a Gaussian draw."""

    @abstractmethod
    def coefficients(self, step: ReverseStep) -> tuple[float, ...]:
        """The numbers of a step, which :meth:`combine` takes.

        Returns:
            Finite numbers; as many for every step but the last, which may have fewer.
        """

    @abstractmethod
    def combine(
        self, x_t: Tensor, output: Tensor, coefficients: Sequence[Number], noise: Tensor
    ) -> Tensor:
        """Go from x_t to the previous state.

        Args:
            x_t: state, shape (B, C, H, W), [-1, 1] scale.
            output: what the denoiser returned for it, (B, C, H, W) or (B, 2C, H, W).
            coefficients: those of the step; in compiled code scalar tensors, so no value of theirs
                may decide what is computed.
            noise: standard normal, shape (B, C, H, W); a scalar where the step draws none.
        """

    def drawn(self, step: ReverseStep) -> Sequence[int]:
        """The t whose draws the noise of a step is made of.

        Of several it is the increment of one Brownian path, see
        :mod:`~lit_purify.diffusion.brownian`.
        """
        return (step.t,) if self.draws_noise and step.t_prev > 0 else ()

    def evaluated(self, step: ReverseStep) -> tuple[float, ...]:
        """The t that the denoiser is evaluated at in a step, in this order.

        They may lie between whole ones, see :meth:`~lit_purify.diffusion.Schedule.step_at`.
        """
        return (step.t,)

    def step(
        self,
        x_t: Tensor,
        predict: Predict,
        times: Sequence[Number],
        coefficients: Sequence[Number],
        noise: Tensor,
    ) -> Tensor:
        """Evaluate the denoiser and go from x_t to the previous state.

        Args:
            x_t: state, shape (B, C, H, W), [-1, 1] scale; with what is carried in further channels,
                as in what is returned.
            predict: the denoiser.
            times: those of :meth:`evaluated`; in compiled code tensors of shape (B,).
            coefficients: those of the step, as in :meth:`combine`.
            noise: as in :meth:`combine`.
        """
        return self.combine(x_t, predict(x_t, times[0]), coefficients, noise)

    def _clean(self, x_t: Tensor, predicted_noise: Tensor, sigma: Number, scale: Number) -> Tensor:
        clean = (x_t - sigma * predicted_noise) / scale
        return clean.clamp(-1, 1) if self.clip else clean


class DDPMSampler(Sampler):
    r"""Ancestral sampling (eq. 2), :math:`x_s \sim \mathcal N(\mu(x_t, \hat x_0), \sigma^2)`.

    Args:
        variance: ``fixed_small`` is the posterior's
            :math:`\beta' (1 - \bar\alpha_s) / (1 - \bar\alpha_t)`; ``fixed_large`` is
            :math:`\beta' = 1 - \alpha'`, which is too much for chains of few steps;
            ``learned_range`` interpolates their logarithms by the network's second half of
            channels.
        clip: clip the predicted clean image to [-1, 1].
    """

    draws_noise = True

    def __init__(self, *, variance: Variance = "fixed_small", clip: bool = True) -> None:
        super().__init__(clip=clip)
        self.variance = variance

    def coefficients(self, step: ReverseStep) -> tuple[float, ...]:
        alpha_bar, alpha_bar_prev = step.alpha_bar, step.alpha_bar_prev
        alpha = alpha_bar / alpha_bar_prev
        of_mean = (
            math.sqrt(1 - alpha_bar),
            math.sqrt(alpha_bar),
            math.sqrt(alpha_bar_prev) * (1 - alpha) / (1 - alpha_bar),
            math.sqrt(alpha) * (1 - alpha_bar_prev) / (1 - alpha_bar),
        )
        if alpha_bar_prev == 1:
            return of_mean
        large = 1 - alpha
        small = large * (1 - alpha_bar_prev) / (1 - alpha_bar)
        if self.variance != "learned_range":
            return *of_mean, math.sqrt(large if self.variance == "fixed_large" else small)
        return *of_mean, math.log(large), math.log(small)

    def combine(
        self, x_t: Tensor, output: Tensor, coefficients: Sequence[Number], noise: Tensor
    ) -> Tensor:
        channels = x_t.shape[1]
        if self.variance == "learned_range" and output.shape[1] != 2 * channels:
            raise InputError(
                f"variance learned_range needs a denoiser with {2 * channels} output channels, "
                f"this one has {output.shape[1]}; choose fixed_small or fixed_large"
            )
        sigma, scale, of_clean, of_state, *spread = coefficients
        mean = of_clean * self._clean(x_t, output[:, :channels], sigma, scale) + of_state * x_t
        if not spread:
            return mean
        if self.variance != "learned_range":
            return mean + spread[0] * noise
        large, small = spread
        share = (output[:, channels:] + 1) / 2
        log_variance = share * large + (1 - share) * small
        return mean + torch.exp(log_variance / 2) * noise


class DDIMSampler(Sampler):
    r"""Implicit sampling (eq. 3), deterministic for ``eta = 0``.

    .. math:: x_s = \sqrt{\bar\alpha_s} \hat x_0
       + \sqrt{1 - \bar\alpha_s - \sigma^2} \epsilon_\theta + \sigma z,
       \qquad \sigma^2 = \eta^2 \frac{1 - \bar\alpha_s}{1 - \bar\alpha_t} (1 - \alpha').

    The noise direction is the network's own, also where the clean image is clipped, as in the
    paper; guided-diffusion derives it again from the clipped image.

    Args:
        eta: share of DDPM's (small) standard deviation put back as noise; 0 in the paper.
        clip: clip the predicted clean image to [-1, 1].
    """

    def __init__(self, *, eta: float = 0.0, clip: bool = True) -> None:
        super().__init__(clip=clip)
        if not 0 <= eta <= 1:
            raise InputError(f"eta must lie in [0, 1], got {eta}; 0 is the deterministic DDIM")
        self.eta = eta

    @property
    def draws_noise(self) -> bool:
        return self.eta > 0

    def coefficients(self, step: ReverseStep) -> tuple[float, ...]:
        alpha_bar, alpha_bar_prev = step.alpha_bar, step.alpha_bar_prev
        alpha = alpha_bar / alpha_bar_prev
        variance = self.eta**2 * (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha)
        return (
            math.sqrt(1 - alpha_bar),
            math.sqrt(alpha_bar),
            math.sqrt(alpha_bar_prev),
            math.sqrt(1 - alpha_bar_prev - variance),
            *((math.sqrt(variance),) if variance else ()),
        )

    def combine(
        self, x_t: Tensor, output: Tensor, coefficients: Sequence[Number], noise: Tensor
    ) -> Tensor:
        predicted = output[:, : x_t.shape[1]]
        sigma, scale, of_clean, of_noise, *spread = coefficients
        x = of_clean * self._clean(x_t, predicted, sigma, scale)
        x = x + of_noise * predicted
        return x + spread[0] * noise if spread else x
