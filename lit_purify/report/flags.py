"""What in the numbers of a run looks wrong, gradient masking above all, in plain sentences.

A flag is no proof. It says that the robust accuracy may be the failure of an attack, and what to
try. Most compare one metric with a threshold: they are the RULES, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from lit_purify.report.ladder_flags import ladder_flags
from lit_purify.report.numbers import percent
from lit_purify.report.preflight_flags import PROBABILITIES, of_preflight
from lit_purify.types import UNTRAINED

Metrics = Mapping[str, Mapping[str, Any]]


class Rule(NamedTuple):
    """One metric and when it is suspicious.

    Attributes:
        metric: its name; one without a value is never suspicious.
        suspicious: says so of its entry, beside all metrics. The lower end of an interval is judged
            where a few samples could be chance.
        sentence: with ``{value}`` and ``{n}`` of the metric, ``{share}``, its value in percent, and
            ``{fixed}``, ``fixed/robust_accuracy`` in percent.
    """

    metric: str
    suspicious: Callable[[Mapping[str, Any], Metrics], bool]
    sentence: str


_GRADIENTS = {
    "masking": "The gradient",
    "prediction": "The gradient of the first-order prediction",
    "base": "The gradient of the attack on the classifier alone",
    "fixed": "The gradient of the attack under fixed noise",
    "fresh": "The gradient of the attack under fresh noise",
}
"""Whose gradients are looked at: the diagnostics', and those that every attack asked for."""

RULES = (
    # No sound chain overflows, and attacks ignore such pixels.
    *(
        Rule(
            f"{of}/nonfinite_gradient",
            lambda entry, _: entry["value"] > 0,
            f"{gradient} is infinite or not a number in {{share}} of the samples, which the attack "
            "could not follow there: their robustness says nothing; lower t_star or num_steps, or "
            "run in a higher precision.",
        )
        for of, gradient in _GRADIENTS.items()
    ),
    # A network mixes all pixels, so that none is exactly zero; a few samples whose loss underflows
    # are let pass.
    *(
        Rule(
            f"{of}/zero_gradient",
            lambda entry, _: entry["value"] > 0.01,
            f"{gradient} is exactly zero in {{share}} of the pixels, where an attack finds no "
            "direction: the defence may only hide its gradient, unless it drops these pixels, as a "
            "crop or a median filter does; look for a saturated softmax, clipping or rounding, or "
            "attack with BPDA or without gradients.",
        )
        for of, gradient in _GRADIENTS.items()
    ),
    # A sound gradient agrees with the differences to about 1 %; now and then a sample sits on a
    # kink of the network.
    Rule(
        "masking/wrong_gradient",
        lambda entry, _: _end(entry, "low", 0) > 0.05,
        "In {share} of the samples the gradient is not the derivative of the loss (more than 10 % "
        "off the differences of the loss), so an attack follows a wrong direction; look for a "
        "custom backward pass, rounding or low precision in the purifier, or attack with BPDA or "
        "without gradients.",
    ),
    # A purifier of compression rate alpha has about log10 alpha, between -1.5 and 0; three orders
    # are far from what compression explains.
    *(
        Rule(
            "masking/gradient_growth_log10",
            lambda entry, _, sign=sign: sign * entry["value"] > 3,  # type: ignore[misc]
            f"From the output to the input of the chain the gradient {way} by a factor of "
            f"10^{{value:.1f}}, far beyond what compression explains: {cure}; compare with a lower "
            "t_star, fewer steps, and an attack without gradients.",
        )
        for sign, way, cure in (
            (1, "grows", "such a gradient is chaotic and its sign of little use"),
            (-1, "vanishes", "rounding may decide its sign"),
        )
    ),
    # 0.1 raises the odds against the true class by a tenth, which no attack with a usual eps is
    # content with; one that left no sample standing need not raise its loss.
    Rule(
        "masking/attack_loss_gain",
        lambda entry, metrics: entry["value"] < 0.1 and _something_stood(metrics),
        "The attack changed its own loss by {value:+.2g} on average, where less than +0.1 is no "
        "rise, and left samples standing: unless eps is tiny it did not work, and they prove no "
        "robustness; check the gradient, eps and the step size.",
    ),
    # An attack that has converged loses nothing by being stopped.
    Rule(
        "masking/lost_to_longer_attack",
        lambda entry, _: _end(entry, "low", 0) > 0.05,
        "A longer attack broke {share} of the {n} samples tried that had stood: the attack was "
        "stopped before it was done, so the robust accuracy is too high; raise attack.steps until "
        "it no longer falls.",
    ),
    # Who sees less cannot find more, unless the gradient leads astray.
    Rule(
        "masking/lost_to_black_box",
        lambda entry, _: _end(entry, "low", 0) > 0.05,
        "An attack without gradients broke {share} of the {n} samples tried that had stood: the "
        "gradient is masked, or was followed for too few steps, and the robust accuracy is too "
        "high; make the purifier differentiable, or attack with BPDA or without gradients.",
    ),
    # To know the noise cannot make an attack weaker.
    *(
        Rule(
            f"{name}/robust_accuracy",
            lambda entry, metrics: (
                _end(entry, "high", 1) < _end(metrics.get("fixed/robust_accuracy", {}), "low", 0)
            ),
            f"Under {known} ({name}) only {{share}} stay correct, but {{fixed}} under the very "
            "noise that was attacked (fixed), where an attack should be at its strongest: the "
            "attack on fixed failed; try more steps, another step size or a random start.",
        )
        for name, known in (
            ("transfer", "images found for another noise"),
            ("blind", "images found on the classifier alone"),
            ("fresh", "fresh noise"),
        )
    ),
)

