"""The figures that several runs make together, drawn from what they recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from matplotlib.figure import Figure

from lit_purify.figures import (
    Bar,
    CurvePoint,
    MeasuredPoint,
    base_curve_figure,
    budgets_figure,
    depth_figure,
    magnitude_figure,
    protocols_figure,
    sigmoid_figure,
)
from lit_purify.paper import paper_fit
from lit_purify.records.runs import CLEAN, RATE, FinishedRun, in_255ths
from lit_purify.report.classifier_curve import classifier_curve
from lit_purify.report.law import Law, measured_points
from lit_purify.report.matching import seeds_of_one
from lit_purify.types import Estimate

MAGNITUDE = "magnitude/l2"
QUANTITIES = {
    RATE: "compression rate of uniform perturbations",
    "attack/compression_rate": "compression rate of attack perturbations",
}
_MOST_GROUPS = 12  # of bars, before their names cover one another


def drawings(
    runs: Sequence[FinishedRun],
    law: Law,
    among: Law,
    *,
    key: str,
    accuracy: str,
    free_ceiling: bool = False,
) -> dict[str, Figure]:
    """Name -> figure, for everything that these runs allow to be drawn.

    ``law`` is robust accuracy against ``key``, ``law_among_purified`` that of the images that are
    right without an attack; ``magnitude`` against the size of the attack;
    ``base_curve`` the classifier alone under smaller budgets; ``depth`` accuracy and compression
    against t*; ``protocols`` accuracy by what the attacker knows, over seeds.
    """
    quantity = QUANTITIES.get(key, key)
    figures = {"law": _law(runs, law, quantity, paper=key == RATE, free_ceiling=free_ceiling)}
    if among.attacked:
        what = "still right, of those purified correctly (%)"
        figures["law_among_purified"] = _law([], among, quantity, accuracy=what)
    sizes = [p for p in measured_points(runs, MAGNITUDE, accuracy) if p.robust is not None]
    if sizes:
        figures["magnitude"] = magnitude_figure(sizes)
    more = {
        "base_curve": _base_curve(runs, law),
        "depth": _depth(law, key),
        "protocols": _protocols(runs, accuracy),
    }
    return figures | {name: figure for name, figure in more.items() if figure is not None}


def _law(
    runs: Sequence[FinishedRun],
    law: Law,
    quantity: str,
    *,
    paper: bool = False,
    free_ceiling: bool = False,
    accuracy: str | None = None,
) -> Figure:
    names = {"quantity": quantity} | ({} if accuracy is None else {"accuracy": accuracy})
    if len(law.attacked) > 1:
        points = {eps: points for eps, points in law.points.items() if eps is not None}
        fits = {eps: fit for eps, fit in law.fits.items() if eps is not None}
        return budgets_figure(points, fits, law.together, **names)
    return sigmoid_figure(
        [point for points in law.points.values() for point in points],
        law.single,
        paper=paper_fit(free_ceiling=free_ceiling) if paper else None,
        base_clean=_base_clean(runs),
        **names,
    )


def _base_clean(runs: Sequence[FinishedRun]) -> float | None:
    """Clean accuracy of the classifier alone, where the runs agree about it."""
    values = {found.value for run in runs if (found := run.estimate("base/clean_accuracy"))}
    return values.pop() if len(values) == 1 else None


def _base_curve(runs: Sequence[FinishedRun], law: Law) -> Figure | None:
    """The classifier alone under eps times alpha, where runs measured it and agree about it."""
    found: dict[float, Estimate] = {}
    for run in runs:
        for eps, accuracy in classifier_curve(run):
            if found.setdefault(round(255 * eps, 6), accuracy) != accuracy:
                return None
    if len(found) < 2:
        return None
    whole = max(255 * own for run in runs if (own := run.settings.get("base_curve_eps")))
    curve = [CurvePoint(eps / whole, accuracy) for eps, accuracy in found.items()]
    measured = [
        CurvePoint(eps * point.x.value / whole, point.robust, _label(point))
        for eps, points in law.points.items()
        for point in points
        if eps is not None and point.robust is not None
    ]
    return base_curve_figure(curve, measured, eps=whole / 255)


def _label(point: MeasuredPoint) -> str:
    return point.method if point.t_star is None else f"{point.method}, t* = {point.t_star}"


def _depth(law: Law, key: str) -> Figure | None:
    """Values against t*, where a method was run at two depths or more."""
    several = len(law.attacked) > 1
    points = list(
        dict.fromkeys(
            # Of several budgets none is the robust accuracy, and the others depend on none.
            point._replace(robust=None) if several else point
            for points in law.points.values()
            for point in points
        )
    )
    depths = {(point.method, point.t_star) for point in points if point.t_star is not None}
    if len(depths) == len({method for method, _ in depths}):
        return None
    return depth_figure(points, paper=key == RATE)


def _protocols(runs: Sequence[FinishedRun], accuracy: str) -> Figure | None:
    """Bars of the accuracies, where a run was tested in two ways or more."""
    names = {
        CLEAN: "clean images",
        "base/robust_accuracy": "classifier alone",
        "blind/robust_accuracy": "purifier-blind",
        accuracy: "fixed noise",
        "transfer/robust_accuracy": "transfer to other noise",
        "fresh/robust_accuracy": "fresh noise",
    }
    groups: dict[str, dict[str, Bar]] = {}
    for alike in seeds_of_one(runs):
        bars = {word: bar for name, word in names.items() if (bar := _bar(alike, name)) is not None}
        if len(bars.keys() - {"clean images", "classifier alone"}) > 1:
            groups[_setting(alike[0], groups)] = bars
    return protocols_figure(groups) if 0 < len(groups) <= _MOST_GROUPS else None


def _bar(alike: Sequence[FinishedRun], name: str) -> Bar | None:
    estimates = [found for run in alike if (found := run.estimate(name)) is not None]
    if not estimates:
        return None
    deviation = stdev(found.value for found in estimates) if len(estimates) > 1 else None
    return Bar(Estimate(*map(fmean, zip(*estimates, strict=True))), deviation)


def _setting(run: FinishedRun, taken: Mapping[str, object]) -> str:
    depth, eps = run.settings.get("t_star"), run.setting("eps")
    words = [run.method, *([] if depth is None else [f"t* = {depth}"])]
    words += [] if eps is None or math.isclose(255 * eps, 8) else [f"eps {in_255ths(eps)}"]
    name = "\n".join(words)
    same = sum(each.partition(" (")[0] == name for each in taken)
    return f"{name} ({same + 1})" if same else name
