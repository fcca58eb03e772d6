"""Robust accuracy of the classifier alone against the budget, and of purified ones (Fig. 3c)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from lit_purify.figures.style import (
    MUTED,
    VERMILLION,
    Look,
    draw_band,
    draw_estimate,
    new_figure,
    write,
)
from lit_purify.paper import paper_fit
from lit_purify.types import Estimate

_SAMPLES = 101  # of the sigmoid, enough to look smooth
_NAMED = 6  # points that can have their names beside them before these cover one another
_LOW = 0.1  # accuracy below which there is no room for a name under the point


class CurvePoint(NamedTuple):
    """Robust accuracy at one rate.

    Attributes:
        rate: share alpha of the budget that reaches the classifier, at least 0.
        accuracy: share of images still classified correctly, in [0, 1].
        label: written beside the point, where there are few.
    """

    rate: float
    accuracy: Estimate
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
        A matplotlib figure.

    Raises:
        ValueError: no curve, or no budget.

    Example:
        >>> all_of_it, nothing = Estimate(0.9, 0.8, 0.95), Estimate(0, 0, 0.05)
        >>> points = [CurvePoint(0, all_of_it), CurvePoint(1, nothing)]
        >>> base_curve_figure(points, eps=8 / 255).axes[0].get_xlabel()
        'l_inf budget on the classifier alone, eps × alpha (1/255)'
    """
    if not curve or not eps > 0:
        raise ValueError(f"expected points and a budget above 0, got {len(curve)} and eps {eps}")
    norm, of, scale = f"l{p:g}", "pixels in [0, 1]", eps
    if p == math.inf:
        norm, of, scale = "l_inf", "1/255", 255 * eps
    curve, measured = sorted(curve), sorted(measured)
    widest = max(point.rate for point in (*curve, *measured)) or 1.0
    with new_figure(7, 4.8) as figure:
        axes = figure.subplots()
        places = [point.rate * scale for point in curve]
        value, low, high = (100 * np.array([point.accuracy for point in curve])).T
        line: Look = {"color": "black", "marker": "o", "markerfacecolor": "black", "clip_on": False}
        axes.plot(places, value, label="classifier alone, budget eps × alpha", **line)
        draw_band(axes, places, low, high, label="... its 95 % interval")
        rates = np.linspace(0, widest, _SAMPLES)
        line = {"color": MUTED, "linestyle": "--", "linewidth": 0.8}
        label = "purified, budget eps: sigmoid of the paper's Fig. 3b"
        axes.plot(scale * rates, 100 * paper_fit()(rates), label=label, **line)
        for number, point in enumerate(measured):
            place = point.rate * scale
            label = "_" if number else "purified, budget eps: measured (95 % interval)"
            mark = {"color": VERMILLION, "marker": "s", "label": label}
            draw_estimate(axes, Estimate(place, place, place), point.accuracy, **mark)
            if len(measured) <= _NAMED:
                # Neighbours have theirs on either side, so that they can be told apart.
                offset = 5 if number % 2 == 0 or point.accuracy.value < _LOW else -10
                write(axes, point.label, (place, 100 * point.accuracy.value), offset=(5, offset))
        axes.set_xlim(0, 1.02 * widest * scale)
        axes.set_ylim(0, 102)
        axes.set_xlabel(f"{norm} budget on the classifier alone, eps × alpha ({of})")
        axes.set_ylabel("robust accuracy (%)")
        to_rate, to_budget = partial(np.multiply, 1 / scale), partial(np.multiply, scale)
        top = axes.secondary_xaxis("top", functions=(to_rate, to_budget))
        top.set_xlabel("compression rate alpha")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure
