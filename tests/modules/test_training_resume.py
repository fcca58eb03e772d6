"""A training that was interrupted anywhere ends with the weights of the uninterrupted one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_purify.callbacks import EMA
from lit_purify.data import CIFAR10DataModule
from lit_purify.modules import DenoiserTraining

BATCHES = 5
"""Batches of 2 in an epoch of the 11 images that are trained on."""


class Seen(Callback):
    """Which images every step was trained on."""

    def __init__(self) -> None:
        self.images: dict[int, list[int]] = {}

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.images[trainer.global_step] = batch["index"].tolist()


class Crash(Callback):
    """Fails in the middle of a batch, with a checkpoint of that moment."""

    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("crash")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "train.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), np.uint8)
    np.savez(path, images=pixels, labels=np.arange(13) % 10)
    return path


def fit(
    images: Path,
    folder: Path,
    *callbacks: Callback,
    steps: int,
    resume: Path | None = None,
    workers: int = 0,
    **options: Any,
) -> tuple[dict[int, list[int]], Tensor]:
    """The images of every step, and the weights at the end."""
    data = CIFAR10DataModule(
        train_source=str(images), batch_size=2, num_holdout=2, num_workers=workers
    )
    module, seen = DenoiserTraining(tiny.denoiser(), warmup_steps=1), Seen()
    average = EMA(decay=0.9)
    # The rate falls with the steps of the whole training: it is stopped before.
    trainer = tiny.trainer(
        folder,
        seen,
        average,
        *callbacks,
        max_steps=steps,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dataloader is not resumable.*")
        trainer.fit(module, data, ckpt_path=resume)
    return seen.images, torch.cat([p.detach().flatten() for p in module.parameters()])


STEPS = 12
"""Two epochs and two steps; validation follows steps 3, 6, 9 and 12."""


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tensor, Path]:
    """The uninterrupted training, and its checkpoints after every step."""
    folder = tmp_path_factory.mktemp("whole")
    saved = ModelCheckpoint(
        folder / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1
    )
    seen, weights = fit(images, folder, saved, steps=STEPS)
    return seen, weights, folder / "saved"


def test_every_epoch_has_an_order_of_its_own(whole: Any) -> None:
    seen, *_ = whole
    epochs = [
        [index for b in range(BATCHES) for index in seen[epoch * BATCHES + b]] for epoch in (0, 1)
    ]
    assert all(len(set(epoch)) == 2 * BATCHES for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert sorted(seen) == list(range(STEPS))


@pytest.mark.parametrize(
    ("step", "workers"), [(1, 0), (3, 0), (5, 0), (6, 0), (7, 2), (9, 0), (10, 0), (11, 2)]
)
def test_it_goes_on_where_it_was(
    step: int, workers: int, whole: Any, images: Path, tmp_path: Path
) -> None:
    """From checkpoints in an epoch, at its end, after a validation, on other worker processes."""
    seen, weights, saved = whole
    found, ended = fit(
        images, tmp_path, steps=STEPS, resume=saved / f"step={step}.ckpt", workers=workers
    )
    assert found == {k: seen[k] for k in range(step, STEPS)}
    assert torch.equal(ended, weights)


@pytest.mark.parametrize("step", [4, 5, 8])
def test_after_a_crash_in_the_middle_of_a_batch(
    step: int, whole: Any, images: Path, tmp_path: Path
) -> None:
    seen, weights, _ = whole
    path = tmp_path / "crash.ckpt"
    with pytest.raises(RuntimeError, match="crash"):
        fit(images, tmp_path, Crash(step, path), steps=STEPS)
    found, ended = fit(images, tmp_path, steps=STEPS, resume=path)
    assert found == {k: seen[k] for k in range(step, STEPS)}
    assert torch.equal(ended, weights)


def test_what_validation_saves(whole: Any, images: Path, tmp_path: Path) -> None:
    """As the shipped configuration does: at the best losses, in the middle of epochs."""
    seen, weights, _ = whole
    best = ModelCheckpoint(tmp_path, "best-{step}", "val/loss", save_top_k=-1)
    fit(images, tmp_path, best, steps=STEPS)
    for step in (3, 6, 9):
        path = tmp_path / f"best-step={step}.ckpt"
        found, ended = fit(images, tmp_path, steps=STEPS, resume=path)
        assert found == {k: seen[k] for k in range(step, STEPS)}
        assert torch.equal(ended, weights)


def test_shortened_epochs(images: Path, tmp_path: Path) -> None:
    options = {"steps": 8, "limit_train_batches": 3}
    saved = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    seen, weights = fit(images, tmp_path, saved, **options)
    for step in (3, 4):
        found, ended = fit(
            images, tmp_path, resume=tmp_path / f"step={step}.ckpt", workers=1, **options
        )
        assert found == {k: seen[k] for k in range(step, 8)}
        assert torch.equal(ended, weights)
