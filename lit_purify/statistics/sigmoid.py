r"""The law of compression and robustness (Fig. 3b): accuracy falls with the compression rate as

.. math:: a(\alpha) = A \, \sigma(-k (\alpha - m)), \qquad \sigma(z) = \frac{1}{1 + e^{-z}},

fitted by least squares. Its value at :math:`\alpha = 0` predicts the clean accuracy.

The band is that of the delta method: with the gradient g of the curve in the parameters and their
covariance C, :math:`a(\alpha) \pm t \sqrt{g(\alpha)^T C \, g(\alpha)}`, where t is the quantile of
Student's distribution for the points less the parameters. C is
:math:`s^2 (J^T W J)^{-1}`, with the noise s estimated from the scatter about the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit, logit, stdtrit

from lit_purify.types import InputError

Array = NDArray[np.float64]

_OWN = 1e-6
"""Least part of a parameter's effect that the others do not have, for it to be determined."""

_FLAT = 1e-8
"""Least k times the range of the rates."""

_SLOPE = 1e-4
"""Where no point has a sigma (1 - sigma) above this, the steepness cannot be told from a step."""


@dataclass(frozen=True, eq=False)
class SigmoidFit:
    """A fitted curve A sigma(-k (alpha - m)).

    Attributes:
        steepness: k, per unit of compression rate; below 0 where accuracy rises with the rate.
        middle: m, the rate at which half of A is left.
        ceiling: A, as a share.
        covariance: of (k, m, A), shape (3, 3); zero for an A that was not fitted.
        r_squared: share of the (weighted) variance of the accuracies that the curve explains.
        points: how many points it was fitted to.
        parameters: how many were fitted, 2 or 3.
    """

    steepness: float
    middle: float
    ceiling: float
    covariance: Array
    r_squared: float
    points: int
    parameters: int

    @property
    def standard_errors(self) -> tuple[float, float, float]:
        """Of k, m and A."""
        k, m, a = np.sqrt(np.diag(self.covariance)).tolist()
        return k, m, a

    @property
    def at_zero(self) -> float:
        """The curve at compression rate 0: the clean accuracy that it predicts."""
        return float(self(0.0))

    def __call__(self, rates: ArrayLike) -> Array:
        """The curve at some rates, same shape, as a share."""
        z = -self.steepness * (np.asarray(rates, np.float64) - self.middle)
        return np.asarray(self.ceiling * expit(z))

    def band(self, rates: ArrayLike, confidence: float = 0.95) -> tuple[Array, Array]:
        """Confidence band of the curve (not of new points) at some rates.

        It is pointwise, by the delta method with Student's t. It may leave [0, 1], which says that
        the points do not determine the curve there.

        Args:
            rates: compression rates, any shape.
            confidence: coverage, in (0, 1).

        Returns:
            Lower and upper bounds, same shape.

        Raises:
            ValueError: ``confidence`` is not in (0, 1).
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
        rates = np.asarray(rates, np.float64)
        share = expit(-self.steepness * (rates - self.middle))
        slope = self.ceiling * share * (1 - share)
        gradient = np.stack(
            [-slope * (rates - self.middle), slope * self.steepness, share], axis=-1
        )
        variance = np.einsum("...i,ij,...j->...", gradient, self.covariance, gradient)
        quantile = stdtrit(self.points - self.parameters, (1 + confidence) / 2)
        half = quantile * np.sqrt(np.maximum(variance, 0))  # rounding may go below 0
        return self(rates) - half, self(rates) + half


def fit_sigmoid(
    rates: Sequence[float],
    accuracies: Sequence[float],
    *,
    errors: Sequence[float] | None = None,
    free_ceiling: bool = False,
) -> SigmoidFit:
    """Fit A sigma(-k (alpha - m)) to points by least squares (Fig. 3b).

    Args:
        rates: compression rates alpha, at least 0.
        accuracies: robust accuracies, shares in [0, 1].
        errors: standard errors of the accuracies, above 0, as relative weights 1 / error**2;
            ``None`` weighs all alike. How far the points scatter is always estimated from the
            points: a law that is not exact leaves more than the sampling errors.
        free_ceiling: fit A too; otherwise A = 1.

    Returns:
        The fit.

    Raises:
        InputError: fewer points than parameters + 1, values that are not finite or out of range, or
            points that do not determine the curve.

    Example:
        >>> import numpy as np
        >>> rates = np.array([0.0, 0.1, 0.2, 0.3])
        >>> fit = fit_sigmoid(rates, 1 / (1 + np.exp(20 * (rates - 0.15))))
        >>> f"{fit.steepness:.3f} {fit.middle:.3f} {fit.ceiling:.3f} {fit.r_squared:.3f}"
        '20.000 0.150 1.000 1.000'
    """
    x, y, weight = _checked(rates, accuracies, errors, 2 + free_ceiling)
    # z = a - b alpha is better conditioned than k and m: m runs off where the data are flat.
    slope, start = np.polyfit(x, logit(np.clip(y, 0.005, 0.995)), 1, w=weight)
    solution = _solve(x, y, weight, np.array([start, -slope]))
    if free_ceiling:
        solution = _solve(x, y, weight, np.array([*solution, 1.0]))
    a, b, ceiling = (*solution, 1.0)[:3]
    jacobian = weight[:, None] * _jacobian(solution, x)
    residual = weight * (ceiling * expit(a - b * x) - y)
    _check_determined(jacobian, expit(a - b * x))
    freedom = len(x) - len(solution)
    inverse = np.linalg.inv(jacobian.T @ jacobian)
    covariance = np.zeros((3, 3))
    covariance[: len(solution), : len(solution)] = residual @ residual / freedom * inverse
    turn = np.array([[0, 1, 0], [1 / b, -a / b**2, 0], [0, 0, 1]])  # d (k, m, A) / d (a, b, A)
    mean = np.average(y, weights=weight**2)
    spread = weight * (y - mean)
    return SigmoidFit(
        steepness=float(b),
        middle=float(a / b),
        ceiling=float(ceiling),
        covariance=turn @ covariance @ turn.T,
        r_squared=float(1 - residual @ residual / (spread @ spread)),
        points=len(x),
        parameters=len(solution),
    )


def _solve(x: Array, y: Array, weight: Array, start: Array) -> Array:
    """Least squares in (a, b) or (a, b, A), as many as ``start`` has."""
    found = least_squares(
        lambda p: weight * ((*p, 1.0)[2] * expit(p[0] - p[1] * x) - y),
        start,
        jac=lambda p: weight[:, None] * _jacobian(p, x),
        method="lm",
        x_scale="jac",
        xtol=1e-13,
        ftol=1e-13,
        gtol=1e-13,
        max_nfev=2000,
    )
    if not (found.success and np.isfinite(found.x).all()):
        raise InputError(_UNDETERMINED)
    if abs(found.x[1]) * np.ptp(x) < _FLAT:
        raise InputError(
            "the accuracies do not change with the rate, so there is no sigmoid; measure at rates "
            "where they do"
        )
    return np.asarray(found.x)


def _jacobian(parameters: Array, x: Array) -> Array:
    """Of the curve in (a, b) or (a, b, A), shape (points, parameters)."""
    a, b, ceiling = (*parameters, 1.0)[:3]
    share = expit(a - b * x)
    slope = ceiling * share * (1 - share)
    return np.stack([slope, -x * slope, share], axis=1)[:, : len(parameters)]


_UNDETERMINED = (
    "the points do not determine a sigmoid: too few of them lie on its slope, or they are all on "
    "one side of its middle; add points at rates in between, or fix the ceiling"
)


def _check_determined(jacobian: Array, share: Array) -> None:
    lengths = np.linalg.norm(jacobian, axis=0)
    if not (lengths > 0).all() or (share * (1 - share)).max() < _SLOPE:
        raise InputError(_UNDETERMINED)
    if np.linalg.svd(jacobian / lengths, compute_uv=False)[-1] < _OWN:
        raise InputError(_UNDETERMINED)


def _checked(
    rates: Sequence[float],
    accuracies: Sequence[float],
    errors: Sequence[float] | None,
    parameters: int,
) -> tuple[Array, Array, Array]:
    """Rates, accuracies and the square roots of the weights."""
    x, y = np.asarray(rates, np.float64), np.asarray(accuracies, np.float64)
    error = np.ones_like(x) if errors is None else np.asarray(errors, np.float64)
    if x.ndim != 1 or not x.shape == y.shape == error.shape:
        raise InputError(
            "a sigmoid is fitted to as many rates as accuracies and errors, got shapes "
            f"{x.shape}, {y.shape} and {error.shape}; give lists of one length"
        )
    if len(x) < parameters + 1:
        raise InputError(
            f"a sigmoid of {parameters} parameters needs {parameters + 1} points or more, got "
            f"{len(x)}; measure more rates"
        )
    if not (np.isfinite(x).all() and (x >= 0).all()):
        raise InputError(
            f"compression rates must be finite numbers of at least 0, got {x.tolist()}; leave out "
            "points without one"
        )
    if not ((y >= 0) & (y <= 1)).all():  # nan is neither
        raise InputError(
            f"accuracies must be shares in [0, 1], got {y.tolist()}; divide percentages by 100, "
            "and leave out points without one"
        )
    if not (np.isfinite(error).all() and (error > 0).all()):
        raise InputError(
            f"standard errors of accuracies must be finite and above 0, got {error.tolist()}; "
            "take the half-width of an interval where none was wrong"
        )
    for what, values, distinct in (("rates", x, parameters), ("accuracies", y, 2)):
        if len(np.unique(values)) < distinct:
            raise InputError(
                f"a sigmoid of {parameters} parameters needs {distinct} or more different {what}, "
                f"got {np.unique(values).tolist()}; measure at more rates"
            )
    return x, y, error.min() / error  # of order 1, so that tolerances mean the same
