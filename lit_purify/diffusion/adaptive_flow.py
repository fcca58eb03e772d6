r"""Purification by the probability-flow ODE with a solver that chooses its steps.

The equation is that of :mod:`~lit_purify.diffusion.differential_equations`; torchdiffeq solves it
from t* down to t = 1, where the score is known, and Euler's step leads from there to the output.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lit_purify.diffusion.class_labels import Label
from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.differential_equations import ProbabilityFlowSampler
from lit_purify.diffusion.diffusion_purifier import DiffusionPurifier
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.planned_purifier import ForwardProcess
from lit_purify.diffusion.recompute import can_recompute, run_chain
from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.types import Auto, InputError

Solver = Literal["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"]
_FINEST = 1e-13
"""Tolerance that float64 can tell from rounding."""


class AdaptiveFlowPurifier(DiffusionPurifier):
    r"""Noise an image to depth t*, follow the probability-flow ODE back by an adaptive solver.

    Every image is solved by itself: the steps that a batch shared would depend on who is in it. So
    a batch takes as long as its images one after another.

    The gradient is that of the steps taken, by plain differentiation through the solver, never by
    an adjoint equation. The step sizes count as constants: how they depend on the image is not
    differentiated, which leaves out about what the tolerances leave out of the solution.

    **Memory.** Between the passes an evaluation of the network keeps its input alone, and is
    computed again in the backward pass, unless its activations fit into the memory budget. So a
    gradient takes the states of all evaluations of all images of a batch (some tens of each) and
    the activations of one.

    The denoiser is asked at steps t between whole ones too, as a tensor of floats. With ``t`` the
    time :math:`\tau_t = -\ln \bar\alpha_t` is interpolated linearly.

    Args:
        denoiser: noise predictor; its weights are frozen.
        t_star: diffusion depth t* in units of the training schedule.
        forward_process: ``one_shot`` adds the noise in a single draw, ``stepwise`` in two, at t = 1
            and t = t*, ``none`` takes the image itself as :math:`x_{t^*}`.
        method: solver, as torchdiffeq names them: ``dopri5``, ``dopri8``, ``bosh3``, ``fehlberg2``
            or ``adaptive_heun``.
        rtol: tolerance of a step relative to the state, root mean square over the pixels.
        atol: tolerance of a step on the [-1, 1] scale, likewise.
        clip_output: clip the result to [0, 1]; the gradient follows.
        memory_budget_gib: memory for keeping network activations between the forward and the
            backward pass; it never changes a gradient.
        resize_to, label: as in :class:`DiffusionPurifier`.

    Raises:
        InputError: what a :class:`DiffusionPurifier` refuses, another solver, or a tolerance that
            is not finite or finer than 1e-13.
    """

    approximate_gradient = "step sizes of the solver taken as constants"
    fixed_steps = False

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        t_star: int = 100,
        forward_process: ForwardProcess = "one_shot",
        method: Solver = "dopri5",
        rtol: float = 1e-3,
        atol: float = 1e-3,
        clip_output: bool = False,
        memory_budget_gib: float | Auto = 2.0,
        resize_to: int | None = None,
        label: Label = "none",
    ) -> None:
        super().__init__(
            denoiser,
            t_star=t_star,
            forward_process=forward_process,
            sampler=ProbabilityFlowSampler(),
            clip_output=clip_output,
            memory_budget_gib=memory_budget_gib,
            resize_to=resize_to,
            label=label,
        )
        solvers = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
        if method not in solvers:
            raise InputError(f"method must be one of {', '.join(solvers)}, got {method!r}")
        if not (_FINEST <= rtol < math.inf and _FINEST <= atol < math.inf):
            raise InputError(
                f"rtol and atol must be finite, and {_FINEST:g} or more, below which no step is "
                f"fine enough, got {rtol} and {atol}; such as 1e-3"
            )
        self.method = method
        self.rtol = rtol
        self.atol = atol
        self.timesteps = sorted({1, t_star})

    def reverse_step(
        self,
        step: ReverseStep,
        noise: NoiseConfiguration,
        indices: Tensor,
        x: Tensor,
        *,
        classes: Tensor | None = None,
    ) -> Tensor:
        if step.t_prev == 0 or len(x) == 0:
            return super().reverse_step(step, noise, indices, x, classes=classes)
        kept = math.inf
        if can_recompute(x) and not self._trained:
            kept = self.budget.steps(partial(self._predict, t=self.t_star), x)
        told = [] if classes is None else [torch.split(classes, 1)]
        images = zip(torch.split(x, 1), *told, strict=True)
        return torch.cat([self._solve(step, kept, *image) for image in images])

    def _solve(self, step: ReverseStep, kept: float, x: Tensor, *classes: Tensor) -> Tensor:
        """One image after the step; so many evaluations may keep their activations."""
        from torchdiffeq import odeint

        start, end = self.schedule.tau[step.t], self.schedule.tau[step.t_prev]
        evaluations = itertools.count()

        def velocity(elapsed: Tensor, x: Tensor) -> Tensor:
            tau = start - elapsed.item()

            def here(x: Tensor) -> Tensor:
                return self._velocity(tau, x, *classes)

            (found,) = run_chain([here], x, num_kept=int(next(evaluations) < kept))
            return found

        times = torch.tensor([0, start - end], dtype=torch.float64, device=x.device)
        # A first step of the solver's own choice would depend on the image differentiably; and it
        # would step beyond the end, to where there is no score, and interpolate.
        options = {"first_step": times[1] / 10, "step_t": times[1:]}
        states: Tensor = odeint(
            velocity,
            x,
            times,
            rtol=self.rtol,
            atol=self.atol,
            method=self.method,
            options=options,
        )
        return states[-1]

    def _velocity(self, tau: float, x: Tensor, *classes: Tensor) -> Tensor:
        """dx/dr at the time tau, for one image."""
        output = self._predict(x, self.schedule.step_at(tau), *classes)
        return x / 2 - output[:, : x.shape[1]] / (2 * math.sqrt(-math.expm1(-tau)))

    def _num_kept(self, x: Tensor) -> int:
        return len(self.timesteps)  # it is the evaluations that are computed again

    def settings(self) -> dict[str, object]:
        known = super().settings()
        del known["num_steps"], known["evaluations"]  # as many as the solver takes
        return {**known, "sampler_options": {}}
