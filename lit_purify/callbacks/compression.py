"""Compression rate of uniform and of attack perturbations (eq. 10, Tables 6 and 7)."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lit_purify.callbacks.measurement import Measurement
from lit_purify.functional import compression_rate
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.types import Batch, InputError, ratio

SECTION = "Size of a perturbation, after / before purification"
_ATTACK_LABELS = {
    "attack/compression_rate": "Attack perturbations",
    "attack/compression_rate_robust": "Attack perturbations, where the attack failed",
    "attack/compression_rate_nonrobust": "Attack perturbations, where the attack succeeded",
}


class CompressionRate(Measurement):
    """Measures how much of a perturbation a purification under fixed noise lets through.

    Logs ``uniform/compression_rate`` and, where the run attacks under fixed noise,
    ``attack/compression_rate``, also split by whether the attack failed (``_robust``) or
    succeeded (``_nonrobust``). A run of the protocol ``base`` alone purifies nothing and has none
    of them, and says so in its settings.

    Args:
        eps: half-width of the uniform perturbation, a number or a fraction such as ``"8/255"``.
            The perturbed image is not clipped to [0, 1], so that the perturbation is uniform.
    """

    # Measured: bf16 rounding doubles the rate at eps 1/255.
    rounded_away = "the small differences whose ratio is the compression rate"

    def __init__(self, *, eps: float | str = "8/255") -> None:
        self.eps = ratio(eps)
        self._purifies = True
        if not 0 < self.eps <= 1:
            raise InputError(f"eps of the uniform perturbation must lie in (0, 1], got {eps}")

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        if not self._purifies:
            return {"compression_left_out": "the protocol base alone purifies nothing"}
        return {"uniform_eps": self.eps}

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        self._purifies = module.purifies
        if not self._purifies:
            return
        labels = {"uniform/compression_rate": "Random perturbations (uniform)"}
        if "fixed" in module.protocols:
            labels |= _ATTACK_LABELS
        for name, label in labels.items():
            module.add_metric(name, MeanWithDeviation(), section=SECTION, label=label)

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        if not self._purifies:
            return
        image, index = batch["image"], batch["index"]
        anchor = outputs["fixed/clean"].image
        noise = module.noise.cached(index)
        perturbed = image + self.eps * noise.uniform(index, like=image)
        purified = module.purifier.purify(perturbed, noise, index)
        rate = compression_rate(purified, anchor, perturbed, image)
        module.record("uniform/compression_rate", rate)
        if "fixed" in module.protocols:
            attacked = outputs["fixed/adversarial"]
            rate = compression_rate(attacked.image, anchor, batch["adversarial"]["fixed"], image)
            robust = attacked.correct
            module.record("attack/compression_rate", rate)
            module.record("attack/compression_rate_robust", rate, where=robust)
            module.record("attack/compression_rate_nonrobust", rate, where=~robust)
