"""How the paper's printed values are kept, and what a run must have done to have one of them."""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple

Dataset = Literal["cifar10", "imagenet"]

PAPER_SEEDS = 3
"""Base seeds 0, 1, 2, which the ± of an accuracy is over."""

_DEPTHS = {"cifar10": 100, "imagenet": 150}


class PrintedCell(NamedTuple):
    """One printed value.

    Attributes:
        text: such as ``23.7 ± 0.7``; empty where nothing is printed.
        metric: what a run calls it.
        method: how it was purified: ``DDPM``, ``Reverse`` or ``DDIM``.
        t_star: diffusion depth; ``None`` is that of the data set, 100 on CIFAR-10, 150 on ImageNet.
        dataset: of the images.
        attack: class of the attack; ``None`` where the value is of none.
        surface: the noise that the attack was made on, where the metric's name does not say it.
        images: how many it is of.
        scale: printed unit in units of the metric: 100 for percent.
    """

    text: str
    metric: str
    method: str = "DDPM"
    t_star: int | None = None
    dataset: Dataset = "cifar10"
    attack: str | None = None
    surface: Literal["fixed", "fresh"] | None = None
    images: int = 1000
    scale: float = 1.0

    @property
    def depth(self) -> int:
        """Diffusion depth t*."""
        return _DEPTHS[self.dataset] if self.t_star is None else self.t_star

    @property
    def value(self) -> float | None:
        """The number as printed; ``None`` without one."""
        found = re.match(r"-?[\d.]+", self.text)
        return float(found[0]) if found else None

    @property
    def decimals(self) -> int:
        """How many are printed."""
        found = re.search(r"\.(\d+)", self.text)
        return len(found[1]) if found else 1

    @property
    def error(self) -> float:
        """Standard error of the printed number, in its unit.

        It is that of its rounding, which every value has; of the images, from the ± of a mean over
        them or from an accuracy itself; and of the seeds, from the ± of an accuracy.
        """
        parts = [0.5 * 10**-self.decimals / math.sqrt(3)]
        _, _, spread = self.text.partition(" ± ")
        if "accuracy" in self.metric and self.value is not None:
            share = self.value / self.scale
            parts.append(self.scale * math.sqrt(share * (1 - share) / self.images))
            parts.append(float(spread or 0) / math.sqrt(PAPER_SEEDS))
        elif spread:
            parts.append(float(spread) / math.sqrt(self.images))
        return math.hypot(*parts)


class PrintedRow(NamedTuple):
    """What a row is of, and its cells, one per column."""

    labels: tuple[str, ...]
    cells: tuple[PrintedCell, ...]


class PrintedTable(NamedTuple):
    """A table of the paper.

    Attributes:
        number: such as ``1`` or ``S2``; values that only a figure has are under the figure's.
        title: the paper's, shortened.
        labels: headings of what a row is of.
        columns: headings of the values, with their unit.
        rows: from top to bottom.
        remark: what of the print was put right, or what a reader should know.
    """

    number: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PrintedRow, ...]
    remark: str = ""
