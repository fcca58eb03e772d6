"""From the tensors of a file to those of a network: what every format shares.

A format says which network a file describes and which of the file's tensors each parameter comes
from; :func:`fill` then takes all or nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
        take: gives the parameter's values in their order; ``None`` where the tensor holds them as
            they are, in whatever shape (a linear layer may be stored as a 1x1 convolution).
    """

    name: str
    shape: tuple[int, ...]
    take: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Reading:
    """What a format makes of a file.

    Attributes:
        denoiser: the network described, without weights (on the meta device).
        source: name and shape of one of its parameters -> where the parameter comes from.
        note: what its ``source`` must say besides the name of the file.
    """

    denoiser: UNetDenoiser
    source: Callable[[str, tuple[int, ...]], Source] = Source
    note: str = ""

    def sources(self) -> dict[str, Source]:
        """Where each parameter comes from, by the parameter's name."""
        state = self.denoiser.network.state_dict()
        return {name: self.source(name, tuple(x.shape)) for name, x in state.items()}


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
    shape = tuple(tensors[name].shape) if name in tensors else None
    if shape is None or len(shape) != ndim:
        wrong = "is missing" if shape is None else f"has shape {shape}, expected {ndim} dimensions"
        raise InputError(
            f"{file} does not say what network it is of: {name} {wrong}; download or export the "
            "checkpoint again"
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
    sources = reading.sources()
    wrong = list(_faults({source.name: source.shape for source in sources.values()}, tensors))
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(
            f"{file} does not fit its own architecture: "
            f"{'; '.join(prefix + fault for fault in wrong[:3])}{more}; "
            "download or export the checkpoint again"
        )
    network = reading.denoiser.network
    shapes = {name: x.shape for name, x in network.state_dict().items()}
    uses = Counter(source.name for source in sources.values())
    state = {}
    for name, source in sources.items():
        uses[source.name] -= 1
        tensor = tensors[source.name] if uses[source.name] else tensors.pop(source.name)
        value = (source.take(tensor) if source.take else tensor).reshape(shapes[name])
        layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        state[name] = value.detach().float().contiguous(memory_format=layout)
        del tensor, value
    network.load_state_dict(state, assign=True)


def _faults(
    expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """What is wrong with the tensors of a file, one sentence per name."""
    for name in expected:
        if name not in tensors:
            yield f"{name} is missing"
    for name, x in tensors.items():
        if name not in expected:
            yield f"{name} is unknown"
        elif tuple(x.shape) != expected[name]:
            yield f"{name} has shape {tuple(x.shape)} instead of {expected[name]}"
        elif not x.is_floating_point():
            yield f"{name} is of type {x.dtype} instead of a float"
        elif x.layout != torch.strided or x.is_meta:  # which can be stored, too
            yield f"{name} holds no plain values"
        elif not x.float().isfinite().all():
            yield f"{name} is not finite"
