"""Which findings of the paper hold on some runs: decided by rules that are written beside them.

Each finding looks at every run that measured it and says that it holds there, that it does not, or
that the 95 % intervals leave it open. A difference counts only where the intervals show it; sizes
that words such as "far" need are constants here. Nothing is read but settings and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from lit_purify.records.runs import (
    ANY_ITERATION,
    LAST_ITERATION,
    RATE,
    FinishedRun,
    alike,
    in_255ths,
    of_purified,
    short_names,
)
from lit_purify.report.classifier_curve import classifier_curve
from lit_purify.report.law import Law, accuracy_of, at_zero, fitted_law
from lit_purify.report.numbers import percent
from lit_purify.statistics import SigmoidFit
from lit_purify.types import Estimate

MARGIN = 0.10
"""Ten points of accuracy: less is neither "far below" nor a prediction that failed."""
GOOD_FIT, NO_FIT = 0.9, 0.5
"""R2 from which a curve is called a law, and below which it is none. The paper's own has 0.998."""
LEAST_RUNS = 4
"""Runs that a law needs: two parameters pass close to any three points."""

_POINTS = f"{100 * MARGIN:g}"


class Judgement(StrEnum):
    """What becomes of a finding."""

    HOLDS = "holds"
    PARTLY = "holds in part"
    FAILS = "does not hold"
    OPEN = "cannot be told"


class Evidence(NamedTuple):
    """What one run, or one group of alike runs, says about a finding.

    Attributes:
        source: the name of the run, or what its group has in common.
        outcome: of the finding there.
        words: the numbers with their intervals, as a sentence.
    """

    source: str
    outcome: Judgement
    words: str


class Finding(NamedTuple):
    """A finding of the paper, and what runs say about it.

    Attributes:
        claim: the finding, in one sentence.
        paper: the paper's numbers.
        rule: how it is decided.
        needs: what to type for runs that can tell.
        evidence: of the runs that measured it.
    """

    claim: str
    paper: str
    rule: str
    needs: str
    evidence: list[Evidence]

    @property
    def outcome(self) -> Judgement:
        """Of all evidence together."""
        return together(found.outcome for found in self.evidence)

    @property
    def counts(self) -> str:
        """In how many places it holds, in words; what is missing where none measured it."""
        if not self.evidence:
            return f"Not measured by these runs: {self.needs}."
        parts = [
            f"{outcome} in {number}"
            for outcome in Judgement
            if (number := sum(found.outcome == outcome for found in self.evidence))
        ]
        return f"Measured in {len(self.evidence)} places: {', '.join(parts)}."


def together(outcomes: Iterable[Judgement]) -> Judgement:
    """One outcome of several; what is open does not count beside what is decided.

    Example:
        >>> together([Judgement.HOLDS, Judgement.OPEN])
        <Judgement.HOLDS: 'holds'>
        >>> together([Judgement.HOLDS, Judgement.FAILS])
        <Judgement.PARTLY: 'holds in part'>
    """
    decided = set(outcomes) - {Judgement.OPEN}
    if len(decided) > 1:
        return Judgement.PARTLY
    return decided.pop() if decided else Judgement.OPEN


