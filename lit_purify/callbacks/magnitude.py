"""Size of the perturbations that the attack finds (text to Table 6)."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer

from lit_purify.callbacks.measurement import Measurement
from lit_purify.functional import lp_distance
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.protocols import Chain, ProtocolName, Surface
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.types import Batch

NORMS = {"l2": (2.0, "l2"), "linf": (math.inf, "Largest pixel difference")}
"""Norm -> its p and what reports call it."""
BASE = "_base"
"""End of the names of the metrics of an attack on the classifier alone."""


class AttackMagnitude(Measurement):
    """Measures how long the perturbations are that the run's attack ends with.

    The paper finds that their mean does not predict how robust a method is, but that, image by
    image, it tells whether the attack succeeds.

    Logs ``magnitude/l2`` and ``magnitude/linf``, over all pixels in [0, 1], of the attack on the
    purified classifier, on the surface ``surface``, and, where the classifier alone is attacked,
    ``magnitude/l2_base`` and ``magnitude/linf_base``. With the protocol of that surface, which
    tells whether the attack succeeded there (of ``fresh`` by its first draw), ``magnitude/l2`` is
    also split into ``_robust`` and ``_nonrobust``.

    An attack that stops early leaves the shorter perturbation that first succeeded.

    Args:
        surface: the chain under the run's fixed noise, or under fresh noise.
    """

    def __init__(self, *, surface: Chain = "fixed") -> None:
        self.surface = surface
        protocols: dict[Chain, tuple[ProtocolName, ...]] = {
            "fixed": ("fixed", "transfer", "base", "blind"),
            "fresh": ("fresh", "base", "blind"),
        }
        self.needs_protocol = protocols[surface]
        self._ends: dict[Surface, str] = {surface: "", "base": BASE}

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        return {"magnitude_norms": list(NORMS), "magnitude_surface": self.surface}

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        chain = f"the purified classifier ({self.surface})"
        labels = {
            f"magnitude/{norm}{end}": f"{words}, attack on "
            f"{'the classifier alone' if surface == 'base' else chain}"
            for surface, end in self._ends.items()
            for norm, (_, words) in NORMS.items()
            if surface in module.surfaces
        }
        if self.surface in module.protocols:
            labels["magnitude/l2_robust"] = "l2, where the attack failed"
            labels["magnitude/l2_nonrobust"] = "l2, where the attack succeeded"
        section = "Size of the attack's perturbation, pixels in [0, 1]"
        for name, label in labels.items():
            module.add_metric(name, MeanWithDeviation(), section=section, label=label)

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        for surface, end in self._ends.items():
            for norm, (p, _) in NORMS.items() if surface in module.surfaces else ():
                length = lp_distance(batch["adversarial"][surface], batch["image"], p)
                module.record(f"magnitude/{norm}{end}", length)
        if self.surface in module.protocols:
            length = lp_distance(batch["adversarial"][self.surface], batch["image"])
            robust = outputs[f"{self.surface}/adversarial"].correct
            module.record("magnitude/l2_robust", length, where=robust)
            module.record("magnitude/l2_nonrobust", length, where=~robust)
