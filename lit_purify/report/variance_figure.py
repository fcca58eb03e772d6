"""How far noise and input move a purified image: agreement of directions, distances (Fig. 2d-f)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_purify.report.canvas import new_figure

PAPER_EPS = 8 / 255
PAPER_DIRECTION = {"direction/fixed_input": 0.22, "direction/fixed_noise": 0.93}
"""Fig. 2d, e."""
PAPER_CENTROID = {
    "centroid/l2_inputs": 1.004,
    "centroid/l2_fixed_noise": 0.241,
    "centroid/l2_fixed_input": 3.282,
    "centroid/l2_both": 3.288,
}
"""Table S6, its two swapped headers put right."""

_BINS = 80  # over [-1, 1]
_BESIDE = 0.41  # from the middle of a bar to the mark beside it
_DIRECTIONS = {
    "direction/fixed_input": ("same input,\nother noises", {"color": "0.35"}),
    "direction/fixed_noise": (
        "same noise,\nother inputs",
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
        inputs: M, perturbed inputs an image, for the caption.
        draws: N, randomness configurations, for the caption.
        paper: draw the paper's values too; they are for CIFAR-10 and eps = 8/255.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

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
    figure = new_figure(9.5, 3.9)
    left, right = figure.subplots(1, 2)
    _draw_directions(left, known, paper)
    _draw_distances(right, known, paper)
    figure.supxlabel(
        f"{_count(images, 'image')}, {_count(inputs, 'input')} and {_count(draws, 'noise draw')} "
        "each; the centroid of few points lies nearer to them than that of many",
        fontsize=7,
        color="0.35",
    )
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_directions(axes: Axes, known: Mapping[str, Sequence[float]], paper: bool) -> None:
    edges = np.linspace(-1, 1, _BINS + 1)
    for name, (label, style) in _DIRECTIONS.items():
        values = known[name]
        if not values:
            continue
        mean = math.fsum(values) / len(values)
        text = f"{label.replace(chr(10), ' ')} (mean {mean:.2f})"
        axes.hist(values, bins=edges.tolist(), label=text, linewidth=0.8, **style)  # type: ignore[arg-type]
    shown = [value for name in _DIRECTIONS for value in known[name]]
    marks = list(PAPER_DIRECTION.values()) if paper else []
    if marks:
        for place, mark in enumerate(marks):
            label = "_" if place else "mean in the paper"
            axes.axvline(mark, color="#d55e00", linestyle="--", linewidth=1.2, label=label)
            axes.annotate(
                f"{mark:g}",
                (mark, 1),
                xycoords=("data", "axes fraction"),
                xytext=(-3, -2),
                textcoords="offset points",
                ha="right",
                va="top",
                color="#d55e00",
                fontsize=8,
            )
    axes.set_xlim(min([0.0, *(value - 0.05 for value in shown)]), 1.02)
    axes.set_ylim(top=1.12 * axes.get_ylim()[1])  # room for the numbers
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("mean cosine of two purification directions f(x) - x", fontsize=9)
    axes.set_ylabel("images", fontsize=9)
    if shown or marks:
        axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _draw_distances(axes: Axes, known: Mapping[str, Sequence[float]], paper: bool) -> None:
    labels = list(_BARS.values())
    for place, name in enumerate(_BARS):
        if not known[name]:
            continue
        values = np.array(known[name])
        mean = float(values.mean())
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        axes.bar(
            place,
            mean,
            width=0.62,
            color="0.75",
            edgecolor="black",
            linewidth=0.8,
            yerr=spread,
            error_kw={"linewidth": 1, "capsize": 3},
            label="_" if place else "mean and standard deviation over images",
        )
        labels[place] += f"\n{mean:#.3g}"
    if paper:
        axes.plot(
            [place + _BESIDE for place in range(len(_BARS))],
            [PAPER_CENTROID[name] for name in _BARS],
            color="#d55e00",
            linestyle="none",
            marker="D",
            markersize=5,
            markerfacecolor="white",
            label="mean in the paper",
        )
    axes.set_xticks(range(len(_BARS)), labels, fontsize=8)
    axes.set_xlim(-0.6, len(_BARS) - 0.4)
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    axes.set_ylabel("l2 distance to the centroid\n(pixels in [0, 1])", fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
