"""Singular values of the Jacobian, and the perturbations that belong to the largest (Fig. 3a)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lit_purify.figures.style import (
    MUTED,
    VERMILLION,
    Look,
    draw_grid,
    leave_room,
    new_figure,
    write,
)
from lit_purify.paper import PAPER_SHARE_ABOVE, PAPER_SHARE_BELOW

if TYPE_CHECKING:  # reports are drawn without PyTorch
    from torch import Tensor

_MARKS = (0.25, 1.0)
_BINS_PER_DECADE = 12
_DECADES = 4  # below the largest value; what is smaller joins the first bin
_THIN_LINES = 50
_CELL = 1.25  # inches
_PAPER_BELOW = 100 * PAPER_SHARE_BELOW
_PAPER_BELOW_1 = 100 * (1 - PAPER_SHARE_ABOVE)


def spectrum_figure(
    values: Tensor, shares: Tensor | None = None, *, below: float, above: float
) -> Figure:
    """Distribution of the singular values over images, beside the paper's shares.

    Left, how many directions lie in each bin of a logarithmic axis, in the mean over images; right,
    how many lie below a value, a thin line for each image (up to 50) and a thick one for the mean.

    Args:
        values: singular values of N images, shape (N, n), at least 0; nan is left out.
        shares: how much of the spectrum of its image each stands for, same shape; ``None`` for
            all alike.
        below: measured share of singular values below 0.25, to be written beside the paper's.
        above: measured share above 1.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: another shape, or no singular value above 0.

    Example:
        >>> import torch
        >>> figure = spectrum_figure(torch.tensor([[0.01, 0.1, 1.0, 2.0]]), below=0.5, above=0.25)
        >>> [axes.get_xscale() for axes in figure.axes]
        ['log', 'log']
    """
    if values.ndim != 2 or (shares is not None and shares.shape != values.shape):
        raise ValueError(
            f"expected values of shape (N, n) and shares of the same, got {tuple(values.shape)} "
            f"and {shares if shares is None else tuple(shares.shape)}"
        )
    found = values.double().numpy()
    known = np.isfinite(found)
    weight = np.ones_like(found) if shares is None else shares.double().numpy()
    weight = np.where(known, weight, 0.0)
    weight = weight / weight.sum(1, keepdims=True)
    found = np.where(known, found, 0.0)
    if not (found > 0).any():
        raise ValueError("there is no singular value above 0 to draw")
    edges = _bin_edges(found[found > 0])
    clipped = np.clip(found, edges[0], edges[-1])
    with new_figure(9.5, 3.9) as figure:
        left, right = figure.subplots(1, 2)
        _draw_histogram(left, clipped, weight, edges)
        if shares is not None:
            _note(left, "nodes of a quadrature, which bundles small values")
        elif (found < edges[0]).any():
            _note(left, "smaller ones are in the first bin")
        _draw_cumulative(right, clipped, weight, edges)
        left.set_title(
            f"below {_MARKS[0]:g}: {100 * below:.1f} % (paper: over {_PAPER_BELOW:.0f} %), "
            f"above {_MARKS[1]:g}: {100 * above:.2g} % (paper: {100 - _PAPER_BELOW_1:.1f} %)",
            pad=16,
        )
        for axes in (left, right):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())  # they would lie on one another
            axes.set_xlim(edges[0], edges[-1])
            axes.set_xlabel("singular value of the Jacobian (output / input length)")
            for mark, line in zip(_MARKS, ("--", "-."), strict=True):
                axes.axvline(mark, color="black", linestyle=line, linewidth=0.8, zorder=2.5)
                top = {"coordinates": axes.get_xaxis_transform(), "ha": "center"}
                write(axes, f"{mark:g}", (mark, 1.01), fontsize=8, **top)
    return figure


def vectors_figure(
    images: Tensor, right: Tensor, left: Tensor, values: Tensor, rows: Sequence[str]
) -> Figure:
    """The perturbations that the purifier lets through best, and what it makes of them.

    Each unit vector is drawn around mid-grey and scaled by its own largest entry; it and its
    negative are one.

    Args:
        images: where the Jacobians were taken, shape (N, 3, H, W), in [0, 1].
        right: unit vectors in the input, shape (N, k, 3, H, W).
        left: unit vectors in the output, same shape.
        values: their singular values, shape (N, k).
        rows: a label for each image.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: the shapes do not belong together.

    Example:
        >>> import torch
        >>> vectors = torch.ones(2, 1, 3, 4, 4)
        >>> args = torch.ones(2, 3, 4, 4), vectors, vectors, torch.ones(2, 1), ["a", "b"]
        >>> len(vectors_figure(*args).axes)
        6
    """
    count, k = values.shape
    if not (
        right.shape == left.shape == (count, k, *images.shape[1:])
        and count == len(images) == len(rows)
    ):
        raise ValueError(
            f"{len(images)} images, vectors of shape {tuple(right.shape)} and {tuple(left.shape)}, "
            f"values of shape {tuple(values.shape)} and {len(rows)} labels do not belong together"
        )
    with new_figure(_CELL * (2 * k + 1.7), (_CELL + 0.25) * count + 0.4) as figure:
        columns = {"clean": images}
        for number in range(k):
            columns[f"{number + 1}: input"] = _shown(right[:, number])
            columns[f"{number + 1}: output"] = _shown(left[:, number])
        grid = draw_grid(figure, columns, rows)
        for row in range(count):
            for number in range(k):
                growth = f"× {float(values[row, number]):.3g}"
                grid[row, 2 + 2 * number].set_xlabel(growth, fontsize=8)
    return figure


def _shown(vectors: Tensor) -> Tensor:
    """Vectors (N, 3, H, W) around mid-grey, each scaled by its largest entry."""
    return 0.5 + vectors / (2 * vectors.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-30))


def _bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of logarithmic bins that have both marks well inside."""
    top = max(math.log10(values.max()), math.log10(2 * _MARKS[1]))
    bottom = max(math.log10(values.min()), top - _DECADES)
    bottom = min(bottom, math.log10(_MARKS[0] / 2))
    first, last = (math.floor(bottom * _BINS_PER_DECADE), math.ceil(top * _BINS_PER_DECADE))
    return 10 ** (np.arange(first, last + 1) / _BINS_PER_DECADE)


