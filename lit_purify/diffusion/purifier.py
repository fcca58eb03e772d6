"""The contract of a purifier, and what any purifier has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_purify.arguments import RecordsArguments
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.types import InputError, Model, Process


def identity(images: Tensor) -> Tensor:
    """The images."""
    return images


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


class Purifier(RecordsArguments, nn.Module, ABC):
    """Maps images to purified images, f_xi(x).

    A purifier of your own (a blur, a JPEG, an autoencoder) implements :meth:`purify`. The arguments
    it is made with are recorded, and :meth:`settings` reports them.
    """

    approximate_gradient: str = ""
    """What of its gradient is no derivative, in words such as ``rounding taken for the identity``;
    reports name it. Empty where the gradient is exact."""

    smoothing_sigma: float | None = None
    """Where f_xi(x) depends on x through x + sigma z alone, with z standard normal in every pixel:
    sigma, [0, 1] scale. It is what randomized smoothing certifies; ``None`` where there is none."""

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

    def answer(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        classifier: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Purified images and what a classifier makes of them, g(f_xi(x)).

        Args:
            images: shape (B, C, H, W), in [0, 1].
            noise: the randomness configuration xi.
            indices: dataset indices of the samples, shape (B,).
            classifier: g, images to logits (B, K).

        Returns:
            The purified images, and the logits of the defence.
        """
        purified = self.purify(images, noise, indices)
        return purified, classifier(purified)

    def use_classifier(self, classifier: Callable[[Tensor], Tensor]) -> None:
        """Learn which classifier stands behind it in a defence; most purifiers need not know."""

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise :class:`InputError` unless images of this shape, (C, H, W), can be purified.

        A run asks before its first batch.
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

    @property
    def total_steps(self) -> int:
        """Steps of a purification, which the cost of attacks is counted in; 1 without a chain."""
        return 1

    def state_gradients(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        loss: Callable[[Tensor], Tensor],
        classifier: Callable[[Tensor], Tensor] = identity,
    ) -> list[State]:
        """Gradient of a loss of the answer with respect to every state on the way.

        They come from one backward pass and are held together, each the size of the batch.

        Args:
            images: shape (B, C, H, W), in [0, 1].
            noise: the randomness configuration xi.
            indices: dataset indices of the samples, shape (B,).
            loss: what the classifier gives -> losses, shape (B,), each of its own image alone.
            classifier: g, purified images to logits; by default the loss is of the images.

        Returns:
            The states of :meth:`trajectory`, with the gradient in the place of the image: per unit
            of the [0, 1] scale, detached. The first is the gradient at the input. A purifier that
            works at another size gives those between the first and the last at its own.

        Raises:
            InputError: the loss does not depend differentiably on the images.
        """
        with torch.enable_grad():
            image = images.detach().requires_grad_()
            between, purified = self._linked_states(image, noise, indices)
            found = gradients_at(loss(classifier(purified)), [image, *between, purified])
        return [
            State(process, t, gradient)
            for (process, t), gradient in zip(self.depths, found, strict=True)
        ]

    def _linked_states(
        self, images: Tensor, noise: NoiseConfiguration, indices: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """States that lead from the images to the output: those between, and the output."""
        return [], self.purify(images, noise, indices)

    def settings(self) -> dict[str, object]:
        """What a report must say about this purifier."""
        options = {"purifier_options": dict(self._arguments)} if self._arguments else {}
        return {"purifier": type(self).__name__, **options}

    def models(self) -> dict[str, Model]:
        """The networks of this purifier by their role."""
        return {}


def gradients_at(losses: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of the summed losses at states that lead to one another, in one backward pass."""
    if not (losses.requires_grad and all(state.requires_grad for state in states)):
        raise InputError(
            "the purifier or the loss gives no gradient: the loss does not depend differentiably "
            "on every state; make them differentiable, or drop what asks for gradients by state"
        )
    return list(torch.autograd.grad(losses.sum(), states, materialize_grads=True))
