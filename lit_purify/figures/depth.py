"""Accuracy and compression rate against the diffusion depth (Table 7, Fig. S4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from lit_purify.figures.sigmoid import MARKS, OTHER_MARK, MeasuredPoint
from lit_purify.figures.style import Look, draw_estimate, new_figure
from lit_purify.paper import PAPER_POINTS, PaperPoint
from lit_purify.types import Estimate

_PAPER: Look = {"color": "0.6", "linestyle": ":", "markerfacecolor": "none", "linewidth": 0.9}


def depth_figure(points: Sequence[MeasuredPoint], *, paper: bool = False) -> Figure:
    """What becomes of clean accuracy, robust accuracy and compression as purification goes deeper.

    Args:
        points: runs whose ``x`` is their compression rate; those without a depth are left out.
        paper: draw the paper's values of Table 7 too, hollow and grey.

    Returns:
        A matplotlib figure; its panel of the robust accuracy is there if a point has one.
    """
    panels: dict[str, tuple[Callable[[MeasuredPoint], Estimate | None], float]] = {
        "compression rate": (lambda point: point.x, 1.0),
        "clean accuracy (%)": (lambda point: point.clean, 100.0),
        "robust accuracy, fixed noise (%)": (lambda point: point.robust, 100.0),
    }
    of_paper: dict[str, Callable[[PaperPoint], float]] = {
        "compression rate": lambda point: point.rate,
        "robust accuracy, fixed noise (%)": lambda point: 100 * point.accuracy,
    }
    shown = {
        name: panel for name, panel in panels.items() if any(panel[0](point) for point in points)
    }
    methods = list(dict.fromkeys(point.method for point in points if point.t_star))
    with new_figure(3.2 * len(shown), 3.2) as figure:
        grid = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, (name, (value, scale)) in zip(grid, shown.items(), strict=True):
            if paper and name in of_paper:
                _draw_paper(axes, of_paper[name])
            for method in methods:
                _draw_method(axes, method, points, value, scale)
            axes.set_xscale("log")
            axes.set_xticks(_ticks(points))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.minorticks_off()
            axes.set_xlabel("depth t*")
            axes.set_ylabel(name)
            axes.set_ylim(bottom=0)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _ticks(points: Sequence[MeasuredPoint]) -> list[int]:
    """Depths to name: those that have room on a logarithmic axis."""
    ticks: list[int] = []
    for depth in sorted({point.t_star for point in points if point.t_star}):
        if not ticks or depth > 1.4 * ticks[-1]:
            ticks.append(depth)
    return ticks


def _draw_method(
    axes: Axes,
    method: str,
    points: Sequence[MeasuredPoint],
    value: Callable[[MeasuredPoint], Estimate | None],
    scale: float,
) -> None:
    marker, color = MARKS.get(method, OTHER_MARK)
    found = sorted(
        (point.t_star, estimate)
        for point in points
        if point.method == method and point.t_star and (estimate := value(point)) is not None
    )
    for t_star, estimate in found:
        share = Estimate(*(number * scale / 100 for number in estimate))
        place = Estimate(t_star, t_star, t_star)
        draw_estimate(axes, place, share, color=color, marker=marker, markerfacecolor=color)
    depths, values = [t for t, _ in found], [scale * estimate.value for _, estimate in found]
    axes.plot(depths, values, color=color, marker=marker, markerfacecolor=color, label=method)


def _draw_paper(axes: Axes, value: Callable[[PaperPoint], float]) -> None:
    for method, (marker, _) in MARKS.items():
        found = sorted((p.t_star, value(p)) for p in PAPER_POINTS if p.method == method)
        if len(found) > 1:
            look = _PAPER | {"marker": marker, "label": f"paper: {method}"}
            axes.plot(*zip(*found, strict=True), **look)
