"""The one style of all figures, and the few things that several of them draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from lit_purify.types import Estimate

if TYPE_CHECKING:  # reports are drawn without PyTorch
    from torch import Tensor

Look = dict[str, Any]
"""How something is drawn, in matplotlib's words."""

STYLE: Look = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "font.size": 8,
    "axes.labelsize": 9,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "lines.markerfacecolor": "white",
    "errorbar.capsize": 2,
}
SMALL = 7
"""Font size of what is written inside the axes."""
BLUE, GREEN, ORANGE, VERMILLION = "#0072b2", "#009e73", "#e69f00", "#d55e00"
"""Of the palette of Okabe and Ito."""
MUTED = "0.35"
"""Grey of what stands behind the measured."""

# Told apart by line and marker, so that colour is only a help.
_CURVES = (
    ("black", "-", "o"),
    (BLUE, "--", "s"),
    ("#56b4e9", "-.", "^"),
    (GREEN, ":", "D"),
    (ORANGE, (0, (5, 1, 1, 1, 1, 1)), "v"),
    (VERMILLION, (0, (8, 2)), "P"),
)
_MARKERS = 8  # per curve
_HALO = [withStroke(linewidth=2, foreground="white")]


@contextmanager
def new_figure(width: float, height: float, *, layout: str = "compressed") -> Iterator[Figure]:
    """An empty figure that can be saved or shown without a display; in the block, drawn in style.

    Args:
        width: in inches.
        height: in inches.
        layout: matplotlib's layout engine.
    """
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]
        FigureCanvasAgg(figure)
        yield figure
        for axes in figure.axes:
            for each in (axes, *axes.child_axes):  # ticks come later, when the style is left
                each.tick_params(labelsize=STYLE["font.size"])


def curve_look(number: int, of: int, points: int) -> Look:
    """How to draw one of several curves through so many points; their markers are staggered."""
    color, line, marker = _CURVES[number % len(_CURVES)]
    every = max(1, points // _MARKERS)
    return {
        "color": color,
        "linestyle": line,
        "marker": marker,
        "markevery": (number * every // of, every),
        "clip_on": False,
        "zorder": 3,
    }


def draw_band(axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, **look: Any) -> None:
    """Shade what lies between two curves."""
    shade: Look = {"color": "black", "alpha": 0.15, "linewidth": 0, **look}
    axes.fill_between(x, low, high, **shade)


def draw_estimate(axes: Axes, x: Estimate, share: Estimate, *, color: str, **look: Any) -> None:
    """Draw a share in percent against something, with both intervals."""
    y = Estimate(*(100 * number for number in share))
    # Rounding may put the end of an interval a hair inside of its value.
    xerr, yerr = (
        [[max(0.0, each.value - each.low)], [max(0.0, each.high - each.value)]] for each in (x, y)
    )
    axes.errorbar(x.value, y.value, yerr, xerr, fmt="none", ecolor=color, elinewidth=0.8)
    axes.plot(x.value, y.value, linestyle="none", zorder=4, color=color, **look)


def draw_image(axes: Axes, image: Tensor) -> None:
    """Show one image without ticks.

    Args:
        axes: where.
        image: shape (3, H, W), or (1, H, W) in grey; values outside [0, 1] are clipped, nan is
            black.
    """
    shown = image.detach().float().cpu().nan_to_num().clamp(0, 1).expand(3, -1, -1)
    pixels = shown.permute(1, 2, 0).numpy()
    axes.imshow(pixels)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, linewidth=0.5, color="0.6")


def draw_grid(
    figure: Figure, columns: Mapping[str, Sequence[Tensor] | Tensor], rows: Sequence[str]
) -> np.ndarray:
    """Images in columns under their titles, each row with its label; returns the axes.

    Args:
        figure: where.
        columns: title -> images of one size, as in :func:`draw_image`, one per row.
        rows: labels; none, or one per row.
    """
    count = len(next(iter(columns.values())))
    grid = figure.subplots(count, len(columns), squeeze=False)
    for place, (title, images) in enumerate(columns.items()):
        grid[0, place].set_title(title, wrap=True)
        for axes, image in zip(grid[:, place], images, strict=True):
            draw_image(axes, image)
    for axes, label in zip(grid[:, 0], rows, strict=False):
        size = STYLE["font.size"]
        axes.set_ylabel(label, fontsize=size, rotation=0, ha="right", va="center", labelpad=6)
    return np.asarray(grid)


def write(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    *,
    offset: tuple[float, float] = (0, 0),
    coordinates: Any = "data",
    **look: Any,
) -> None:
    """Write something small into the axes, legible on top of what is drawn there.

    Args:
        axes: where.
        text: what.
        place: the point that it belongs to.
        offset: from there, in points of 1/72 inch.
        coordinates: of the place; matplotlib's name of a system, or a transform.
        look: of the text.
    """
    small: Look = {"fontsize": SMALL, "zorder": 6, "path_effects": _HALO, **look}
    axes.annotate(text, place, offset, coordinates, "offset points", **small)


def leave_room(axes: Axes, share: float) -> None:
    """Raise the upper end of the y axis by a share of its length, on any scale."""
    transform = axes.yaxis.get_transform()
    low, high = transform.transform(np.array(axes.get_ylim()))
    axes.set_ylim(top=float(transform.inverted().transform(high + share * (high - low))))
