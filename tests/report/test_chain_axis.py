"""Where the states of a purification stand on the axis, and what is written along it."""

import pytest

from lit_purify.report.canvas import new_figure
from lit_purify.report.chain_axis import draw_halves, step_ticks, way_travelled


@pytest.mark.parametrize(
    ("steps", "places", "turn"),
    [
        ([0, 5, 10, 5, 0], [0, 5, 10, 15, 20], 2),
        ([0, 10, 5, 0], [0, 10, 15, 20], 1),
        ([10, 5, 0], [0, 5, 10], 0),  # reverse only
        ([0, 0], [0, 1], 0),  # a purifier without steps
    ],
)
def test_the_way_travelled(steps, places, turn):
    assert way_travelled(steps) == (places, turn)


def test_ticks_of_halves_that_have_an_extent():
    places, turn = way_travelled([8, 4, 0])
    assert step_ticks(places, [8, 4, 0], turn, parts=4) == (
        [0, 2, 4, 6, 8],
        ["8", "6", "4", "2", "0"],
    )


def test_a_half_without_extent_has_no_name():
    axes = new_figure(2, 2).subplots()
    draw_halves(axes, 0, 10, 20, ("up", "down"))
    draw_halves(axes, 0, 0, 10, ("nothing", "all"))
    found = [(text.get_text(), text.get_position()[0]) for text in axes.texts]
    assert found == [("up", 5), ("down", 15), ("all", 5)]
