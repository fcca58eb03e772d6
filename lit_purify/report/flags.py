"""What in the numbers of a run looks like gradient masking, in plain sentences.

A flag is no proof. It says that the robust accuracy may be the failure of an attack, and what to
try. Each has a threshold, with its reason:

- `masking/nonfinite_gradient`, value above 0: no sound chain overflows, and attacks ignore such
  pixels.
- `masking/zero_gradient`, mean above 1 %: a network mixes all pixels, so that none is exactly zero;
  a few samples whose loss underflows are let pass.
- `masking/wrong_gradient`, lower bound above 5 %: a sound gradient agrees with the differences to
  about 1 %; now and then a sample sits on a kink of the network.
- `masking/gradient_growth_log10`, mean beyond -3 or 3: a purifier of compression rate alpha has
  about log10 alpha, between -1.5 and 0; three orders are far from what compression explains.
- `masking/attack_loss_gain`, mean below 0.1, where the attack left a sample standing: 0.1 raises
  the odds against the true class by a tenth, which no attack with a usual eps is content with.
- `masking/lost_to_longer_attack`, lower bound above 5 %: an attack that has converged loses nothing
  by being stopped; one of eight samples may be chance.
- `transfer/robust_accuracy` or `fresh/robust_accuracy`, interval below that of `fixed`: to know the
  noise cannot make an attack weaker.
- `<surface>/attack_flag_*`, value above 0: AutoAttack's own warnings.
- `transfer/robust_accuracy` of an attack that stops early: no masking, but too high all the same.
- a network with random weights: no masking, but no result either.
- photographs prepared otherwise than the classifier wants: no masking, but another accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lit_purify.diffusion.architectures import UNTRAINED

ZERO_GRADIENT = 0.01
WRONG_GRADIENT = 0.05
GROWTH_LOG10 = 3.0
LOSS_GAIN = 0.1
LOST = 0.05

Metrics = Mapping[str, Mapping[str, Any]]

AUTOATTACK = {
    "randomized": "the defence answers the same image differently, and an attack meant for "
    "deterministic defences is misled by that; use version rand, or the protocol fixed",
    "probabilities": "the outputs look like probabilities and not like logits, and the loss then "
    "saturates; have the classifier give logits",
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


def flags(metrics: Metrics, settings: Mapping[str, Any] | None = None) -> list[str]:
    """What looks like gradient masking: the number, why it matters, what to try.

    Args:
        metrics: name -> ``value`` and, where they make sense, ``low``, ``high``, ``n``, as in
            ``summary.json``; any subset.
        settings: as in ``summary.json``.

    Returns:
        Sentences, none where nothing is suspicious or nothing was measured.

    Example:
        >>> flags({"masking/zero_gradient": {"value": 0.0}})
        []
        >>> (sentence,) = flags({"masking/zero_gradient": {"value": 0.5}})
        >>> print(sentence)
        The gradient is exactly zero in 50.0 % of the pixels, where an attack finds no direction: \
