"""Size of the perturbations that the attack finds (text to Table 6)."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer

from lit_purify.callbacks.measurement import Measurement
from lit_purify.functional import lp_distance
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules.protocols import Surface
from lit_purify.modules.purified_classifier import Outcomes, PurifiedClassifier
from lit_purify.types import Batch, InputError

NORMS = {"l2": 2.0, "linf": math.inf}
_WORDS = {"l2": "l2", "linf": "Largest pixel difference"}
_ON: dict[Surface, str] = {
    "fixed": "the purified classifier (fixed)",
    "base": "the classifier alone",
}
_SECTION = "Size of the attack's perturbation, pixels in [0, 1]"
_SUFFIX: dict[Surface, str] = {"fixed": "", "base": "_base"}


class AttackMagnitude(Measurement):
    """Measures how long the perturbations are that the run's attack ends with.

    The paper finds that their mean does not predict how robust a method is, but that, image by
    image, it tells whether the attack succeeds.

    Logs ``magnitude/l2`` and ``magnitude/linf``, over all pixels in [0, 1], of the attack on the
    purified classifier under the run's fixed noise, and, where the classifier alone is attacked,
    ``magnitude/l2_base`` and ``magnitude/linf_base``. With the protocol ``fixed``, which tells
    whether it succeeded under that noise, ``magnitude/l2`` is also split into ``_robust`` and
    ``_nonrobust``.

    An attack that stops early leaves the shorter perturbation that first succeeded.
    """

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        return {"magnitude_norms": list(NORMS)}

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        surfaces = _surfaces(module)
        if not surfaces:
            raise InputError(
                "AttackMagnitude measures attacks on fixed noise or on the classifier alone, and "
                f"the protocols {list(module.protocols)} have neither; add fixed or base to "
                "model.protocols, or drop AttackMagnitude"
            )
        labels = {
            f"magnitude/{norm}{_SUFFIX[surface]}": f"{_WORDS[norm]}, attack on {_ON[surface]}"
            for surface in surfaces
            for norm in NORMS
        }
        if "fixed" in module.protocols:
            for part, words in (("robust", "failed"), ("nonrobust", "succeeded")):
                labels[f"magnitude/l2_{part}"] = f"{_WORDS['l2']}, where the attack {words}"
        for name, label in labels.items():
            module.add_metric(name, MeanWithDeviation(), section=_SECTION, label=label)

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        for surface in _surfaces(module):
            for norm, p in NORMS.items():
                length = lp_distance(batch["adversarial"][surface], batch["image"], p)
                module.record(f"magnitude/{norm}{_SUFFIX[surface]}", length)
        if "fixed" in module.protocols:
            length = lp_distance(batch["adversarial"]["fixed"], batch["image"])
            robust = outputs["fixed/adversarial"].correct
            module.record("magnitude/l2_robust", length, where=robust)
            module.record("magnitude/l2_nonrobust", length, where=~robust)


def _surfaces(module: PurifiedClassifier) -> list[Surface]:
    return [surface for surface in _SUFFIX if surface in module.surfaces]
