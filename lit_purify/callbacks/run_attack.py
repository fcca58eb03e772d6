"""The run's attack, for measurements that attack once more."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_purify.attacks import Attack, Target
from lit_purify.callbacks.attack import AdversarialExamples
from lit_purify.types import Batch, InputError


def run_attack(trainer: Trainer, measurement: Callback) -> Attack:
    """The attack that the run is configured with, whether or not its protocols use it.

    Args:
        trainer: the trainer of the run.
        measurement: who asks, for the message.

    Raises:
        InputError: the run has no attack.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, AdversarialExamples):
            return callback.attack
    raise InputError(
        f"{type(measurement).__name__} repeats the run's attack and found none; give the Trainer "
        "the callback lit_purify.callbacks.AdversarialExamples"
    )


def attack_once_more(
    trainer: Trainer, attack: Attack, target: Target, batch: Batch, *, seed: int
) -> Tensor:
    """Adversarial images of a batch, found under the conditions of the run's own attack.

    Args:
        trainer: the trainer of the run.
        attack: the attack.
        target: the defence.
        batch: the batch under test.
        seed: base seed of the attack's random starts.

    Returns:
        Shape (B, C, H, W), in [0, 1].
    """
    with torch.enable_grad(), trainer.precision_plugin.forward_context():
        return attack(target, batch["image"], batch["label"], batch["index"], seed=seed)
