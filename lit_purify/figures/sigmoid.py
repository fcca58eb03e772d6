"""Accuracy against the compression rate (Fig. 3b), and against the size of the attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_purify.figures.style import (
    BLUE,
    GREEN,
    VERMILLION,
    Look,
    draw_band,
    draw_estimate,
    new_figure,
    write,
)
from lit_purify.paper import PAPER_POINTS
from lit_purify.statistics import SigmoidFit
from lit_purify.types import Estimate

# Told apart by shape, so that colour is only a help.
MARKS = {"DDPM": ("o", BLUE), "Reverse": ("s", VERMILLION), "DDIM": ("^", GREEN)}
OTHER_MARK = ("D", "black")
"""Marker and colour of the paper's methods, and of any other."""
_SIZE = 5.5  # of a mark
_PAPER: Look = {"color": "0.45", "markeredgecolor": "0.45", "markerfacecolor": "none"}

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


def sigmoid_figure(
    measured: Sequence[MeasuredPoint],
    fit: SigmoidFit | None = None,
    *,
    paper: SigmoidFit | None = None,
    base_clean: float | None = None,
    quantity: str = "compression rate of uniform perturbations",
    accuracy: str = "accuracy (%)",
) -> Figure:
    """Robust accuracy against the compression rate, with the sigmoid law (Fig. 3b).

    Full marks are measured under attack, half-full ones on clean images, with both 95 % intervals;
    hollow grey ones are the paper's, of the same shape for the same method. Numbers are t*.

    Args:
        measured: the runs; may be empty.
        fit: the curve through the attacked ones, drawn with its 95 % band; ``None`` for none.
        paper: the curve through the paper's points (dashed), drawn with them; ``None`` leaves both
            out.
        base_clean: clean accuracy of the classifier alone, as a share; drawn at rate 0, where the
            curve should end.
        quantity: name of the x axis, which has no unit.
        accuracy: name of the y axis.

    Returns:
        A matplotlib figure.
    """
    rates = [point.x.high for point in measured]
    if paper is not None:
        rates += [point.rate for point in PAPER_POINTS]
    widest = 1.05 * max([*rates, _LEAST_WIDTH])
    rate = np.linspace(0, widest, _SAMPLES)
    with new_figure(8.5, 4.6) as figure:
        axes = figure.subplots()
        if paper is not None:
            _draw_paper(axes, rate, paper)
        if fit is not None:
            draw_band(axes, rate, *(100 * edge for edge in fit.band(rate)), zorder=0)
            label = f"measured: {_formula(fit)}, 95 % band"
            axes.plot(rate, 100 * fit(rate), color="black", label=label)
        if base_clean is not None:
            star: Look = {"marker": "*", "markersize": 10, "markerfacecolor": "black"}
            label = "measured: classifier alone, clean images"
            look: Look = {"color": "black", "linestyle": "none", "clip_on": False, "zorder": 5}
            axes.plot(0, 100 * base_clean, label=label, **star, **look)
        _draw_measured(axes, measured)
        _finish(axes, quantity, accuracy)
        axes.set_xlim(0, widest)
    return figure


def magnitude_figure(measured: Sequence[MeasuredPoint]) -> Figure:
    """Robust accuracy against the mean size of the attack, the alternative predictor of Table 6.

    Args:
        measured: runs with ``x`` the mean l2 norm of their attack's perturbations.

    Returns:
        A matplotlib figure.
    """
    with new_figure(7.0, 3.8) as figure:
        axes = figure.subplots()
        _draw_measured(axes, [point._replace(clean=None) for point in measured])
        _finish(axes, "mean l2 norm of the attack's perturbation (pixels in [0, 1])")
    return figure


def _draw_paper(axes: Axes, rate: np.ndarray, fit: SigmoidFit) -> None:
    label = f"paper: {_formula(fit)}"
    axes.plot(rate, 100 * fit(rate), color="0.45", linestyle="--", linewidth=1.1, label=label)
    for point in PAPER_POINTS:
        look = _PAPER | {"marker": MARKS[point.method][0], "markersize": _SIZE}
        label = _once(axes, f"paper: {point.method}")
        axes.plot(point.rate, 100 * point.accuracy, linestyle="none", zorder=3, label=label, **look)
        if not point.used_in_fit:
            place = point.rate, 100 * point.accuracy
            text = f"{point.t_star}, not fitted"
            write(axes, text, place, offset=(5, -9), color="0.45")


def _formula(fit: SigmoidFit) -> str:
    ceiling = f", A = {fit.ceiling:.3f}" if fit.parameters == 3 else ""
    return f"sigmoid, k = {fit.steepness:.2f}, m = {fit.middle:.3f}{ceiling}"


def _draw_measured(axes: Axes, measured: Sequence[MeasuredPoint]) -> None:
    for point in measured:
        marker, color = MARKS.get(point.method, OTHER_MARK)
        mark: Look = {"marker": marker, "markersize": _SIZE, "markerfacecolor": color}
        kinds = ("attacked", point.robust, "full"), ("clean images", point.clean, "left")
        for kind, share, fill in kinds:
            if share is not None:
                label = _once(axes, f"measured: {point.method}, {kind}")
                look = mark | {"fillstyle": fill, "label": label}
                draw_estimate(axes, point.x, share, color=color, **look)
        top = point.robust or point.clean
        if top is not None and point.t_star is not None:
            write(axes, str(point.t_star), (point.x.value, 100 * top.value), offset=(4, 3))


def _once(axes: Axes, label: str) -> str:
    """The label where it is new, and else one that the legend leaves out."""
    return f"_{label}" if label in axes.get_legend_handles_labels()[1] else label


def _finish(axes: Axes, quantity: str, accuracy: str = "accuracy (%)") -> None:
    axes.set_ylim(-2, 102)
    axes.set_xlabel(quantity)
    axes.set_ylabel(accuracy)
    axes.grid(color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    marks, labels = axes.get_legend_handles_labels()
    place: Look = {"loc": "upper left", "bbox_to_anchor": (1, 1), "alignment": "left"}
    axes.legend(marks, labels, title="numbers: depth t*" if axes.texts else None, **place)
