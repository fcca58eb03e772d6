"""Predictions of robust accuracy: as a table, and against the runs that were attacked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rich.table import Table

from lit_purify.paper import PAPER_EPS
from lit_purify.records.rows import read_numbers
from lit_purify.records.runs import (
    ANY_ITERATION,
    RATE,
    FinishedRun,
    check_alike,
    estimate,
    in_255ths,
)
from lit_purify.report.numbers import percent
from lit_purify.report.terminal import plain_table
from lit_purify.statistics import SigmoidFit, fit_sigmoid, paired_interval, wilson_interval
from lit_purify.types import InputError

Predictor = Literal["first_order", "classifier_curve", "paper_law", "own_law"]
PREDICTORS: dict[Predictor, str] = {
    "first_order": "First order",
    "classifier_curve": "Classifier at budget x rate",
    "paper_law": "The paper's law",
    "own_law": "Law of one's own runs",
}
"""What predicts, and what reports call it."""

ATTACKED = {"fixed": ANY_ITERATION, "fresh": "fresh/robust_accuracy"}
"""Noise -> the accuracy that is predicted."""

_SAME = (
    *("purifier", "purifier_options", "t_star", "num_steps", "sampler", "sampler_options"),
    *("schedule", "forward_process", "clip_output", "resize_to", "threat_model"),
    *("seed", "data", "data_sha256", "models"),
)
"""Settings in which a prediction must not differ from what it is compared with."""

NOTES: dict[Predictor, str] = {
    "first_order": "the first order is an estimate and no bound: an attack that follows the "
    "curvature finds more, the larger the budget, so that it errs upwards there",
    "classifier_curve": "the classifier at budget x rate is no bound either: it takes every "
    "perturbation for compressed as a uniform one is, and attacks may find others",
    "paper_law": "the paper's law is of its models on CIFAR-10 at 8/255, with rates from 0.17 to "
    "0.55; other budgets are read at the rate times the budget over 8/255",
    "own_law": "the interval of a law says how well its curve is known, not how far a defence may "
    "be from the curve",
}


def budget(eps: float, p: float) -> str:
    """A budget as it is written in the field: 2/255 in l_inf, 0.5 in l2."""
    return in_255ths(eps) if p == math.inf else f"{eps:.4g}"


def prediction_name(predictor: Predictor, eps: float, p: float = math.inf) -> str:
    """The metric of a prediction.

    Example:
        >>> prediction_name("first_order", 2 / 255)
        'prediction/first_order_at_2_255'
    """
    return f"prediction/{predictor}_at_{budget(eps, p).replace('/', '_')}"


def law_over_budgets(runs: Sequence[FinishedRun]) -> SigmoidFit:
    """The sigmoid through runs that were attacked under fixed noise, at any budgets.

    Robust accuracy, at every iteration, against the compression rate times eps over 8/255: as if
    their product alone counted, which holds for a purifier that compresses all alike.

    Raises:
        InputError: a run lacks one of the two, they differ in more than eps and how they purify, or
            they do not determine a sigmoid.
    """
    try:
        check_alike(runs, but_for="eps")
    except InputError as error:
        raise InputError(f"no law is fitted to the runs given: {error}") from error
    points = []
    for run in runs:
        rate, accuracy = run.estimate(RATE), run.estimate(ATTACKED["fixed"])
        if rate is None or accuracy is None:
            raise InputError(
                f"the run in {run.folder} has no {RATE if rate is None else ATTACKED['fixed']}; "
                "leave it out, or repeat it with measure.compression and the protocol fixed"
            )
        points.append((rate.value * run.settings["eps"] / PAPER_EPS, accuracy.value))
    return fit_sigmoid([x for x, _ in points], [y for _, y in points])


def predictions(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a run predicts, by predictor and budget, with what must be said about it.

    Args:
        summary: as in ``summary.json``, of a run with ``measure.prediction``.

    Returns:
        ``budgets``, in words; ``predictors``: name -> ``label``, ``cost`` for every image and
        budget, ``predicted``: a list of ``value``, ``low``, ``high``, ``n`` in the order of the
        budgets; ``unknown``: share of the images without a gradient; ``notes``; ``flags``.
    """
    settings, metrics = summary["settings"], summary["metrics"]
    p = float(settings["prediction_p"])
    budgets = [budget(eps, p) for eps in settings["prediction_budgets"]]
    found: dict[str, Any] = {}
    for predictor, label in PREDICTORS.items():
        names = [prediction_name(predictor, eps, p) for eps in settings["prediction_budgets"]]
        if all(name in metrics for name in names):
            cost, predicted = _cost(predictor, settings), [metrics[name] for name in names]
            found[predictor] = {"label": label, "cost": cost, "predicted": predicted}
    unknown = metrics.get("prediction/unknown", {}).get("value")
    notes = [NOTES[predictor] for predictor in PREDICTORS if predictor in found]
    notes += [f"left out: {what}" for what in settings.get("prediction_left_out", [])]
    if unknown:
        notes.append(
            f"{percent(unknown)} % of the images have no gradient, so that the first order knows "
            "nothing of them and leaves them out: the defence may only hide it"
        )
    return {
        "budgets": budgets,
        "predictors": found,
        "unknown": unknown,
        "notes": notes,
        "flags": summary.get("flags", []),
    }


