"""Fronts and areas against counting, on points whose answer is known."""

import itertools
import random

import pytest

from lit_purify.functional.pareto import (
    TradeOff,
    best_first,
    contributions,
    dominates,
    pareto_ranks,
)

CORNER = TradeOff(0.0, 1.0)


def some_points(n, seed):
    """On a grid, so that coordinates repeat."""
    rng = random.Random(seed)
    return [TradeOff(rng.randrange(1, 8) / 8, rng.randrange(1, 8) / 8) for _ in range(n)]


def covered(points):
    """Area that points dominate, counted in cells of 1/8 by 1/8."""
    cells = itertools.product(range(8), range(8))
    return sum(any(p.gain > a / 8 and p.cost < (b + 1) / 8 for p in points) for a, b in cells) / 64


@pytest.mark.parametrize("seed", range(20))
def test_ranks_are_the_longest_chains_of_better_points(seed):
    points = some_points(9, seed)
    ranks = pareto_ranks(points)
    for place, point in enumerate(points):
        better = [ranks[j] for j, other in enumerate(points) if dominates(other, point)]
        assert ranks[place] == (max(better) + 1 if better else 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_contribution_is_the_area_that_is_lost_without_the_point(seed):
    points = some_points(9, seed)
    front = [p for p, rank in zip(points, pareto_ranks(points), strict=True) if rank == 0]
    for place, area in enumerate(contributions(front, CORNER)):
        without = front[:place] + front[place + 1 :]
        assert area == pytest.approx(covered(front) - covered(without))


def test_the_best_come_first_and_what_is_of_no_use_last():
    points = [
        TradeOff(0.3, 0.05),  # too inaccurate, though nothing dominates it
        TradeOff(0.9, 0.5),
        TradeOff(0.89, 0.5),  # the second front
        TradeOff(0.7, 0.2),
        TradeOff(0.91, 0.9),
        TradeOff(0.4, 0.9),
    ]
    order = best_first(points, TradeOff(0.5, 1.0))
    assert order[:3] == [1, 3, 4]
    assert order[3:] == [2, 5, 0]
    assert best_first([], CORNER) == []
