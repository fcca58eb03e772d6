"""Mean distance to the clean image along forward noising and reverse denoising (Fig. 1c, S1-S3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lit_purify.figures.chain_axis import finish_chain_axis, way_travelled
from lit_purify.figures.style import Look, curve_look, draw_band, new_figure
from lit_purify.paper import PaperDistances

if TYPE_CHECKING:  # reports are drawn without PyTorch
    from torch import Tensor

_NORMS = (
    "l2 distance to the clean image\n(pixels in [0, 1])",
    "largest pixel difference (l_inf)\n(pixels in [0, 1])",
)
_CROSS: Look = {"marker": "x", "markersize": 7, "markeredgewidth": 1.6, "linestyle": "none"}


class Curve(NamedTuple):
    """The trajectories of one kind of input.

    Attributes:
        label: such as "attack" or "uniform 8/255".
        distances: l2 and l_inf of every image at every state, shape (N, 2, S).
        paper: the paper's means, where it has any.
    """

    label: str
    distances: Tensor
    paper: PaperDistances | None = None


def distance_figure(curves: Sequence[Curve], steps: Sequence[int]) -> Figure:
    """Mean distances with a band of one standard deviation, l2 beside l_inf.

    The paper's means, where known, are crosses at the input, at t* and at the output.

    Args:
        curves: one or more, of the same number of states.
        steps: the t of each state: up to t* and down again, such as 0, 1, ..., 100, 99, ..., 0. A
            reverse-only trajectory begins at t*.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no curve, no images, or a curve of another length than ``steps``.

    Example:
        >>> import torch
        >>> figure = distance_figure([Curve("attack", torch.rand(5, 2, 5))], [0, 5, 10, 5, 0])
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['diffusion step t', 'diffusion step t']
    """
    if not curves:
        raise ValueError("expected one or more curves, got none")
    for curve in curves:
        shape = tuple(curve.distances.shape)
        if len(shape) != 3 or shape[0] == 0 or shape[1:] != (2, len(steps)):
            raise ValueError(
                f"{curve.label!r} has distances of shape {shape}; expected (N, 2, {len(steps)})"
            )
    with new_figure(11, 4.6) as figure:
        panels = figure.subplots(1, 2)
        for row, (axes, label) in enumerate(zip(panels, _NORMS, strict=True)):
            for number, curve in enumerate(curves):
                _draw(axes, curve, steps, row, curve_look(number, len(curves), len(steps)))
            axes.set_ylim(bottom=0)
            axes.set_ylabel(label)
            finish_chain_axis(axes, steps, parts=2)
        handles, labels = panels[0].get_legend_handles_labels()
        if any(curve.paper for curve in curves):
            handles.append(Line2D([], [], color="0.2", **_CROSS))
            labels.append("paper's means (CIFAR-10, 100 steps)")
        title = (
            f"l2 of the input → largest → output; mean of {len(curves[0].distances)} images, band: "
            "one standard deviation"
        )
        figure.legend(handles, labels, loc="outside lower center", ncols=3, title=title)
    return figure


def _draw(axes: Axes, curve: Curve, steps: Sequence[int], row: int, look: Look) -> None:
    places, turn = way_travelled(steps)
    values = curve.distances[:, row].double()
    mean = values.mean(0)
    spread = values.std(0) if len(values) > 1 else 0 * mean
    highest = values.amax(1).mean()
    draw_band(axes, places, mean - spread, mean + spread, color=look["color"])
    # The first, which others lie on, shows on both sides of them.
    look["linewidth"] = 3.2 if look["color"] == "black" else 1.4
    label = f"{curve.label} ({mean[0]:.2f} → {highest:.2f} → {mean[-1]:.2f})"
    axes.plot(places, mean, label=label, **look)
    for place, value in zip((0, turn, -1), curve.paper[row] if curve.paper else (), strict=False):
        if value is not None:
            axes.plot(places[place], value, color=look["color"], clip_on=False, zorder=4, **_CROSS)
