"""Many runs as one table and the sigmoid law (Fig. 3b)."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from lit_purify.figures import MeasuredPoint, magnitude_figure, sigmoid_figure
from lit_purify.paper import PAPER_EPS, paper_fit
from lit_purify.records.files import write_whole
from lit_purify.records.runs import (
    DECISIVE,
    FinishedRun,
    differences,
    disagreements,
    in_255ths,
    named,
    read_runs,
)
from lit_purify.report.numbers import percent
from lit_purify.report.runs_table import runs_csv, runs_table
from lit_purify.statistics import SigmoidFit, fit_sigmoid
from lit_purify.types import InputError

KEY = "uniform/compression_rate"
ACCURACY = "fixed/robust_accuracy"
MAGNITUDE = "magnitude/l2"
_QUANTITIES = {
    KEY: "compression rate of uniform perturbations",
    "attack/compression_rate": "compression rate of attack perturbations",
}


def report(
    folders: Sequence[str | Path],
    output: Path,
    *,
    key: str = KEY,
    free_ceiling: bool = False,
    weighted: bool = False,
    html: Path | None = None,
) -> Path:
    """Print a table of finished runs and the law; write them with their figures into a folder.

    ``runs.csv`` has the runs, ``law.json`` the fits and what was left out, ``law.png`` accuracy
    against ``key`` and, where attacks were measured, ``magnitude.png`` accuracy against their size.
    No curve is fitted to runs that differ in more than how they purify.

    Args:
        folders: run folders; one that holds no finished run is left out, which is said.
        output: where to write; it is created, and an older report in it is replaced.
        key: the metric for compression, such as ``attack/compression_rate``. The paper's points are
            drawn beside ``uniform/compression_rate`` only.
        free_ceiling: fit A of the sigmoid too, here and to the paper's points.
        weighted: weigh each run in the fit by the width of its accuracy's interval.
        html: a file for all of it and more as one page, for reading; ``None`` for none.

    Returns:
        The folder written to.

    Raises:
        InputError: no folder holds a finished run, or none has ``key``.
    """
    runs, left_out = read_runs(folders)
    if not runs:
        raise InputError(f"none of the folders holds a finished run: {'; '.join(left_out)}")
    points = _points(runs, key)
    if not points:
        known = sorted({n for run in runs for n in run.metrics if run.estimate(n) is not None})
        raise InputError(
            f"no run has the metric {key}; give another one by --key, of "
            f"{', '.join(known) or 'none'}, or repeat the runs with what measures it"
        )
    unfit = named(runs, (_unfit(run, key) for run in runs))
    notes = disagreements(runs)
    notes += [f"not in the fit ({why}): {names}" for why, names in unfit.items()]
    paper = None
    if key == KEY:
        paper = paper_fit(free_ceiling=free_ceiling)
        notes += _unlike_paper(runs)
    fit: SigmoidFit | None = None
    try:
        _check_alike([run for run in runs if _unfit(run, key) is None])
        fit = _fit(points, free_ceiling=free_ceiling, weighted=weighted)
    except InputError as error:
        notes.append(f"no curve is fitted to these runs: {error}")

    lines = [*(f"left out: {line}" for line in left_out), *(f"note: {line}" for line in notes)]
    if fit is not None:
        lines.append(f"measured: {_sentence(fit)}")
    if paper is not None:
        lines.append(f"paper: {_sentence(paper)}")
    table, console = runs_table(runs, key), Console()
    # A digit that is cut off is worse than a line that is folded.
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)
    for line in lines:
        print(line)
    law = {
        "key": key,
        "accuracy": ACCURACY,
        "runs": [str(run.folder) for run in runs],
        "measured": fit and _numbers(fit) | {"weighted": weighted},
        "paper": paper and _numbers(paper),
        "left_out": left_out,
        "notes": notes,
    }
    figures = {
        "law": sigmoid_figure(
            points,
            fit,
            paper=paper,
            base_clean=_base_clean(runs),
            quantity=_QUANTITIES.get(key, key),
        )
    }
    sizes = [point for point in _points(runs, MAGNITUDE) if point.robust is not None]
    if sizes:
        figures["magnitude"] = magnitude_figure(sizes)
    files = {
        output / "runs.csv": runs_csv(runs, key).encode(),
        output / "law.json": (json.dumps(law, indent=2, allow_nan=False) + "\n").encode(),
        **{output / f"{name}.png": _png(figure) for name, figure in figures.items()},
    }
    if html is not None:
        from lit_purify.report.page import page  # late: other reports need no templates

        files[html] = page(runs, figures, remarks=[*left_out, *notes]).encode()
    try:
        for path, content in files.items():
            write_whole(path, content)
        if not sizes:
            (output / "magnitude.png").unlink(missing_ok=True)  # of an older report
    except OSError as error:
        raise InputError(
            f"the report cannot be written to {error.filename or output} ({error.strerror}); "
            "choose another folder by --output, or another file by --html"
        ) from error
    return output


def _unfit(run: FinishedRun, key: str) -> str | None:
    """Why a run does not take part in the fit; ``None`` where it does."""
    if run.estimate(key) is None:
        return f"there is no {key}, so that it is in the table only"
    if run.estimate(ACCURACY) is not None:
        return None
    if run.estimate(f"{ACCURACY}_any_iteration") is not None:
        return "the attack stopped early, so the accuracy after its last iteration is unknown"
    return "it was not attacked under fixed noise"


def _check_alike(runs: Sequence[FinishedRun]) -> None:
    """Raise :class:`InputError` where runs differ in more than how they purify."""
    if unlike := [name for name in differences(runs) if name in DECISIVE]:
        raise InputError(
            f"they differ in {', '.join(unlike)}; expected runs that differ in how they purify; "
            "report alike runs together"
        )


def _unlike_paper(runs: Sequence[FinishedRun]) -> list[str]:
    lines = []
    for setting, what in (
        ("eps", "the paper attacked with 8/255, and not with"),
        ("uniform_eps", "the paper's rates are of perturbations of 8/255, and not of"),
    ):
        values = (run.setting(setting) for run in runs)
        other = (None if eps in (PAPER_EPS, None) else in_255ths(eps) for eps in values)
        lines += [f"{what} {eps} as in {names}" for eps, names in named(runs, other).items()]
    return lines


def _fit(points: Sequence[MeasuredPoint], *, free_ceiling: bool, weighted: bool) -> SigmoidFit:
    attacked = [(point.x.value, point.robust) for point in points if point.robust is not None]
    rates, accuracies = [rate for rate, _ in attacked], [robust.value for _, robust in attacked]
    z = NormalDist().inv_cdf(0.975)
    errors = [(robust.high - robust.low) / (2 * z) for _, robust in attacked] if weighted else None
    return fit_sigmoid(rates, accuracies, errors=errors, free_ceiling=free_ceiling)


def _points(runs: Sequence[FinishedRun], key: str) -> list[MeasuredPoint]:
    return [
        MeasuredPoint(
            run.method,
            run.settings.get("t_star"),
            x,
            run.estimate(ACCURACY),
            run.estimate("purified/clean_accuracy"),
        )
        for run in runs
        if (x := run.estimate(key)) is not None
    ]


def _base_clean(runs: Sequence[FinishedRun]) -> float | None:
    """Clean accuracy of the classifier alone, where the runs agree about it."""
    values = {found.value for run in runs if (found := run.estimate("base/clean_accuracy"))}
    return values.pop() if len(values) == 1 else None


def _numbers(fit: SigmoidFit) -> dict[str, Any]:
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


def _sentence(fit: SigmoidFit) -> str:
    k, m, a = fit.standard_errors
    ceiling = f"A = {fit.ceiling:.3f} ± {a:.3f}" if fit.parameters == 3 else "A = 1 (not fitted)"
    low, high = map(float, fit.band(0.0))
    return (
        f"k = {fit.steepness:.3f} ± {k:.3f}, m = {fit.middle:.4f} ± {m:.4f}, {ceiling}, "
        f"R2 = {fit.r_squared:.4f}, {fit.points} points; accuracy at 0: {percent(fit.at_zero)} % "
        f"(95 %: {percent(low)} to {percent(high)})"
    )


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
