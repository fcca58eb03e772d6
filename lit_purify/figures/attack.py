"""Robust accuracy against the iterations of the attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_purify.figures.style import curve_look, draw_band, new_figure
from lit_purify.types import Estimate


def attack_figure(curves: Mapping[str, Sequence[Estimate]], images: int) -> Figure:
    """Robust accuracy iteration by iteration, with its interval.

    Args:
        curves: what was attacked -> share of the images in [0, 1] that are classified correctly at
            iteration 1, 2, ..., each before its step; at last of the images that were returned.
        images: how many there are.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no curve, or one without points.

    Example:
        >>> figure = attack_figure({"fixed": [Estimate(0.9, 0.8, 1), Estimate(0.5, 0.4, 0.6)]}, 60)
        >>> [text.get_text() for text in figure.axes[0].get_legend().texts]
        ['fixed: 50.0 % at last']
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"expected curves with points, got {dict(curves)}")
    longest = max(map(len, curves.values()))
    with new_figure(7, 3.8) as figure:
        axes = figure.subplots()
        for number, (name, points) in enumerate(curves.items()):
            look = curve_look(number, len(curves), len(points))
            iterations = range(1, len(points) + 1)
            value, low, high = (100 * np.array(points)).T
            axes.plot(iterations, value, label=f"{name}: {value[-1]:.1f} % at last", **look)
            draw_band(axes, iterations, low, high, color=look["color"])
        axes.set_xlim(1 - 0.02 * longest, 1.02 * longest)
        axes.set_ylim(0, 102)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("iteration of the attack, before its step; last, what it returns")
        axes.set_ylabel("robust accuracy (%)")
        title = f"{images} images, band: 95 % interval"
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, title=title)
    return figure
