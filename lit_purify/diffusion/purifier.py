r"""Purification: noise an image to depth t*, denoise it back (eqs. 1-3).

The [-1, 1] scale of the diffusion exists only inside this file; images go in and come out in the
[0, 1] scale.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.recompute import Step, activation_bytes, run_chain
from lit_purify.diffusion.samplers import DDPMSampler, Sampler
from lit_purify.diffusion.schedule import LinearSchedule
from lit_purify.types import InputError, Model, Process

ForwardProcess = Literal["stepwise", "one_shot", "none"]


class State(NamedTuple):
    """One state of a purification.

    Attributes:
        process: the half of the purification that made it; ``forward`` for the input itself.
        t: its step, from 0 (the input) up to t* and back to 0 (the output).
        image: shape (B, C, H, W), [0, 1] scale, neither clipped nor rescaled.
    """

    process: Process
    t: int
    image: Tensor


class Purifier(nn.Module, ABC):
    """Maps images to purified images, f_xi(x).

    A purifier of your own (a blur, a JPEG, an autoencoder) implements :meth:`purify`.
    """

    @abstractmethod
    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        """Purify a batch.

        Args:
            images: shape (B, C, H, W), in [0, 1].
            noise: the randomness configuration xi.
            indices: dataset indices of the samples, shape (B,), int64; they key the noise.

        Returns:
            Images of the same shape in the [0, 1] scale, differentiable in ``images``.
        """

    def trajectory(
        self, images: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[State]:
        """Every state on the way, the input first and the output last."""
        yield State("forward", 0, images)
        yield State("reverse", 0, self.purify(images, noise, indices))

    @property
    def depths(self) -> list[tuple[Process, int]]:
        """Process and step of every state of a :meth:`trajectory`, known without computing one."""
        return [("forward", 0), ("reverse", 0)]

    def state_gradients(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        loss: Callable[[Tensor], Tensor],
    ) -> list[State]:
        """Gradient of a loss of the purified images with respect to every state on the way.

        They come from one backward pass and are held together, each the size of the batch.

        Args:
            images: shape (B, C, H, W), in [0, 1].
            noise: the randomness configuration xi.
            indices: dataset indices of the samples, shape (B,).
            loss: purified images -> losses, shape (B,), each of its own image alone.

        Returns:
            The states of :meth:`trajectory`, with the gradient in the place of the image: per unit
            of the [0, 1] scale, detached. The first is the gradient at the input.

        Raises:
            InputError: the loss does not depend differentiably on the images.
        """
        with torch.enable_grad():
            x = images.detach().requires_grad_()
            purified = self.purify(x, noise, indices)
            found = _gradients(loss(purified), [x, purified])
        return _states_of(self.depths, found)

    def settings(self) -> dict[str, object]:
        """What a report must say about this purifier."""
        return {"purifier": type(self).__name__}

    def models(self) -> dict[str, Model]:
        """The networks of this purifier by their role."""
        return {}


class DiffusionPurifier(Purifier):
    r"""Purification by a diffusion model, with the exact gradient through all of its steps.

    Args:
        denoiser: noise predictor; its weights are frozen.
        t_star: diffusion depth t* in units of the training schedule (100 on CIFAR-10 in the paper).
        num_steps: steps the chain takes across t*; ``None`` takes every one, as in the paper.
        forward_process: ``stepwise`` adds noise in as many draws as the chain has steps (eq. 1),
            ``one_shot`` in the single equivalent draw, ``none`` takes the image itself as
            :math:`x_{t^*}` (the paper's "Reverse").
        sampler: rule of the reverse steps; ``None`` is DDPM (eq. 2) with its defaults.
        clip_output: clip the result to [0, 1]; the gradient follows.
        memory_budget_gib: memory for keeping network activations between the forward and the
            backward pass. More saves time (up to a third), never changes a gradient.

    Raises:
        InputError: t* outside the denoiser's schedule, more steps than t*, or a memory budget
            that is negative or not finite.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        t_star: int = 100,
        num_steps: int | None = None,
        forward_process: ForwardProcess = "stepwise",
        sampler: Sampler | None = None,
        clip_output: bool = False,
        memory_budget_gib: float = 2.0,
    ) -> None:
        super().__init__()
        if not 0 <= memory_budget_gib * 2**30 < math.inf:
            raise InputError(
                f"memory_budget_gib must be finite and at least 0, got {memory_budget_gib}; "
                "0 keeps no activations"
            )
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.t_star = t_star
        self.num_steps = num_steps
        self.forward_process = forward_process
        self.sampler = DDPMSampler() if sampler is None else sampler
        self.clip_output = clip_output
        self.memory_budget_gib = memory_budget_gib
        schedule = LinearSchedule(denoiser.num_train_steps)
        self.timesteps = schedule.timesteps(t_star, num_steps)
        self._alpha_bar: dict[int, float] = dict(enumerate(schedule.alpha_bar.tolist()))
        self._bytes_per_sample: dict[tuple[object, ...], int] = {}

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        self._check(images, indices)
        last = images
        for _, _, state in self._states(images * 2 - 1, noise, indices.cpu()):
            last = state  # one by one: a chain of 200 states is not held
        return self._output(last)

    def trajectory(
        self, images: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[State]:
        self._check(images, indices)
        yield State("forward", 0, images)
        for process, t, x in self._states(images * 2 - 1, noise, indices.cpu()):
            done = process == "reverse" and t == 0
            yield State(process, t, self._output(x) if done else (x + 1) / 2)

    @property
    def depths(self) -> list[tuple[Process, int]]:
        up: list[tuple[Process, int]] = [("forward", t) for t in self._noised]
        down: list[tuple[Process, int]] = [("reverse", t) for t in self._reached]
        return [("forward", 0), *up, *down]

    def state_gradients(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        loss: Callable[[Tensor], Tensor],
    ) -> list[State]:
        self._check(images, indices)
        with torch.enable_grad():
            image = images.detach().requires_grad_()
            states = [x for _, _, x in self._states(image * 2 - 1, noise, indices.cpu())]
            output = self._output(states[-1])
            first, *between, last = _gradients(loss(output), [image, *states[:-1], output])
        # A pixel of these states is (x + 1) / 2: per unit of the pixel the loss changes twice as
        # much as per unit of x.
        return _states_of(self.depths, [first, *(2 * gradient for gradient in between), last])

    def _states(
        self, x: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[tuple[Process, int, Tensor]]:
        """Every state after the input, [-1, 1] scale."""
        for t, step in self._forward_steps(noise, indices):
            x = step(x)
            yield "forward", t, x
        steps = [
            partial(self._reverse_step, t, t_prev, noise, indices)
            for t, t_prev in zip(self.timesteps[::-1], self._reached, strict=True)
        ]
        states = run_chain(steps, x, num_kept=self._num_kept(x))
        for t, state in zip(self._reached, states, strict=True):
            yield "reverse", t, state

    @property
    def _noised(self) -> list[int]:
        """The steps t that the forward process stops at."""
        if self.forward_process == "none":
            return []
        return self.timesteps if self.forward_process == "stepwise" else [self.t_star]

    @property
    def _reached(self) -> list[int]:
        """The steps t that the reverse process stops at, the output's last."""
        return [*self.timesteps[-2::-1], 0]

    def _output(self, x: Tensor) -> Tensor:
        image = (x + 1) / 2
        return image.clamp(0, 1) if self.clip_output else image

    def _forward_steps(
        self, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[tuple[int, Step]]:
        """The noising steps (eq. 1): each knows the step t it reaches."""
        for t_prev, t in pairwise([0, *self._noised]):
            alpha = self._alpha_bar[t] / self._alpha_bar[t_prev]
            yield t, partial(_diffuse, alpha, partial(noise.normal, indices, "forward", t))

    def _reverse_step(
        self, t: int, t_prev: int, noise: NoiseConfiguration, indices: Tensor, x: Tensor
    ) -> Tensor:
        output = self.denoiser(x, t)
        draws = self.sampler.draws_noise and t_prev > 0
        z = noise.normal(indices, "reverse", t, like=x) if draws else x.new_zeros(())
        return self.sampler.step(x, output, self._alpha_bar[t], self._alpha_bar[t_prev], z)

    def _num_kept(self, x: Tensor) -> int:
        """How many reverse steps may keep their activations under the memory budget."""
        if not x.requires_grad or self.memory_budget_gib <= 0 or len(x) == 0:
            return 0
        key = (x.shape[1:], x.dtype, x.device)
        if key not in self._bytes_per_sample:
            network = partial(self.denoiser, t=self.t_star)
            self._bytes_per_sample[key] = max(1, activation_bytes(network, x[:1]))
        return int(self.memory_budget_gib * 2**30 // (self._bytes_per_sample[key] * len(x)))

    def _check(self, images: Tensor, indices: Tensor) -> None:
        expected = self.denoiser.image_shape
        if images.ndim != 4 or (expected is not None and images.shape[1:] != expected):
            raise InputError(
                f"the denoiser expects batches of {expected or '(C, H, W)'} images, got shape "
                f"{tuple(images.shape)}; resize the images or choose another denoiser"
            )
        if len(indices) != len(images):
            raise InputError(
                f"{len(images)} images came with {len(indices)} dataset indices; "
                "every image needs its own"
            )

    def settings(self) -> dict[str, object]:
        return {
            "purifier": type(self).__name__,
            "t_star": self.t_star,
            "num_steps": len(self.timesteps),
            "forward_process": self.forward_process,
            "sampler": type(self.sampler).__name__,
            "sampler_options": dict(vars(self.sampler)),
            "clip_output": self.clip_output,
        }

    def models(self) -> dict[str, Model]:
        return {"denoiser": self.denoiser}


def _diffuse(alpha: float, draw: partial[Tensor], x: Tensor) -> Tensor:
    return math.sqrt(alpha) * x + math.sqrt(1 - alpha) * draw(like=x)


def _gradients(losses: Tensor, states: Sequence[Tensor]) -> Sequence[Tensor]:
    """Gradients of the summed losses at states that lead to one another, in one backward pass."""
    if not (losses.requires_grad and all(state.requires_grad for state in states)):
        raise InputError(
            "the purifier or the loss gives no gradient: the loss does not depend differentiably "
            "on every state; make them differentiable, or drop what asks for gradients by state"
        )
    return torch.autograd.grad(losses.sum(), states, materialize_grads=True)


def _states_of(depths: Sequence[tuple[Process, int]], images: Sequence[Tensor]) -> list[State]:
    return [State(process, t, image) for (process, t), image in zip(depths, images, strict=True)]
