"""Where the points of the base classifier and of purified ones stand."""

import math

import numpy as np
import pytest

from lit_purify.figures import CurvePoint, base_curve_figure
from lit_purify.types import Estimate

CURVE = [
    CurvePoint(rate, Estimate(1 - rate, 0.9 - 0.9 * rate, 1 - 0.9 * rate)) for rate in (1, 0, 0.5)
]


@pytest.mark.parametrize(
    ("eps", "p", "name", "places"),
    [(8 / 255, math.inf, "l_inf", [0, 4, 8]), (0.5, 2, "l2", [0, 0.25, 0.5])],
)
def test_axes_and_points(eps, p, name, places):
    measured = [CurvePoint(0.25, Estimate(0.5, 0.4, 0.6), "DDPM t* = 100")]
    (axes,) = base_curve_figure(CURVE, measured, eps=eps, p=p).axes
    assert name in axes.get_xlabel()
    alone, point = axes.lines[0], axes.lines[-1]
    assert np.allclose(alone.get_xdata(), places)
    assert np.allclose(alone.get_ydata(), [100, 50, 0])
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((places[1] / 2, 50))
    (bars,) = axes.containers
    (ends,) = bars.lines[2][1].get_segments()
    assert ends[:, 1] == pytest.approx([40, 60])
    assert [text.get_text() for text in axes.texts] == ["DDPM t* = 100"]
    (above,) = axes.child_axes
    assert axes.get_xlim() == pytest.approx((0, 1.02 * places[-1]))
    above.figure.canvas.draw()
    assert above.get_xlim() == pytest.approx((0, 1.02))


def test_the_papers_sigmoid():
    (axes,) = base_curve_figure(CURVE, eps=8 / 255).axes
    (line,) = [line for line in axes.lines if "paper" in str(line.get_label())]
    assert line.get_linestyle() == "--"
    x, y = np.asarray(line.get_xdata()) / 8, np.asarray(line.get_ydata())
    # Its value at 0 is the paper's clean accuracy; points of its Tables 6 and 7.
    assert y[0] == pytest.approx(94.5, abs=0.05)
    for rate, accuracy in {0.231: 23.7, 0.195: 34.9, 0.281: 10.9, 0.174: 46.5}.items():
        assert np.interp(rate, x, y) == pytest.approx(accuracy, abs=2.5)