def findings(runs: Sequence[FinishedRun]) -> list[Finding]:
    """The five findings of the paper on these runs.

    Args:
        runs: finished runs; none is needed.

    Returns:
        In the paper's order: distances, variation, randomness, the law, the classifier's curve.
    """
    tell = "add {} to the runs".format
    return [
        Finding(
            "Purification pushes images away from the clean image.",
            "The l2 distance grows from 1.08 to 3.65 on CIFAR-10 (Table S3, DDPM).",
            "Holds where the purified image is farther from the clean one than the attacked image "
            "was, in l2 and l_inf, and the intervals do not overlap.",
            tell("--config measure/distances"),
            list(_each(runs, _distances)),
        ),
        Finding(
            "Under one noise purified images vary little, between noises much.",
            "From the centre: inputs 1.004, purified under one noise 0.241, under many 3.282 "
            "(Table S6); signal over noise 0.0059 (Table S5).",
            "Holds where purification under one noise shrinks the distance to the centre, many "
            "noises widen it, and the variance from the input is below that from the noise, all "
            "beyond their intervals.",
            tell("--config measure/variance"),
            list(_each(runs, _variation)),
        ),
        Finding(
            "Robustness is far lower once the attacker knows the noise.",
            "23.7 % under fixed noise, 71.9 % under fresh noise (Table 2), 77.4 % under "
            "transferred noise (Table 4).",
            f"Holds where the interval of the difference (Newcombe) lies above "
            f"{_POINTS} points, and does not where it lies below.",
            tell("--model.protocols '[fixed, transfer, fresh]'"),
            list(_each(runs, _randomness)),
        ),
        Finding(
            "The compression rate predicts the robustness that is left.",
            "A sigmoid through fourteen points, R2 = 0.998 (Fig. 3b).",
            f"One curve for each group of {LEAST_RUNS} or more runs that differ in how they purify "
            f"only. Holds where R2 is {GOOD_FIT} or more and accuracy falls with the rate; does "
            f"not where R2 is below {NO_FIT} or accuracy rises. Open where all accuracies are the "
            "same within their intervals.",
            f"report {LEAST_RUNS} or more runs of different depth t*, attacked alike under fixed "
            "noise, together",
            list(_law(runs)),
        ),
        Finding(
            "The classifier alone, attacked with eps × compression rate, is as robust as the "
            "purified one attacked with eps.",
            "The two curves lie on each other (Fig. 3c).",
            "Holds where the interval of the difference (Newcombe) stays within "
            f"±{_POINTS} points, and does not where it lies outside.",
            tell("--config measure/base_curve"),
            list(_curve(runs)),
        ),
    ]


def difference(one: Estimate, two: Estimate) -> Estimate:
    """One share less another, with Newcombe's interval (1998, method 10) of their Wilson intervals.

    For shares of the same images it is too wide rather than too narrow: they rise together.

    Example:
        >>> found = difference(Estimate(0.5, 0.4, 0.6), Estimate(0.2, 0.1, 0.3))
        >>> print(f"{found.value:.2f}: {found.low:.3f} to {found.high:.3f}")
        0.30: 0.159 to 0.441
    """
    value = one.value - two.value
    down = math.hypot(one.value - one.low, two.high - two.value)
    up = math.hypot(one.high - one.value, two.value - two.low)
    return Estimate(value, value - down, value + up)


def _each(
    runs: Sequence[FinishedRun],
    judge: Callable[[FinishedRun], Iterable[tuple[Judgement, str]]],
) -> Iterator[Evidence]:
    """What each run says; a run that has none of the numbers says nothing."""
    for name, run in zip(short_names(runs), runs, strict=True):
        if found := list(judge(run)):
            words = " ".join(words for _, words in found)
            yield Evidence(name, together(outcome for outcome, _ in found), words)


def _above(one: Estimate, two: Estimate) -> Judgement:
    """Whether one number is larger than another, beyond their intervals."""
    if one.low > two.high:
        return Judgement.HOLDS
    return Judgement.FAILS if one.high < two.low else Judgement.OPEN


def _distances(run: FinishedRun) -> Iterator[tuple[Judgement, str]]:
    for norm, name in (("l2", "l2"), ("linf", "l_inf")):
        before, after = (run.estimate(f"distance/{norm}_{when}") for when in ("init", "end"))
        if before and after:
            words = f"{name}: {_number(before)} before purification, {_number(after)} after."
            yield _above(after, before), words


def _variation(run: FinishedRun) -> Iterator[tuple[Judgement, str]]:
    inputs, one, many = (
        run.estimate(f"centroid/l2_{what}") for what in ("inputs", "fixed_noise", "fixed_input")
    )
    if inputs and one and many:
        words = f"From the centre: inputs {_number(inputs)}, purified under one noise"
        yield _above(inputs, one), f"{words} {_number(one)},"
        yield _above(many, inputs), f"under many noises {_number(many)}."
    if ratio := run.estimate("variance/snr"):
        words = f"Variance from the input over that from the noise: {_number(ratio)}."
        yield _above(Estimate(1, 1, 1), ratio), words


def _randomness(run: FinishedRun) -> Iterator[tuple[Judgement, str]]:
    fixed, name = _robust(run)
    # Images that an attack leaves as soon as they fool one noise transfer badly.
    others = ("fresh",) if run.setting("early_stop") else ("fresh", "transfer")
    for other in others:
        share = run.estimate(f"{other}/robust_accuracy")
        if fixed is None or share is None:
            continue
        gap = difference(share, fixed)
        outcome = _above(gap, Estimate(MARGIN, MARGIN, MARGIN))
        yield outcome, f"{_percent(share)} under {other} noise, {_percent(fixed)} under {name}."


