"""Many runs as tables and figures: runs side by side, the law (Fig. 3b), the paper's tables."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lit_purify.paper import PAPER_EPS, paper_fit
from lit_purify.records.files import write_whole
from lit_purify.records.runs import (
    ANY_ITERATION,
    LAST_ITERATION,
    RATE,
    FinishedRun,
    disagreements,
    in_255ths,
    named,
    of_purified,
    read_runs,
)
from lit_purify.report.attacks import attacks_console, attacks_csv, compared_attacks
from lit_purify.report.drawings import drawings
from lit_purify.report.law import Law, accuracy_of, fitted_law, numbers, sentence
from lit_purify.report.paper_tables import PaperTable, paper_tables
from lit_purify.report.paper_text import paper_console, paper_csv, paper_latex, paper_markdown
from lit_purify.report.runs_table import runs_csv, runs_table
from lit_purify.report.terminal import print_whole
from lit_purify.types import InputError

FIGURES = ("law", "law_among_purified", "magnitude", "base_curve", "depth", "protocols")
"""Names of the figures that a report may have."""

ATTACKS = "attacks.csv"
"""A report has it where runs differ in how they attack one defence."""


def report(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    key: str = RATE,
    accuracy: str | None = None,
    free_ceiling: bool = False,
    weighted: bool = False,
    html: Path | None = None,
) -> Path:
    """Print tables of finished runs and the law; write them with their figures into a folder.

    ``runs.csv`` has the runs; ``law.json`` the fits and what was left out; ``tables.md``,
    ``tables.tex`` and ``tables.csv`` the paper's tables beside the runs; ``attacks.csv`` attacks on
    one defence, image by image against the first, where there are several; and PNG files what
    :func:`~lit_purify.report.drawings.drawings` draws. The same records give the same bytes.

    Args:
        folders: run folders, and folders of runs; one that holds no finished run is left out, which
            is said.
        output: where to write; it is created, and an older report in it is replaced.
        key: the metric for compression, such as ``attack/compression_rate``. The paper's points are
            drawn beside ``uniform/compression_rate`` only.
        accuracy: the metric for robust accuracy, ``A|B`` for A among the samples that have B;
            ``None`` is ``fixed/robust_accuracy``, or that at
            any iteration where no run has the other one, which is said.
        free_ceiling: fit A of the sigmoid too, here and to the paper's points.
        weighted: weigh each run in the fit by the width of its accuracy's interval.
        html: a file for all of it and more as one page, for reading; ``None`` for none.

    Returns:
        The folder written to.

    Raises:
        InputError: no folder holds a finished run, none has ``key`` or ``accuracy``, or the report
            cannot be written to ``output`` or ``html``.
    """
    if "://" in str(output):
        raise InputError(
            f"the report goes into a folder, and {output} is an address; give a path by --output"
        )
    output = Path(output)
    _check_targets(output, html)
    runs, left_out = read_runs(folders)
    if not runs:
        raise InputError(f"none of the folders holds a finished run: {'; '.join(left_out)}")
    _check_measured(runs, key, "--key")
    notes = []
    if accuracy is not None:
        _check_measured(runs, accuracy, "--accuracy")
    else:
        accuracy = accuracy_of(runs)
        if accuracy == ANY_ITERATION:
            notes.append(
                f"the attacks stopped early, so robust accuracy is {ANY_ITERATION}: right at every "
                "iteration, which is at most what is right after the last one"
            )
    options = {"free_ceiling": free_ceiling, "weighted": weighted}
    law = fitted_law(runs, key, accuracy, **options)
    # Depth costs clean accuracy too, which a law of robustness need not explain.
    law_among = fitted_law(runs, key, of_purified(accuracy), **options)
    unfit = named(runs, (_unfit(run, key, accuracy) for run in runs))
    notes += disagreements(runs)
    notes += [f"not in the fit ({why}): {names}" for why, names in unfit.items()]
    paper = None
    if key == RATE:
        paper = paper_fit(free_ceiling=free_ceiling)
        notes += _unlike_paper(runs)
    notes += law.notes

    tables = paper_tables(runs)
    attacks = compared_attacks(runs)
    overview = runs_table(runs, key, accuracy)
    print_whole(overview, *attacks_console(attacks), *paper_console(tables))
    for line in (
        *(f"left out: {line}" for line in left_out),
        *(f"note: {line}" for line in notes),
        *law.sentences(),
        *(f"among images purified correctly, {line}" for line in law_among.sentences()),
        *([] if paper is None else [f"paper: {sentence(paper)}"]),
    ):
        print(line)
    below = _common(runs)
    left_out = [line.replace(f"{below}{os.sep}", "") for line in left_out]
    found = {
        "key": key,
        "accuracy": accuracy,
        "runs": [_below(run.folder, below) for run in runs],
        **_fits(law, weighted=weighted),
        "among_purified": _fits(law_among, weighted=weighted),
        "paper": paper and numbers(paper),
        "left_out": left_out,
        "notes": notes,
    }
    figures = drawings(runs, law, law_among, key=key, accuracy=accuracy, free_ceiling=free_ceiling)
    files = {
        "runs.csv": runs_csv(runs, key, [_below(run.folder, below) for run in runs]).encode(),
        "law.json": (json.dumps(found, indent=2, allow_nan=False) + "\n").encode(),
        **_table_files(tables),
        **({ATTACKS: attacks_csv(attacks).encode()} if attacks else {}),
        **{f"{name}.png": _png(figure) for name, figure in figures.items()},
    }
    written = {output / name: content for name, content in files.items()}
    if html is not None:
        from lit_purify.report.page import page  # late: other reports need no templates

        written[html] = page(runs, figures, remarks=[*left_out, *notes]).encode()
    stale = [output / f"{name}.png" for name in FIGURES if name not in figures]
    stale += [] if attacks else [output / ATTACKS]
    _write(written, stale)
    return output


def _check_targets(output: Path, html: Path | None) -> None:
    """Raise :class:`InputError` where it shows before the work that it cannot be written."""
    if html is not None and html.is_dir():
        raise InputError(f"--html names the folder {html}; expected a file, such as report.html")
    for folder in [output] if html is None else [output, html.absolute().parent]:
        places = (place for place in (folder, *folder.absolute().parents) if place.exists())
        if not (place := next(places)).is_dir() or not os.access(place, os.W_OK):
            raise _unwritable(f"{folder} ({place} is no folder that may be written to)")


def _unwritable(what: str) -> InputError:
    return InputError(
        f"the report cannot be written to {what}; choose another folder by --output, or another "
        "file by --html"
    )


def _check_measured(runs: Sequence[FinishedRun], name: str, option: str) -> None:
    """Raise :class:`InputError` unless a run has the metric that an option names."""
    if all(run.estimate(name) is None for run in runs):
        known = sorted({n for run in runs for n in run.metrics if run.estimate(n) is not None})
        raise InputError(
            f"no run has the metric {name}; give another one by {option}, of "
            f"{', '.join(known) or 'none'}, or repeat the runs with what measures it"
        )


def _unfit(run: FinishedRun, key: str, accuracy: str) -> str | None:
    """Why a run does not take part in the fit; ``None`` where it does."""
    if run.estimate(key) is None:
        return f"there is no {key}, so that it is in the table only"
    if run.estimate(accuracy) is not None:
        return None
    if accuracy == LAST_ITERATION and run.estimate(ANY_ITERATION) is not None:
        return (
            "the attack stopped early, so the accuracy after its last iteration is unknown; "
            f"--accuracy {ANY_ITERATION} takes that over all of them"
        )
    if accuracy in (LAST_ITERATION, ANY_ITERATION):
        return "it was not attacked under fixed noise"
    return f"there is no {accuracy}"


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


def _fits(law: Law, *, weighted: bool) -> dict[str, object]:
    """The fits as plain numbers: ``measured`` is that of runs of one budget."""
    more = {"weighted": weighted}
    return {
        "measured": law.single and numbers(law.single) | more,
        "per_eps": [
            {"eps": None if eps is None else f"{eps:g}/255", **numbers(fit), **more}
            for eps, fit in law.fits.items()
        ],
        "eps_times_rate": law.together and numbers(law.together) | more,
    }


def _table_files(tables: Sequence[PaperTable]) -> dict[str, bytes]:
    writers = {"md": paper_markdown, "tex": paper_latex, "csv": paper_csv}
    return {f"tables.{ending}": write(tables).encode() for ending, write in writers.items()}


def _common(runs: Sequence[FinishedRun]) -> Path:
    """The folder that all runs lie in: what is written does not depend on where that is."""
    return Path(os.path.commonpath([run.folder.absolute().parent for run in runs]))


def _below(folder: Path, common: Path) -> str:
    return os.path.relpath(folder.absolute(), common).replace(os.sep, "/")


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _write(files: Mapping[Path, bytes], stale: Iterable[Path]) -> None:
    """Write files, and delete those of an older report."""
    try:
        for path, content in files.items():
            write_whole(path, content)
        for path in stale:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(f"{error.filename} ({error.strerror})") from error
