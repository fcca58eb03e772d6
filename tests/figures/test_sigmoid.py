"""What the figures of the law show."""

import numpy as np
import pytest

from lit_purify.figures import MeasuredPoint, sigmoid_figure
from lit_purify.paper import PAPER_POINTS, paper_fit
from lit_purify.types import Estimate

MEASURED = [
    MeasuredPoint("DDPM", 50, Estimate(0.3, 0.28, 0.33), Estimate(0.1, 0.05, 0.2)),
    MeasuredPoint("Reverse", 200, Estimate(0.2, 0.19, 0.21), None, Estimate(0.8, 0.7, 0.85)),
    MeasuredPoint("Blur", None, Estimate(0.7, 0.6, 0.8), Estimate(0.0, 0.0, 0.04)),
]


def marks(axes):
    """Lines of one point."""
    return [
        line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() in "os^D*"
    ]


def test_the_papers_points_are_hollow_and_its_curve_dashed():
    (axes,) = sigmoid_figure([], paper=paper_fit()).axes
    hollow = marks(axes)
    assert {line.get_markerfacecolor() for line in hollow} == {"none"}
    found = [(line.get_xdata()[0], line.get_ydata()[0]) for line in hollow]
    assert np.allclose(found, [(point.rate, 100 * point.accuracy) for point in PAPER_POINTS])
    assert {line.get_marker() for line in hollow} == {"o", "s", "^"}
    (curve,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    rate = np.asarray(curve.get_xdata())
    assert np.allclose(curve.get_ydata(), 100 / (1 + np.exp(17.453 * (rate - 0.16292))), atol=0.01)
    assert [text.get_text() for text in axes.texts] == ["300, not fitted"]


def test_measured_points_have_both_intervals():
    (axes,) = sigmoid_figure(MEASURED).axes
    bars = [bar for container in axes.containers for bar in container.lines[2]]
    ends = [bar.get_segments()[0].tolist() for bar in bars]
    assert np.allclose(ends[0], [[0.28, 10], [0.33, 10]])
    assert np.allclose(ends[1], [[0.3, 5], [0.3, 20]])
    assert np.allclose(ends[3], [[0.2, 70], [0.2, 85]])
    looks = [(line.get_marker(), line.get_fillstyle()) for line in marks(axes)]
    assert looks == [("o", "full"), ("s", "left"), ("D", "full")]
    assert axes.get_xlim()[1] >= 0.8
    assert [text.get_text() for text in axes.texts] == ["50", "200"]


def test_the_own_curve_has_its_band():
    fit = paper_fit()
    (axes,) = sigmoid_figure(MEASURED, fit, base_clean=0.94).axes
    (band,) = axes.collections[:1]
    corners = band.get_paths()[0].vertices
    low, high = fit.band(0.0)
    at_zero = corners[corners[:, 0] == 0][:, 1]
    assert at_zero.min() == pytest.approx(100 * float(low))
    assert at_zero.max() == pytest.approx(100 * float(high))
    (star,) = [line for line in marks(axes) if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0, 94)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("k = 17.45, m = 0.163, 95 % band" in label for label in labels)
    assert len(labels) == len(set(labels))
