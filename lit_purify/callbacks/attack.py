"""Runs the attack on every test batch and fills ``batch["adversarial"]``."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_purify.attacks import Attack, Watch
from lit_purify.callbacks.progress import show_activity
from lit_purify.defence import Defence
from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.protocols import SURFACES, Surface
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.precision import check_tf32
from lit_purify.types import ACCURACY, NOTED, Batch, InputError

_EVERY_ITERATION: dict[Surface, str] = {
    "base": "Classifier alone, attacked: correct at every iteration",
    "fixed": "Purified, attacked: correct at every iteration (fixed)",
}


class AdversarialExamples(Callback):
    """Attacks the classifier and the purification chain under the run's protocols.

    Adversarial images are found once for every surface (``base``, ``fixed``, ``fresh``) that the
    protocols need. Success is reported twice: after the last iteration, by the module, and, where
    the defence is deterministic, at any iteration. There an attack that stops early leaves only
    the second one known. Through a surrogate only the first is: its images are tested on the
    defence. What the attack finds out beside the images (``Attack.findings``) is
    counted, or averaged, as ``<surface>/attack_<finding>``. Of the gradients that it asks for,
    whatever they are of, ``<surface>/zero_gradient`` is the share of the pixels in which they are
    exactly zero, and ``<surface>/nonfinite_gradient`` the share of the samples in which one is
    infinite or not a number in some pixel.

    Args:
        attack: the attack.

    Attributes:
        seconds: that the parts of the attack took on this process (``Attack.seconds``), and how
            many images each was given, by ``<surface>/<part>``.
    """

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.seconds: dict[str, tuple[float, int]] = {}
        self._surrogate = False
        self._watched: dict[Surface, Watch] = {}
        self._findings: dict[Surface, dict[str, Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test":
            module = PurifiedClassifier.tested_by(self, pl_module)
            self.seconds = {}
            self._check_precision(trainer, module)
            self._surrogate = any(map(module.approximated, module.surfaces))
            for surface, name in product(module.surfaces, self.attack.finding_names):
                shown = self.attack.shown(name)
                label = module.named(surface, f"{SURFACES[surface]}: {shown.label}")
                share = shown.unit == "%"
                metric = IntervalAccuracy() if share else MeanWithDeviation(unit=shown.unit)
                module.add_metric(
                    _finding(surface, name), metric, section=shown.section, label=label
                )
            for surface in module.surfaces:
                label = module.named(surface, SURFACES[surface])
                module.add_metric(
                    f"{surface}/zero_gradient",
                    MeanWithDeviation(unit="%"),
                    section=NOTED,
                    label=f"{label}: pixels whose gradient was exactly 0",
                )
                module.add_metric(
                    f"{surface}/nonfinite_gradient",
                    IntervalAccuracy(),
                    section=NOTED,
                    label=f"{label}: images whose gradient was infinite or no number",
                )
            for surface in self._deterministic(module):
                module.add_metric(
                    _any_iteration(surface),
                    IntervalAccuracy(),
                    section=ACCURACY,
                    label=_EVERY_ITERATION[surface],
                )
                if self.attack.stops_early:
                    module.drop_metric(f"{surface}/robust_accuracy")

    def _check_precision(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        precision = self.attack.precision
        if precision == "float32":
            return
        if trainer.precision != "32-true" or module.tf32:
            raise InputError(
                f"attack.precision is {precision}, whose successes are judged in float32, and the "
                f"run is in {'TF32' if module.tf32 else trainer.precision}; drop attack.precision, "
                "or set trainer.precision to 32-true and model.tf32 to false"
            )
        if precision == "tf32":
            check_tf32(trainer.strategy.root_device)

    def on_test_batch_start(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: PurifiedClassifier,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        batch["adversarial"], batch["attack_trace"] = {}, {}
        self._findings.clear()
        self._watched.clear()  # with the images of the last batch
        surfaces = pl_module.surfaces
        for number, surface in enumerate(surfaces):
            defence = pl_module.attacked(surface, batch["index"])
            batch["adversarial"][surface], watched = attack_batch(
                trainer,
                self.attack,
                defence,
                batch,
                seed=pl_module.seed,
                activity=f"attack ({surface})",
                part=(number, len(surfaces)),
                traced=True,
            )
            self._watched[surface] = watched
            self._findings[surface] = self.attack.findings
            for name, (seconds, images) in self.attack.seconds.items():
                before = self.seconds.get(f"{surface}/{name}", (0.0, 0))
                self.seconds[f"{surface}/{name}"] = (before[0] + seconds, before[1] + images)
            if watched.iterations:
                batch["attack_trace"][surface] = watched.trace()
        show_activity(trainer, "test")

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: PurifiedClassifier,
        outputs: Outcomes,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for surface in self._deterministic(pl_module):
            standing = outputs[f"{surface}/adversarial"].correct & ~self._watched[surface].fooled
            pl_module.record(_any_iteration(surface), standing)
        for surface, watched in self._watched.items():
            pl_module.record(f"{surface}/zero_gradient", watched.zero_gradient)
            pl_module.record(f"{surface}/nonfinite_gradient", watched.nonfinite_gradient)
        for surface, findings in self._findings.items():
            for name, found in findings.items():
                known = ~found.isnan() if found.is_floating_point() else None
                pl_module.record(_finding(surface, name), found, where=known)
        for name, images in batch["adversarial"].items():
            pl_module.record(f"{name}/adversarial", images)

    @staticmethod
    def _deterministic(module: PurifiedClassifier) -> list[Surface]:
        """Surfaces on which an image that fooled once fools again, and that are tested as such."""
        tested = (s for s in module.surfaces if s != "fresh" and s in module.protocols)
        return [s for s in tested if not module.approximated(s)]

    def settings(self) -> dict[str, Any]:
        said = self.attack.settings()
        if self._surrogate:
            gradient = said.get("gradient")
            said["gradient"] = f"{gradient}, of a surrogate" if gradient else "of a surrogate"
        return said


def find_attack(trainer: Trainer) -> Attack | None:
    """The attack that a run is configured with, whether or not its protocols use it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, AdversarialExamples):
            return callback.attack
    return None


