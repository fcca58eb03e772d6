"""Drawing primitives of the figures, on matplotlib's objects and never on pyplot's global state."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of the given size in inches that can be saved or shown without a display."""
    figure = Figure(figsize=(width, height), dpi=150, layout="compressed", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def draw_image(axes: Axes, image: Tensor) -> None:
    """Show one image without ticks.

    Args:
        axes: where.
        image: shape (3, H, W); values outside [0, 1] are clipped, nan is black.
    """
    pixels = image.detach().float().cpu().nan_to_num().clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(pixels)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="0.6")
