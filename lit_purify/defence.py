r"""A purified classifier as one object, :math:`g(f_\xi(x))`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_purify.diffusion.binding import bound_randomness
from lit_purify.diffusion.noise import (
    FixedNoise,
    NoiseConfiguration,
    NoiseSource,
    StackedNoise,
    as_indices,
)
from lit_purify.diffusion.purifier import Purifier

Observer = Callable[[Tensor, Tensor, Tensor, int], None]
"""Is told of every call: (images, logits, dataset index of each image, draws).

A hook on the images sees the gradient of this call alone. The logits may come without a graph.
"""


class Defence(nn.Module):
    """A classifier, alone or behind a purifier, as attacks and measurements see it.

    Bound to a randomness and to samples it is a plain module, images to logits, that any library
    can call::

        model = Defence(classifier, purifier).bind(FixedNoise(0), indices)
        logits = model(images)

    Without a bound randomness it takes the one of ``with randomness(noise, indices):``.

    The networks are used as they are, not copied: they are put into evaluation mode and their
    weights are frozen.

    Args:
        classifier: g, images in [0, 1] to logits (B, K).
        purifier: f; ``None`` for the classifier alone.
        noise: where the passes take their randomness from.
        indices: dataset indices of the images, shape (B,); they key the noise. A single one serves
            a batch of any size.
        observers: called one after the other with every answer.
    """

    def __init__(
        self,
        classifier: Callable[[Tensor], Tensor],
        purifier: Purifier | None = None,
        noise: NoiseSource | None = None,
        indices: Tensor | Sequence[int] | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.purifier = purifier
        self.noise = noise
        self.indices = None if indices is None else as_indices(indices)
        self.observers = observers
        if isinstance(purifier, Purifier):
            purifier.use_classifier(classifier)
        self.eval().requires_grad_(False)

    def bind(self, noise: NoiseSource | None, indices: Tensor | Sequence[int]) -> Defence:
        """The same networks with this randomness for these samples.

        Draws for the samples are made once and kept as long as the result lives. Observers are
        taken along.

        Args:
            noise: where the passes take their randomness from; ``None`` for a classifier alone.
            indices: dataset indices, shape (B,); all that will be asked about, or a single one.

        Raises:
            ValueError: a purifier without noise, or indices that are no whole numbers.
        """
        if noise is None and self.purifier is not None:
            raise ValueError("a purifier needs randomness, got noise None; bind FixedNoise(seed)")
        samples = as_indices(indices)
        kept = None if noise is None else noise.cached(samples)
        return Defence(self.classifier, self.purifier, kept, samples, self.observers)

    def rewound(self, indices: Tensor) -> Defence:
        """The same defence for these samples, with a randomness that counts for itself.

        Its k-th pass meets the configuration that the k-th next one here will meet, and whatever
        it is asked leaves this one where it is.

        Args:
            indices: dataset indices, shape (B,).
        """
        return self.bind(copy.copy(self.source), indices)

    def observed(self, observer: Observer) -> Defence:
        """The same defence with one more observer."""
        observers = (*self.observers, observer)
        return Defence(self.classifier, self.purifier, self.noise, self.indices, observers)

    @property
    def source(self) -> NoiseSource | None:
        """Where the passes take their randomness from; ``None`` for a classifier alone.

        Raises:
            RuntimeError: a purifier and no randomness.
        """
        if self.purifier is None:
            return None
        return bound_randomness()[0] if self.noise is None else self.noise

    @property
    def deterministic(self) -> bool:
        """Whether the same images always give the same logits."""
        return self.source is None or isinstance(self.source, FixedNoise)

    def forward(
        self,
        images: Tensor,
        indices: Tensor | None = None,
        *,
        draws: int = 1,
        straight_through: bool = False,
    ) -> Tensor:
        """Logits under the next randomness configurations.

        Args:
            images: in [0, 1], shape (B, C, H, W); with several draws as many copies of a batch,
                (draws * B, C, H, W), each of which meets a configuration of its own.
            indices: which of the bound samples the images are, shape (B,); ``None`` for all.
            draws: number of randomness configurations.
            straight_through: let the backward pass take the purifier for the identity (BPDA).

        Returns:
            Shape (draws * B, K), differentiable in ``images``.

        Raises:
            RuntimeError: no randomness, no indices where an observer is to be told of them, or
                another number of them than of images.
        """
        if self.observers and torch.is_grad_enabled() and images.requires_grad:
            images = images.view_as(images)  # so that a hook on them does not outlive this call
        logits = self._logits(images, indices, draws, straight_through)
        for observer in self.observers:
            observer(images, logits, self._samples(images, indices, draws), draws)
        return logits

    def purify(self, images: Tensor, indices: Tensor | None = None, *, draws: int = 1) -> Tensor:
        """Purified images f_xi(x), or the images where there is no purifier; as :meth:`forward`."""
        noise = self._next_noise(draws)
        if self.purifier is None or noise is None:
            return images
        return self.purifier.purify(images, noise, self._samples(images, indices, draws))

    def _logits(
        self, images: Tensor, indices: Tensor | None, draws: int, straight_through: bool
    ) -> Tensor:
        noise = self._next_noise(draws)
        if self.purifier is None or noise is None:
            return self.classifier(images)
        samples, classifier = self._samples(images, indices, draws), self.classifier
        if straight_through:
            moved, images = images - images.detach(), images.detach()

            def classifier(purified: Tensor) -> Tensor:
                return self.classifier(purified.detach() + moved)

        return self.purifier.answer(images, noise, samples, classifier)[1]

    def _next_noise(self, draws: int) -> NoiseConfiguration | None:
        """The randomness of the next pass; ``None`` where there is no purifier."""
        source = self.source
        if source is None:
            return None
        configurations = [source.next_configuration() for _ in range(draws)]
        return configurations[0] if draws == 1 else StackedNoise(configurations)

    def _samples(self, images: Tensor, indices: Tensor | None, draws: int) -> Tensor:
        """The dataset index of every image, those of one draw after those of the other."""
        if indices is None:
            indices = bound_randomness()[1] if self.indices is None else self.indices
        indices = as_indices(indices)
        if len(indices) == 1:
            return indices.expand(len(images))
        if len(indices) * draws != len(images):
            raise RuntimeError(
                f"{len(images)} images and {draws} draws were given for {len(indices)} dataset "
                "indices; bind the indices of exactly these images, or a single one"
            )
        return indices.repeat(draws)
