"""The figure of accuracies by protocol."""

import itertools

from lit_purify.figures.protocols import Bar, protocols_figure
from lit_purify.types import Estimate


def test_long_names_stay_apart():
    bar = Bar(Estimate(0.5, 0.4, 0.6))
    names = [f"MyOwnPurifier(std=0.{n}, sigma=0.5)" for n in range(4)]
    bars = {"clean images": bar, "fixed noise": bar, "fresh noise": bar}
    figure = protocols_figure(dict.fromkeys(names, bars))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == 4
    assert all(one.x1 < two.x0 for one, two in itertools.pairwise(boxes))
