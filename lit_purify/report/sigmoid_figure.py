"""Accuracy against the compression rate (Fig. 3b), and against the size of the attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lit_purify.functional import SigmoidFit
from lit_purify.records.runs import Estimate
from lit_purify.report.canvas import new_figure
from lit_purify.report.paper_points import PaperPoint

# Told apart by shape, so colour (Okabe and Ito's) is only a help.
_MARKERS = {"DDPM": ("o", "#0072b2"), "Reverse": ("s", "#d55e00"), "DDIM": ("^", "#009e73")}
_OTHER = ("D", "#000000")
Mark = dict[str, Any]
"""How a point or a line is drawn, in matplotlib's words."""

_SAMPLES = 300  # of a curve
_LEAST_WIDTH = 0.3  # of the rate axis, to show the law's slope


class MeasuredPoint(NamedTuple):
    """A run in the plane.

    Attributes:
        method: ``DDPM``, ``Reverse``, ``DDIM`` or another name.
        t_star: diffusion depth, written beside the point; ``None`` where there is none.
        x: compression rate, or size of the attack.
        robust: robust accuracy under fixed noise, as shares; ``None`` where it was not attacked.
        clean: purified clean accuracy, as shares; ``None`` if unknown.
    """

    method: str
    t_star: int | None
    x: Estimate
    robust: Estimate | None
    clean: Estimate | None = None


class Law(NamedTuple):
    """The paper's points and the curve through those it is fitted to."""

    points: Sequence[PaperPoint]
    fit: SigmoidFit


def sigmoid_figure(
    measured: Sequence[MeasuredPoint],
    fit: SigmoidFit | None = None,
    *,
    paper: Law | None = None,
    base_clean: float | None = None,
    quantity: str = "compression rate of uniform perturbations",
) -> Figure:
    """Robust accuracy against the compression rate, with the sigmoid law (Fig. 3b).

    Full marks are measured under attack, half-full ones on clean images, with both 95 % intervals;
    hollow grey ones are the paper's, of the same shape for the same method. Numbers are t*.

    Args:
        measured: the runs; may be empty.
        fit: the curve through the attacked ones, drawn with its 95 % band; ``None`` for none.
        paper: the paper's points and curve (dashed); ``None`` leaves them out.
        base_clean: clean accuracy of the classifier alone, as a share; drawn at rate 0, where the
            curve should end.
        quantity: name of the x axis, which has no unit.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.
    """
    figure = new_figure(8.5, 4.6)
    axes = figure.subplots()
    rates = [point.x.high for point in measured]
    if paper is not None:
        rates += [point.rate for point in paper.points]
    widest = 1.05 * max([*rates, _LEAST_WIDTH])
    legend = _draw_curves(axes, np.linspace(0, widest, _SAMPLES), fit, paper)
    if paper is not None:
        for point in paper.points:
            marker, _ = _MARKERS.get(point.method, _OTHER)
            axes.plot(point.rate, 100 * point.accuracy, marker, **_HOLLOW, zorder=3)
            if not point.used_in_fit:
                _label(axes, point.rate, point.accuracy, f"{point.t_star}, not fitted", "0.45")
    legend += _draw_measured(axes, measured)
    if base_clean is not None:
        star: Mark = {"marker": "*", "markersize": 10, "color": "black", "linestyle": "none"}
        axes.plot(0, 100 * base_clean, clip_on=False, zorder=5, **star)
        legend.append(Line2D([], [], label="measured: classifier alone, clean images", **star))
    _finish(axes, legend, quantity)
    axes.set_xlim(0, widest)
    return figure


def magnitude_figure(measured: Sequence[MeasuredPoint]) -> Figure:
    """Robust accuracy against the mean size of the attack, the alternative predictor of Table 6.

    Args:
        measured: runs with ``x`` the mean l2 norm of their attack's perturbations.

    Returns:
        A matplotlib figure.
    """
    figure = new_figure(7.0, 3.8)
    axes = figure.subplots()
    legend = _draw_measured(axes, [point._replace(clean=None) for point in measured])
    _finish(axes, legend, "mean l2 norm of the attack's perturbation (pixels in [0, 1])")
    return figure