the defence may only hide its gradient; look for a saturated softmax, clipping or rounding, or \
attack with BPDA or without gradients.
    """
    return [
        *_of_the_gradient(metrics),
        *_of_the_attack(metrics),
        *_of_autoattack(metrics),
        *_of_early_stop(metrics, settings or {}),
        *_of_untrained(settings or {}),
        *_of_preprocessing(settings or {}),
    ]


def _of_the_gradient(metrics: Metrics) -> Iterator[str]:
    if (share := _get(metrics, "masking/nonfinite_gradient")) is not None and share > 0:
        yield (
            f"The gradient is infinite or not a number in {_percent(share)} of the samples, which "
            "the attack could not follow there: their robustness says nothing; lower t_star or "
            "num_steps, or run in a higher precision."
        )
    if (share := _get(metrics, "masking/zero_gradient")) is not None and share > ZERO_GRADIENT:
        yield (
            f"The gradient is exactly zero in {_percent(share)} of the pixels, where an attack "
            "finds no direction: the defence may only hide its gradient; look for a saturated "
            "softmax, clipping or rounding, or attack with BPDA or without gradients."
        )
    low = _get(metrics, "masking/wrong_gradient", "low")
    if low is not None and low > WRONG_GRADIENT:
        share = metrics["masking/wrong_gradient"]["value"]
        yield (
            f"In {_percent(share)} of the samples the gradient is not the derivative of the loss "
            "(more than 10 % off the differences of the loss), so an attack follows a wrong "
            "direction; look for a custom backward pass, rounding or low precision in the "
            "purifier, or attack with BPDA or without gradients."
        )
    growth = _get(metrics, "masking/gradient_growth_log10")
    if growth is not None and abs(growth) > GROWTH_LOG10:
        way, cure = (
            ("grows", "such a gradient is chaotic and its sign of little use")
            if growth > 0
            else ("vanishes", "rounding may decide its sign")
        )
        yield (
            f"From the output to the input of the chain the gradient {way} by a factor of "
            f"10^{growth:.1f}, far beyond what compression explains: {cure}; compare with a lower "
            "t_star, fewer steps, and an attack without gradients."
        )


def _of_the_attack(metrics: Metrics) -> Iterator[str]:
    gain = _get(metrics, "masking/attack_loss_gain")
    if gain is not None and gain < LOSS_GAIN and _something_stood(metrics):
        yield (
            f"The attack changed its own loss by {gain:+.2g} on average, where less than +0.1 is "
            "no rise, and left samples standing: unless eps is tiny it did not work, and they "
            "prove no robustness; check the gradient, eps and the step size."
        )
    low = _get(metrics, "masking/lost_to_longer_attack", "low")
    if low is not None and low > LOST:
        entry = metrics["masking/lost_to_longer_attack"]
        yield (
            f"A longer attack broke {_percent(entry['value'])} of the {entry['n']} samples tried "
            "that had stood: the attack was stopped before it was done, so the robust accuracy is "
            "too high; raise attack.steps until it no longer falls."
        )
    fixed = _get(metrics, "fixed/robust_accuracy", "low")
    for name, known in (("transfer", "images found for another noise"), ("fresh", "fresh noise")):
        high = _get(metrics, f"{name}/robust_accuracy", "high")
        if fixed is not None and high is not None and high < fixed:
            value, of = (metrics[f"{key}/robust_accuracy"]["value"] for key in (name, "fixed"))
            yield (
                f"Under {known} ({name}) only {_percent(value)} stay correct, but {_percent(of)} "
                "under the very noise that was attacked (fixed), where an attack should be at its "
                "strongest: the attack on fixed failed; try more steps, another step size or a "
                "random start."
            )


def _of_autoattack(metrics: Metrics) -> Iterator[str]:
    for name in metrics:
        surface, _, column = name.partition("/")
        start, found, ending = column.partition("attack_flag_")
        share = _get(metrics, name)
        if start or not found or share is None or share <= 0:
            continue
        meaning = AUTOATTACK.get(ending, "see its documentation")
        of = f"{ending}, {_percent(share)} of the samples"
        yield f"AutoAttack warns on {surface} ({of}): {meaning}."


def _of_early_stop(metrics: Metrics, settings: Mapping[str, Any]) -> Iterator[str]:
    if settings.get("early_stop") and "transfer/robust_accuracy" in metrics:
        yield (
            "The attack stopped at the first image that fooled the known noise, at the edge of "
            "what fools, and such images transfer badly: transfer/robust_accuracy is too high; "
            "set attack.early_stop to false to measure it."
        )


def _of_untrained(settings: Mapping[str, Any]) -> Iterator[str]:
    for role, model in settings.get("models", {}).items():
        if model["source"].startswith(UNTRAINED):
            yield (
                f"The {role} has random weights ({model['source']}): this run shows what an "
                "evaluation costs, and its figures mean nothing; name trained weights."
            )


def _of_preprocessing(settings: Mapping[str, Any]) -> Iterator[str]:
    wanted, found = settings.get("classifier_preprocessing"), settings.get("data_preprocessing")
    if wanted and found and wanted != found:
        yield (
            f"The photographs were prepared by {found}, and the classifier's published accuracy "
            f"is with {wanted}; set data.preprocessing to {wanted}."
        )


def _something_stood(metrics: Metrics) -> bool:
    names = ("fixed/robust_accuracy", "fixed/robust_accuracy_any_iteration")
    known = [value for name in names if (value := _get(metrics, name)) is not None]
    return not known or max(known) > 0


def _get(metrics: Metrics, name: str, key: str = "value") -> float | None:
    """A number of a figure, ``None`` where it is unknown."""
    entry = metrics.get(name, {})
    # Without a sample an interval is all of [0, 1] and says nothing.
    return None if entry.get("value") is None else entry.get(key)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
