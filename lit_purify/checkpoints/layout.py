"""From the tensors of a file to those of a network: what every format shares.

A format says which network a file describes and which of the file's tensors each parameter comes
from; :func:`fill` then takes all or nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.types import InputError


@dataclass(frozen=True)
class Source:
    """The tensor of a file that one parameter comes from.

    Attributes:
        name: its name in the file.
        shape: its shape in the file.
        take: gives the parameter's value; ``None`` where it is stored as it is.
    """

    name: str
    shape: tuple[int, ...]
    take: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Reading:
    """What a format makes of a file.

    Attributes:
        denoiser: the network described, without weights (on the meta device).
        sources: of each of its parameters, by the parameter's name.
    """

    denoiser: UNetDenoiser
    sources: Mapping[str, Source]


def parameter_shapes(denoiser: UNetDenoiser) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's parameters."""
    return {name: tuple(x.shape) for name, x in denoiser.network.state_dict().items()}


def build(file: Path, factory: Callable[..., UNetDenoiser], **architecture: Any) -> UNetDenoiser:
    """The network that a file describes, without memory for its weights.

    Raises:
        InputError: there is no such network.
    """
    try:
        # Only the weights of the file are ever needed, and a wrong description may ask for any
        # amount of memory.
        with torch.device("meta"):
            return factory(**architecture)
    except Exception as error:  # a senseless description can make the library raise anything
        reason = str(error).split("\n", 1)[0]
        raise InputError(
            f"{file} describes a network this version cannot build ({reason}); install the "
            "version that wrote it, or give the checkpoint of another network"
        ) from error


def shape_in(tensors: Mapping[str, Tensor], name: str, ndim: int, file: Path) -> tuple[int, ...]:
    """Shape of a tensor from which the architecture is read.

    Raises:
        InputError: it is missing or has another number of dimensions than ``ndim``.
    """
    if name not in tensors:
        raise InputError(
            f"{file} does not say what network it is of: {name} is missing; download or export "
            "the checkpoint again"
        )
    shape = tuple(tensors[name].shape)
    if len(shape) != ndim:
        raise InputError(
            f"{file} does not say what network it is of: {name} has shape {shape}, expected "
            f"{ndim} dimensions; download or export the checkpoint again"
        )
    return shape


def count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers the group of a pattern has among the names that begin with it."""
    return len({found[1] for found in (re.match(pattern, name) for name in tensors) if found})


def fill(reading: Reading, tensors: dict[str, Tensor], *, file: Path, prefix: str = "") -> None:
    """Give a network the tensors of a file: every one, as float32.

    Args:
        reading: the network and where its parameters come from.
        tensors: of the file; emptied on the way, so that no weight is held twice.
        file: for the message.
        prefix: what the names in the file begin with, for the message.

    Raises:
        InputError: a tensor is missing, extra, misshapen, not of floats or not finite.
    """
    _check(reading, tensors, file, prefix)
    uses = Counter(source.name for source in reading.sources.values())
    state = {}
    for name, source in reading.sources.items():
        uses[source.name] -= 1
        tensor = tensors[source.name] if uses[source.name] else tensors.pop(source.name)
        value = (source.take(tensor) if source.take else tensor).detach().float()
        layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        state[name] = value.contiguous(memory_format=layout)
        del tensor, value
    reading.denoiser.network.load_state_dict(state, assign=True)


def _check(reading: Reading, tensors: Mapping[str, Tensor], file: Path, prefix: str) -> None:
    expected = {source.name: source.shape for source in reading.sources.values()}
    wrong = [f"{prefix}{name} is missing" for name in expected if name not in tensors]
    wrong += [f"{prefix}{name} is unknown" for name in tensors if name not in expected]
    wrong += [
        f"{prefix}{name} has shape {tuple(x.shape)} instead of {expected[name]}"
        for name, x in tensors.items()
        if name in expected and tuple(x.shape) != expected[name]
    ]
    # A tensor without values of its own (sparse, meta) can be stored, too.
    values = {
        name: x.is_floating_point() and x.layout == torch.strided and not x.is_meta
        for name, x in tensors.items()
    }
    wrong += [
        f"{prefix}{name} is of type {x.dtype} instead of a float"
        if not x.is_floating_point()
        else f"{prefix}{name} holds no plain values"
        for name, x in tensors.items()
        if not values[name]
    ]
    wrong += [
        f"{prefix}{name} is not finite"
        for name, x in tensors.items()
        if values[name] and not x.float().isfinite().all()
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(
            f"{file} does not fit its own architecture: {'; '.join(wrong[:3])}{more}; "
            "download or export the checkpoint again"
        )