def _draw_histogram(axes: Axes, values: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> None:
    heights, _ = np.histogram(values, bins=edges, weights=100 * weight / len(weight))
    axes.stairs(heights, edges, fill=True, color="0.75", zorder=2)
    axes.stairs(heights, edges, color="black", linewidth=0.8, zorder=2)
    axes.set_ylim(bottom=0)
    leave_room(axes, 0.05)
    axes.set_ylabel(f"directions (%), {_BINS_PER_DECADE} bins per decade")


def _note(axes: Axes, text: str) -> None:
    write(axes, text, (0.02, 0.94), coordinates="axes fraction", color=MUTED)


def _draw_cumulative(axes: Axes, values: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> None:
    fine = np.geomspace(edges[0], edges[-1], 400)
    curves = []
    for row, share in zip(values, weight, strict=True):
        order = np.argsort(row)
        below = np.concatenate([[0.0], np.cumsum(share[order])])
        curves.append(100 * below[np.searchsorted(row[order], fine)])
    for curve in curves[:_THIN_LINES]:
        axes.plot(fine, curve, color="0.7", linewidth=0.6, zorder=2)
    mean = np.mean(curves, axis=0)
    label = f"mean of {len(curves)} images" if len(curves) > 1 else "1 image"
    axes.plot(fine, mean, color="black", zorder=3, label=label)
    for mark, share, marker, label in (
        (_MARKS[0], _PAPER_BELOW, "^", f"paper: over {_PAPER_BELOW:.0f} %"),
        (_MARKS[1], _PAPER_BELOW_1, "s", f"paper: {_PAPER_BELOW_1:.1f} %"),
    ):
        look: Look = {"color": VERMILLION, "marker": marker, "linestyle": "none"}
        axes.plot(mark, share, zorder=4, label=label, **look)
    axes.set_ylim(0, 102)
    axes.set_ylabel("directions with a smaller singular value (%)")
    axes.legend(loc="upper left")
