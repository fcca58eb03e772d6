"""Writes what ``predict`` purified: images, arrays and trajectory figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lit_purify.callbacks.chain_steps import chain_steps
from lit_purify.callbacks.run_folder import run_folder
from lit_purify.data.sampler import shared_sampler
from lit_purify.diffusion.purifier import Purifier, State
from lit_purify.figures import trajectory_figure
from lit_purify.functional import lp_distance
from lit_purify.types import Batch

STRIP_LENGTH = 9
"""States shown in a trajectory figure, evenly spaced, the input and the output among them."""


class PredictionWriter(BasePredictionWriter):
    """Writes every purified image into the run folder, as ``purified/<name>.png``.

    Figures have a folder of their own: the purified images can be the source of another run, and
    no name of an image is that of a figure.

    ``purified.npz`` holds all results unrounded: ``images`` (N, H, W, C) float32 in the [0, 1]
    scale, ``index`` and ``name``. PNG files are clipped to [0, 1] and rounded to 8 bits.

    Args:
        figures: how many images, the first of the source, get a trajectory figure,
            ``trajectories/<name>.png``.
    """

    def __init__(self, *, figures: int = 16) -> None:
        super().__init__(write_interval="batch")
        self.figures = figures
        self._folder = Path()
        self._images: list[Tensor] = []
        self._indices: list[int] = []
        self._names: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._folder = run_folder(trainer)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: list[State],
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        folder, trajectories = self._folder / "purified", self._folder / "trajectories"
        folder.mkdir(parents=True, exist_ok=True)
        steps = chain_steps(cast(Purifier, pl_module.purifier))
        names: Sequence[str] = trainer.datamodule.names  # type: ignore[attr-defined]
        purified = prediction[-1].image.cpu()
        for row, index in enumerate(batch["index"].tolist()):
            name = names[index]
            pixels = (purified[row].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            grey = pixels.shape[-1] == 1
            Image.fromarray(pixels[..., 0] if grey else pixels).save(folder / f"{name}.png")
            if index < self.figures:
                figure = _trajectory(prediction, row, steps)
                trajectories.mkdir(exist_ok=True)
                figure.savefig(trajectories / f"{name}.png")
            self._names.append(name)
            self._indices.append(index)
        self._images.append(purified.float())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = self._folder
        if self._names:  # a process may have had no image
            np.savez(
                _part(folder, trainer.global_rank),
                images=torch.cat(self._images).permute(0, 2, 3, 1).numpy(),
                index=np.array(self._indices),
                name=np.array(self._names),
            )
        if sampler := shared_sampler(trainer.predict_dataloaders):
            sampler.peers.gather()
        if trainer.is_global_zero:
            count = _merge(folder, trainer.world_size)
            print(f"purified {count} images; they are in {folder / 'purified'}")
            print(folder, flush=True)
        # The first process holds what the others wait on: it leaves last.
        trainer.strategy.barrier("predictions are merged")


def _part(folder: Path, rank: int) -> Path:
    return folder / f"purified_rank{rank}.npz"


def _merge(folder: Path, processes: int) -> int:
    """Put the parts of all processes together, by index; returns the number of images."""
    parts = [path for rank in range(processes) if (path := _part(folder, rank)).exists()]
    arrays = [dict(np.load(path)) for path in parts]
    order = np.argsort(np.concatenate([part["index"] for part in arrays]))
    images, index, name = (
        np.concatenate([part[key] for part in arrays])[order] for key in ("images", "index", "name")
    )
    np.savez(folder / "purified.npz", images=images, index=index, name=name)
    for path in parts:
        path.unlink()
    return len(order)


def _trajectory(states: Sequence[State], row: int, steps: list[int]) -> Figure:
    images = torch.stack([state.image[row].cpu() for state in states])
    distance = lp_distance(images, images[:1].expand_as(images), 2).tolist()
    shown = np.unique(np.linspace(0, len(states) - 1, STRIP_LENGTH).round().astype(int)).tolist()
    strip = [(f"t = {steps[k]}", images[k]) for k in shown]
    strip[0] = ("input", images[0])
    strip[-1] = ("purified", images[-1])
    return trajectory_figure(strip, {"l2": distance}, steps, reference="the input")
