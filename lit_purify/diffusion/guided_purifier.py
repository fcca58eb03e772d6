"""Purification that is guided towards the image it began with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lit_purify.diffusion.class_labels import Label
from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.planned_purifier import ForwardProcess
from lit_purify.diffusion.recompute import Correction, can_recompute
from lit_purify.diffusion.repeated_purifier import RepeatedPurifier
from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.diffusion.samplers import DDPMSampler, Sampler
from lit_purify.diffusion.schedule import diffuse
from lit_purify.functional import similarity_gradient
from lit_purify.types import Auto, InputError

Distance = Literal["mse", "ssim"]


class GuidedPurifier(RepeatedPurifier):
    r"""Guided purification (GDMP, Wang et al. 2022), with its exact gradient.

    Every reverse step of variance :math:`\sigma_t^2` also goes towards the input :math:`x`, noised
    to the depth of the state that it starts from,

    .. math:: x_s \leftarrow x_s - s_t \sigma_t^2 \nabla_{x_t} D(x_t, x'_t), \qquad
       x'_t = \sqrt{\bar\alpha_t} x + \sqrt{1 - \bar\alpha_t} z'_t, \qquad
       s_t = a \sqrt{\frac{1 - \bar\alpha_t}{\bar\alpha_t}},

    with D the mean squared error over the values of one image, [-1, 1] scale, or 1 - SSIM of the
    two brought to the [0, 1] scale. The last step has no variance and is not guided. In all rounds
    x is the image that came in, and :math:`z'_t` is keyed by sample, round and step.

    The gradient goes through :math:`x_t` and :math:`x'_t`. D is of the state and not of a
    prediction, so no derivative of the denoiser is in the guidance: by the squared error it is
    linear in both, by SSIM its closed form
    (:func:`~lit_purify.functional.similarity_gradient`) is differentiated. Neither keeps more
    than the states for the backward pass.

    Args:
        denoiser: as for :class:`RepeatedPurifier`, like all but the guidance.
        rounds: depth t* of every round; ``[36, 36, 36, 36]`` in the paper's CIFAR-10.
        guidance: strength a, 0 or more; 0 is a :class:`RepeatedPurifier`.
        distance: D, ``mse`` or ``ssim``.
        num_steps: steps that every round takes.
        forward_process: how a round noises.
        sampler: DDPM of a fixed variance; ``None`` is DDPM with its defaults.
        clip_output: clip the result of the last round to [0, 1].
        memory_budget_gib: memory for keeping network activations of all rounds.
        resize_to: side in pixels of the images in the chain.
        label: what a class-conditional denoiser is told, in all rounds.

    Raises:
        InputError: a guidance that is negative or not finite, another distance, a sampler without
            a fixed variance, or what :class:`RepeatedPurifier` refuses.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        rounds: Sequence[int],
        guidance: float,
        distance: Distance = "mse",
        num_steps: int | Sequence[int] | None = None,
        forward_process: ForwardProcess = "stepwise",
        sampler: Sampler | None = None,
        clip_output: bool = False,
        memory_budget_gib: float | Auto = 2.0,
        resize_to: int | None = None,
        label: Label = "none",
    ) -> None:
        if not 0 <= guidance < math.inf:
            raise InputError(f"guidance must be finite and at least 0, got {guidance}")
        if distance not in ("mse", "ssim"):
            raise InputError(f"distance must be mse or ssim, got {distance!r}")
        super().__init__(
            denoiser,
            rounds=rounds,
            num_steps=num_steps,
            forward_process=forward_process,
            sampler=sampler,
            clip_output=clip_output,
            memory_budget_gib=memory_budget_gib,
            resize_to=resize_to,
            label=label,
        )
        fixed = isinstance(self.sampler, DDPMSampler) and self.sampler.variance != "learned_range"
        if not fixed:
            raise InputError(
                "guided purification weighs by the variance of a step, and the sampler has no "
                "fixed one; give DDPMSampler(variance='fixed_small') or fixed_large"
            )
        self.guidance = guidance
        self.distance = distance

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
        weight = self.guidance * math.sqrt((1 - alpha_bar) / alpha_bar) * deviation**2

        def target(x: Tensor) -> Tensor:
            z = noise.derived("guidance", 0).normal(indices, "forward", step.t, like=x)
            return diffuse(start, z, alpha_bar)

        def along_squared_error(x: Tensor, y: Tensor) -> Tensor:
            return y - weight * 2 / start[0].numel() * (x - target(x))

        def similarity(x: Tensor) -> Tensor:
            return similarity_gradient((x + 1) / 2, (target(x) + 1) / 2)

        def along_similarity(x: Tensor, y: Tensor) -> Tensor:
            if can_recompute(x):
                slope = checkpoint(similarity, x, use_reentrant=False, preserve_rng_state=False)
            else:
                slope = similarity(x)
            return y + weight / 2 * slope

        return along_squared_error if self.distance == "mse" else along_similarity
