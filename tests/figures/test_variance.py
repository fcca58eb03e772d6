"""The figure of directions and centroids shows the numbers it is given."""

import pytest
from matplotlib.patches import Rectangle

from lit_purify.figures import variance_figure
from lit_purify.paper import PAPER_CENTROID

COLUMNS = {
    "direction/fixed_input": [0.2, 0.24, 0.31, None],
    "direction/fixed_noise": [0.91, 0.93, 0.95, 0.9],
    "centroid/l2_inputs": [1.0, 1.0, 1.0, 1.0],
    "centroid/l2_fixed_noise": [0.2, 0.3, 0.25, 0.25],
    "centroid/l2_fixed_input": [3.0, 3.5, None, 3.1],
    "centroid/l2_both": [3.1, 3.6, 3.2, 3.2],
}


def draw(columns=COLUMNS, *, paper=False):
    return variance_figure(columns, inputs=8, draws=8, paper=paper)


def bars(axes):
    return [p.get_height() for p in axes.patches if isinstance(p, Rectangle) and p.get_height()]


def test_bars_are_means_over_the_images_that_have_a_value():
    figure = draw()
    left, right = figure.axes
    assert bars(right) == pytest.approx([1.0, 0.25, 3.2, 3.275])
    assert sum(bars(left)) == 3 + 4
    for text, mean in zip(left.get_legend().get_texts(), ("0.25", "0.92"), strict=True):
        assert mean in text.get_text()
    assert "4 images" in figure.get_supxlabel()
    # Hatched or not: the histograms can be told without colour.
    assert len({patch.get_hatch() for patch in left.patches}) == 2


def test_the_papers_values_are_drawn_where_they_apply():
    for paper in (True, False):
        left, right = draw(paper=paper).axes
        assert [line.get_xdata()[0] for line in left.lines] == ([0.22, 0.93] if paper else [])
        marks = [list(line.get_ydata()) for line in right.lines if line.get_marker() == "D"]
        assert marks == ([list(PAPER_CENTROID.values())] if paper else [])


def test_negative_agreement_is_in_the_picture():
    left, _ = draw(COLUMNS | {"direction/fixed_input": [-0.4, 0.1]}).axes
    assert left.get_xlim()[0] < -0.4


def test_what_is_missing_is_left_out():
    _, right = draw({"centroid/l2_both": [2.0]}).axes
    assert bars(right) == [2.0]
    assert len(right.get_legend().get_texts()) == 1
