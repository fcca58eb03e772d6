"""Nulls where an argument takes none: the parser lets them pass everywhere."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from lit_purify.types import InputError


def check_nulls(config: Any) -> None:
    """Raise :class:`InputError` for a null where an argument takes none.

    Args:
        config: a configuration in mappings and lists, with ``class_path`` and ``init_args``.
    """
    if isinstance(config, list):
        for item in config:
            check_nulls(item)
    if not isinstance(config, Mapping):
        return
    for value in config.values():
        check_nulls(value)
    made = pydoc.locate(str(config.get("class_path", "")))
    arguments = config.get("init_args")
    if made is None or not isinstance(arguments, Mapping):
        return
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except (NameError, TypeError):  # names that only type checkers import
        return
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        if value is None and hint is not Any and type(None) not in (hint, *get_args(hint)):
            expected = getattr(hint, "__name__", str(hint))
            raise InputError(
                f"{name} of {config['class_path']} is null; expected {expected}; leave it out for "
                "the default"
            )