_HOLLOW: Mark = {
    "markerfacecolor": "none",
    "markeredgecolor": "0.45",
    "color": "0.45",
    "markersize": 6,
    "linestyle": "none",
}


def _draw_curves(
    axes: Axes, rates: np.ndarray, fit: SigmoidFit | None, paper: Law | None
) -> list[Line2D]:
    legend: list[Line2D] = []
    if paper is not None:
        line: Mark = {"color": "0.45", "linestyle": "--", "linewidth": 1.1}
        axes.plot(rates, 100 * paper.fit(rates), **line)
        legend.append(Line2D([], [], label=f"paper: {_formula(paper.fit)}", **line))
        for method in dict.fromkeys(point.method for point in paper.points):
            marker, _ = _MARKERS.get(method, _OTHER)
            legend.append(Line2D([], [], marker=marker, label=f"paper: {method}", **_HOLLOW))
    if fit is not None:
        low, high = fit.band(rates)
        axes.fill_between(rates, 100 * low, 100 * high, color="0.85", linewidth=0, zorder=0)
        line = {"color": "black", "linestyle": "-", "linewidth": 1.4}
        axes.plot(rates, 100 * fit(rates), **line)
        legend.append(Line2D([], [], label=f"measured: {_formula(fit)}, 95 % band", **line))
    return legend


def _formula(fit: SigmoidFit) -> str:
    ceiling = f", A = {fit.ceiling:.3f}" if fit.parameters == 3 else ""
    return f"sigmoid, k = {fit.steepness:.2f}, m = {fit.middle:.3f}{ceiling}"


def _draw_measured(axes: Axes, measured: Sequence[MeasuredPoint]) -> list[Line2D]:
    legend: dict[str, Line2D] = {}
    for point in measured:
        marker, color = _MARKERS.get(point.method, _OTHER)
        if point.robust is not None:
            mark: Mark = {"marker": marker, "color": color, "markersize": 5.5, "linestyle": "none"}
            _draw_estimate(axes, point.x, point.robust, mark)
            name = f"measured: {point.method}, attacked"
            legend.setdefault(name, Line2D([], [], label=name, **mark))
        if point.clean is not None:
            mark = {"marker": marker, "color": color, "markersize": 5.5, "linestyle": "none"}
            mark |= {"fillstyle": "left", "markerfacecoloralt": "white"}
            _draw_estimate(axes, point.x, point.clean, mark)
            name = f"measured: {point.method}, clean images"
            legend.setdefault(name, Line2D([], [], label=name, **mark))
        top = point.robust or point.clean
        if top is not None and point.t_star is not None:
            _label(axes, point.x.value, top.value, str(point.t_star), "black")
    return list(legend.values())


def _label(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    axes.annotate(
        text, (x, 100 * y), xytext=(4, 3), textcoords="offset points", fontsize=6.5, color=color
    )


def _draw_estimate(axes: Axes, x: Estimate, y: Estimate, mark: Mark) -> None:
    # Rounding may put the end of an interval a hair inside of its value.
    spread = [
        [[scale * max(0.0, e.value - e.low)], [scale * max(0.0, e.high - e.value)]]
        for e, scale in ((x, 1), (y, 100))
    ]
    axes.errorbar(
        x.value,
        100 * y.value,
        xerr=spread[0],
        yerr=spread[1],
        elinewidth=0.8,
        capsize=1.5,
        zorder=4,
        **mark,
    )


def _finish(axes: Axes, legend: list[Line2D], quantity: str) -> None:
    axes.set_ylim(-2, 102)
    axes.set_xlabel(quantity, fontsize=9)
    axes.set_ylabel("accuracy (%)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.texts:
        legend = [*legend, Line2D([], [], linestyle="none", label="numbers: depth t*")]
    axes.legend(
        handles=legend, fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
    )
