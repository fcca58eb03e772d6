"""The law at several budgets, and over budget times compression rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_purify.figures.sigmoid import MARKS, OTHER_MARK, MeasuredPoint
from lit_purify.figures.style import Look, curve_look, draw_band, draw_estimate, new_figure
from lit_purify.statistics import SigmoidFit
from lit_purify.types import Estimate

_SAMPLES = 200  # of a curve


def budgets_figure(
    measured: Mapping[float, Sequence[MeasuredPoint]],
    fits: Mapping[float, SigmoidFit],
    together: SigmoidFit | None,
    *,
    quantity: str = "compression rate of uniform perturbations",
    accuracy: str = "robust accuracy (%)",
) -> Figure:
    """Robust accuracy against the compression rate at every budget, and against their product.

    If nothing but the size of what reaches the classifier mattered, all points would lie on one
    curve on the right.

    Args:
        measured: budget in 1/255 -> the runs attacked with it; their ``x`` is the rate.
        fits: budget -> the sigmoid through its runs, where there is one.
        together: the sigmoid through all of them over budget times rate; ``None`` for none.
        quantity: name of the rate.
        accuracy: name of the y axis.

    Returns:
        A matplotlib figure. Colour and line tell the budget, the mark the method.
    """
    with new_figure(9.5, 4.0) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for number, (eps, points) in enumerate(sorted(measured.items())):
            look = curve_look(number, len(measured), _SAMPLES)
            _draw_points(left, points, 1.0, look["color"])
            _draw_points(right, points, eps, look["color"])
            label = f"eps {eps:g}/255"
            rates = np.linspace(0, 1.05 * max(point.x.high for point in points), _SAMPLES)
            line: Look = {"color": look["color"], "linestyle": look["linestyle"], "marker": ""}
            if (fit := fits.get(eps)) is not None:
                label += (
                    f": k = {fit.steepness:.2f}, m = {fit.middle:.3f}, R2 = {fit.r_squared:.3f}"
                )
                left.plot(rates, 100 * fit(rates), label=label, **line)
            else:
                left.plot([], [], label=f"{label}: no curve", **line)
        if together is not None:
            widest = max(eps * point.x.high for eps, points in measured.items() for point in points)
            budget = np.linspace(0, 1.05 * widest, _SAMPLES)
            draw_band(right, budget, *(100 * edge for edge in together.band(budget)), zorder=0)
            right.plot(
                budget,
                100 * together(budget),
                color="black",
                label=f"all: m = {together.middle:.3f}/255, R2 = {together.r_squared:.3f}",
            )
        for method in dict.fromkeys(p.method for points in measured.values() for p in points):
            marker, _ = MARKS.get(method, OTHER_MARK)
            mark: Look = {"marker": marker, "color": "black", "markerfacecolor": "none"}
            right.plot([], [], label=method, linestyle="none", **mark)
        for axes in (left, right):
            axes.set_ylim(-2, 102)
            axes.set_xlim(left=0)
            axes.grid(color="0.93", linewidth=0.6)
            axes.set_axisbelow(True)
            if axes.get_legend_handles_labels()[1]:
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
        left.set_xlabel(quantity)
        right.set_xlabel("eps × rate (1/255)")
        for axes in (left, right):
            axes.set_ylabel(accuracy)
    return figure


def _draw_points(axes: Axes, points: Sequence[MeasuredPoint], scale: float, color: str) -> None:
    for point in points:
        if point.robust is not None:
            marker, _ = MARKS.get(point.method, OTHER_MARK)
            place = Estimate(*(scale * number for number in point.x))
            look: Look = {"color": color, "marker": marker, "markerfacecolor": color}
            draw_estimate(axes, place, point.robust, **look)
