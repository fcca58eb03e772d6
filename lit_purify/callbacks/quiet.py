"""Silence advice of Lightning's that a user of this project can do nothing with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ADVICE = (
    ".*does not have many workers.*",
    ".*treespec.*",
    "Total length of .*",
    ".*infer the batch indices.*",
    ".*was called before the ``update`` method.*",
    "LightningCLI's args parameter is intended.*",
    ".*logger.*prefer.*",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Lightning lists no devices and gives none of the advice above."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for pattern in _ADVICE:
                warnings.filterwarnings("ignore", message=pattern)
            yield
    finally:
        logger.setLevel(level)
