"""Every value of the paper that a run is compared with, and the runs that may be compared.

All are of CIFAR-10 with the paper's models, t* = 100 in 100 steps and eps = 8/255, but for what is
said beside them. Where the print is wrong, what stands here is put right, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from lit_purify.statistics import SigmoidFit, fit_sigmoid

PAPER_EPS = 8 / 255
PAPER_T_STAR = 100

PAPER_SHARE_BELOW = 0.90
"""Share of the Jacobian's singular values below 0.25: "over 90 %" (Fig. 3a)."""
PAPER_SHARE_ABOVE = 0.013
"""Share of the Jacobian's singular values above 1 (Fig. 3a)."""

PAPER_DIRECTION = {"direction/fixed_input": 0.22, "direction/fixed_noise": 0.93}
"""Mean cosine of purification directions (Fig. 2d, e)."""
PAPER_CENTROID = {
    "centroid/l2_inputs": 1.004,
    "centroid/l2_fixed_noise": 0.241,
    "centroid/l2_fixed_input": 3.282,
    "centroid/l2_both": 3.288,
}
"""Mean l2 distance to the centroid (Table S6, its two swapped headers put right)."""


class PaperDistances(NamedTuple):
    """Mean distance to the clean image of the input, at the largest and of the output.

    ``None`` is unknown: Table 1 has no largest distance.
    """

    l2: tuple[float, float | None, float]
    linf: tuple[float, float | None, float]


PAPER_ATTACKED: dict[str, PaperDistances] = {
    "ddpm": PaperDistances((1.077, 8.980, 3.646), (0.031, 0.606, 0.317)),
    "reverse": PaperDistances((1.149, None, 3.078), (0.031, None, 0.270)),
    "ddim": PaperDistances((1.080, None, 2.810), (0.031, None, 0.242)),
}
"""Full PGD, means over 1000 images: Tables S3, S4 for DDPM, Table 1 for the others."""

PAPER_UNIFORM: dict[int, PaperDistances] = {
    8: PaperDistances((1.004, 8.979, 3.598), (0.031, 0.605, 0.314)),
    32: PaperDistances((4.015, 9.699, 3.823), (0.125, 0.647, 0.330)),
    64: PaperDistances((8.030, 11.715, 5.258), (0.251, 0.735, 0.425)),
    128: PaperDistances((16.051, 17.622, 9.307), (0.502, 0.941, 0.623)),
}
"""Uniform noise of so many 255ths, purified by DDPM: Tables S3, S4, whose rows labelled 16, 32 and
128 are 32, 64 and 128: their l_inf at the start is 0.125, 0.251 and 0.502."""


class PaperPoint(NamedTuple):
    """One purification, of the compression rate against the robust accuracy.

    Attributes:
        method: ``DDPM``, ``Reverse`` or ``DDIM``.
        t_star: diffusion depth, every step of it taken.
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
    table: str = "7"
    used_in_fit: bool = True


PAPER_POINTS = (
    PaperPoint("DDPM", 10, 0.552, 0.001),
    PaperPoint("DDPM", 20, 0.420, 0.010),
    PaperPoint("DDPM", 50, 0.299, 0.086),
    PaperPoint("DDPM", 100, 0.231, 0.237, "6 and 7"),
    PaperPoint("DDPM", 150, 0.201, 0.353),
    PaperPoint("DDPM", 200, 0.187, 0.395),
    PaperPoint("DDPM", 300, 0.185, 0.402),
    PaperPoint("Reverse", 10, 0.461, 0.006),
    PaperPoint("Reverse", 20, 0.355, 0.035),
    PaperPoint("Reverse", 50, 0.248, 0.185),
    PaperPoint("Reverse", 100, 0.195, 0.349, "6 and 7"),
    PaperPoint("Reverse", 150, 0.177, 0.430),
    PaperPoint("Reverse", 200, 0.174, 0.465),
    PaperPoint("Reverse", 300, 0.200, 0.426, used_in_fit=False),
    PaperPoint("DDIM", 100, 0.281, 0.109, "6"),
)
"""Each point of Tables 6 and 7 once, in their order (Fig. 3b)."""


def paper_fit(*, free_ceiling: bool = False) -> SigmoidFit:
    """The sigmoid through the paper's fourteen points (Fig. 3b).

    Example:
        >>> fit = paper_fit()
        >>> f"k {fit.steepness:.3f}, m {fit.middle:.5f}, at 0: {fit.at_zero:.4f}"
        'k 17.453, m 0.16292, at 0: 0.9450'
    """
    points = [point for point in PAPER_POINTS if point.used_in_fit]
    rates, accuracies = [p.rate for p in points], [p.accuracy for p in points]
    return fit_sigmoid(rates, accuracies, free_ceiling=free_ceiling)


def paper_distances(
    purifier: Mapping[str, Any], attack: Mapping[str, Any], inputs: Mapping[str, float | None]
) -> dict[str, PaperDistances]:
    """The paper's values for a run on CIFAR-10, as far as its settings are the paper's.

    The number of steps may be another: the paper takes all 100.

    Args:
        purifier: settings of the purifier.
        attack: settings of the attack; empty without one.
        inputs: name -> half-width of the uniform noise, ``None`` for the attacked images.

    Returns:
        Name -> values, without the names that the paper has none for.
    """
    preset = _preset(purifier)
    own = "purifier_options" in purifier  # rounds, say, or an average
    if preset is None or own or purifier.get("t_star") != PAPER_T_STAR:
        return {}
    full_pgd = attack.get("attack") == "PGD" and math.isclose(attack.get("eps", 0), PAPER_EPS)
    found: dict[str, PaperDistances] = {}
    for name, width in inputs.items():
        if width is None:
            if full_pgd:
                found[name] = PAPER_ATTACKED[preset]
        elif preset == "ddpm":
            for level, values in PAPER_UNIFORM.items():
                if math.isclose(255 * width, level):
                    found[name] = values
    return found


def _preset(purifier: Mapping[str, Any]) -> str | None:
    """Which of the paper's kinds of purification it is."""
    from lit_purify.diffusion import PRESETS  # with PyTorch

    for name, (forward_process, sampler) in PRESETS.items():
        same = (forward_process, type(sampler).__name__, vars(sampler))
        keys = ("forward_process", "sampler", "sampler_options")
        if same == tuple(purifier.get(key) for key in keys):
            return name
    return None