def _cost(predictor: Predictor, settings: Mapping[str, Any]) -> str:
    """What a prediction takes for every image and budget; the first gradient serves them all."""
    if predictor == "first_order":
        count = settings["prediction_gradients"] * settings.get("prediction_draws", 1)
        return f"{count} gradient{'s' if count > 1 else ''}"
    if predictor == "classifier_curve":
        return "2 purifications, attack on classifier"
    return "2 purifications"


def prediction_table(found: Mapping[str, Any]) -> Table:
    """:func:`predictions` for the terminal: in percent, below each its 95 % interval."""
    table = plain_table()
    table.add_column("predicted by\nat a cost of")
    for eps in found["budgets"]:
        table.add_column(f"eps\n{eps}", justify="right", no_wrap=True)
    for row in found["predictors"].values():
        cells = []
        for entry in row["predicted"]:
            known = estimate(entry)
            value, *ends = ("-",) if known is None else map(percent, known)
            cells.append(f"{value}\n{'–'.join(ends)}")
        table.add_row(f"{row['label']}\n{row['cost']}", *cells)
    return table


class Comparison(NamedTuple):
    """A prediction beside what an attack left.

    Attributes:
        predicted: share of the images that were to stand.
        attacked: share that stood.
        low: lower end of the 95 % interval of their difference.
        high: upper end.
        n: images that both have.
    """

    predicted: float
    attacked: float
    low: float
    high: float
    n: int

    @property
    def error(self) -> float:
        """By how much the prediction is too high, a share."""
        return self.predicted - self.attacked


def compare(prediction: FinishedRun, attacked: FinishedRun) -> dict[Predictor, Comparison]:
    """Hold predictions against a run that was attacked, on the images that both have.

    Both may be the same run. What predicts image by image is compared image by image, so that the
    interval is that of paired shares; beside a law it is the accuracy's alone.

    Args:
        prediction: a run with ``measure.prediction``, whose budgets include the attack's.
        attacked: a run of the same defence, attacked under the noise that is predicted for.

    Returns:
        By predictor, without those that the run has not used.

    Raises:
        InputError: the defences or the data differ, or there is nothing to compare.
    """
    for name in _SAME:
        one, other = prediction.settings.get(name), attacked.settings.get(name)
        if one != other:
            raise InputError(
                f"{prediction.folder} and {attacked.folder} differ in {name} ({one} and {other}); "
                "compare a prediction with an attack on the same defence"
            )
    truth = ATTACKED[prediction.settings["prediction_noise"]]
    known = read_numbers(attacked.folder, truth)
    p, eps = float(prediction.settings["prediction_p"]), attacked.settings["eps"]
    found: dict[Predictor, Comparison] = {}
    for predictor in PREDICTORS:
        name = prediction_name(predictor, eps, p)
        expected = read_numbers(prediction.folder, name)
        both = sorted(known.keys() & expected.keys())
        if not both:
            continue
        n, right = len(both), sum(known[index] for index in both)
        if predictor.endswith("law"):
            value = prediction.metrics[name]["value"]
            low, high = wilson_interval(right, n)
            ends = (value - high, value - low)
        else:
            gaps = [expected[index] - known[index] for index in both]
            value, ends = (sum(gaps) + right) / n, paired_interval(gaps)
        found[predictor] = Comparison(value, right / n, *ends, n)
    if not found:
        raise InputError(
            f"{prediction.folder} predicts nothing for {truth} of {attacked.folder}; give both the "
            "same budget and some of the same images"
        )
    return found


def mean_absolute_errors(
    comparisons: Sequence[Mapping[Predictor, Comparison]],
) -> dict[Predictor, float]:
    """Mean of the absolute errors of each predictor, a share, over the runs that have it."""
    found: dict[Predictor, float] = {}
    for predictor in PREDICTORS:
        errors = [abs(row[predictor].error) for row in comparisons if predictor in row]
        if errors:
            found[predictor] = sum(errors) / len(errors)
    return found
