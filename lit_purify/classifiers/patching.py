"""Other people's modules with other names in them, for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()


@contextmanager
def patched(module: ModuleType, **values: Any) -> Iterator[None]:
    """Give a module other values for some of its names until the end of the block.

    One thread at a time is in such a block.

    Example:
        >>> import math
        >>> with patched(math, pi=3):
        ...     math.pi
        3
        >>> math.pi > 3
        True
    """
    with _LOCK:
        own = {name: getattr(module, name) for name in values}
        try:
            vars(module).update(values)
            yield
        finally:
            vars(module).update(own)
