r"""Reverse steps that discretise the diffusion's equations, its SDE and its ODE.

The noising of an image (eq. 1) is, in small steps, the SDE :math:`dx = -x/2\, d\tau + dw` in the
time :math:`\tau_t = -\ln \bar\alpha_t`, the integral of :math:`\beta` (the VP-SDE of Song et al.
2021). With the score :math:`\nabla \log p_t(x) = -\epsilon_\theta(x, t) / \sigma_t` and
:math:`\sigma_t = \sqrt{1 - \bar\alpha_t}`, two equations undo it in the time :math:`r = -\tau`:

.. math::
   \text{SDE:} \quad dx &= \Big(\frac x2 - \frac{\epsilon_\theta(x, t)}{\sigma_t}\Big) dr + dw, \\
   \text{ODE:} \quad dx &= \Big(\frac x2 - \frac{\epsilon_\theta(x, t)}{2 \sigma_t}\Big) dr.

A step from t to s covers :math:`b = \ln(\bar\alpha_s / \bar\alpha_t)`. The equations are taken as
they are: no predicted clean image is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.diffusion.samplers import Number, Predict, Sampler
from lit_purify.types import InputError


class VPSDESampler(Sampler):
    r"""Euler-Maruyama for the reverse VP-SDE, the chain of DiffPure (Nie et al. 2022).

    .. math:: x_s = \Big(1 + \frac b2\Big) x_t - \frac{b}{\sigma_t} \epsilon_\theta + \sqrt b\, z

    Chains of any number of steps follow one Brownian path, see
    :mod:`~lit_purify.diffusion.brownian`; every one takes as many draws as t* has steps. Sample by
    sample they converge with order 1 in the step (the noise is additive).

    Args:
        denoise_last: leave out the noise of the last step, as ancestral sampling does. By the
            equation the output keeps noise of variance b, as much as its last step removes: a
            standard deviation of 0.005 of the pixel range where every step is taken, and of 0.02
            where ten steps are taken across t* = 100.
    """

    draws_noise = True

    def __init__(self, *, denoise_last: bool = False) -> None:
        super().__init__(clip=False)
        self.denoise_last = denoise_last

    def drawn(self, step: ReverseStep) -> Sequence[int]:
        last = step.t_prev == 0
        return () if self.denoise_last and last else range(step.t, step.t_prev, -1)

    def coefficients(self, step: ReverseStep) -> tuple[float, ...]:
        b = math.log(step.alpha_bar_prev / step.alpha_bar)
        return 1 + b / 2, b / math.sqrt(1 - step.alpha_bar), math.sqrt(b)

    def combine(
        self, x_t: Tensor, output: Tensor, coefficients: Sequence[Number], noise: Tensor
    ) -> Tensor:
        of_state, of_noise, spread = coefficients
        return of_state * x_t - of_noise * output[:, : x_t.shape[1]] + spread * noise


class ProbabilityFlowSampler(Sampler):
    r"""The probability-flow ODE (Song et al. 2021, eq. 13), deterministic.

    .. math:: x_s = x_t + b f(x_t, t), \qquad
       f(x, t) = \frac x2 - \frac{\epsilon_\theta(x, t)}{2 \sigma_t}

    is Euler's step, of order 1. Heun's, of order 2, takes the mean of f at :math:`x_t` and at the
    :math:`x_s` that Euler's step reaches: two evaluations of the network. Its last step is
    Euler's, because the score is not known at t = 0.

    Args:
        method: ``euler`` or ``heun``.

    Raises:
        InputError: another method.
    """

    draws_noise = False

    def __init__(self, *, method: Literal["euler", "heun"] = "euler") -> None:
        super().__init__(clip=False)
        if method not in ("euler", "heun"):
            raise InputError(
                f"method of ProbabilityFlowSampler must be euler or heun, got {method!r}; "
                "AdaptiveFlowPurifier has solvers that choose their steps"
            )
        self.method = method

    def evaluated(self, step: ReverseStep) -> tuple[float, ...]:
        twice = self.method == "heun" and step.t_prev > 0
        return (step.t, step.t_prev) if twice else (step.t,)

    def coefficients(self, step: ReverseStep) -> tuple[float, ...]:
        alpha_bar, alpha_bar_prev = step.alpha_bar, step.alpha_bar_prev
        b = math.log(alpha_bar_prev / alpha_bar)
        ends = (alpha_bar,) if alpha_bar_prev == 1 else (alpha_bar, alpha_bar_prev)
        return 1 + b / 2, *(b / 2 / math.sqrt(1 - end) for end in ends)

    def combine(
        self, x_t: Tensor, output: Tensor, coefficients: Sequence[Number], noise: Tensor
    ) -> Tensor:
        of_state, of_noise, *_ = coefficients
        return of_state * x_t - of_noise * output[:, : x_t.shape[1]]

    def step(
        self,
        x_t: Tensor,
        predict: Predict,
        times: Sequence[Number],
        coefficients: Sequence[Number],
        noise: Tensor,
    ) -> Tensor:
        x_s = super().step(x_t, predict, times, coefficients, noise)
        if len(times) == 1:
            return x_s
        # x_t + b (f(x_t) + f(x_s)) / 2: halfway between x_t and an Euler step on from x_s.
        of_state, _, of_noise = coefficients
        return (x_t + super().step(x_s, predict, times[1:], (of_state, of_noise), noise)) / 2