CLEAN = {
    "base/clean_accuracy": (
        "The classifier is",
        "check that the images are in [0, 1], that the labels and the logits name the classes in "
        "the same order, and that the weights belong to these data",
    ),
    "purified/clean_accuracy": (
        "Behind the purifier the classifier is",
        "if the classifier alone is right, purify less (a lower t_star), and check that the "
        "denoiser's weights belong to these data",
    ),
}
"""Accuracies without an attack: whose they are, and what to look at where it is that of chance."""

AUTOATTACK = {
    "randomized": "the defence answers the same image differently, and an attack meant for "
    "deterministic defences is misled by that; use version rand, or the protocol fixed",
    "probabilities": PROBABILITIES,
    "zero_gradient": "the gradient is zero, so only attacks without gradients mean something; look "
    "for a saturated or quantised output, and try the Square attack with more queries",
    "dynamic": "the defence does more than a forward pass when it is asked, optimises or changes "
    "itself, say, which attacks do not follow; attack what it does as a whole",
    "square": "the attack without gradients succeeded where those with gradients failed, so "
    "the gradients mislead; try BPDA or a longer attack",
    "few_classes": "the targeted attacks need more classes than the data have and ran with fewer "
    "targets",
}
"""Ending of a metric ``<surface>/attack_flag_<ending>`` -> what it means and what to try."""


def flags(
    metrics: Metrics,
    settings: Mapping[str, Any] | None = None,
    preflight: Mapping[str, Any] | None = None,
) -> list[str]:
    """What looks wrong with a run: the number, why it matters, what to try.

    Args:
        metrics: name -> ``value`` and, where they make sense, ``low``, ``high``, ``n``, as in
            ``summary.json``; any subset.
        settings: as in ``summary.json``.
        preflight: likewise, what was found before the test.

    Returns:
        Sentences, none where nothing is suspicious or nothing was measured.

    Example:
        >>> flags({"masking/zero_gradient": {"value": 0.0}})
        []
        >>> (sentence,) = flags({"masking/zero_gradient": {"value": 0.5}})
        >>> print(sentence)
        The gradient is exactly zero in 50.0 % of the pixels, where an attack finds no direction: \
the defence may only hide its gradient, unless it drops these pixels, as a crop or a median filter \
does; look for a saturated softmax, clipping or rounding, or attack with BPDA or without gradients.
    """
    settings, preflight = settings or {}, preflight or {}
    return [
        *of_preflight(preflight, settings, tested=bool(metrics)),
        *_of_broken_answers(metrics),
        *_of_chance(metrics, preflight.get("num_classes")),
        *_of_rules(metrics),
        *_of_autoattack(metrics),
        *ladder_flags(metrics, settings.get("budget")),
        *_of_early_stop(metrics, settings, preflight),
        *_of_settings(settings),
    ]


def _of_broken_answers(metrics: Metrics) -> Iterator[str]:
    for name in metrics:
        share = _value(metrics, name)
        if name.endswith("_nonfinite") and share:
            yield (
                f"In {percent(share)} % of the samples the purified image or the logits are not "
                f"finite ({name}); they count as wrong, so that the accuracies are those of a "
                "broken defence; look for a division by zero, an overflow or a lower precision."
            )


