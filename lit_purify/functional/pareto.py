"""Choosing among points of which one coordinate should be high and the other low."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TradeOff(NamedTuple):
    """A point of a trade-off.

    Attributes:
        gain: what should be high, such as clean accuracy.
        cost: what should be low, such as the compression rate.
    """

    gain: float
    cost: float


def dominated_area(points: Sequence[TradeOff], corner: TradeOff) -> float:
    """Area of what is worse than some of the points and better than a corner (hypervolume).

    Args:
        points: any number of them; one that is not better than the corner in both adds nothing.
        corner: the worst that is of use.

    Example:
        >>> dominated_area([TradeOff(1.0, 0.5), TradeOff(0.5, 0.25)], TradeOff(0.0, 1.0))
        0.625
    """
    area, lowest = 0.0, corner.cost
    for gain, cost in sorted(points, key=lambda point: -point.gain):
        area += max(0.0, gain - corner.gain) * max(0.0, lowest - cost)
        lowest = min(lowest, cost)
    return area


def best_first(points: Sequence[TradeOff], corner: TradeOff) -> list[int]:
    """Positions of the points, each the one that adds most to the area of those before it.

    So the first are good and unlike each other. When no point adds anything, as all that are left
    are dominated by or equal to earlier ones, it starts anew with them. Those that have no area at
    all come last, the highest gain first. Of equals the earlier comes first.
    """
    order: list[int] = []
    chosen: list[TradeOff] = []
    left = list(range(len(points)))
    while left:
        areas = [dominated_area([*chosen, points[i]], corner) for i in left]
        best = max(range(len(left)), key=areas.__getitem__)
        if areas[best] > dominated_area(chosen, corner):
            chosen.append(points[left[best]])
            order.append(left.pop(best))
        elif chosen:
            chosen = []
        else:
            return order + sorted(left, key=lambda i: -points[i].gain)
    return order
