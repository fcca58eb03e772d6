r"""The stochastic sampler of EDM (Karras et al. 2022, algorithm 2).

In terms of the unscaled state :math:`y = x_t / \sqrt{\bar\alpha_t}` and of its noise level
:math:`\sigma_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}` the probability-flow ODE is
:math:`dy = \epsilon_\theta(x_t, t)\, d\sigma`. A step first goes up to a higher noise level,

.. math:: \hat\sigma = (1 + \gamma) \sigma_t, \qquad
   \hat y = y + \sqrt{\hat\sigma^2 - \sigma_t^2}\, S_{noise} z,

and then down to :math:`\sigma_s` by Heun's method for the ODE,

.. math:: y' = \hat y + (\sigma_s - \hat\sigma) \hat\epsilon, \qquad
   y_s = \hat y + (\sigma_s - \hat\sigma) \frac{\hat\epsilon + \epsilon'}{2},

with :math:`\hat\epsilon` and :math:`\epsilon'` what the network predicts at
:math:`\hat\sigma, \hat y` and :math:`\sigma_s, y'`. The last step is Euler's, because the score is
not known at t = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.diffusion.samplers import Number, Predict, Sampler
from lit_purify.types import InputError


class EDMSampler(Sampler):
    r"""EDM's stochastic sampler, of order 2 where it adds no noise.

    :math:`\hat\sigma` lies between the steps of the schedule: the denoiser is asked there, at the t
    of :meth:`~lit_purify.diffusion.Schedule.step_at`. It is never above the schedule's highest
    noise level. The noise of a step is the draw that DDPM has there, and the last step has one too.

    With ``s_churn = 0`` it solves the ODE of :class:`ProbabilityFlowSampler`, by Heun's method in
    :math:`\sigma` instead of :math:`-\ln \bar\alpha`: other steps, the same limit. Its first half
    is then DDIM's step without clipping.

    Args:
        s_churn: how far a chain of N steps goes up in all: each of them by
            :math:`\gamma = \min(S_{churn} / N, \sqrt 2 - 1)`.
        s_min: lowest noise level that noise is added at, [-1, 1] scale.
        s_max: highest one; ``None`` sets no limit.
        s_noise: standard deviation of the noise that is added, relative to the equations'.

    Raises:
        InputError: a number that is negative or not finite, or ``s_max`` below ``s_min``.
    """

    def __init__(
        self,
        *,
        s_churn: float = 0.0,
        s_min: float = 0.0,
        s_max: float | None = None,
        s_noise: float = 1.0,
    ) -> None:
        super().__init__(clip=False)
        for name, value in (("s_churn", s_churn), ("s_min", s_min), ("s_noise", s_noise)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be finite and at least 0, got {value}")
        if s_max is not None and not s_max >= s_min:
            raise InputError(f"s_max must be at least s_min = {s_min}, got {s_max}; null for none")
        self.s_churn = s_churn
        self.s_min = s_min
        self.s_max = s_max
        self.s_noise = s_noise

    @property
    def draws_noise(self) -> bool:
        return self.s_churn > 0

    def drawn(self, step: ReverseStep) -> Sequence[int]:
        return (step.t,) if self._churned(step) > _sigma(step.alpha_bar) else ()

    def evaluated(self, step: ReverseStep) -> tuple[float, ...]:
        first: float = step.t
        if self.drawn(step):
            first = step.schedule.step_at(math.log1p(self._churned(step) ** 2))
        return (first, step.t_prev) if step.t_prev > 0 else (first,)

    def coefficients(self, step: ReverseStep) -> tuple[float, ...]:
        sigma, sigma_prev = _sigma(step.alpha_bar), _sigma(step.alpha_bar_prev)
        churned = self._churned(step)
        # The state is y sqrt(alpha_bar), with alpha_bar = 1 / (1 + sigma^2).
        scale, scale_prev = math.sqrt(1 + churned**2), math.sqrt(1 + sigma_prev**2)
        up = math.sqrt(1 + sigma**2) / scale
        added = self.s_noise * math.sqrt(churned**2 - sigma**2) / scale
        return up, added, scale / scale_prev, (sigma_prev - churned) / scale_prev

    def combine(
        self, x_t: Tensor, output: Tensor, coefficients: Sequence[Number], noise: Tensor
    ) -> Tensor:
        """Euler's step down from the churned state, without the churn."""
        *_, of_state, of_noise = coefficients
        return of_state * x_t + of_noise * output[:, : x_t.shape[1]]

    def step(
        self,
        x_t: Tensor,
        predict: Predict,
        times: Sequence[Number],
        coefficients: Sequence[Number],
        noise: Tensor,
    ) -> Tensor:
        up, added, *_ = coefficients
        x_t = up * x_t + added * noise
        x_s = self.combine(x_t, predict(x_t, times[0]), coefficients, noise)
        if len(times) == 1:
            return x_s
        # The mean of Euler's steps by the slopes at both ends.
        return (x_s + self.combine(x_t, predict(x_s, times[1]), coefficients, noise)) / 2

    def _churned(self, step: ReverseStep) -> float:
        """The noise level that a step goes up to."""
        sigma, highest = _sigma(step.alpha_bar), _sigma(step.schedule.alpha_bars[-1])
        if not self.s_min <= sigma <= (math.inf if self.s_max is None else self.s_max):
            return sigma
        gamma = min(self.s_churn / step.num_steps, math.sqrt(2) - 1)
        return max(sigma, min((1 + gamma) * sigma, highest))


def _sigma(alpha_bar: float) -> float:
    """Noise over signal."""
    return math.sqrt((1 - alpha_bar) / alpha_bar)