def _of_chance(metrics: Metrics, num_classes: int | None) -> Iterator[str]:
    if num_classes is None:
        return
    for name, (who, advice) in CLEAN.items():
        chance = 1 / num_classes
        low, high = (_end(metrics.get(name, {}), end, 1) for end in ("low", "high"))
        # The interval of a few images reaches down to chance too, and up beyond the middle.
        if low <= chance and high < (1 + chance) / 2:
            yield (
                f"{who} right on {percent(metrics[name]['value'])} % of the clean images, where "
                f"chance gives {percent(chance)} %: there is nothing that an attack could take; "
                f"{advice}."
            )


def _of_rules(metrics: Metrics) -> Iterator[str]:
    fixed = _value(metrics, "fixed/robust_accuracy") or 0.0
    for metric, suspicious, sentence in RULES:
        value, entry = _value(metrics, metric), metrics.get(metric, {})
        if value is not None and suspicious(entry, metrics):
            yield sentence.format(**entry, share=f"{percent(value)} %", fixed=f"{percent(fixed)} %")


def _of_autoattack(metrics: Metrics) -> Iterator[str]:
    for name in metrics:
        surface, _, column = name.partition("/")
        start, found, ending = column.partition("attack_flag_")
        share = _value(metrics, name)
        if start or not found or share is None or share <= 0:
            continue
        meaning = AUTOATTACK.get(ending, "see its documentation")
        of = f"{ending}, {percent(share)} % of the samples"
        yield f"AutoAttack warns on {surface} ({of}): {meaning}."


def _of_early_stop(
    metrics: Metrics, settings: Mapping[str, Any], preflight: Mapping[str, Any]
) -> Iterator[str]:
    """Of images that are tested elsewhere than where they were found, and may fail there."""
    tested = {"transfer": "known noise", "blind": "classifier alone"}
    if preflight.get("draws_noise") is False:
        del tested["transfer"]  # there is no other noise
    for name, known in tested.items():
        if settings.get("early_stop") and _value(metrics, f"{name}/robust_accuracy"):
            yield (
                f"The attack stopped at the first image that fooled the {known}, at the edge of "
                f"what fools, and such images transfer badly: {name}/robust_accuracy is too high; "
                "measure it with one attack that goes on, such as PGD with attack.early_stop false."
            )


def _of_settings(settings: Mapping[str, Any]) -> Iterator[str]:
    """No masking, but numbers that say less than they seem to."""
    chains = [name for name in settings.get("protocols", []) if name not in ("base", "blind")]
    surrogate = settings.get("surrogate")
    if chains and (approximate := (surrogate or settings).get("purifier_gradient")):
        yield (
            f"The gradient of the {'surrogate' if surrogate else 'purifier'} is approximate "
            f"({approximate}), so that an attack which follows it may miss what a better one "
            "finds: the robust accuracy may be too high; compare with an attack without gradients."
        )
    if chains and surrogate:
        steps = surrogate.get("num_steps")
        what = surrogate["purifier"] + ("" if steps is None else f" of {steps} steps")
        yield (
            f"The attacks follow a surrogate ({what}) in the place of the purifier, and what they "
            "find is tested on the defence itself: one that follows the defence may find more, so "
            "that the robust accuracy may be too high; drop model.surrogate to attack it."
        )
    for role, model in settings.get("models", {}).items():
        if model["source"].startswith(UNTRAINED):
            yield (
                f"The {role} has random weights ({model['source']}): this run shows what an "
                "evaluation costs, and its numbers mean nothing; name trained weights."
            )
    wanted, found = settings.get("classifier_preprocessing"), settings.get("data_preprocessing")
    if wanted and found and wanted != found:
        yield (
            f"The photographs were prepared by {found}, and the classifier's published accuracy "
            f"is with {wanted}; set data.preprocessing to {wanted}."
        )


def _something_stood(metrics: Metrics) -> bool:
    names = ("fixed/robust_accuracy", "fixed/robust_accuracy_any_iteration")
    known = [value for name in names if (value := _value(metrics, name)) is not None]
    return not known or max(known) > 0


def _value(metrics: Metrics, name: str) -> float | None:
    return metrics.get(name, {}).get("value")


def _end(entry: Mapping[str, Any], key: str, unknown: float) -> float:
    """An end of an interval. Without a sample it is all of [0, 1], and says nothing."""
    end = entry.get(key)
    return unknown if end is None else end
