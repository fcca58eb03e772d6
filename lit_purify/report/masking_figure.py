"""Figures for gradient masking: the gradient on its way through the chain, the attack's loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lit_purify.report.canvas import new_figure
from lit_purify.report.chain_axis import draw_halves

_MARKERS = 20  # per curve


def gradient_norm_figure(norms: Tensor, depths: Sequence[tuple[str, int]]) -> Figure:
    """Median and quartiles over samples of the gradient's norm at every state of a purification.

    Args:
        norms: l2 norm of d loss / d state, shape (N, S); nan and infinity are left out and counted.
        depths: process (``forward``, ``reverse``) and step t of each state, the input first.

    Returns:
        A matplotlib figure, logarithmic in the norm; zeros, which have no place there, are counted.

    Raises:
        ValueError: another number of depths than of states, or no sample.

    Example:
        >>> depths = [("forward", 0), ("forward", 9), ("reverse", 0)]
        >>> figure = gradient_norm_figure(torch.tensor([[1.0, 10.0, 100.0]]), depths)
        >>> figure.axes[0].get_yscale()
        'log'
    """
    if norms.ndim != 2 or 0 in norms.shape or norms.shape[1] != len(depths):
        raise ValueError(
            f"expected norms (N, {len(depths)}), one a state, of samples, got {(*norms.shape,)}"
        )
    figure = new_figure(6.5, 3.4)
    axes = figure.subplots()
    values = norms.double().cpu()
    excluded = ~values.isfinite() | (values == 0)
    median = _draw(axes, range(len(depths)), values.masked_fill(excluded, torch.nan))
    if median.isfinite().any():
        axes.set_yscale("log")
    turn = next(place for place, (process, _) in enumerate(depths) if process == "reverse") - 1
    draw_halves(axes, 0, turn, len(depths) - 1, ("forward", "reverse"))
    if len(depths) == 2:  # a purifier that shows nothing between
        axes.set_xticks([0, 1], ["input", "output"])
        axes.set_xlabel("state of the purification", fontsize=9)
    else:
        places = _ticks(turn, len(depths) - 1)
        axes.set_xticks(places, [str(depths[place][1]) for place in places])
        axes.set_xlabel("diffusion step t of the state, input to output", fontsize=9)
    axes.set_ylabel("l2 norm of the loss gradient\n(per unit of [0, 1] pixels)", fontsize=9)
    out = int(excluded.any(1).sum())
    _legend(axes, f"{len(norms)} samples" + (f", {out} with a zero or no number" if out else ""))
    return figure


def attack_loss_figure(losses: Tensor) -> Figure:
    """Median and quartiles over samples of the loss that an attack met at every query.

    Args:
        losses: cross-entropy, shape (N, Q); nan where a sample was no longer attacked. What is
            drawn at a query is of those samples that still were, and the legend says how many.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: not a table of samples and queries.

    Example:
        >>> figure = attack_loss_figure(torch.tensor([[0.1, 0.5], [0.2, torch.nan]]))
        >>> [text.get_text() for text in figure.axes[0].get_legend().texts][0]
        'median of the samples under attack: 2 at first, 1 at last'
    """
    if losses.ndim != 2 or 0 in losses.shape:
        raise ValueError(f"expected losses (N, Q) of samples and queries, got {(*losses.shape,)}")
    figure = new_figure(6.5, 3.4)
    axes = figure.subplots()
    values = losses.double().cpu()
    _draw(axes, range(1, values.shape[1] + 1), values.where(values.isfinite(), torch.nan))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("query of the attack", fontsize=9)
    axes.set_ylabel("cross-entropy", fontsize=9)
    first, last = (int(column.isfinite().sum()) for column in (values[:, 0], values[:, -1]))
    _legend(axes, f"the samples under attack: {first} at first, {last} at last")
    return figure


def _draw(axes: Axes, places: Sequence[int], values: Tensor) -> Tensor:
    """Median as a line, quartiles as a band; the median, (S,), nan where nothing is known."""
    low, median, high = values.nanquantile(torch.tensor([0.25, 0.5, 0.75]).to(values), dim=0)
    axes.fill_between(
        places, low.numpy(), high.numpy(), color="0.78", linewidth=0, label="middle half"
    )
    axes.plot(
        places,
        median.numpy(),
        color="black",
        marker="o",
        markevery=max(1, len(places) // _MARKERS),
        markersize=4,
        markerfacecolor="white",
        linewidth=1.4,
        label="median",
    )
    axes.set_xlim(places[0] - 0.02 * len(places), places[-1] + 0.02 * len(places))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return median


def _legend(axes: Axes, samples: str) -> None:
    band, line = axes.get_legend_handles_labels()[0]
    axes.legend(
        [line, band],
        [f"median of {samples}", "their middle half"],
        fontsize=8,
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
    )


def _ticks(turn: int, last: int) -> list[int]:
    """States at the ends, the turn and the quarters of each half."""
    halves = ((0, turn), (turn, last))
    return sorted({round(a + (b - a) * q / 4) for a, b in halves for q in range(5)})
