r"""Confidence intervals for what a finite number of samples can say.

Proportions (accuracies) get Wilson's interval,

.. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n},

which stays inside [0, 1] and keeps a width at p = 0 and p = 1, where attacks often end. Means get
the normal interval :math:`m \pm z s / \sqrt{n}`. Certificates get the bound of Clopper and Pearson,
which is exact: it holds at least as often as it says, whatever p and n.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from scipy.special import betaincinv


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Args:
        successes: number of successes, in 0..n. Where trials count in part it is their sum, and the
            interval is not too narrow: shares spread no more than zeros and ones of the same mean.
        n: number of trials. With none, nothing is known: (0, 1).
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        ValueError: ``successes`` is not in 0..n, or ``confidence`` not in (0, 1).

    Example:
        >>> low, high = wilson_interval(5, 10)
        >>> f"{low:.4f} {high:.4f}"
        '0.2366 0.7634'
    """
    z = _quantile(confidence)
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got successes={successes}, n={n}")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = p + z**2 / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # The exact bounds at the ends are 0 and 1; rounding must not move them.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """One-sided lower bound of a proportion (Clopper & Pearson, 1934).

    It is the largest p under which so many successes, or more, have a probability of at most alpha:
    the alpha quantile of Beta(successes, n - successes + 1). It exceeds the true proportion with a
    probability of at most alpha.

    Args:
        successes: number of successes, in 0..n.
        n: number of independent trials, at least 1.
        alpha: allowed probability of error, in (0, 1).

    Returns:
        The bound, in [0, 1); of n successes alpha ** (1 / n).

    Raises:
        ValueError: ``successes`` is not in 0..n, no trials, or ``alpha`` not in (0, 1).

    Example:
        >>> f"{clopper_pearson_lower(1000, 1000, 0.001):.4f}"
        '0.9931'
    """
    if not (0 <= successes <= n and n >= 1):
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    return float(betaincinv(successes, n - successes + 1, alpha)) if successes else 0.0


def normal_interval(
    mean: float, std: float, n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Normal interval of a mean, ``mean ± z std / sqrt(n)`` (z = 1.96 at 95 %).

    Args:
        mean: sample mean.
        std: sample standard deviation (n - 1), at least 0.
        n: number of samples, at least 1.
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: ``n`` is below 1, or ``confidence`` not in (0, 1).

    Example:
        >>> low, high = normal_interval(1.0, 0.5, 100)
        >>> f"{low:.3f} {high:.3f}"
        '0.902 1.098'
    """
    z = _quantile(confidence)
    if n < 1:
        raise ValueError(f"the interval of a mean needs n >= 1, got n={n}")
    half = z * std / math.sqrt(n)
    return mean - half, mean + half


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)
