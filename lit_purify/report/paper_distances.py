"""The paper's distances to the clean image on CIFAR-10 (Tables 1, S3, S4).

All are means over its 1000 images at t* = 100 in 100 steps. In Tables S3 and S4 the rows labelled
uniform 16, 32 and 128 / 255 are 32, 64 and 128 / 255: their l_inf at the start is 0.125, 0.251 and
0.502. Table 1 has no largest distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from lit_purify.diffusion import PRESETS


class PaperDistances(NamedTuple):
    """Mean distances of the input, at the largest and of the output; ``None`` where unknown."""

    l2: tuple[float, float | None, float]
    linf: tuple[float, float | None, float]


T_STAR = 100
EPS = 8 / 255

ATTACKED: dict[str, PaperDistances] = {
    "ddpm": PaperDistances((1.077, 8.980, 3.646), (0.031, 0.606, 0.317)),
    "reverse": PaperDistances((1.149, None, 3.078), (0.031, None, 0.270)),
    "ddim": PaperDistances((1.080, None, 2.810), (0.031, None, 0.242)),
}
"""Full PGD at 8/255: Tables S3, S4 for DDPM, Table 1 for the others."""

UNIFORM: dict[int, PaperDistances] = {
    8: PaperDistances((1.004, 8.979, 3.598), (0.031, 0.605, 0.314)),
    32: PaperDistances((4.015, 9.699, 3.823), (0.125, 0.647, 0.330)),
    64: PaperDistances((8.030, 11.715, 5.258), (0.251, 0.735, 0.425)),
    128: PaperDistances((16.051, 17.622, 9.307), (0.502, 0.941, 0.623)),
}
"""Uniform noise of so many 255ths, purified by DDPM: Tables S3, S4."""


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
    if preset is None or purifier.get("t_star") != T_STAR:
        return {}
    found: dict[str, PaperDistances] = {}
    for name, width in inputs.items():
        if width is None:
            if _is_the_attack(attack):
                found[name] = ATTACKED[preset]
        elif preset == "ddpm":
            for level, values in UNIFORM.items():
                if math.isclose(255 * width, level):
                    found[name] = values
    return found


def _is_the_attack(attack: Mapping[str, Any]) -> bool:
    return attack.get("attack") == "PGD" and math.isclose(attack.get("eps", 0), EPS)


def _preset(purifier: Mapping[str, Any]) -> str | None:
    """Which of the paper's kinds of purification it is."""
    for name, (forward_process, sampler) in PRESETS.items():
        same = (forward_process, type(sampler).__name__, vars(sampler))
        keys = ("forward_process", "sampler", "sampler_options")
        if same == tuple(purifier.get(key) for key in keys):
            return name
    return None
