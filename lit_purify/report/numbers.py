"""How numbers are printed, the same in tables and in sentences."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share in percent, without the sign.

    Example:
        >>> percent(0.625)
        '62.5'
    """
    return f"{100 * share:.1f}"
