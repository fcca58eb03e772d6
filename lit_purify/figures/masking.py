"""Figures for gradient masking: the gradient on its way through the chain, the attack's loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_purify.figures.chain_axis import finish_chain_axis, way_travelled
from lit_purify.figures.style import curve_look, draw_band, new_figure

if TYPE_CHECKING:  # reports are drawn without PyTorch
    from torch import Tensor


def gradient_norm_figure(norms: Tensor, steps: Sequence[int]) -> Figure:
    """Median and quartiles over samples of the gradient's norm at every state of a purification.

    Args:
        norms: l2 norm of d loss / d state, shape (N, S); nan and infinity are left out and counted.
        steps: the t of each state, the input first: up to t* and down again, such as 0, 1, ...,
            100, 99, ..., 0. A reverse-only trajectory begins at t*.

    Returns:
        A matplotlib figure, logarithmic in the norm; zeros, which have no place there, are counted.

    Raises:
        ValueError: another number of steps than of states, or no sample.

    Example:
        >>> import torch
        >>> figure = gradient_norm_figure(torch.tensor([[1.0, 10.0, 100.0]]), [0, 9, 0])
        >>> figure.axes[0].get_yscale()
        'log'
    """
    if norms.ndim != 2 or 0 in norms.shape or norms.shape[1] != len(steps):
        raise ValueError(
            f"expected norms of shape (N, {len(steps)}) with N > 0, one per sample and state; got "
            f"{tuple(norms.shape)}"
        )
    values = norms.double().cpu()
    excluded = ~values.isfinite() | (values == 0)
    out = int(excluded.any(1).sum())
    with new_figure(6.5, 3.4) as figure:
        axes = figure.subplots()
        if not excluded.all():
            axes.set_yscale("log")
        samples = f"{len(norms)} samples" + (f", {out} with a zero or no number" if out else "")
        _draw(axes, way_travelled(steps)[0], values.masked_fill(excluded, math.nan), samples)
        axes.set_ylabel("l2 norm of the loss gradient\n(per unit of [0, 1] pixels)")
        finish_chain_axis(axes, steps, parts=4)
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
        >>> import torch
        >>> figure = attack_loss_figure(torch.tensor([[0.1, 0.5], [0.2, torch.nan]]))
        >>> [text.get_text() for text in figure.axes[0].get_legend().texts][0]
        'median of the samples under attack: 2 at first, 1 at last'
    """
    if losses.ndim != 2 or 0 in losses.shape:
        raise ValueError(
            f"expected losses of shape (N, Q), one per sample and query; got {tuple(losses.shape)}"
        )
    values = losses.double().cpu()
    values = values.where(values.isfinite(), math.nan)
    first, last = (int(values[:, query].isfinite().sum()) for query in (0, -1))
    queries = range(1, values.shape[1] + 1)
    with new_figure(6.5, 3.4) as figure:
        axes = figure.subplots()
        known = f"the samples under attack: {first} at first, {last} at last"
        _draw(axes, queries, values, known)
        axes.set_xlim(1 - 0.02 * len(queries), 1.02 * len(queries))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("query of the attack")
        axes.set_ylabel("cross-entropy")
    return figure


def _draw(axes: Axes, places: Sequence[float], values: Tensor, samples: str) -> None:
    """Median as a line, quartiles as a band, and what they are above the axes."""
    low, median, high = values.nanquantile(values.new_tensor([0.25, 0.5, 0.75]), dim=0)
    axes.plot(places, median, label=f"median of {samples}", **curve_look(0, 1, len(places)))
    draw_band(axes, places, low, high, label="their middle half")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
