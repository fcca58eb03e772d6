r"""Randomness as a value: every Gaussian draw is keyed by (base seed, dataset index, step).

Eqs. 12 and 13 of the paper give each draw a seed of its own,

.. math:: \mathrm{seed}(s, i, t) = (p_s s \oplus p_i i \oplus p_t t') \bmod 2^{32},
   \qquad t' = 2t \text{ (forward)}, \ 2t + 1 \text{ (reverse)}.

Here ``i`` is the *dataset index of the sample*, so a sample meets the same noise at every batch
size, in every order, on every rank and after a resume. Draws are made on the CPU in float32 and
moved, so CPU and GPU see the same bits. The global RNG is neither read nor changed.

The slot t = 0 belongs to random starts and uniform perturbations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from lit_purify.diffusion.seeds import derive_seed, seed_hash
from lit_purify.types import InputError, Process

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def as_indices(indices: Tensor | Sequence[int]) -> Tensor:
    """Dataset indices as a tensor of shape (B,), int64; a single number gives shape (1,).

    Raises:
        InputError: anything but whole numbers, in one dimension.

    Example:
        >>> as_indices([5, 9])
        tensor([5, 9])
    """
    found = f"a {type(indices).__name__} of other things"
    try:
        given = torch.as_tensor(indices)
        if given.ndim < 2 and given.dtype in _WHOLE:
            return given.long().reshape(-1)
        found = f"of {given.dtype} and shape {tuple(given.shape)}"
    except (TypeError, ValueError, RuntimeError):
        pass
    raise InputError(
        f"the dataset indices are {found}; expected whole numbers, one per image, such as "
        "torch.arange(len(images))"
    )


def rows_of(indices: Tensor, samples: Tensor) -> Tensor:
    """Position of each dataset index among the samples of a batch.

    Args:
        indices: shape (B,).
        samples: shape (N,), each once.

    Raises:
        KeyError: an index that is not among the samples.
    """
    hits = indices.view(-1, 1) == samples
    if not hits.any(1).all():
        missing = indices[~hits.any(1)].tolist()
        raise KeyError(f"samples {missing} are not in this batch, which has {samples.tolist()}")
    return hits.int().argmax(1)


def _slot(process: Process, t: int) -> int:
    return 2 * t + (process == "reverse")


class NoiseConfiguration(ABC):
    """One randomness configuration xi: every Gaussian draw of a purification, sample by sample."""

    def normal(self, indices: Tensor, process: Process, t: int, *, like: Tensor) -> Tensor:
        """Standard normal draws of step t.

        Args:
            indices: dataset indices of the samples, shape (B,).
            process: ``forward`` or ``reverse``.
            t: step of the full schedule, at least 1.
            like: a batch whose sample shape, dtype and device the draws take.

        Returns:
            Noise of shape (B, *like.shape[1:]).
        """
        return self._draw(indices, _slot(process, t), torch.randn, like)

    def uniform(self, indices: Tensor, *, like: Tensor) -> Tensor:
        """Draws from U(-1, 1) in the slot t = 0, shape (B, *like.shape[1:])."""
        return self._draw(indices, 0, torch.rand, like) * 2 - 1

    def staged(
        self, indices: Tensor, steps: Iterable[tuple[Process, int]], *, like: Tensor
    ) -> NoiseConfiguration:
        """The same noise, its draws of a whole chain made and on their way to the device.

        The processor makes and sends them while the GPU still works on what came before, so that
        no step has to wait for its draw.

        Args:
            indices: dataset indices of the samples, shape (B,).
            steps: process and step of every draw.
            like: as in :meth:`normal`.
        """
        return self

    @abstractmethod
    def derived(self, purpose: str, k: int) -> NoiseConfiguration:
        """The k-th further configuration for a purpose, independent of this one and keyed by it."""

    @abstractmethod
    def _draw(self, indices: Tensor, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Draws of one slot, shape (B, *like.shape[1:])."""


class NoiseSource(ABC):
    """Where forward passes take their randomness from."""

    @abstractmethod
    def next_configuration(self) -> FixedNoise:
        """The randomness configuration xi of the next forward pass, which it counts as made."""

    def cached(self, indices: Tensor) -> NoiseSource:
        """The same source with draws for these samples kept, where they would be drawn again."""
        return self


