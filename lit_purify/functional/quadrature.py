r"""Spectral density and Frobenius norm of a matrix that is only known by its products.

*Stochastic Lanczos quadrature.* From a probe v of n independent signs, m Lanczos steps on
:math:`J^\top J` give m nodes and weights, a rule exact for polynomials up to degree 2 m - 1 under
the probe's spectral measure

.. math:: F_v(\lambda) = \frac{1}{\|v\|^2} \sum_{\sigma_i^2 < \lambda} \langle v_i, v \rangle^2,
   \qquad E_v[F_v(\lambda)] = \frac{\#\{i : \sigma_i^2 < \lambda\}}{n}.

Two things stand between the rule and the share of singular values below a threshold. The rule does
not determine :math:`F_v`, it bounds it: extended by a node at the threshold (Gauss and Radau), it
encloses :math:`F_v` between the sums of the weights below without and with that node's (Chebyshev,
Markov and Stieltjes). And a few probes stand for all, which shows in their spread.

*Hutchinson's estimator.* :math:`E_v \|J v\|^2 = \|J\|_F^2`; the first Lanczos step has it already.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.stats import t as student
from torch import Tensor

from lit_purify.functional.spectral import SLACK, RowProduct
from lit_purify.types import Estimate, InputError


class LanczosRule(NamedTuple):
    """The tridiagonal matrix that Lanczos steps on J^T J made, for each of P probes; float64.

    Attributes:
        diagonal: shape (P, m); zeros behind the last step of a probe.
        beside: the entries beside the diagonal, shape (P, m), each behind its own step: that of a
            probe's last step is the remainder, 0 where its measure is known exactly.
        steps: steps taken, shape (P,), int64.
        size: n, the number of directions.
    """

    diagonal: Tensor
    beside: Tensor
    steps: Tensor
    size: int


def lanczos(push: RowProduct, pull: RowProduct, probes: Tensor, steps: int) -> LanczosRule:
    """Lanczos steps on J^T J with full re-orthogonalisation, all probes side by side.

    A probe whose remainder is within rounding has seen all its directions, and ends.

    Args:
        push: v -> J v, row by row.
        pull: u -> J^T u, row by row.
        probes: start vectors, not zero, shape (P, n). Signs of equal probability make the estimates
            of this module unbiased. The vectors take 8 P m n
            bytes on the device of the probes, which need not be that of the products.
        steps: at most m; not more than n are taken.

    Raises:
        InputError: no probes or no steps.

    Example:
        >>> rule = lanczos(lambda v: 2 * v, lambda u: 2 * u, torch.ones(1, 5), 3)
        >>> rule.steps.tolist(), round(rule.diagonal[0, 0].item(), 12)
        ([1], 4.0)
    """
    if steps < 1 or probes.ndim != 2 or len(probes) < 1:
        raise InputError(
            f"Lanczos quadrature got {steps} steps and probes of shape {tuple(probes.shape)}; "
            "expected 1 or more steps and probes of shape (P, n)"
        )
    count, n = probes.shape
    m = min(steps, n)
    q = probes.double()
    q = q / q.norm(dim=1, keepdim=True)
    basis = q.new_zeros(count, m, n)
    diagonal, beside = q.new_zeros(count, m), q.new_zeros(count, m)
    taken = torch.zeros(count, dtype=torch.int64, device=q.device)
    alive = torch.ones(count, dtype=torch.bool, device=q.device)
    for step in range(m):
        basis[:, step] = q
        pulled = pull(push(q))
        rounding = 100 * torch.finfo(pulled.dtype).eps
        w = pulled.to(q)
        diagonal[:, step] = torch.where(alive, (w * q).sum(1), 0)
        taken += alive
        for _ in range(2):  # once leaves what cancellation has spoilt
            known = basis[:, : step + 1]
            w = w - (known.mT @ (known @ w.unsqueeze(2))).squeeze(2)
        remainder = w.norm(dim=1)
        largest = torch.maximum(diagonal.amax(1), beside.amax(1))
        alive = alive & (remainder > rounding * largest)
        beside[:, step] = torch.where(alive, remainder, 0)
        if step + 1 == n:
            beside[:, step] = 0  # every direction has been seen
        if not alive.any():
            break
        q = torch.where(alive.unsqueeze(1), w / remainder.clamp(min=1e-300).unsqueeze(1), 0)
    return LanczosRule(diagonal.cpu(), beside.cpu(), taken.cpu(), n)


def spectral_density(rule: LanczosRule) -> tuple[Tensor, Tensor]:
    """The rule as singular values and the shares of the spectrum that they stand for.

    Returns:
        Both of shape (P, m), float64; the shares of a probe add up to 1. A probe of fewer steps is
        filled up with nan.
    """
    values = torch.full_like(rule.diagonal, torch.nan)
    shares = values.clone()
    for probe, steps in enumerate(rule.steps.tolist()):
        nodes, weights, _ = _gauss(*_matrix(rule, probe))
        values[probe, :steps] = torch.from_numpy(np.sqrt(np.maximum(nodes, 0)))
        shares[probe, :steps] = torch.from_numpy(weights)
    return values, shares


def density_below(rule: LanczosRule, threshold: float) -> Estimate:
    """Share of singular values below a threshold by more than :data:`~spectral.SLACK`.

    The interval reaches from the lower end of the t-interval over the probes of the lower bounds to
    the upper end of that of the upper bounds. So it covers the choice of the probes and the finite
    number of steps; not the rounding of the products. With a single probe it is [0, 1].

    Args:
        rule: what :func:`lanczos` made.
        threshold: a singular value, above 0.

    Example:
        >>> rule = lanczos(lambda v: 2 * v, lambda u: 2 * u, torch.ones(2, 5), 3)
        >>> density_below(rule, 1).value, density_below(rule, 3).value
        (0.0, 1.0)
    """
    at = (threshold * (1 - SLACK)) ** 2
    bounds = [_mass_below(rule, probe, at) for probe in range(len(rule.steps))]
    low, high = torch.tensor(bounds, dtype=torch.float64).unbind(1)
    return Estimate(
        float((low + high).mean()) / 2,
        max(0.0, float(low.mean()) - _reach(low)),
        min(1.0, float(high.mean()) + _reach(high)),
    )


def density_above(rule: LanczosRule, threshold: float) -> Estimate:
    """Share of singular values above a threshold, as :func:`density_below`."""
    # Not below what lies as far above the threshold as counts as equal to it.
    value, low, high = density_below(rule, threshold * (1 + SLACK) / (1 - SLACK))
    return Estimate(1 - value, 1 - high, 1 - low)


def frobenius_norm(rule: LanczosRule) -> Estimate:
    """Frobenius norm by Hutchinson's estimator.

    The interval is the root of the t-interval of the square over the probes, and nothing else is
    uncertain but rounding. With a single probe its upper end is infinite.
    """
    squares = rule.size * rule.diagonal[:, 0]
    mean = float(squares.mean())
    reach = _reach(squares)
    return Estimate(*(math.sqrt(max(0.0, square)) for square in (mean, mean - reach, mean + reach)))


def _mass_below(rule: LanczosRule, probe: int, at: float) -> tuple[float, float]:
    """Bounds on the mass that a probe's measure has below an eigenvalue of J^T J."""
    diagonal, beside = _matrix(rule, probe)
    remainder = float(rule.beside[probe, len(diagonal) - 1])
    nodes, weights, last = _gauss(diagonal, beside)
    if remainder == 0:
        mass = float(weights[nodes < at].sum())
        return mass, mass
    gaps = nodes - at
    # Where the rule has a node at the threshold by itself, none can be put there.
    if np.abs(gaps).min() > 1e-8 * max(np.abs(nodes).max(), at):
        corner = at + remainder**2 * float((last**2 / gaps).sum())
        nodes, weights, _ = _gauss(np.append(diagonal, corner), np.append(beside, remainder))
    place = int(np.abs(nodes - at).argmin())
    mass = float(weights[:place].sum())
    return mass, min(1.0, mass + float(weights[place]))


def _matrix(rule: LanczosRule, probe: int) -> tuple[np.ndarray, np.ndarray]:
    steps = int(rule.steps[probe])
    return rule.diagonal[probe, :steps].numpy(), rule.beside[probe, : steps - 1].numpy()


def _gauss(diagonal: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ascending nodes, weights, and the last entries of the eigenvectors."""
    nodes, vectors = eigh_tridiagonal(diagonal, beside)
    return nodes, vectors[0] ** 2, vectors[-1]


def _reach(values: Tensor) -> float:
    """Half the width of the 95 % t-interval of the mean; infinite for a single value."""
    if len(values) < 2:
        return math.inf
    error = float(values.std()) / math.sqrt(len(values))
    return error * float(student.ppf(0.975, len(values) - 1))
