"""Purification that is guided towards the image it began with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.diffusion_purifier import ForwardProcess
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.recompute import Correction
from lit_purify.diffusion.repeated_purifier import RepeatedPurifier
from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.diffusion.samplers import DDPMSampler, Sampler
from lit_purify.diffusion.schedule import diffuse
from lit_purify.types import Auto, InputError


class GuidedPurifier(RepeatedPurifier):
    r"""Guided purification (GDMP, Wang et al. 2022) by the squared error, with its exact gradient.

    Every reverse step of variance :math:`\sigma_t^2` also goes towards the input :math:`x`, noised
    to the depth of the state that it starts from,

    .. math:: x_s \leftarrow x_s - s_t \sigma_t^2 \nabla_{x_t} D(x_t, x'_t), \qquad
       x'_t = \sqrt{\bar\alpha_t} x + \sqrt{1 - \bar\alpha_t} z'_t, \qquad
       s_t = a \sqrt{\frac{1 - \bar\alpha_t}{\bar\alpha_t}},

    with D the mean squared error over the values of one image, [-1, 1] scale. The last step has no
    variance and is not guided. In all rounds x is the image that came in, and :math:`z'_t` is keyed
    by sample, round and step.

    The gradient goes through :math:`x_t` and :math:`x'_t`. D is of the state and not of a
    prediction, so the guidance is linear in both: it needs no derivative of the denoiser and keeps
    nothing for the backward pass.

    Args:
        denoiser: as for :class:`RepeatedPurifier`, like all but the guidance.
        rounds: depth t* of every round; ``[36, 36, 36, 36]`` in the paper's CIFAR-10.
        guidance: strength a, 0 or more; 0 is a :class:`RepeatedPurifier`.
        num_steps: steps that every round takes.
        forward_process: how a round noises.
        sampler: DDPM of a fixed variance; ``None`` is DDPM with its defaults.
        clip_output: clip the result of the last round to [0, 1].
        memory_budget_gib: memory for keeping network activations of all rounds.
        resize_to: side in pixels of the images in the chain.

    Raises:
        InputError: a guidance that is negative or not finite, a sampler without a fixed variance,
            or what :class:`RepeatedPurifier` refuses.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        rounds: Sequence[int],
        guidance: float,
        num_steps: int | Sequence[int] | None = None,
        forward_process: ForwardProcess = "stepwise",
        sampler: Sampler | None = None,
        clip_output: bool = False,
        memory_budget_gib: float | Auto = 2.0,
        resize_to: int | None = None,
    ) -> None:
        if not 0 <= guidance < math.inf:
            raise InputError(f"guidance must be finite and at least 0, got {guidance}")
        super().__init__(
            denoiser,
            rounds=rounds,
            num_steps=num_steps,
            forward_process=forward_process,
            sampler=sampler,
            clip_output=clip_output,
            memory_budget_gib=memory_budget_gib,
            resize_to=resize_to,
        )
        fixed = isinstance(self.sampler, DDPMSampler) and self.sampler.variance != "learned_range"
        if not fixed:
            raise InputError(
                "guided purification weighs by the variance of a step, and the sampler has no "
                "fixed one; give DDPMSampler(variance='fixed_small') or fixed_large"
            )
        self.guidance = guidance

    @property
    def num_draws(self) -> int:
        return super().num_draws + sum(len(visited) - 1 for visited in self.round_steps)

    def _after(
        self, step: ReverseStep, noise: NoiseConfiguration, indices: Tensor, start: Tensor
    ) -> Correction | None:
        if step.t_prev == 0 or self.guidance == 0:
            return None
        alpha_bar = step.alpha_bar
        *_, deviation = self.sampler.coefficients(step)
        scale = self.guidance * math.sqrt((1 - alpha_bar) / alpha_bar)
        weight = scale * deviation**2 * 2 / start[0].numel()

        def towards(x: Tensor, y: Tensor) -> Tensor:
            z = noise.derived("guidance", 0).normal(indices, "forward", step.t, like=x)
            return y - weight * (x - diffuse(start, z, alpha_bar))

        return towards