@dataclass(frozen=True)
class FixedNoise(NoiseConfiguration, NoiseSource):
    """One randomness configuration xi: the same draws at every forward pass.

    Args:
        seed: base seed ``s``.

    Example:
        >>> noise, x = FixedNoise(0), torch.zeros(2, 3, 4, 4)
        >>> both = noise.normal(torch.tensor([5, 9]), "forward", 1, like=x)
        >>> one = noise.normal(torch.tensor([9]), "forward", 1, like=x)
        >>> bool((both[1:] == one).all())
        True
    """

    seed: int

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"the base seed must be at least 0, got {self.seed}")

    def next_configuration(self) -> FixedNoise:
        return self

    def derived(self, purpose: str, k: int) -> FixedNoise:
        return FixedNoise(derive_seed(self.seed, purpose, k))

    def cached(self, indices: Tensor) -> CachedNoise:
        return CachedNoise(self.seed, indices.cpu())

    def staged(
        self, indices: Tensor, steps: Iterable[tuple[Process, int]], *, like: Tensor
    ) -> CachedNoise:
        return self.cached(indices).staged(indices, steps, like=like)

    def _draw(self, indices: Tensor, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        # Neighbouring rows of one image share its draw, which is made once.
        images, counts = torch.unique_consecutive(indices.cpu(), return_counts=True)
        # Pinned, what goes to a GPU is sent without waiting for it.
        shape = (len(images), *like.shape[1:])
        draws = torch.empty(shape, dtype=torch.float32, pin_memory=like.is_cuda)
        generator = torch.Generator()
        for row, index in enumerate(images.tolist()):
            generator.manual_seed(seed_hash(self.seed, index, slot))
            law(like.shape[1:], generator=generator, out=draws[row])
        draws = draws.to(like, non_blocking=True)
        if len(images) == len(indices):
            return draws
        counts = _sent(counts, draws.device)
        return draws.repeat_interleave(counts, 0, output_size=len(indices))


@dataclass(frozen=True)
class CachedNoise(FixedNoise):
    """A :class:`FixedNoise` that keeps the draws of given samples, for the length of an attack.

    Args:
        seed: base seed ``s``.
        samples: dataset indices whose draws are kept, shape (B,). Only they may be asked for.
    """

    samples: Tensor = field(compare=False)
    _store: dict[tuple[object, ...], Tensor] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _derived: dict[tuple[str, int], CachedNoise] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    @property
    def drawn(self) -> bool:
        """Whether anybody has asked for a draw, of this configuration or a derived one."""
        return bool(self._store) or any(noise.drawn for noise in self._derived.values())

    def derived(self, purpose: str, k: int) -> CachedNoise:
        if (purpose, k) not in self._derived:
            kept = super().derived(purpose, k).cached(self.samples)
            self._derived[purpose, k] = kept
        return self._derived[purpose, k]

    def cached(self, indices: Tensor) -> CachedNoise:
        return self if torch.equal(indices.cpu(), self.samples) else super().cached(indices)

    def staged(
        self, indices: Tensor, steps: Iterable[tuple[Process, int]], *, like: Tensor
    ) -> CachedNoise:
        if like.is_cuda:
            # On a stream of their own, the copies do not queue behind what the GPU has to do.
            work, aside = torch.cuda.current_stream(like.device), _copies(like.device)
            with torch.cuda.stream(aside):
                sent = [self._kept(_slot(*step), torch.randn, like) for step in steps]
            for draws in sent:
                draws.record_stream(work)
            work.wait_stream(aside)
        else:
            for step in steps:
                self._kept(_slot(*step), torch.randn, like)
        return self

    def _draw(self, indices: Tensor, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        kept = self._kept(slot, law, like)
        if torch.equal(indices.cpu(), self.samples):
            return kept
        return kept[_sent(rows_of(indices.cpu(), self.samples), like.device)]

    def _kept(self, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Draws of one slot for all samples."""
        key = (slot, like.shape[1:], like.dtype, like.device)
        if key not in self._store:
            self._store[key] = super()._draw(self.samples, slot, law, like)
        return self._store[key]


def _sent(numbers: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, which is not waited for."""
    if device.type != "cuda":
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream that draws are sent on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@dataclass
class FreshNoise(NoiseSource):
    """The stochastic defence: a new base seed at every forward pass.

    Args:
        seed: the run's seed.
        stream: names the stream, such as ``"attack"`` or ``"test"``, so that no draw of one is
            ever met in the other.
        passes: forward passes made so far. The k-th pass always has the same base seed, whatever
            batch it works on, so a run can be repeated and resumed.
    """

    seed: int
    stream: str
    passes: int = 0

    def next_configuration(self) -> FixedNoise:
        self.passes += 1
        return FixedNoise(derive_seed(self.seed, f"fresh/{self.stream}", self.passes - 1))


@dataclass(frozen=True)
class StackedNoise(NoiseConfiguration):
    """Several configurations at once, each for a part of a batch.

    Args:
        configurations: one for every part; the first rows of a batch meet the first.
        sizes: rows of every part; by default all parts are equal.

    Example:
        >>> noise, x = StackedNoise([FixedNoise(0), FixedNoise(1)]), torch.zeros(4, 3, 4, 4)
        >>> stacked = noise.normal(torch.tensor([5, 9, 5, 9]), "forward", 1, like=x)
        >>> second = FixedNoise(1).normal(torch.tensor([5, 9]), "forward", 1, like=x)
        >>> bool((stacked[2:] == second).all())
        True
    """

    configurations: Sequence[NoiseConfiguration]
    sizes: Sequence[int] | None = None

    def staged(
        self, indices: Tensor, steps: Iterable[tuple[Process, int]], *, like: Tensor
    ) -> StackedNoise:
        steps = list(steps)
        staged = [
            noise.staged(part, steps, like=like)
            for noise, part in zip(self.configurations, self._parts(indices), strict=True)
        ]
        return StackedNoise(staged, self.sizes)

    def derived(self, purpose: str, k: int) -> StackedNoise:
        derived = [noise.derived(purpose, k) for noise in self.configurations]
        return StackedNoise(derived, self.sizes)

    def _draw(self, indices: Tensor, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        return torch.cat(
            [
                noise._draw(part, slot, law, like)
                for noise, part in zip(self.configurations, self._parts(indices), strict=True)
            ]
        )

    def _parts(self, indices: Tensor) -> Sequence[Tensor]:
        """The indices of every configuration."""
        if self.sizes is not None:
            return torch.split(indices, list(self.sizes))
        if len(indices) % len(self.configurations):
            raise ValueError(
                f"{len(indices)} rows cannot be shared out to {len(self.configurations)} "
                "randomness configurations"
            )
        return indices.chunk(len(self.configurations))
