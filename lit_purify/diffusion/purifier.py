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
from lit_purify.diffusion.recompute import ActivationBudget, Step, run_chain
from lit_purify.diffusion.resize import resize
from lit_purify.diffusion.samplers import DDPMSampler, Sampler
from lit_purify.diffusion.schedule import LinearSchedule
from lit_purify.types import InputError, Model, Process

ForwardProcess = Literal["stepwise", "one_shot", "none"]


class State(NamedTuple):
    """One state of a purification.

    Attributes:
        process: the half of the purification that made it; ``forward`` for the input itself.
        t: its step, from 0 (the input) up to t* and back to 0 (the output).
        image: shape (B, C, H, W), [0, 1] scale, neither clipped nor rescaled by sqrt(alpha_bar).
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
        """Every state on the way, the input first and the output last, all of the input's size."""
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
            of the [0, 1] scale, detached. The first is the gradient at the input. A purifier that
            works at another size gives those between the first and the last at its own.

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
        resize_to: side in pixels that square images are brought to before they are noised, and
            back from at the end (bilinear, see :func:`~lit_purify.diffusion.resize.resize`); 256
            for the paper's ImageNet, whose classifier sees 224. Noise is drawn at this size. The
            gradient goes through both. ``None`` purifies images at their own size.

    Raises:
        InputError: t* outside the denoiser's schedule, more steps than t*, a memory budget that is
            negative or not finite, or a size that is not the denoiser's.
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
        resize_to: int | None = None,
    ) -> None:
        super().__init__()
        _check_size(resize_to, denoiser)
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.t_star = t_star
        self.num_steps = num_steps
        self.forward_process = forward_process
        self.sampler = DDPMSampler() if sampler is None else sampler
        self.clip_output = clip_output
        self.memory_budget_gib = memory_budget_gib
        self._budget = ActivationBudget(memory_budget_gib)
        self.resize_to = resize_to
        schedule = LinearSchedule(denoiser.num_train_steps)
        self.timesteps = schedule.timesteps(t_star, num_steps)
        self._alpha_bar: dict[int, float] = dict(enumerate(schedule.alpha_bar.tolist()))

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        _check_indices(images, indices)
        last = images
        for _, _, state in self._states(self.inside(images), noise, indices.cpu()):
            last = state  # one by one: a chain of 200 states is not held
        return self._output(last, images)

    def trajectory(
        self, images: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[State]:
        _check_indices(images, indices)
        yield State("forward", 0, images)
        for process, t, x in self._states(self.inside(images), noise, indices.cpu()):
            done = process == "reverse" and t == 0
            yield State(process, t, (self._output if done else _outside)(x, images))

    @property
    def depths(self) -> list[tuple[Process, int]]:
        up: list[tuple[Process, int]] = [("forward", t) for t in self._noised]
        down: list[tuple[Process, int]] = [("reverse", t) for t in self._reached]
        return [("forward", 0), *up, *down]

    def inside(self, images: Tensor) -> Tensor:
        """Images as the chain takes them: brought to its size, [-1, 1] scale.

        Raises:
            InputError: images of another shape than the purifier's.
        """
        _check_shape(images, self.denoiser.image_shape, self.resize_to)
        if self.resize_to is not None:
            images = resize(images, (self.resize_to, self.resize_to))
        return images * 2 - 1

    def reverse_step(
        self, t: int, t_prev: int, noise: NoiseConfiguration, indices: Tensor, x: Tensor
    ) -> Tensor:
        """One step down, from the state x at step t to that at ``t_prev``, [-1, 1] scale."""
        output = self.denoiser(x, t)
        draws = self.sampler.draws_noise and t_prev > 0
        z = noise.normal(indices, "reverse", t, like=x) if draws else x.new_zeros(())
        return self.sampler.step(x, output, self._alpha_bar[t], self._alpha_bar[t_prev], z)

    def state_gradients(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        loss: Callable[[Tensor], Tensor],
    ) -> list[State]:
        _check_indices(images, indices)
        with torch.enable_grad():
            image = images.detach().requires_grad_()
            start = self.inside(image)
            states = [x for _, _, x in self._states(start, noise, indices.cpu())]
            output = self._output(states[-1], image)
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
            partial(self.reverse_step, t, t_prev, noise, indices)
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

    def _output(self, x: Tensor, images: Tensor) -> Tensor:
        image = _outside(x, images)
        return image.clamp(0, 1) if self.clip_output else image

    def _forward_steps(
        self, noise: NoiseConfiguration, indices: Tensor
    ) -> Iterator[tuple[int, Step]]:
        """The noising steps (eq. 1): each knows the step t it reaches."""
        for t_prev, t in pairwise([0, *self._noised]):
            alpha = self._alpha_bar[t] / self._alpha_bar[t_prev]
            yield t, partial(_diffuse, alpha, partial(noise.normal, indices, "forward", t))

    def _num_kept(self, x: Tensor) -> int:
        """How many reverse steps may keep their activations under the memory budget."""
        if not x.requires_grad:
            return 0
        return self._budget.steps(partial(self.denoiser, t=self.t_star), x)

    def settings(self) -> dict[str, object]:
        return {
            "purifier": type(self).__name__,
            "t_star": self.t_star,
            "num_steps": len(self.timesteps),
            "forward_process": self.forward_process,
            "sampler": type(self.sampler).__name__,
            "sampler_options": dict(vars(self.sampler)),
            "clip_output": self.clip_output,
            "resize_to": self.resize_to,
        }

    def models(self) -> dict[str, Model]:
        return {"denoiser": self.denoiser}


def _outside(x: Tensor, images: Tensor) -> Tensor:
    """A state as the images that came in: their size, [0, 1] scale."""
    return resize((x + 1) / 2, (images.shape[-2], images.shape[-1]))


def _check_indices(images: Tensor, indices: Tensor) -> None:
    if len(indices) != len(images):
        raise InputError(
            f"{len(images)} images came with {len(indices)} dataset indices; "
            "every image needs its own"
        )


def _check_shape(
    images: Tensor, expected: tuple[int, int, int] | None, resize_to: int | None
) -> None:
    got = tuple(images.shape)
    if resize_to is None:
        if len(got) != 4 or expected not in (None, got[1:]):
            raise InputError(
                f"the denoiser expects batches of {expected or '(C, H, W)'} images, got shape "
                f"{got}; set the purifier's resize_to, resize the images, or choose another "
                "denoiser"
            )
    elif len(got) != 4 or got[2] != got[3] or (expected and got[1] != expected[0]):
        raise InputError(
            f"resize_to brings batches of square images ({expected[0] if expected else 'C'}, S, S) "
            f"to the denoiser's size, got shape {got}; cut the images square, or give the channels "
            "that the denoiser takes"
        )


def _check_size(resize_to: int | None, denoiser: Denoiser) -> None:
    if resize_to is None:
        return
    if resize_to < 1:
        raise InputError(
            f"resize_to is {resize_to}; expected a side in pixels, 1 or more, or null to purify "
            "images at their own size"
        )
    expected = denoiser.image_shape
    if expected is not None and expected[1:] != (resize_to, resize_to):
        raise InputError(
            f"resize_to is {resize_to}, but the denoiser is made for {expected[1]} x {expected[2]} "
            "pixels; give that side, or choose another denoiser"
        )


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
