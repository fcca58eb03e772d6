"""Agreement of attacks and of gradients under different randomness (Table 5)."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor

from lit_purify.attacks import PGDEOT, Attack, input_gradient
from lit_purify.callbacks.attack import attack_batch, run_attack
from lit_purify.callbacks.measurement import Measurement
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.diffusion.seeds import derive_seed
from lit_purify.functional import correlation
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.types import Batch

LABELS = {
    "agreement/perturbation": "Agreement of attacks found under different noises",
    "agreement/perturbation_eot": (
        "Agreement of attacks found in the mean (EOT) with those under one noise"
    ),
    "agreement/gradient": "Agreement of gradients under different noises",
    "agreement/gradient_eot": "Agreement of gradients in the mean (EOT) with those under one noise",
}
"""Metric -> what reports call it."""


class AttackAgreement(Measurement):
    """Measures how alike the attacks are that two randomness configurations lead to.

    Image by image, Pearson's correlation over all pixels and channels
    (:func:`~lit_purify.functional.correlation`) of

    - ``agreement/perturbation``: the perturbation that the run's attack finds under the run's own
      fixed noise and the one that the same attack finds under another fixed noise;
    - ``agreement/gradient``: the exact gradients of the cross-entropy at the clean image under the
      two noises;

    and, where ``eot`` is given,

    - ``agreement/perturbation_eot``: the perturbation that ``eot`` finds under fresh noise and the
      one found under the other fixed noise;
    - ``agreement/gradient_eot``: the gradient that ``eot`` follows at the clean image, the mean
      over its draws of fresh noise, and the exact one under the other fixed noise.

    An attack's random start is part of its randomness configuration: the two fixed attacks start
    from different points, or a start in common would count as agreement. The attack on the fresh
    noise starts where the run's own do, and so is compared with the other configuration's. Images
    that the run has found on the fresh noise by an equal attack are used again.

    An attack that stops early leaves perturbations that were found in different numbers of
    iterations, and each is compared as it is.

    A perturbation of zeros and a gradient that vanishes have no correlation; they are counted as
    missing.

    Args:
        eot: attack on the fresh noise, such as PGDEOT; ``None`` leaves out what it is needed for.
    """

    needs_protocol = ("fixed", "transfer")

    def __init__(self, *, eot: PGDEOT | None = None) -> None:
        self.eot = eot
        self._other: FixedNoise | None = None

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        found: dict[str, object] = {"agreement_measure": "Pearson correlation over all pixels"}
        if self._other is not None:
            found["seed_agreement"] = self._other.seed
        eot = {} if self.eot is None else self.eot.settings()
        return {**found, **{f"agreement_eot_{name}": value for name, value in eot.items()}}

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        run_attack(trainer, self)
        self._other = FixedNoise(derive_seed(module.seed, "agreement", 0))
        for name, label in LABELS.items():
            if self.eot is not None or not name.endswith("_eot"):
                module.add_metric(name, MeanWithDeviation(), section="Gradients", label=label)

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        assert self._other is not None
        image, index = batch["image"], batch["index"]
        attack, other = run_attack(trainer, self), module.defence.bind(self._other, index)
        known = module.defence.bind(module.noise, index)
        target = module.target.bind(self._other, index)

        def perturbation(attack: Attack, defence: Defence, seed: int) -> Tensor:
            activity = f"AttackAgreement: {type(attack).__name__}"
            found, _ = attack_batch(trainer, attack, defence, batch, seed=seed, activity=activity)
            return found - image

        under_other = perturbation(attack, target, self._other.seed)
        found = {"perturbation": (batch["adversarial"]["fixed"] - image, under_other)}
        with trainer.precision_plugin.forward_context():
            gradient = _gradient(other, batch)
            found["gradient"] = (_gradient(known, batch), gradient)
        if self.eot is not None:
            if "fresh" in module.surfaces and attack.settings() == self.eot.settings():
                under_fresh = batch["adversarial"]["fresh"] - image
            else:  # as the run itself attacks it
                under_fresh = perturbation(self.eot, module.attacked("fresh", index), module.seed)
            found["perturbation_eot"] = (under_fresh, under_other)
            with trainer.precision_plugin.forward_context():
                # A defence of its own: draws start anew.
                fresh = module.attacked("fresh", index)
                followed, _ = self.eot.gradient(fresh, image, batch["label"], index)
            found["gradient_eot"] = (followed, gradient)
        for name, (one, two) in found.items():
            module.record(f"agreement/{name}", correlation(one, two))


def _gradient(defence: Defence, batch: Batch) -> Tensor:
    """The exact gradient of the cross-entropy at the clean images, (B, C, H, W)."""
    return input_gradient(defence, batch["image"], batch["label"], batch["index"])[0]
