"""How far noise and input move a purified image: agreement of directions, distances (Fig. 2d-f)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_purify.figures.style import MUTED, SMALL, VERMILLION, Look, leave_room, new_figure, write
from lit_purify.paper import PAPER_CENTROID, PAPER_DIRECTION

_BINS = 80  # over [-1, 1]
_BESIDE = 0.41  # from the middle of a bar to the mark beside it
_DIRECTIONS = {
    "direction/fixed_input": ("same input, other noises", {"color": "0.35"}),
    "direction/fixed_noise": (
        "same noise, other inputs",
        {"facecolor": "white", "edgecolor": "black", "hatch": "////"},
    ),
}
_BARS = {
    "centroid/l2_inputs": "the inputs\nthemselves",
    "centroid/l2_fixed_noise": "purified,\nsame noise",
    "centroid/l2_fixed_input": "purified,\nsame input",
    "centroid/l2_both": "purified,\nboth vary",
}


def variance_figure(
    columns: Mapping[str, Sequence[float | None]],
    *,
    inputs: int,
    draws: int,
    paper: bool = False,
) -> Figure:
    """Histograms of the agreement of directions beside bars of the distances to the centroid.

    Args:
        columns: ``direction/*`` and ``centroid/l2_*`` (SPEC names) -> a value for each image,
            ``None`` where it has none.
        inputs: M, perturbed inputs per image, for the caption.
        draws: N, randomness configurations, for the caption.
        paper: draw the paper's values too; they are for CIFAR-10 and eps = 8/255.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no values at all.

    Example:
        >>> figure = variance_figure({"centroid/l2_both": [3.1, 3.4]}, inputs=8, draws=8)
        >>> len(figure.axes)
        2
    """
    known = {
        name: [value for value in columns.get(name, ()) if value is not None]
        for name in (*_DIRECTIONS, *_BARS)
    }
    images = max(map(len, known.values()))
    if not images:
        raise ValueError("expected values of one or more images, got none")
    with new_figure(9.5, 3.9) as figure:
        left, right = figure.subplots(1, 2)
        _draw_directions(left, known, paper)
        _draw_distances(right, known, paper)
        for axes in (left, right):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        figure.supxlabel(
            f"{_count(images, 'image')}, {_count(inputs, 'input')} and "
            f"{_count(draws, 'noise draw')} each; the centroid of few points lies nearer to them "
            "than that of many",
            fontsize=SMALL,
            color=MUTED,
        )
    return figure


def _draw_directions(axes: Axes, known: Mapping[str, Sequence[float]], paper: bool) -> None:
    edges = np.linspace(-1, 1, _BINS + 1)
    for name, (label, style) in _DIRECTIONS.items():
        if values := known[name]:
            text = f"{label} (mean {math.fsum(values) / len(values):.2f})"
            axes.hist(values, bins=edges.tolist(), label=text, linewidth=0.8, **style)  # type: ignore[arg-type]
    leave_room(axes, 0.12)  # for the numbers
    for place, mark in enumerate(PAPER_DIRECTION.values() if paper else ()):
        label = "_" if place else "mean in the paper"
        axes.axvline(mark, color=VERMILLION, linestyle="--", linewidth=1.2, label=label)
        top = {"coordinates": axes.get_xaxis_transform(), "ha": "right", "va": "top"}
        write(axes, f"{mark:g}", (mark, 1), offset=(-3, -2), color=VERMILLION, **top)
    lowest = min((value for name in _DIRECTIONS for value in known[name]), default=1.0)
    axes.set_xlim(min(0.0, lowest - 0.05), 1.02)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("mean cosine of two purification directions f(x) - x")
    axes.set_ylabel("images")


def _draw_distances(axes: Axes, known: Mapping[str, Sequence[float]], paper: bool) -> None:
    labels = list(_BARS.values())
    for place, name in enumerate(_BARS):
        if not known[name]:
            continue
        values = np.array(known[name])
        mean = float(values.mean())
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        label = "_" if axes.patches else "mean and standard deviation over images"
        look: Look = {"color": "0.75", "edgecolor": "black", "linewidth": 0.8}
        axes.bar(place, mean, width=0.62, yerr=spread, label=label, **look)
        labels[place] += f"\n{mean:#.3g}"
    if paper:
        beside = [place + _BESIDE for place in range(len(_BARS))]
        means = [PAPER_CENTROID[name] for name in _BARS]
        mark: Look = {"color": VERMILLION, "linestyle": "none", "marker": "D"}
        axes.plot(beside, means, label="mean in the paper", **mark)
    axes.set_xticks(range(len(_BARS)), labels)
    axes.set_xlim(-0.6, len(_BARS) - 0.4)
    axes.set_ylim(bottom=0)
    leave_room(axes, 0.06)
    axes.set_xlabel("points, with their mean distance")
    axes.set_ylabel("l2 distance to the centroid\n(pixels in [0, 1])")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
