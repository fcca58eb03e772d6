"""Other people's modules with other names in them, for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_LOCK = threading.RLock()


@contextmanager
def patched(names: dict[str, Any], values: Mapping[str, Any]) -> Iterator[None]:
    """Give some names other values until the end of the block.

    One thread at a time is in such a block.

    Args:
        names: those of a module, ``vars(module)``, or ``sys.modules``.
        values: what some of them are, and others are added, within the block.

    Example:
        >>> import math
        >>> with patched(vars(math), {"pi": 3}):
        ...     math.pi
        3
        >>> math.pi > 3
        True
    """
    with _LOCK:
        own = {name: names[name] for name in values if name in names}
        try:
            names.update(values)
            yield
        finally:
            for name in values:
                names.pop(name, None)
            names.update(own)
