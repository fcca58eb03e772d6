"""Where the states of a purification stand on the axis, and what is written along it."""

import pytest

from lit_purify.figures.chain_axis import finish_chain_axis, step_ticks, way_travelled
from lit_purify.figures.style import new_figure

UP, DOWN = "forward: noise is added", "reverse: noise is removed"


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
    places, _ = way_travelled([8, 4, 0])
    assert step_ticks(places, [8, 4, 0], parts=4) == (
        [0, 2, 4, 6, 8],
        ["8", "6", "4", "2", "0"],
    )


@pytest.mark.parametrize(
    ("steps", "names", "ticks"),
    [
        ([0, 10, 0], [(UP, 5), (DOWN, 15)], ["0", "5", "10", "5", "0"]),
        ([10, 5, 0], [(DOWN, 5)], ["10", "5", "0"]),  # a half without extent has no name
        ([0, 0], [(DOWN, 0.5)], ["input", "output"]),
        ([0, 10, 5, 0, 20, 0], [], ["0", "10", "0", "20", "0"]),  # two rounds
    ],
)
def test_what_is_written_along_it(steps, names, ticks):
    with new_figure(4, 2) as figure:
        axes = figure.subplots()
        finish_chain_axis(axes, steps, parts=2)
    assert [(text.get_text(), text.get_position()[0]) for text in axes.texts] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks
