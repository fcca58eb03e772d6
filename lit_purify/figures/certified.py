"""Certified accuracy against the radius (Cohen et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lit_purify.figures.style import BLUE, MUTED, Look, draw_band, draw_estimate, new_figure
from lit_purify.statistics import wilson_interval
from lit_purify.types import Estimate


def certified_figure(
    radii: Sequence[float],
    *,
    largest: float,
    sigma: float,
    n: int,
    named: Mapping[float, Estimate] | None = None,
) -> Figure:
    """Share of the images that are right, and certified so, within every radius.

    The curve falls by one image at the radius of each. It ends at the largest radius that so many
    answers can certify, which is no property of the defence.

    Args:
        radii: l2 radius of every image, [0, 1] scale; nan where it is wrong or without one.
        largest: radius of an image for which all n answers agree.
        sigma: standard deviation of the noise.
        n: answers that were counted for each image.
        named: radius -> the accuracy that the run reports there; none is shown beyond ``largest``.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no images.

    Example:
        >>> figure = certified_figure([0.2, 0.5, math.nan], largest=0.5, sigma=0.25, n=100)
        >>> figure.axes[0].get_ylabel()
        'certified accuracy (%)'
    """
    if not radii:
        raise ValueError("expected radii of images, one or more, got none")
    size = len(radii)
    shown = {radius: share for radius, share in (named or {}).items() if radius <= largest}
    known = sorted(radius for radius in radii if math.isfinite(radius))
    places = [0.0, *known, 1.1 * largest]
    standing = [*range(len(known), -1, -1), 0]  # from each place to the next
    value, low, high = 100 * np.array([(k / size, *wilson_interval(k, size)) for k in standing]).T
    with new_figure(5.4, 3.8) as figure:
        axes = figure.subplots()
        line: Look = {"color": "black", "where": "post", "clip_on": False}
        axes.step(places, value, label=f"sigma {sigma:.3g}, {size} images", **line)
        draw_band(axes, places, low, high, step="post", label="95 % interval over images")
        for number, (radius, share) in enumerate(sorted(shown.items())):
            label = "_" if number else "radii in the table"
            place, mark = Estimate(radius, radius, radius), {"marker": "s", "clip_on": False}
            draw_estimate(axes, place, share, color=BLUE, label=label, **mark)
        label = f"most that {n} answers can certify"
        axes.axvline(largest, color=MUTED, linestyle=":", linewidth=0.8, label=label)
        axes.set_xlim(0, places[-1])
        axes.set_ylim(0, 102)
        axes.set_xlabel("l2 radius (pixels in [0, 1])")
        axes.set_ylabel("certified accuracy (%)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure
