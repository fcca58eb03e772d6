"""A purified classifier put to the vote: randomized smoothing of what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lit_purify.diffusion.noise import FixedNoise, NoiseConfiguration, StackedNoise
from lit_purify.diffusion.purifier import Purifier
from lit_purify.diffusion.split_noise import SplitNoise
from lit_purify.functional import Certificate, certificate, check_answers, majority
from lit_purify.types import InputError, is_whole


class SmoothedClassifier:
    r"""The class that g(f_xi(x)) answers most often, and how far around x it does so.

    The k-th answer of an image is keyed by (base seed, dataset index, k), so counts depend neither
    on batches nor on their order. Base seeds of answers have 32 bits: of 100,000 answers about one
    is counted twice.

    Only forward passes are made; whoever has no use for their graph calls this under ``no_grad``.

    Args:
        purifier: f, with a :attr:`~lit_purify.diffusion.Purifier.smoothing_sigma`.
        classifier: g, images to logits (B, K).
        noise: its base seed keys the answers.
        reversals: K, how often the same noised image is denoised for one answer, which is what
            most of them are classified as (DensePure); ties go to the larger mean probability. A
            reverse process that draws no noise gives the same K times.
        rows_per_pass: images that are purified at once, at most, or the reversals of one answer. It
            decides the memory, and moves logits only as the batch size does, in the last digits.

    Raises:
        InputError: a purifier that is no smoothing by Gaussian noise, or no whole number of at
            least 1 where one is expected.

    Example::

        defence = denoised_smoothing(embedded_denoiser(), sigma=0.25), embedded_resnet18()
        smoothed = SmoothedClassifier(*defence, noise=FixedNoise(0))
        prediction, radius = smoothed.certify(images, indices, n0=100, n=1000, alpha=0.001)
    """

    def __init__(
        self,
        purifier: Purifier,
        classifier: Callable[[Tensor], Tensor],
        *,
        noise: FixedNoise,
        reversals: int = 1,
        rows_per_pass: int = 128,
    ) -> None:
        if purifier.smoothing_sigma is None:
            raise InputError(
                f"{type(purifier).__name__} is no randomized smoothing as far as it says: "
                "nothing tells that its output depends on the image through the image and Gaussian "
                "noise alone; take a DiffusionPurifier that noises images of their own size, such "
                "as lit_purify.purifiers.denoised_smoothing, or set smoothing_sigma of a class of "
                "your own"
            )
        for name, value in (("reversals", reversals), ("rows_per_pass", rows_per_pass)):
            if not (is_whole(value) and value >= 1):
                raise InputError(f"{name} must be a whole number, at least 1, got {value!r}")
        self.purifier = purifier
        self.classifier = classifier
        self.sigma = purifier.smoothing_sigma
        self.noise = noise
        self.reversals = reversals
        self.rows_per_pass = rows_per_pass

    def certify(
        self, images: Tensor, indices: Tensor, *, n0: int, n: int, alpha: float
    ) -> Certificate:
        """What is answered, and the l2 radius within which it is.

        Args:
            images: shape (B, C, H, W), in [0, 1].
            indices: dataset indices of the images, shape (B,).
            n0: answers that choose the class, the first ones.
            n: answers that are counted for it, those after.
            alpha: probability that the certificate of an image is wrong, at most.

        Raises:
            InputError: so many answers can certify nothing.
        """
        check_answers(n0, n, alpha)
        selection = self.votes(images, indices, range(n0))
        votes = self.votes(images, indices, range(n0, n0 + n))
        return certificate(selection, votes, n, sigma=self.sigma, alpha=alpha)

    def votes(self, images: Tensor, indices: Tensor, draws: Sequence[int]) -> Tensor:
        """How often each class is answered, (B, K), int64.

        An answer that is not finite is none, so that the votes of an image may be fewer than draws.

        Args:
            images: shape (B, C, H, W), in [0, 1].
            indices: dataset indices of the images, shape (B,).
            draws: which answers, by number from 0; one or more.
        """
        size = max(1, self.rows_per_pass // self.reversals)
        parts = zip(torch.split(images, size), torch.split(indices, size), strict=True)
        return torch.cat([self._votes(*part, draws) for part in parts])

    def draws_per_pass(self, images: int) -> int:
        """How many answers for each of so many images are found in one pass."""
        return max(1, self.rows_per_pass // (self.reversals * images))

    def _votes(self, images: Tensor, indices: Tensor, draws: Sequence[int]) -> Tensor:
        together = self.draws_per_pass(len(images))
        found = [
            self._answers(images, indices, draws[start : start + together])
            for start in range(0, len(draws), together)
        ]
        return torch.stack(found).sum(0)

    def _answers(self, images: Tensor, indices: Tensor, draws: Sequence[int]) -> Tensor:
        """The votes of so many draws, all in one pass."""
        noises = [self._noise(k, r) for r in range(self.reversals) for k in draws]
        _, logits = self.purifier.answer(
            images.repeat(len(noises), 1, 1, 1),
            StackedNoise(noises),
            indices.repeat(len(noises)),
            self.classifier,
        )
        classes = logits.shape[1]
        winners = majority(logits.view(self.reversals, -1, classes))
        # What has no answer is counted as a class of its own, before the first.
        counted = one_hot(winners + 1, classes + 1)[:, 1:]
        return counted.view(len(draws), -1, classes).sum(0)

    def _noise(self, draw: int, reversal: int) -> NoiseConfiguration:
        noise = self.noise.derived("smoothing", draw)
        return SplitNoise(noise, noise.derived("reversal", reversal)) if reversal else noise
