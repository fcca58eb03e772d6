"""Mean distance to the clean image along forward noising and reverse denoising (Fig. 1c, S1-S3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from lit_purify.report.canvas import new_figure
from lit_purify.report.chain_axis import draw_halves, step_ticks, way_travelled
from lit_purify.report.paper_distances import PaperDistances

# Told apart by line and marker, so colour (Okabe and Ito's) is only a help.
_STYLES = (
    ("#000000", "-", "o"),
    ("#0072b2", "--", "s"),
    ("#56b4e9", "-.", "^"),
    ("#009e73", ":", "D"),
    ("#e69f00", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("#d55e00", (0, (8, 2)), "P"),
)
_NORMS = {
    "l2": "l2 distance to the clean image\n(pixels in [0, 1])",
    "linf": "largest pixel difference (l_inf)\n(pixels in [0, 1])",
}
_MARKERS = 8  # per curve


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
        A matplotlib figure; ``figure.savefig(path)`` writes it.

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
    figure = new_figure(11, 4.6)
    panels = figure.subplots(1, 2)
    for row, (axes, label) in enumerate(zip(panels, _NORMS.values(), strict=True)):
        _draw(axes, curves, steps, row)
        axes.set_ylabel(label, fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    if any(curve.paper for curve in curves):
        handles.append(Line2D([], [], color="0.2", marker="x", linestyle="none", markersize=7))
        labels.append("paper's means (CIFAR-10, 100 steps)")
    images = len(curves[0].distances)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        frameon=False,
        title=f"l2 of the input → largest → output; mean of {images} images, band: one standard "
        "deviation",
        title_fontsize=8,
    )
    return figure


def _draw(axes: Axes, curves: Sequence[Curve], steps: Sequence[int], row: int) -> None:
    places, turn = way_travelled(steps)
    every = max(1, len(steps) // _MARKERS)
    for number, curve in enumerate(curves):
        color, line, marker = _STYLES[number % len(_STYLES)]
        values = curve.distances[:, row].double()
        mean = values.mean(0)
        spread = values.std(0) if len(values) > 1 else 0 * mean
        highest = values.amax(1).mean()
        axes.fill_between(
            places,
            (mean - spread).tolist(),
            (mean + spread).tolist(),
            color=color,
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(
            places,
            mean.tolist(),
            color=color,
            linestyle=line,
            marker=marker,
            markevery=(number * every // len(curves), every),
            markersize=4.5,
            markerfacecolor="white",
            # The first, which others lie on, shows on both sides of them.
            linewidth=3.2 if number == 0 else 1.4,
            clip_on=False,
            zorder=3,
            label=f"{curve.label} ({mean[0]:.2f} → {highest:.2f} → {mean[-1]:.2f})",
        )
        if curve.paper is not None:
            points = zip((places[0], places[turn], places[-1]), curve.paper[row], strict=True)
            known = [(place, value) for place, value in points if value is not None]
            axes.plot(
                [place for place, _ in known],
                [value for _, value in known],
                color=color,
                marker="x",
                markersize=7,
                markeredgewidth=1.6,
                linestyle="none",
                clip_on=False,
                zorder=4,
            )
    names = ("forward:\nnoise is added", "reverse:\nnoise is removed")
    draw_halves(axes, places[0], places[turn], places[-1], names)
    axes.set_xticks(*step_ticks(places, steps, turn, parts=2))
    axes.set_xlim(places[0], places[-1])
    axes.set_ylim(bottom=0, top=1.15 * axes.get_ylim()[1])
    axes.set_xlabel("diffusion step t", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
