r"""Purification: noise an image to depth t*, denoise it back (eqs. 1-3).

The [-1, 1] scale of the diffusion exists only inside this file; images go in and come out in the
[0, 1] scale.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lit_purify.diffusion.brownian import increment
from lit_purify.diffusion.class_labels import ClassLabels, Label
from lit_purify.diffusion.compiled_step import CompiledStep, can_run_compiled
from lit_purify.diffusion.denoiser import Denoiser, check_output
from lit_purify.diffusion.noise import NoiseConfiguration, as_indices
from lit_purify.diffusion.planned_purifier import ForwardProcess, PlannedPurifier
from lit_purify.diffusion.purifier import State, identity
from lit_purify.diffusion.recompute import (
    ActivationBudget,
    Correction,
    can_recompute,
    run_chain,
)
from lit_purify.diffusion.resize import check_size, resize
from lit_purify.diffusion.reverse_step import ReverseStep
from lit_purify.diffusion.samplers import DDPMSampler, Number, Sampler
from lit_purify.diffusion.schedule import checked_schedule, diffuse
from lit_purify.types import Auto, InputError, Model, Process


class DiffusionPurifier(PlannedPurifier):
    r"""Purification by a diffusion model, with the exact gradient through all of its steps.

    Args:
        denoiser: noise predictor; its weights are frozen. Its schedule is that of the chain.
        t_star: diffusion depth t* in units of the training schedule (100 on CIFAR-10 in the paper).
        num_steps: steps the chain takes across t*; ``None`` takes every one, as in the paper.
        forward_process: ``stepwise`` adds noise in as many draws as the chain has steps (eq. 1),
            ``one_shot`` in the single equivalent draw, ``none`` takes the image itself as
            :math:`x_{t^*}` (the paper's "Reverse").
        sampler: rule of the reverse steps; ``None`` is DDPM (eq. 2) with its defaults.
        clip_output: clip the result to [0, 1]; the gradient follows.
        memory_budget_gib: memory for keeping network activations between the forward and the
            backward pass. More saves time (up to a third), never changes a gradient. ``auto``
            takes what a run leaves free, see :class:`~lit_purify.callbacks.MemoryUse`.
        resize_to: side in pixels that square images are brought to before they are noised, and
            back from at the end (bilinear, see :func:`~lit_purify.diffusion.resize.resize`); 256
            for the paper's ImageNet, whose classifier sees 224. Noise is drawn at this size. The
            gradient goes through both. ``None`` purifies images at their own size.
        label: what a class-conditional denoiser is told of an image, ``none`` or ``predicted``, see
            :class:`~lit_purify.diffusion.class_labels.ClassLabels`.

    Raises:
        InputError: a schedule by which no image can be noised, t* outside it, more steps than t*,
            steps that the denoiser does not know, a memory budget that is negative or not finite,
            a size that is not the denoiser's, or a label for a denoiser that takes none.
    """

    fixed_steps = True
    """Whether its steps are known beforehand, so that their memory can be planned."""

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        t_star: int = 100,
        num_steps: int | None = None,
        forward_process: ForwardProcess = "stepwise",
        sampler: Sampler | None = None,
        clip_output: bool = False,
        memory_budget_gib: float | Auto = 2.0,
        resize_to: int | None = None,
        label: Label = "none",
    ) -> None:
        super().__init__()
        check_size(resize_to, denoiser.image_shape)
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.t_star = t_star
        self.num_steps = num_steps
        self.forward_process = forward_process
        self.sampler = DDPMSampler() if sampler is None else sampler
        self.clip_output = clip_output
        self.memory_budget_gib = memory_budget_gib
        self.budget = ActivationBudget(memory_budget_gib)
        self.resize_to = resize_to
        self.labels = ClassLabels(label, denoiser)
        self.schedule = checked_schedule(denoiser.schedule)
        self.timesteps = self.schedule.timesteps(t_star, num_steps)
        self._alpha_bar = self.schedule.alpha_bars
        self.compiled: CompiledStep | None = None
        self._check_steps(self.timesteps)

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        last = images
        for _, _, state in self._states(images, noise, indices):
            last = state  # one by one: a chain of 200 states is not held
        return self._output(last, images)

    def trajectory(
        self, images: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[State]:
        yield State("forward", 0, images)
        last = len(self.depths) - 1
        for number, (process, t, x) in enumerate(self._states(images, noise, indices), 1):
            done = number == last
            yield State(process, t, self._output(x, images) if done else _to_images(x, images))

    @property
    def compiles_steps(self) -> bool:
        """Whether a step can be compiled: it is known beforehand, and tells no class."""
        return self.fixed_steps and self.labels.label == "none"

    def check_shape(self, shape: tuple[int, ...]) -> None:
        side = self.resize_to
        if side is not None:
            if len(shape) != 3 or shape[1] != shape[2]:
                raise InputError(
                    "resize_to brings batches of square images (C, S, S) to the denoiser's size, "
                    f"got images of shape {shape}; cut the images square"
                )
            shape = (shape[0], side, side)
        self.denoiser.check_shape(shape)

    def to_chain(self, images: Tensor) -> Tensor:
        """Images as the chain takes them: brought to its size, [-1, 1] scale.

        Raises:
            InputError: images of another shape than the purifier's.
        """
        self.check_shape(tuple(images.shape[1:]))
        if self.resize_to is not None:
            images = resize(images, (self.resize_to, self.resize_to))
        return images * 2 - 1

    @property
    def smoothing_sigma(self) -> float | None:  # type: ignore[override]
        r"""Noise that x_{t*} has for an image in [0, 1], :math:`\sigma_{t^*} / 2`.

        ``None`` where nothing noises the image, it is resized or its label predicted, and of
        subclasses, which may look at it in other ways: one that does not says so by a property of
        its own.
        """
        noised = type(self) is DiffusionPurifier and self.forward_process != "none"
        noised = noised and self.labels.label == "none"  # a prediction is of the image itself
        return self.schedule.sigma(self.t_star) / 2 if noised and self.resize_to is None else None

    def use_classifier(self, classifier: Callable[[Tensor], Tensor]) -> None:
        self.labels.use(classifier)

    def reverse_step(
        self,
        step: ReverseStep,
        noise: NoiseConfiguration,
        indices: Tensor,
        x: Tensor,
        *,
        classes: Tensor | None = None,
    ) -> Tensor:
        """One step down, from the state x at ``step.t`` to that at ``step.t_prev``.

        Both on the [-1, 1] scale, with what the sampler carries in further channels. Classes, shape
        (B,), are told the denoiser.
        """
        numbers, times = self.sampler.coefficients(step), self.sampler.evaluated(step)
        drawn = {
            u: math.log(self._alpha_bar[u - 1] / self._alpha_bar[u])
            for u in self.sampler.drawn(step)
        }
        like, *_ = x.chunk(1 + self.sampler.carried, 1)
        z = increment(noise, indices, drawn, like=like) if drawn else x.new_zeros(())
        if classes is not None:
            return self._step(x, times, numbers, z, classes)
        return (self._compiled_for(x) or self._step)(x, times, numbers, z)

    def state_gradients(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        loss: Callable[[Tensor], Tensor],
        classifier: Callable[[Tensor], Tensor] = identity,
    ) -> list[State]:
        first, *between, last = super().state_gradients(images, noise, indices, loss, classifier)
        # A pixel of these states is (x + 1) / 2: per unit of the pixel the loss changes twice as
        # much as per unit of x.
        return [first, *(state._replace(image=2 * state.image) for state in between), last]

    def compile_step(
        self, *, backend: str | Callable[..., Any] | None = "inductor", bucketed: bool | None = None
    ) -> None:
        """Compile network and sampler into one function; see :class:`CompiledStep`.

        On an NVIDIA GPU its passes are CUDA graphs; with a ``backend`` of ``None`` nothing else
        changes, and nothing at all on a CPU. Numbers of compiled code move as they do between two
        machines. What needs more than a gradient, such as
        a Jacobian in forward mode or the transforms of ``torch.func``, runs uncompiled.
        """
        self.compiled = CompiledStep(
            self._step, weights=self.denoiser.parameters, backend=backend, bucketed=bucketed
        )

    def __getstate__(self) -> dict[str, Any]:
        # A copy, or what is sent to another process, is not compiled, like every nn.Module.
        return {**super().__getstate__(), "compiled": None}  # type: ignore[no-untyped-call]

    def _apply(self, *args: Any, **kwargs: Any) -> DiffusionPurifier:
        if self.compiled is not None:  # weights are about to be moved or changed
            self.compiled.clear()
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _compiled_for(self, x: Tensor) -> CompiledStep | None:
        """The compiled step where it may be called with x."""
        usable = self.compiled is not None and can_run_compiled(x) and not self._trained
        return self.compiled if usable and self.compiles_steps else None

    @property
    def _trained(self) -> bool:
        """Whether the weights are to get a gradient: recomputed and compiled steps give none."""
        return any(weight.requires_grad for weight in self.denoiser.parameters())

    def _step(
        self,
        x: Tensor,
        times: Sequence[Number],
        coefficients: Sequence[Number],
        z: Tensor,
        *classes: Tensor,
    ) -> Tensor:
        def predict(x: Tensor, t: Number) -> Tensor:
            return self._predict(x, t, *classes)

        return self.sampler.step(x, predict, times, coefficients, z)

    def _predict(self, x: Tensor, t: Number, *classes: Tensor) -> Tensor:
        """What the denoiser gives for the state x at step t, told these classes, if any."""
        if isinstance(t, float):
            t = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
        output = self.denoiser(x, t, *classes)
        check_output(output, x, self.denoiser)
        return output

    def settings(self) -> dict[str, object]:
        known = inspect.signature(DiffusionPurifier).parameters
        more = {name: value for name, value in self._arguments.items() if name not in known}
        return {
            "purifier": type(self).__name__,
            "t_star": self.t_star,
            "num_steps": self.total_steps,
            "evaluations": self.evaluations,
            **self.schedule.settings(),
            "forward_process": self.forward_process,
            "sampler": type(self.sampler).__name__,
            "sampler_options": dict(vars(self.sampler)),
            "clip_output": self.clip_output,
            "resize_to": self.resize_to,
            **self.labels.settings(),
            **({"purifier_options": more} if more else {}),  # of a subclass
        }

    def models(self) -> dict[str, Model]:
        return {"denoiser": self.denoiser}

    def _states(
        self, images: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[tuple[Process, int, Tensor]]:
        """Every state after the input, [-1, 1] scale."""
        indices = as_indices(indices).cpu()
        if len(indices) != len(images):
            raise InputError(
                f"{len(images)} images came with {len(indices)} dataset indices; "
                "every image needs its own"
            )
        x = start = self.to_chain(images)
        classes = self.labels.of(images)
        left, num_kept = self.total_steps, self._num_kept(x)
        if compiled := self._compiled_for(x):  # computes its steps again by itself
            if can_recompute(x):
                compiled.expect(len(x), num_kept, self.budget.num_bytes)
            num_kept = left
        for k, visited in enumerate(self.round_steps):
            left -= len(visited)
            xi = noise.derived("round", k) if k else noise
            if x.is_cuda:  # a CPU would only hold what it makes in time
                xi = xi.staged(indices, self._draws(visited), like=x)
            for t_prev, t in pairwise([0, *self._noised(visited)]):
                z = xi.normal(indices, "forward", t, like=x)
                x = diffuse(x, z, self._alpha_bar[t] / self._alpha_bar[t_prev])
                yield "forward", t, x
            down = self._down(visited)
            told = partial(self.reverse_step, classes=classes)
            states = run_chain(
                [partial(told, step, xi, indices) for step in down],
                x,
                num_kept=max(0, num_kept - left),
                after=[self._after(step, xi, indices, start) for step in down],
                carried=self.sampler.carried,
            )
            for step, x in zip(down, states, strict=True):
                yield "reverse", step.t_prev, x

    def _after(
        self, step: ReverseStep, noise: NoiseConfiguration, indices: Tensor, start: Tensor
    ) -> Correction | None:
        """What is done to a state after the step to it, ``start`` being the input; here nothing."""
        return None

    def _linked_states(
        self, images: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        *between, last = (x for _, _, x in self._states(images, noise, indices))
        return between, self._output(last, images)

    def _output(self, x: Tensor, images: Tensor) -> Tensor:
        image = _to_images(x, images)
        return image.clamp(0, 1) if self.clip_output else image

    def _num_kept(self, x: Tensor) -> int:
        """How many reverse steps may keep their activations under the memory budget."""
        if not can_recompute(x):
            return 0
        if self._trained:
            return self.total_steps
        if self._compiled_for(x) is None and self.compiled and self.compiled.holds_memory:
            return 0  # what the budget grants is taken by CUDA graphs
        passes = self.budget.steps(partial(self._predict, t=self.t_star), x)
        return min(passes // self.passes_per_step, self.total_steps)


def _to_images(x: Tensor, images: Tensor) -> Tensor:
    """A state of the chain as the images that came in: their size, [0, 1] scale."""
    return resize((x + 1) / 2, (images.shape[-2], images.shape[-1]))
