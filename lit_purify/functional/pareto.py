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


def dominates(one: TradeOff, other: TradeOff) -> bool:
    """Whether a point is as good as another in both coordinates and better in one."""
    return one.gain >= other.gain and one.cost <= other.cost and one != other


def pareto_ranks(points: Sequence[TradeOff]) -> list[int]:
    """Front that each point is in (non-dominated sorting, Deb et al., NSGA-II, 2002).

    Front 0 is dominated by no point, front 1 by none but those of front 0, and so on.

    Example:
        >>> pareto_ranks([TradeOff(0.9, 0.4), TradeOff(0.8, 0.5), TradeOff(0.7, 0.2)])
        [0, 1, 0]
    """
    ranks: dict[int, int] = {}
    left = list(range(len(points)))
    while left:
        front = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        ranks |= dict.fromkeys(front, max(ranks.values(), default=-1) + 1)
        left = [i for i in left if i not in ranks]
    return [ranks[i] for i in range(len(points))]


def contributions(points: Sequence[TradeOff], reference: TradeOff) -> list[float]:
    """Area that each point of one front alone dominates, up to a reference point (hypervolume).

    Args:
        points: none of which dominates another.
        reference: the worst corner: points that are not better than it in both have 0.

    Example:
        >>> front = [TradeOff(1.0, 0.5), TradeOff(0.5, 0.25)]
        >>> contributions(front, TradeOff(gain=0.0, cost=1.0))
        [0.25, 0.125]
    """
    found = []
    for i, point in enumerate(points):
        others = [p for j, p in enumerate(points) if j != i]
        # Along the front the next cheaper point bounds the gain, the next better one the cost.
        gain = max([p.gain for p in others if p.cost <= point.cost], default=reference.gain)
        cost = min([p.cost for p in others if p.gain >= point.gain], default=reference.cost)
        width = point.gain - max(gain, reference.gain)
        height = min(cost, reference.cost) - point.cost
        found.append(max(0.0, width) * max(0.0, height))
    return found


def best_first(points: Sequence[TradeOff], reference: TradeOff) -> list[int]:
    """Positions of the points by front, within a front by what they contribute.

    Points whose gain is below that of the reference come last, the highest gain first.
    """
    inside = [i for i, point in enumerate(points) if point.gain >= reference.gain]
    ranks = pareto_ranks([points[i] for i in inside])
    order: list[int] = []
    for rank in range(max(ranks, default=-1) + 1):
        front = [i for i, its in zip(inside, ranks, strict=True) if its == rank]
        areas = contributions([points[i] for i in front], reference)
        ranked = sorted(zip(areas, front, strict=True), key=lambda pair: (-pair[0], pair[1]))
        order += [i for _, i in ranked]
    outside = [i for i in range(len(points)) if i not in inside]
    return order + sorted(outside, key=lambda i: (-points[i].gain, i))
