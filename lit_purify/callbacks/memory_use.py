"""Batch size and memory budget that fit the machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import default_collate

from lit_purify.attacks import Attack, Ladder
from lit_purify.callbacks.attack import find_attack
from lit_purify.data import ImageDataModule
from lit_purify.data.dataset import ImageDataset
from lit_purify.data.peers import peers_of
from lit_purify.defence import Defence
from lit_purify.diffusion import DiffusionPurifier, Purifier
from lit_purify.diffusion.free_memory import GIB, usable_bytes
from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.diffusion.memory import memory_plan
from lit_purify.modules.purified_classifier import PurifiedClassifier

LARGEST_ON_CPU, LARGEST = 64, 1024
"""Images per batch, at most. A batch is what an interrupted run loses, and on a CPU a larger one is
no faster; a GPU is, as long as it waits for small operations to be started."""


class MemoryUse(Callback):
    """Chooses ``batch_size`` and ``memory_budget_gib`` of a test or a prediction that has ``auto``.

    A batch is as large as the gradient of an attack on it fits into the usable memory
    (:func:`~lit_purify.diffusion.free_memory.usable_bytes`) less the memory budget; half of it
    where that is ``auto`` too. It never has more images than there are, nor than 64 on a CPU or
    1024 on a GPU, and where memory is the limit it is a multiple of 8, or less than 8. ``auto`` as
    a memory budget is what the batch then leaves. Processes agree on the smallest batch of theirs.

    What a gradient needs is planned for one image and for two (:mod:`lit_purify.diffusion.memory`),
    for a purifier of another kind it is measured, and taken to grow by the same for every further
    one. Of the purifier and a surrogate that is attacked in its place the one counts that needs
    more. No number of a run depends on the choice, and a resumed run may choose another.

    It stands before all other callbacks, which may report what was chosen.

    Args:
        verbose: print what was chosen.
    """

    def __init__(self, *, verbose: bool = True) -> None:
        self.verbose = verbose
        self._said: dict[str, object] = {}

    def settings(self) -> dict[str, object]:
        """The memory budget, where it was chosen; the data say their batch size."""
        return self._said

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._said = {}
        data = trainer.datamodule  # type: ignore[attr-defined]
        images = getattr(data, "test_set" if stage == "test" else "predict_set", None)
        if stage not in ("test", "predict") or not isinstance(images, ImageDataset):
            return
        assert isinstance(data, ImageDataModule)
        module = PurifiedClassifier.tested_by(self, pl_module)
        purifiers = _differentiated(module)
        chains = [chain for chain in purifiers if _is_planned(chain)]
        auto_budgets = [chain.budget for chain in chains if chain.memory_budget_gib == "auto"]
        if not (data.auto_batch_size or auto_budgets):
            return
        peaks = [[_peak(trainer, module, p, images, rows) for rows in (1, 2)] for p in purifiers]
        one, added = max(one for one, _ in peaks), max(1, *(two - one for one, two in peaks))
        device = trainer.strategy.root_device
        on_gpu = device.type == "cuda"
        usable = usable_bytes(device) // (1 if on_gpu else trainer.num_devices)
        if data.auto_batch_size:
            fits = 1 + (usable - _kept(chains, usable) - one) // added
            share = -(-len(images) // trainer.world_size)
            chosen = images_that_fit(fits, min(share, LARGEST if on_gpu else LARGEST_ON_CPU))
            data.batch_size = int(min(peers_of(trainer).gather(chosen)))
        planned = one + (_rows_per_pass(trainer, data.batch_size) - 1) * added
        said = f"batch size {data.batch_size}: {planned / GIB:.3g} GiB"
        if auto_budgets:
            left = max(0, usable - planned) / GIB
            for budget in auto_budgets:  # they are never in use together
                budget.gib = left
            self._said = {"memory_budget_gib": left}
            said += f" and {left:.3g} GiB for activations"
        if self.verbose and trainer.is_global_zero:
            print(f"{said} of {usable / GIB:.3g} GiB usable", file=sys.stderr, flush=True)


def images_that_fit(fits: int, wanted: int) -> int:
    """Images per batch.

    Args:
        fits: how many the memory takes.
        wanted: how many there are, or at most should be.

    Example:
        >>> [images_that_fit(fits, 100) for fits in (-3, 5, 13, 99, 1000)]
        [1, 5, 8, 96, 100]
    """
    if fits >= wanted:
        return max(1, wanted)
    return max(1, fits if fits < 8 else fits // 8 * 8)


def _differentiated(module: PurifiedClassifier) -> Sequence[Purifier | None]:
    """What gradients of the run go through: the purifier, and what is attacked in its place."""
    if not module.purifies:
        return [None]
    return [module.purifier] if module.surrogate is None else [module.purifier, module.surrogate]


def _is_planned(purifier: Purifier | None) -> TypeGuard[DiffusionPurifier]:
    """Whether it is one whose memory can be planned."""
    return isinstance(purifier, DiffusionPurifier) and purifier.fixed_steps


def _kept(chains: Sequence[DiffusionPurifier], usable: int) -> int:
    """Bytes that are set aside for activations."""
    budgets = [chain.memory_budget_gib for chain in chains]
    return max((usable // 2 if gib == "auto" else int(gib * GIB) for gib in budgets), default=0)


def _rows_per_pass(trainer: Trainer, batch_size: int) -> int:
    """Most images that the run's attack sends through the networks at once, draws counted."""
    attack = find_attack(trainer)
    rungs = attack.rungs.values() if isinstance(attack, Ladder) else [attack]
    return max(_rows_of(rung, batch_size) for rung in rungs)


def _rows_of(attack: Attack | None, batch_size: int) -> int:
    most = getattr(attack, "rows_per_pass", None) or batch_size
    return max(batch_size, min(batch_size * getattr(attack, "draws", 1), most))


def _peak(
    trainer: Trainer,
    module: PurifiedClassifier,
    purifier: Purifier | None,
    images: ImageDataset,
    rows: int,
) -> int:
    """Bytes that a gradient at so many images through a purifier needs, no activations kept."""
    shape = images[0]["image"].shape
    if _is_planned(purifier):
        mixed = trainer.precision == "bf16-mixed"
        plan = memory_plan(purifier, module.classifier, shape, rows, mixed=mixed)
        return replace(plan, steps_kept=0).peak
    module.to(trainer.strategy.root_device)  # where Lightning will bring it
    batch = default_collate([images[i % len(images)] for i in range(rows)])
    batch = trainer.strategy.batch_to_device(batch)
    defence = Defence(module.classifier, purifier)
    with (
        torch.enable_grad(),
        trainer.precision_plugin.forward_context(),
        torch.compiler.set_stance("force_eager"),
        LiveBytes() as live,
    ):
        x = batch["image"].clone().requires_grad_()
        bound = defence.bind(None if purifier is None else module.noise, batch["index"])
        logits = bound(x)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), x, allow_unused=True)
    return live.peak
