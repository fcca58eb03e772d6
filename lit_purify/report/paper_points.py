"""Compression rates and robust accuracies that the paper reports (Tables 6 and 7, Fig. 3b)."""

from __future__ import annotations

import csv
import importlib.resources
from typing import NamedTuple

from lit_purify.functional import SigmoidFit, fit_sigmoid

FILE = "paper_compression_robustness.csv"


class PaperPoint(NamedTuple):
    """A purification on CIFAR-10 with the paper's models, every step of the chain, eps = 8/255.

    Attributes:
        method: ``DDPM``, ``Reverse`` or ``DDIM``.
        t_star: diffusion depth.
        rate: compression rate of uniform perturbations.
        accuracy: robust accuracy under PGD with fixed noise, as a share.
        table: where it is printed.
        used_in_fit: whether the paper's curve is fitted to it. Reverse at t* = 300 is left out,
            where the paper suspects the gradient.
    """

    method: str
    t_star: int
    rate: float
    accuracy: float
    table: str
    used_in_fit: bool


def paper_points() -> list[PaperPoint]:
    """The paper's points, each once, in the order of its tables."""
    text = (importlib.resources.files("lit_purify") / "assets" / FILE).read_text(encoding="utf-8")
    return [
        PaperPoint(
            method=row["method"],
            t_star=int(row["t_star"]),
            rate=float(row["compression_rate"]),
            accuracy=float(row["accuracy"]),
            table=row["table"],
            used_in_fit=row["used_in_fit"] == "true",
        )
        for row in csv.DictReader(text.splitlines())
    ]


def paper_fit(*, free_ceiling: bool = False) -> SigmoidFit:
    """The sigmoid through the paper's fourteen points (Fig. 3b).

    Example:
        >>> fit = paper_fit()
        >>> f"k {fit.steepness:.3f}, m {fit.middle:.5f}, at 0: {fit.at_zero:.4f}"
        'k 17.453, m 0.16292, at 0: 0.9450'
    """
    points = [point for point in paper_points() if point.used_in_fit]
    rates, accuracies = [p.rate for p in points], [p.accuracy for p in points]
    return fit_sigmoid(rates, accuracies, free_ceiling=free_ceiling)