def _robust(run: FinishedRun) -> tuple[Estimate | None, str]:
    """Robust accuracy under fixed noise, and what it is called."""
    if (last := run.estimate(LAST_ITERATION)) is not None:
        return last, "fixed noise"
    return run.estimate(ANY_ITERATION), "fixed noise (at every iteration)"


def _law(runs: Sequence[FinishedRun]) -> Iterator[Evidence]:
    for group in alike(run for run in runs if run.estimate(RATE) and _robust(run)[0]):
        accuracy = accuracy_of(group)
        shares = [share for run in group if (share := run.estimate(accuracy)) is not None]
        if len(shares) >= LEAST_RUNS:
            eps = group[0].setting("eps")
            name = f"{len(shares)} runs" + ("" if eps is None else f" at {in_255ths(eps)}")
            outcome, words = _fitted(fitted_law(group, RATE, accuracy), shares)
            among = fitted_law(group, RATE, of_purified(accuracy)).single
            if among is not None:
                words += f" Among the images that are right without an attack: {_fit(among)}"
            yield Evidence(name, outcome, words)


def _fitted(law: Law, shares: Sequence[Estimate]) -> tuple[Judgement, str]:
    lowest, highest = min(share.high for share in shares), max(share.low for share in shares)
    spread = f"{percent(min(s.value for s in shares))} to {percent(max(s.value for s in shares))} %"
    if lowest >= highest:
        return Judgement.OPEN, f"All accuracies, {spread}, are the same within their intervals."
    fit = law.single
    if fit is None:
        return Judgement.OPEN, f"Accuracies {spread}; {'; '.join(law.notes)}."
    outcome = Judgement.OPEN
    if fit.steepness <= 0 or fit.r_squared < NO_FIT:
        outcome = Judgement.FAILS
    elif fit.r_squared >= GOOD_FIT:
        outcome = Judgement.HOLDS
    return outcome, f"Accuracies {spread}; {_fit(fit)}"


def _fit(fit: SigmoidFit) -> str:
    start = at_zero(fit)
    return (
        f"R2 = {fit.r_squared:.3f}, k = {fit.steepness:.1f}, m = {fit.middle:.3f}; at rate 0 the "
        f"curve {'says nothing' if start is None else f'has {_percent(start)}'}."
    )


def _curve(runs: Sequence[FinishedRun]) -> Iterator[Evidence]:
    curves: dict[tuple[str | None, ...], list[tuple[float, Estimate]]] = {}
    for run in runs:
        if points := classifier_curve(run):
            curves.setdefault(_same_classifier(run), points)
    for name, run in zip(short_names(runs), runs, strict=True):
        points = curves.get(_same_classifier(run), [])
        eps, rate, share = run.setting("eps"), run.estimate(RATE), _robust(run)[0]
        if not points or eps is None or rate is None or share is None:
            continue
        if eps * rate.high > points[-1][0]:
            continue  # beyond the curve
        promised = _promised(points, Estimate(*(eps * number for number in rate)))
        gap = difference(share, promised)
        outcome = Judgement.OPEN
        if gap.low >= -MARGIN and gap.high <= MARGIN:
            outcome = Judgement.HOLDS
        elif gap.low > MARGIN or gap.high < -MARGIN:
            outcome = Judgement.FAILS
        yield Evidence(
            name,
            outcome,
            f"The classifier alone keeps {_percent(promised)} at "
            f"{in_255ths(eps * rate.value)}, the purified one {_percent(share)} at "
            f"{in_255ths(eps)}.",
        )


def _same_classifier(run: FinishedRun) -> tuple[str | None, ...]:
    """What a curve and the runs that it is held against must share."""
    return tuple(run.fact(name) for name in ("classifier", "data_sha256", "attack", "threat_model"))


def _promised(points: Sequence[tuple[float, Estimate]], budget: Estimate) -> Estimate:
    """The curve at a budget, between its points on straight lines; both intervals count."""
    budgets = [place for place, _ in points]
    value, low, high = zip(*(share for _, share in points), strict=True)
    return Estimate(
        float(np.interp(budget.value, budgets, value)),
        float(np.interp(budget.high, budgets, low)),
        float(np.interp(budget.low, budgets, high)),
    )


def _number(found: Estimate) -> str:
    value, low, high = (f"{number:#.3g}".rstrip(".") for number in found)
    return f"{value} ({low} to {high})"


def _percent(found: Estimate) -> str:
    return f"{percent(found.value)} % ({percent(found.low)} to {percent(found.high)})"
