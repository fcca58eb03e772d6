"""Randomness bound for callers that can only call ``model(x)``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from lit_purify.diffusion.noise import NoiseSource, as_indices

_bound: ContextVar[tuple[NoiseSource, Tensor] | None] = ContextVar("bound_noise", default=None)


@contextmanager
def randomness(source: NoiseSource, indices: Tensor | Sequence[int]) -> Iterator[None]:
    """Bind a noise source and sample indices for callers that can only call ``model(x)``.

    Args:
        source: where the forward passes inside the block take their noise from.
        indices: dataset indices of the samples, shape (B,), or a list of them; a single index
            serves a batch of any size.

    Raises:
        InputError: the indices are no list of whole numbers.

    Example::

        with randomness(FixedNoise(0), indices):
            logits = model(images)
    """
    samples = as_indices(indices)
    token = _bound.set((source.cached(samples), samples))
    try:
        yield
    finally:
        _bound.reset(token)


def bound_randomness() -> tuple[NoiseSource, Tensor]:
    """What :func:`randomness` has bound.

    Raises:
        RuntimeError: nothing is bound.
    """
    bound = _bound.get()
    if bound is None:
        raise RuntimeError(
            "a defence was called without randomness or dataset indices; bind them by "
            "bind(FixedNoise(seed), indices), for a classifier alone bind(None, indices), or wrap "
            "the call in `with randomness(FixedNoise(seed), indices):`"
        )
    return bound
