"""Accuracy by what the attacker knows of the noise, as bars (Tables 2 to 4)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from lit_purify.figures.style import BLUE, GREEN, ORANGE, VERMILLION, Look, new_figure
from lit_purify.types import Estimate

_BARS: dict[str, Look] = {
    "clean images": {"facecolor": "0.85"},
    "classifier alone": {"facecolor": "0.35"},
    "purifier-blind": {"facecolor": ORANGE, "hatch": "xx"},
    "fixed noise": {"facecolor": VERMILLION},
    "transfer to other noise": {"facecolor": BLUE, "hatch": "//"},
    "fresh noise": {"facecolor": GREEN, "hatch": ".."},
}
"""Told apart by hatching too, so that colour is only a help."""


class Bar(NamedTuple):
    """An accuracy.

    Attributes:
        estimate: with its 95 % interval over the images, as shares; means over the seeds.
        deviation: standard deviation over seeds, as a share; ``None`` for a single one.
    """

    estimate: Estimate
    deviation: float | None = None


def protocols_figure(groups: Mapping[str, Mapping[str, Bar]]) -> Figure:
    """What stands of the accuracy, by protocol.

    Args:
        groups: setting such as ``DDPM, t* = 100`` -> bar by its name, of ``clean images``,
            ``classifier alone``, ``purifier-blind``, ``fixed noise``, ``transfer to other noise``,
            ``fresh noise``.

    Returns:
        A matplotlib figure. Thin error bars are 95 % intervals over the images, thick ones beside
        them plus and minus the standard deviation over seeds.

    Raises:
        ValueError: there is no group, or a bar of another name.
    """
    names = [name for name in _BARS if any(name in bars for bars in groups.values())]
    if not groups or set().union(*groups.values()) - set(names):
        raise ValueError(f"expected bars named {', '.join(_BARS)}, got {dict(groups)}")
    width = 0.8 / len(names)
    labels = [_folded(group) for group in groups]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    each = max(0.32 * len(names), 0.08 * longest)
    with new_figure(max(5.0, 0.9 + each * len(groups)), 3.4) as figure:
        axes = figure.subplots()
        for number, name in enumerate(names):
            places = _places(len(groups), width, number)
            found = [
                (place, bars[name])
                for place, bars in zip(places, groups.values(), strict=True)
                if name in bars
            ]
            heights = [100 * bar.estimate.value for _, bar in found]
            edge: Look = {"edgecolor": "black", "linewidth": 0.5, "label": name}
            axes.bar([place for place, _ in found], heights, width, **edge, **_BARS[name])
            for place, bar in found:
                low, high = 100 * bar.estimate.low, 100 * bar.estimate.high
                axes.plot([place, place], [low, high], color="black", linewidth=0.8)
                if bar.deviation is not None:
                    middle, spread = 100 * bar.estimate.value, 100 * bar.deviation
                    beside = place + 0.2 * width
                    ends = [middle - spread, middle + spread]
                    axes.plot([beside, beside], ends, color="black", linewidth=2.4)
        axes.set_xticks(range(len(groups)), labels)
        axes.set_ylim(0, 102)
        axes.set_xlabel("purification")
        axes.set_ylabel("accuracy (%)")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _folded(words: str) -> str:
    """Words in short lines."""
    lines = (textwrap.fill(line, 16, break_long_words=False) for line in words.split("\n"))
    return "\n".join(lines)


def _places(count: int, width: float, number: int) -> Sequence[float]:
    return [group - 0.4 + (number + 0.5) * width for group in range(count)]
