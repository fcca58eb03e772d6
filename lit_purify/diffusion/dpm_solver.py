r"""DPM-Solver++ 2M (Lu et al. 2022, algorithm 2), a multistep solver of the probability-flow ODE.

With :math:`\alpha_t = \sqrt{\bar\alpha_t}`, :math:`\sigma_t = \sqrt{1 - \bar\alpha_t}` and the time
:math:`\lambda_t = \ln(\alpha_t / \sigma_t)` a step from t to s covers
:math:`h = \lambda_s - \lambda_t`,

.. math:: x_s = \frac{\sigma_s}{\sigma_t} x_t + \alpha_s (1 - e^{-h}) D, \qquad
   D = \hat x_0(x_t, t) + \frac{h}{2 h'} \big(\hat x_0(x_t, t) - \hat x_0(x_{t'}, t')\big),

where t' is the step before and h' what that one covered. The predicted clean image is so taken on
to the middle of the step, by one evaluation of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.diffusion.samplers import Number, Predict, Sampler


class DPMSolverSampler(Sampler):
    """DPM-Solver++ 2M, deterministic, of order 2 with one evaluation a step.

    Its first step, which has none before it, and the last one, whose end lies infinitely far away
    in lambda, are of order 1, with D the predicted clean image: DDIM's where nothing is clipped.

    Args:
        clip: clip the predicted clean images to [-1, 1].
    """

    carried = 1
    draws_noise = False

    def __init__(self, *, clip: bool = False) -> None:
        super().__init__(clip=clip)

    def coefficients(self, step: ReverseStep) -> tuple[float, ...]:
        alpha_bar, alpha_bar_prev = step.alpha_bar, step.alpha_bar_prev
        of_state = math.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar))
        of_clean = math.sqrt(alpha_bar_prev) - of_state * math.sqrt(alpha_bar)
        ahead = 0.0
        if step.before is not None and step.t_prev > 0:
            start, middle, end = map(
                _lambda, (step.schedule.alpha_bars[step.before], alpha_bar, alpha_bar_prev)
            )
            ahead = (end - middle) / (2 * (middle - start))
        return math.sqrt(1 - alpha_bar), math.sqrt(alpha_bar), of_state, of_clean, ahead

    def combine(
        self, x_t: Tensor, output: Tensor, coefficients: Sequence[Number], noise: Tensor
    ) -> Tensor:
        x, before = x_t.chunk(2, 1)
        sigma, scale, of_state, of_clean, ahead = coefficients
        clean = self._clean(x, output[:, : x.shape[1]], sigma, scale)
        x_s = of_state * x + of_clean * (clean + ahead * (clean - before))
        return torch.cat([x_s, clean], 1)

    def step(
        self,
        x_t: Tensor,
        predict: Predict,
        times: Sequence[Number],
        coefficients: Sequence[Number],
        noise: Tensor,
    ) -> Tensor:
        x, _ = x_t.chunk(2, 1)
        return self.combine(x_t, predict(x, times[0]), coefficients, noise)


def _lambda(alpha_bar: float) -> float:
    """Half the logarithm of signal over noise, in variances."""
    return math.log(alpha_bar / (1 - alpha_bar)) / 2
