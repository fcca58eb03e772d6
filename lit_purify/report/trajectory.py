"""One image on its way through forward noising and reverse denoising (Fig. 1b, c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lit_purify.report.canvas import draw_image, new_figure
from lit_purify.report.chain_axis import draw_halves, step_ticks, way_travelled

# Told apart by line and marker, so colour (Okabe and Ito's) is only a help.
_STYLES = (
    ("#000000", "-", "o"),
    ("#d55e00", "--", "s"),
    ("#0072b2", "-.", "^"),
    ("#009e73", ":", "D"),
)
_MARKERS = 10  # per curve


def trajectory_figure(
    states: Sequence[tuple[str, Tensor]],
    distances: Mapping[str, Sequence[float]],
    steps: Sequence[int],
    *,
    reference: str = "the input",
) -> Figure:
    """Intermediate states of one image above its l2 distance along the trajectory.

    Args:
        states: label such as "t = 50" and state, shape (3, H, W), on the [0, 1] scale (clipped
            for display), in the order of the trajectory: forward, then reverse. About ten fit.
        distances: name of a curve -> l2 distances at ``steps``, in units of pixels in [0, 1].
        steps: the t of each distance: up to t* and down again, such as 0, 1, ..., 100, 99, ..., 0.
            A reverse-only trajectory begins at t*.
        reference: what the distances are measured to, for the axis.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: no states, fewer than two steps, or a curve of another length than ``steps``.

    Example:
        >>> import torch
        >>> states = [(f"t = {t}", torch.zeros(3, 8, 8)) for t in (0, 2, 0)]
        >>> figure = trajectory_figure(states, {"clean image": [0, 1, 2, 1.5, 1]}, [0, 1, 2, 1, 0])
        >>> len(figure.axes)
        4
    """
    if not states or len(steps) < 2:
        raise ValueError(f"expected states and two or more steps, got {len(states)}, {len(steps)}")
    for name, curve in distances.items():
        if len(curve) != len(steps):
            raise ValueError(f"{name!r} has {len(curve)} distances for {len(steps)} steps")
    width = min(12.0, max(6.5, 0.95 * len(states)))
    strip_height = width / len(states) + 0.25
    figure = new_figure(width, strip_height + 2.6)
    figure.set_layout_engine("constrained")
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=(strip_height, 2.6))
    strip, below = halves[:, 0]
    for axes, (label, state) in zip(
        strip.subplots(1, len(states), squeeze=False)[0], states, strict=True
    ):
        draw_image(axes, state)
        axes.set_xlabel(label, fontsize=8)
    _draw_distances(below.subplots(), distances, steps, reference)
    return figure


def _draw_distances(
    axes: Axes, distances: Mapping[str, Sequence[float]], steps: Sequence[int], reference: str
) -> None:
    places, turn = way_travelled(steps)
    every = max(1, len(steps) // _MARKERS)
    for number, (name, curve) in enumerate(distances.items()):
        color, line, marker = _STYLES[number % len(_STYLES)]
        axes.plot(
            places,
            curve,
            color=color,
            linestyle=line,
            marker=marker,
            markevery=(number * every // max(1, len(distances)), every),
            markersize=4.5,
            markerfacecolor="white",
            linewidth=1.4,
            clip_on=False,
            zorder=3,
            label=f"{name} (largest {max(curve):.2f}, end {curve[-1]:.2f})",
        )
    if places[0] < places[turn]:
        axes.axvline(places[turn], color="0.5", linewidth=0.8)
    names = ("forward: noise is added", "reverse: noise is removed")
    draw_halves(axes, places[0], places[turn], places[-1], names)

    axes.set_xticks(*step_ticks(places, steps, turn, parts=4))
    axes.set_xlim(0, places[-1])
    axes.set_ylim(bottom=0, top=1.12 * axes.get_ylim()[1])
    axes.set_xlabel("diffusion step t", fontsize=9)
    axes.set_ylabel(f"l2 distance to {reference}\n(pixels in [0, 1])", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if distances:
        axes.legend(
            fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2
        )
