"""What an object was made with, recorded where it is made: runs tell two of a class apart by it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from lit_purify.types import described

_FEW = 64
"""Values of an array that is recorded as it is."""


class RecordsArguments:
    """Base of classes that users derive their own from: the constructor's arguments are kept."""

    _arguments: Mapping[str, object] = MappingProxyType({})
    __signature__: inspect.Signature

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Or ``help`` and ``inspect`` would show the arguments of ``__new__``.
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        cls.__signature__ = inspect.Signature(parameters)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        if cls.__init__ not in (nn.Module.__init__, object.__init__):  # which say nothing
            made._arguments = _named(cls.__init__, made, *args, **kwargs)
        return made


class NamesItself(RecordsArguments):
    """A network whose ``source`` is its class and arguments unless it says something else."""

    source: str = ""
    """What a report calls this network: where its weights come from."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls, *args, **kwargs)
        if not cls.source:
            made.source = described(cls.__name__, made._arguments)
        return made


def plain_attributes(module: nn.Module) -> dict[str, object]:
    """The public attributes of a module that are numbers, texts or collections of these."""
    return {
        name: value
        for name, value in vars(module).items()
        if name[0] != "_" and name != "training" and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str))


def _named(init: Callable[..., None], *args: Any, **kwargs: Any) -> dict[str, object]:
    """The arguments of a constructor by name, as plain values, defaults among them."""
    signature = inspect.signature(init)
    try:
        bound = signature.bind_partial(*args, **kwargs)  # a copy is first made without arguments
    except TypeError as error:
        raise TypeError(f"{init.__qualname__}() {error}") from None  # as Python says it
    bound.apply_defaults()
    _, *arguments = bound.arguments.items()  # the first is self
    named = dict(arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(name)
    return {name: _plain(value) for name, value in named.items()}


def _plain(value: object) -> object:
    """A plain value as it is, collections and small arrays too; else the name of its class."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (Path, Enum, Fraction)):
        return str(value)
    if isinstance(value, (np.generic, np.ndarray, Tensor)) and math.prod(value.shape) <= _FEW:
        return value.tolist()
    return type(value).__name__
