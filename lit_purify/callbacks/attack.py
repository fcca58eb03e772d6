"""Runs the attack on every test batch and fills ``batch["adversarial"]``."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_purify.attacks import Attack, WatchedTarget
from lit_purify.callbacks.progress import EvaluationProgress
from lit_purify.metrics import IntervalAccuracy
from lit_purify.modules.protocols import Surface
from lit_purify.modules.purified_classifier import Outcomes, PurifiedClassifier
from lit_purify.types import Batch


class AdversarialExamples(Callback):
    """Attacks the classifier and the purification chain under the run's protocols.

    Adversarial images are found once for every surface (``base``, ``fixed``, ``fresh``) that the
    protocols need. Success is reported twice: after the last iteration, by the module, and, where
    the defence is deterministic, at any iteration. There an attack that stops early leaves only
    the second one known.

    Args:
        attack: the attack.
    """

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self._fooled: dict[Surface, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test":
            assert isinstance(pl_module, PurifiedClassifier)
            for surface in self._deterministic(pl_module):
                pl_module.add_metric(_any_iteration(surface), IntervalAccuracy())
                if self.attack.stops_early:
                    pl_module.drop_metric(f"{surface}/robust_accuracy")

    def on_test_batch_start(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: PurifiedClassifier,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        image, label, index = batch["image"], batch["label"], batch["index"]
        batch["adversarial"] = {}
        bar = trainer.progress_bar_callback
        for number, surface in enumerate(pl_module.surfaces):

            def progress(queries: int, number: int = number, surface: str = surface) -> None:
                if isinstance(bar, EvaluationProgress):
                    bar.show_attack(
                        surface,
                        queries,
                        self.attack.num_queries,
                        part=(number, len(pl_module.surfaces)),
                    )

            target = WatchedTarget(
                pl_module.target(surface, index), label, index, on_query=progress
            )
            with torch.enable_grad(), trainer.precision_plugin.forward_context():
                batch["adversarial"][surface] = self.attack(
                    target, image, label, index, seed=pl_module.seed
                )
            self._fooled[surface] = target.fooled

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
            standing = outputs[f"{surface}/adversarial"].correct & ~self._fooled[surface]
            pl_module.record(_any_iteration(surface), standing)
        for name, images in batch["adversarial"].items():
            pl_module.record(f"{name}/adversarial", images)

    @staticmethod
    def _deterministic(module: PurifiedClassifier) -> list[Surface]:
        """Surfaces on which an image that fooled once fools again, and that are tested as such."""
        return [s for s in module.surfaces if s != "fresh" and s in module.protocols]

    def settings(self) -> dict[str, Any]:
        return self.attack.settings()


def _any_iteration(surface: Surface) -> str:
    return f"{surface}/robust_accuracy_any_iteration"