def run_attack(trainer: Trainer, measurement: Callback) -> Attack:
    """:func:`find_attack` for a measurement that cannot do without.

    Args:
        trainer: the trainer of the run.
        measurement: who asks, for the message.

    Raises:
        InputError: the run has no attack.
    """
    attack = find_attack(trainer)
    if attack is None:
        raise InputError(
            f"{type(measurement).__name__} repeats the run's attack and found none; give the "
            "Trainer the callback lit_purify.callbacks.AdversarialExamples"
        )
    return attack


def attack_batch(
    trainer: Trainer,
    attack: Attack,
    defence: Defence,
    batch: Batch,
    *,
    seed: int,
    activity: str,
    part: tuple[int, int] | None = None,
    traced: bool = False,
) -> tuple[Tensor, Watch]:
    """Attack a batch under the conditions of a run: with gradients and in its precision.

    Args:
        trainer: the trainer of the run.
        attack: the attack.
        defence: bound to these images.
        batch: the images under test.
        seed: base seed of the attack's own randomness.
        activity: what the progress bar calls it.
        part: as in :meth:`EvaluationProgress.show`.
        traced: keep a trace of the iterations, where the attack knows them.

    Returns:
        Adversarial images (B, C, H, W) in [0, 1], and what the attack asked.
    """
    image, label, index = batch["image"], batch["label"], batch["index"]
    num_queries = attack.num_queries(defence)
    watch = Watch(
        label,
        index,
        admits=lambda images, rows: attack.admits(images, image[rows]),
        progress=lambda queries: show_activity(trainer, activity, queries, num_queries, part=part),
        iterations=attack.queries_per_iteration(defence) if traced else (),
    )
    with torch.enable_grad(), trainer.precision_plugin.forward_context():
        return attack(defence.observed(watch), image, label, index, seed=seed), watch


def _finding(surface: Surface, name: str) -> str:
    return f"{surface}/attack_{name}"


def _any_iteration(surface: Surface) -> str:
    return f"{surface}/robust_accuracy_any_iteration"
