"""Robust accuracy of the classifier alone against the budget, and of purified ones (Fig. 3c)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_purify.report.canvas import new_figure
from lit_purify.report.paper_points import paper_fit

_SAMPLES = 101  # of the sigmoid, enough to look smooth
_NAMED = 6  # points that can have their names beside them before these cover one another


class CurvePoint(NamedTuple):
    """Robust accuracy at one rate.

    Attributes:
        rate: share alpha of the budget that reaches the classifier, at least 0.
        accuracy: share of images still classified correctly, in [0, 1].
        low: lower end of its 95 % interval.
        high: upper end.
        label: written beside the point, where there are few.
    """

    rate: float
    accuracy: float
    low: float
    high: float
    label: str = ""


def base_curve_figure(
    curve: Sequence[CurvePoint],
    measured: Sequence[CurvePoint] = (),
    *,
    eps: float,
    p: float = math.inf,
) -> Figure:
    """The classifier alone under shrinking budgets, beside what purified classifiers keep.

    If purification protected by nothing but compression, a purified classifier of rate alpha would
    lie on the curve: it would keep what the classifier alone keeps under the budget eps times
    alpha.

    Args:
        curve: the classifier alone, attacked with the budget eps times rate; in any order.
        measured: purified classifiers, attacked with the whole budget, at their compression rates.
        eps: the whole budget, in the [0, 1] scale, above 0.
        p: norm of the budget; in l_inf the axis counts in grey levels, 1/255.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: no curve, or no budget.

    Example:
        >>> points = [CurvePoint(0, 0.9, 0.8, 0.95), CurvePoint(1, 0, 0, 0.05)]
        >>> base_curve_figure(points, eps=8 / 255).axes[0].get_xlabel()
        'l_inf budget on the classifier alone, eps × alpha (1/255)'
    """
    if not curve or not eps > 0:
        raise ValueError(f"expected points and a budget above 0, got {len(curve)} and eps {eps}")
    unit = 1 / 255 if p == math.inf else 1.0
    scale = eps / unit
    figure = new_figure(7, 4.8)
    axes = figure.subplots()
    _draw_curve(axes, sorted(curve), scale)
    widest = max(point.rate for point in (*curve, *measured)) or 1.0
    _draw_sigmoid(axes, widest, scale)
    _draw_measured(axes, sorted(measured), scale)
    axes.set_xlim(0, 1.02 * widest * scale)
    axes.set_ylim(0, 102)
    norm, of = ("l_inf", "1/255") if p == math.inf else (f"l{p:g}", "pixels in [0, 1]")
    axes.set_xlabel(f"{norm} budget on the classifier alone, eps × alpha ({of})", fontsize=9)
    axes.set_ylabel("robust accuracy (%)", fontsize=9)
    to_rate, to_budget = partial(np.multiply, 1 / scale), partial(np.multiply, scale)
    above = axes.secondary_xaxis("top", functions=(to_rate, to_budget))
    above.set_xlabel("compression rate alpha", fontsize=9)
    for each in (axes, above):
        each.tick_params(labelsize=8)
    axes.spines["right"].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def _draw_curve(axes: Axes, curve: list[CurvePoint], scale: float) -> None:
    places = [point.rate * scale for point in curve]
    axes.plot(
        places,
        [100 * point.accuracy for point in curve],
        color="black",
        marker="o",
        markersize=4,
        linewidth=1.4,
        clip_on=False,
        label="classifier alone, budget eps × alpha",
    )
    axes.fill_between(
        places,
        [100 * point.low for point in curve],
        [100 * point.high for point in curve],
        color="0.85",
        linewidth=0,
        label="... its 95 % interval",
    )


def _draw_sigmoid(axes: Axes, widest: float, scale: float) -> None:
    rates = np.linspace(0, widest, _SAMPLES)
    axes.plot(
        scale * rates,
        100 * paper_fit()(rates),
        color="0.35",
        linestyle="--",
        linewidth=0.8,
        label="purified, budget eps: sigmoid of the paper's Fig. 3b",
    )


def _draw_measured(axes: Axes, measured: list[CurvePoint], scale: float) -> None:
    if not measured:
        return
    axes.errorbar(
        [point.rate * scale for point in measured],
        [100 * point.accuracy for point in measured],
        # Rounding may put the end of an interval a hair inside of its value.
        yerr=[
            [100 * max(0.0, point.accuracy - point.low) for point in measured],
            [100 * max(0.0, point.high - point.accuracy) for point in measured],
        ],
        color="#d55e00",
        fmt="s",
        markersize=5,
        markerfacecolor="white",
        linewidth=1,
        capsize=2,
        zorder=3,
        label="purified, budget eps: measured (95 % interval)",
    )
    for number, point in enumerate(measured if len(measured) <= _NAMED else []):
        axes.annotate(
            point.label,
            (point.rate * scale, 100 * point.accuracy),
            # Neighbours have theirs on either side, so that they can be told apart.
            xytext=(5, 5 if number % 2 == 0 else -10),
            textcoords="offset points",
            fontsize=7,
        )
