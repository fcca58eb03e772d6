"""Areas against counting, and the order on points whose answer is known."""

import itertools
import random

import pytest

from lit_purify.functional.pareto import TradeOff, best_first, dominated_area

CORNER = TradeOff(0.25, 0.875)


def some_points(n, seed):
    """On a grid, so that coordinates repeat."""
    rng = random.Random(seed)
    return [TradeOff(rng.randrange(9) / 8, rng.randrange(9) / 8) for _ in range(n)]


def counted(points):
    """The area in cells of 1/8 by 1/8."""
    cells = itertools.product(range(2, 8), range(7))
    return sum(any(p.gain > a / 8 and p.cost < (b + 1) / 8 for p in points) for a, b in cells) / 64


@pytest.mark.parametrize("seed", range(20))
def test_the_area_is_what_the_points_are_better_than(seed):
    for n in (0, 1, 4, 9):
        points = some_points(n, seed)
        assert dominated_area(points, CORNER) == counted(points)


@pytest.mark.parametrize("seed", range(20))
def test_dominated_points_come_after_those_that_dominate_them(seed):
    points = some_points(9, seed)
    order = best_first(points, CORNER)
    assert sorted(order) == list(range(9))
    for i, j in itertools.permutations(range(9), 2):
        better = points[i].gain >= points[j].gain and points[i].cost <= points[j].cost
        inside = points[j].gain > CORNER.gain and points[j].cost < CORNER.cost
        if better and inside and points[i] != points[j]:
            assert order.index(i) < order.index(j)


def test_the_best_come_first_and_what_is_of_no_use_last():
    points = [
        TradeOff(0.3, 0.05),  # too inaccurate, though nothing dominates it
        TradeOff(0.9, 0.5),
        TradeOff(0.89, 0.5),  # dominated
        TradeOff(0.7, 0.2),
        TradeOff(0.9, 0.5),  # an equal: it adds nothing
        TradeOff(0.4, 0.9),
        TradeOff(0.8, 0.45),
    ]
    assert best_first(points, TradeOff(0.5, 1.0)) == [1, 3, 6, 4, 2, 5, 0]
    assert best_first([], CORNER) == []
