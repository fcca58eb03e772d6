"""One image on its way through forward noising and reverse denoising (Fig. 1b, c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from lit_purify.figures.chain_axis import finish_chain_axis, way_travelled
from lit_purify.figures.style import curve_look, draw_image, new_figure

if TYPE_CHECKING:  # reports are drawn without PyTorch
    from torch import Tensor


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
        A matplotlib figure.

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
            raise ValueError(
                f"{name!r} has {len(curve)} distances for {len(steps)} steps; expected one per step"
            )
    width = min(12.0, max(6.5, 0.95 * len(states)))
    strip_height = width / len(states) + 0.25
    with new_figure(width, strip_height + 2.6, layout="constrained") as figure:
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=(strip_height, 2.6))
        strip = halves[0, 0].subplots(1, len(states), squeeze=False)[0]
        for axes, (label, state) in zip(strip, states, strict=True):
            draw_image(axes, state)
            axes.set_xlabel(label, fontsize=8)
        axes, (places, _) = halves[1, 0].subplots(), way_travelled(steps)
        for number, (name, curve) in enumerate(distances.items()):
            label = f"{name} (largest {max(curve):.2f}, end {curve[-1]:.2f})"
            axes.plot(places, curve, label=label, **curve_look(number, len(distances), len(steps)))
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"l2 distance to {reference}\n(pixels in [0, 1])")
        finish_chain_axis(axes, steps, parts=4)
        if distances:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure
