r"""Confidence intervals for what a finite number of samples can say.

Proportions (accuracies) get Wilson's interval,

.. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n},

which stays inside [0, 1] and keeps a width at p = 0 and p = 1, where attacks often end. Means get
the normal interval :math:`m \pm z s / \sqrt{n}`, and differences of shares of the same samples that
of Tango. Certificates get the bound of Clopper and Pearson, which is exact: it holds at least as
often as it says, whatever p and n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def paired_interval(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    r"""Interval of the mean difference of two shares of the same samples: Tango's score interval.

    With b samples that only the first has and c that only the second has it holds every mean
    :math:`\delta` that is not rejected,

    .. math:: |b - c - n \delta| \le z \sqrt{n \, [2 q + \delta (1 - \delta)]},

    q being the likeliest rate of the second kind under :math:`\delta` (Tango, 1998). It keeps a
    width where no sample differs. Shares over several draws differ by parts of 1: then it is that
    of differences of one size with the same sum and the same sum of squares.

    Args:
        differences: of every sample, in [-1, 1]; -1, 0 or 1 where the shares are of right answers.
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper bound, in [-1, 1].

    Raises:
        ValueError: no differences, or ``confidence`` not in (0, 1).

    Example:
        >>> low, high = paired_interval([0] * 100)
        >>> f"{low:.3f} {high:.3f}"
        '-0.037 0.037'
    """
    z, n = _quantile(confidence), len(differences)
    if not n:
        raise ValueError("the interval of a mean difference needs a sample, got none")
    apart = math.fsum(abs(x) for x in differences)
    size = math.fsum(x * x for x in differences) / apart if apart else 1.0
    up, down = (math.fsum(max(0.0, sign * x) for x in differences) / size for sign in (1, -1))
    return -size * _tango(down, up, n, z), size * _tango(up, down, n, z)


def _tango(up: float, down: float, n: int, z: float) -> float:
    """Upper bound of (up - down) / n."""
    low, high = (up - down) / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        linear = (2 * n - up + down) * middle - up - down
        root = math.sqrt(max(0.0, linear**2 + 8 * n * down * middle * (1 - middle)))
        spread = (root - linear) / (2 * n) + middle * (1 - middle)
        if n * middle - (up - down) <= z * math.sqrt(max(0.0, n * spread)):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)
