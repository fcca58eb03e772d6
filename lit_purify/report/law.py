"""The law of compression and robustness on finished runs (Fig. 3b): one fit for every budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from lit_purify.figures import MeasuredPoint
from lit_purify.records.runs import (
    ANY_ITERATION,
    CLEAN,
    LAST_ITERATION,
    FinishedRun,
    check_alike,
)
from lit_purify.report.numbers import percent
from lit_purify.statistics import SigmoidFit, fit_sigmoid
from lit_purify.types import Estimate, InputError

_Z = NormalDist().inv_cdf(0.975)


class Law(NamedTuple):
    """The sigmoids through runs.

    Attributes:
        points: budget in 1/255, ``None`` for runs that do not say it -> the runs attacked with it
            that have the rate.
        fits: budget -> the sigmoid over the rate, where the runs allow one.
        together: the sigmoid over budget times rate, in 1/255, through all runs, where they differ
            in the budget and allow one.
        notes: why a curve is missing.
    """

    points: Mapping[float | None, Sequence[MeasuredPoint]]
    fits: Mapping[float | None, SigmoidFit]
    together: SigmoidFit | None
    notes: Sequence[str]

    @property
    def single(self) -> SigmoidFit | None:
        """The sigmoid over the rate where all runs were attacked with one budget."""
        return next(iter(self.fits.values()), None) if len(self.attacked) == 1 else None

    @property
    def attacked(self) -> list[float | None]:
        """Budgets with which a run was attacked that can take part in a fit."""
        return [eps for eps, points in self.points.items() if any(point.robust for point in points)]

    def sentences(self) -> list[str]:
        """Each fit in words."""
        if self.single is not None:
            return [f"measured: {sentence(self.single)}"]
        found = [f"measured, eps {eps:g}/255: {sentence(fit)}" for eps, fit in self.fits.items()]
        if self.together is not None:
            found.append(f"measured, over eps x rate in 1/255: {sentence(self.together)}")
        return found


def fitted_law(
    runs: Sequence[FinishedRun],
    key: str,
    accuracy: str = LAST_ITERATION,
    *,
    free_ceiling: bool = False,
    weighted: bool = False,
) -> Law:
    """Fit the law to runs: at every budget, and over budget times rate where there are several.

    Nothing is fitted through runs that differ in more than how they purify and in the budget.

    Args:
        runs: finished runs.
        key: the metric for the rate.
        accuracy: the metric for the robust accuracy.
        free_ceiling: fit A too.
        weighted: weigh each run by the width of its accuracy's interval.
    """
    by_eps: dict[float | None, list[FinishedRun]] = {}
    for run in runs:
        if run.estimate(key) is not None:
            eps = run.setting("eps")
            # So that 2/255 of two ways to write it is one budget.
            by_eps.setdefault(None if eps is None else round(255 * eps, 6), []).append(run)
    by_eps = dict(sorted(by_eps.items(), key=lambda item: (item[0] is None, item[0] or 0)))
    points = {eps: measured_points(group, key, accuracy) for eps, group in by_eps.items()}
    options = {"free_ceiling": free_ceiling, "weighted": weighted}
    notes: list[str] = []

    def fit(scaled: Mapping[float | None, float], what: str) -> SigmoidFit | None:
        """The sigmoid through the runs of some budgets, the rates of each times a factor."""
        taking_part = [
            run for eps in scaled for run in by_eps[eps] if run.estimate(accuracy) is not None
        ]
        try:
            check_alike(taking_part, but_for="eps")
            return _fit([(factor, points[eps]) for eps, factor in scaled.items()], **options)
        except InputError as error:
            notes.append(f"no curve is fitted to {what}: {error}")
            return None

    attacked = [eps for eps in points if any(point.robust for point in points[eps])]
    fits: dict[float | None, SigmoidFit] = {}
    for eps in attacked:
        what = "these runs" if len(attacked) == 1 else f"the runs of eps {eps:g}/255"
        if (found := fit({eps: 1.0}, what)) is not None:
            fits[eps] = found
    together = None
    if len(attacked) > 1:
        scaled: dict[float | None, float] = {eps: eps for eps in attacked if eps is not None}
        together = fit(scaled, "all runs over eps x rate")
    elif not attacked:
        fit({}, "these runs")
    return Law(points, fits, together, notes)


def accuracy_of(runs: Sequence[FinishedRun]) -> str:
    """The robust accuracy that runs share: at any iteration where no run has that after the last.

    Attacks that stop early leave the latter unknown.
    """
    both = (LAST_ITERATION, ANY_ITERATION)
    known = [name for name in both if any(run.estimate(name) is not None for run in runs)]
    return known[0] if known else LAST_ITERATION


def measured_points(runs: Sequence[FinishedRun], key: str, accuracy: str) -> list[MeasuredPoint]:
    """Runs as points of a figure: those that have ``key``."""
    return [
        MeasuredPoint(
            run.method, run.settings.get("t_star"), x, run.estimate(accuracy), run.estimate(CLEAN)
        )
        for run in runs
        if (x := run.estimate(key)) is not None
    ]


def _fit(
    groups: Sequence[tuple[float, Sequence[MeasuredPoint]]], *, free_ceiling: bool, weighted: bool
) -> SigmoidFit:
    attacked = [
        (factor * point.x.value, point.robust)
        for factor, points in groups
        for point in points
        if point.robust is not None
    ]
    rates, accuracies = [rate for rate, _ in attacked], [robust.value for _, robust in attacked]
    errors = [(robust.high - robust.low) / (2 * _Z) for _, robust in attacked] if weighted else None
    return fit_sigmoid(rates, accuracies, errors=errors, free_ceiling=free_ceiling)


def numbers(fit: SigmoidFit) -> dict[str, Any]:
    """A fit as plain numbers."""
    errors = fit.standard_errors
    low, high = fit.band(0.0)
    return {
        "steepness": fit.steepness,
        "steepness_error": errors[0],
        "middle": fit.middle,
        "middle_error": errors[1],
        "ceiling": fit.ceiling,
        "ceiling_error": errors[2] if fit.parameters == 3 else None,
        "r_squared": fit.r_squared,
        "at_zero": fit.at_zero,
        "at_zero_low": float(low),
        "at_zero_high": float(high),
        "points": fit.points,
    }


def sentence(fit: SigmoidFit) -> str:
    """A fit in words."""
    k, m, a = fit.standard_errors
    ceiling = f"A = {fit.ceiling:.3f} ± {a:.3f}" if fit.parameters == 3 else "A = 1 (not fitted)"
    start = "not told by these points"
    if (known := at_zero(fit)) is not None:
        value, low, high = map(percent, known)
        start = f"{value} % (95 %: {low} to {high})"
    return (
        f"k = {fit.steepness:.3f} ± {k:.3f}, m = {fit.middle:.4f} ± {m:.4f}, {ceiling}, "
        f"R2 = {fit.r_squared:.4f}, {fit.points} points; accuracy at 0: {start}"
    )


def at_zero(fit: SigmoidFit) -> Estimate | None:
    """The curve at rate 0; ``None`` where its interval is as wide as [0, 1], and says nothing."""
    low, high = map(float, fit.band(0.0))
    return None if high - low >= 1 else Estimate(fit.at_zero, low, high)
