"""Where the curve of certified accuracy falls."""

import math

import numpy as np

from lit_purify.figures import certified_figure
from lit_purify.types import Estimate


def test_it_falls_by_one_image_at_the_radius_of_each():
    named = {
        0.0: Estimate(0.75, 0.3, 0.95),
        0.25: Estimate(0.5, 0.2, 0.8),
        0.75: Estimate(0, 0, 0.4),
    }
    figure = certified_figure([0.5, math.nan, 0.1, 0.3], largest=0.5, sigma=0.25, n=9, named=named)
    (axes,) = figure.axes
    curve, *marks, limit = axes.lines
    assert np.allclose(curve.get_xdata(), [0, 0.1, 0.3, 0.5, 0.55])
    assert np.allclose(curve.get_ydata(), [75, 50, 25, 0, 0])
    assert curve.get_drawstyle() == "steps-post"
    points = [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks if m.get_marker() == "s"]
    assert points == [(0, 75), (0.25, 50)]
    assert list(limit.get_xdata()) == [0.5, 0.5]
    assert "9 answers" in str(limit.get_label())
