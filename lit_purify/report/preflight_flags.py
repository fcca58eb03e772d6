"""What looks wrong before a test: the defence as it answers the first images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PROBABILITIES = (
    "the outputs look like probabilities and not like logits, and the loss then saturates; have "
    "the classifier give logits"
)


def of_preflight(
    preflight: Mapping[str, Any], settings: Mapping[str, Any], *, tested: bool
) -> Iterator[str]:
    """What looks wrong with a defence in its answers to the first images.

    Args:
        preflight: as in ``summary.json``.
        settings: likewise.
        tested: the test is over, and what is known of gradients are those that attacks asked for.
    """
    if odd := preflight.get("odd_values"):
        yield odd
    for module in preflight.get("training", []):
        yield (
            f"The module {module} is in training mode, so that its answers may change from pass to "
            "pass and with the batch: no number of this run can be repeated; call its eval()."
        )
    tolerance = _tolerance(settings)
    for role, difference in preflight.get("differs_alone", {}).items():
        again = preflight["differs_again"][role]
        if again > tolerance:
            yield (
                f"The {role} answers the same image differently when it is asked again (by "
                f"{again:.2g}), although everything random is keyed by the image: the numbers "
                "depend on chance that is not recorded; look for dropout at work in evaluation or "
                "noise that is not taken from the noise argument."
            )
        elif difference > tolerance:
            yield (
                f"The {role} answers an image differently when it is alone (by {difference:.2g}): "
                "the numbers depend on how the images are batched; look for batch normalisation "
                "without running statistics or a statistic over the batch."
            )
    if preflight.get("probabilities"):
        yield f"For the first images {PROBABILITIES}."
    low, high = preflight.get("purified_range", (0, 1))
    # A chain that clips nothing, and one that adds noise, ends outside [0, 1] on both sides alike.
    if low < -1 or high > 2 or (low < -0.75 and high <= 1.01):
        yield (
            f"The purified images range over [{low:.3g}, {high:.3g}], and the classifier expects "
            "[0, 1]: return images in the scale that they came in."
        )
    for role in preflight.get("nonfinite", []):
        yield (
            f"The {role} gives numbers that are not finite for one of the first images: they count "
            "as wrong; look for a division by zero or an overflow."
        )
    if reason := preflight.get("not_compiled"):
        yield (
            f"The networks run uncompiled although they were to be compiled: {reason}. The numbers "
            "are as good, and the run takes longer; set model.compile to false if that is all "
            "right."
        )
    if preflight.get("zero_gradient", 0.0) in (None, 1.0) and not tested:
        none = preflight["zero_gradient"] is None
        yield (
            f"{'No gradient' if none else 'A gradient of exactly zero'} reaches the images, so "
            "that an attack that follows it finds no direction; make the purifier differentiable, "
            "or attack with BPDA or without gradients."
        )


def _tolerance(settings: Mapping[str, Any]) -> float:
    """How far rounding takes the answers to an image in two batches apart."""
    if settings.get("precision", "32-true") != "32-true":
        return 0.1
    return 0.02 if settings.get("tf32") else 1e-3
