"""The arithmetic of networks: float32 that is float32, TF32 and bfloat16 where asked for.

PyTorch computes float32 convolutions on NVIDIA GPUs in TF32 (10 mantissa bits instead of 23)
unless it is told not to. Its switches belong to the process, not to a model, so they are set for a
while and put back after it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from lit_purify.types import InputError

Precision = Literal["float32", "tf32", "bf16"]


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Inside, networks compute in a precision, whatever is set outside. Weights stay float32.

    It must hold during the backward pass too.

    Args:
        precision: IEEE float32; TF32; or bfloat16 where PyTorch's autocast takes it to be safe.
        device: what the networks run on.

    Raises:
        InputError: TF32 on a device without it.

    Example:
        >>> with arithmetic("bf16", torch.device("cpu")):
        ...     torch.nn.Linear(2, 3)(torch.zeros(1, 2)).dtype
        torch.bfloat16
    """
    tf32 = precision == "tf32"
    if tf32:
        check_tf32(device)
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with float32_mode(tf32=tf32), bf16:
        yield


def check_tf32(device: torch.device) -> None:
    """Raise :class:`InputError` unless a device computes TF32."""
    if not (device.type == "cuda" and torch.cuda.is_tf32_supported()):
        raise InputError(
            f"tf32 is asked for, but {device} computes no TF32; drop it, or run on an NVIDIA GPU "
            "of the Ampere generation or newer"
        )


@contextmanager
def float32_mode(*, tf32: bool = False) -> Iterator[None]:
    """Inside, float32 convolutions and matrix products are IEEE float32, or TF32, on every device.

    It must hold during the backward pass too. Afterwards every precision is what it was.

    Args:
        tf32: compute them in TF32 on GPUs that can; a CPU computes IEEE float32 either way.

    Example:
        >>> with float32_mode():
        ...     torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
        (False, 'highest')
    """
    # Since PyTorch 2.9 there are two interfaces to one state. The older alone is not enough: it
    # leaves TF32 on where a user has set torch.backends.fp32_precision. The newer alone is too
    # little: torch.compile reads the older, which raises where the two disagree.
    switches = _switches()
    earlier = [(switch, switch.fp32_precision) for switch, _ in switches]
    older = _older_interface()
    _set_older_interface(tf32, "high" if tf32 else "highest")
    for switch, has_tf32 in switches:
        switch.fp32_precision = "tf32" if tf32 and has_tf32 else "ieee"
    try:
        yield
    finally:
        _set_older_interface(*older)
        for switch, precision in earlier:
            switch.fp32_precision = precision


def float32_state() -> tuple[object, ...]:
    """What :func:`float32_mode` sets, as a value to compare."""
    return _older_interface(), *(switch.fp32_precision for switch, _ in _switches())


def _switches() -> list[tuple[Any, bool]]:
    """The newer interface: what has an ``fp32_precision``, and whether it knows TF32 on a GPU."""
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):  # before PyTorch 2.9
        return []
    gpu = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    cpu = (backends.mkldnn.matmul, backends.mkldnn.conv)  # may be set to bfloat16
    return [*((switch, True) for switch in gpu), *((switch, False) for switch in cpu)]


def _older_interface() -> tuple[bool, str]:
    """Whether convolutions may use TF32, and the precision of products."""

    def ask(getter: Callable[[], Any], default: Any) -> Any:
        try:
            return getter()
        except RuntimeError:  # the newer interface was set, and this one still has its default
            return default

    with _unadvised():
        return (
            ask(lambda: torch.backends.cudnn.allow_tf32, True),
            ask(torch.get_float32_matmul_precision, "highest"),
        )


def _set_older_interface(convolutions: bool, products: str) -> None:
    with _unadvised():
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


@contextmanager
def _unadvised() -> Iterator[None]:
    """Without PyTorch 2.9's advice to use the newer interface: it is used as well."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*TF32")
        yield
