"""Small models, data and runs: what the tests of the upper rooms attack, purify and train.

The classes are also named in YAML class paths, which shows that an extension is one class.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from oracles import fill
from torch import Tensor, nn

from lit_purify.attacks import PGD, Attack
from lit_purify.callbacks import AdversarialExamples
from lit_purify.checkpoints import load_denoiser, save_denoiser
from lit_purify.classifiers import Classifier
from lit_purify.classifiers.wrap import from_module
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import (
    Denoiser,
    FixedNoise,
    NoiseConfiguration,
    Purifier,
    UNetDenoiser,
    small_unet,
)
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary

ARCHITECTURE: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4}
CONFIGS = Path(__file__).parents[1] / "configs"
UNMEASURED = ("--measure.compression", "null", "--measure.images", "null")
"""Switches off what the configurations for one experiment measure beside the accuracies."""
LAUNCHED = ("hardware/ddp.yaml", "hardware/slurm.yaml")
"""Configurations that start processes, so that a test process cannot run them in itself."""


class IdentityPurifier(Purifier):
    """f(x) = x."""

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return images


class ScalingPurifier(Purifier):
    """f(x) = c x: its compression rate is c."""

    def __init__(self, *, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return self.factor * images


class NoisyPurifier(Purifier):
    """f_xi(x) = x + 0.2 xi, which writes down every call: (images, seed, indices, xi)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, int, Tensor, Tensor]] = []

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        xi = noise.normal(indices, "forward", 1, like=images)
        assert isinstance(noise, FixedNoise)
        self.calls.append((images.detach().clone(), noise.seed, indices.clone(), xi))
        return images + 0.2 * xi


class Failing(NoisyPurifier):
    """A :class:`NoisyPurifier` that breaks on the given sample, once; ``None`` for none."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.at = at

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        if self.at is not None and self.at in indices:
            self.at = None
            raise RuntimeError("this purifier fails")
        return super().purify(images, noise, indices)

    def settings(self) -> dict[str, object]:
        return {"purifier": "Failing"}  # a run that broke goes on without the failure


class FailingPurifier(IdentityPurifier):
    """Raises on the given sample."""

    def __init__(self, *, at: int, interrupt: bool = False) -> None:
        super().__init__()
        self.at = at
        self.interrupt = interrupt

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        if self.at in indices:
            raise KeyboardInterrupt if self.interrupt else RuntimeError("this purifier fails")
        return images

    def settings(self) -> dict[str, object]:
        return {"purifier": "FailingPurifier"}  # a run that broke goes on without the failure


class StatusSpy(Callback):
    """Writes down what ``summary.json`` says after every batch."""

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        folder = Path(str(trainer.log_dir))
        with (folder / "seen.txt").open("a") as file:
            file.write(read_summary(folder / "summary.json")["status"] + "\n")


class Float64Denoiser(Denoiser):
    """A float32 denoiser evaluated in float64: rounding then never turns a gradient's sign."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.inner = denoiser.double()

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self.inner(x_t.double(), t).to(x_t)


class _Double(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.double()


def classifier() -> Classifier:
    """A convolution and a pooling with known weights, 10 classes, in float64."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 10 * 10, 10)
    )
    return from_module(
        nn.Sequential(_Double(), fill(network.double(), seed=1, std=0.2)), 10, (3, 32, 32)
    )


def denoiser() -> UNetDenoiser:
    """An untrained U-Net for 3x32x32 with known weights."""
    return fill(small_unet(**ARCHITECTURE), seed=2, std=0.1)


def denoiser_file(folder: Path) -> Path:
    """:func:`denoiser` as a file of this project."""
    path = folder / "tiny.safetensors"
    save_denoiser(path, denoiser(), ARCHITECTURE, model_card="random weights")
    return path


def images_and_labels(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images (n, 3, 32, 32) and labels; two thirds are what :func:`classifier` says."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.random((n, 3, 32, 32), dtype=np.float32))
    labels = classifier()(images).argmax(1)
    return images, torch.where(torch.arange(n) % 3 == 2, (labels + 1) % 10, labels)


def npz_file(path: Path, n: int = 7, *, seed: int = 0) -> Path:
    """:func:`images_and_labels` as an ``.npz`` file."""
    images, labels = images_and_labels(n, seed=seed)
    np.savez(path, images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    return path


class TwoClasses(CIFAR10DataModule):
    """Images for a classifier of two classes, whose margin is one number."""

    num_classes = 2


class Recorder(Callback):
    """Keeps every batch and outcome of a test, and which purifier calls belong to its attack."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.attack_calls: list[Any] = []
        self.test_calls: list[Any] = []

    def on_test_batch_start(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self._drain(pl_module, self.attack_calls)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self._drain(pl_module, self.test_calls)
        self.batches.append(batch)
        self.outcomes.append(outputs)

    @staticmethod
    def _drain(module: LightningModule, target: list[Any]) -> None:
        calls = getattr(module.purifier, "calls", [])
        target += calls
        calls.clear()

    def adversarial(self, surface: str) -> Tensor:
        """The adversarial images of the whole run."""
        return torch.cat([batch["adversarial"][surface] for batch in self.batches])

    def correct(self, name: str) -> Tensor:
        """Which samples of the whole run were classified correctly."""
        return torch.cat([outcome[name].correct for outcome in self.outcomes])


class ForgetPreflight(Callback):
    """Of the calls that a purifier wrote down, those before the first batch tell of no run."""

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if batch_idx == 0:
            getattr(pl_module.purifier, "calls", []).clear()


def trainer(folder: Path | None, *callbacks: Callback, **options: Any) -> Trainer:
    """A Trainer for a test on the CPU that prints and keeps nothing by itself."""
    quiet = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    return Trainer(
        accelerator="cpu",
        inference_mode=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{**quiet, **options},
    )


def training(
    processed: int = 0, *, rank: int = 0, world: int = 1, limit: float = 1.0
) -> SimpleNamespace:
    """What a sampler sees of a Trainer that has trained on so many batches."""
    progress = SimpleNamespace(total=SimpleNamespace(processed=processed))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(
        fit_loop=loop, world_size=world, global_rank=rank, limit_train_batches=limit
    )


def evaluate(
    module: PurifiedClassifier,
    data: CIFAR10DataModule,
    *callbacks: Callback,
    attack: Attack | None = None,
    folder: Path | None = None,
) -> tuple[dict[str, float], Recorder]:
    """Test a defence, by default under a PGD that fools some samples and not all."""
    attack = PGD(eps="1/255", steps=3, rel_stepsize=0.5) if attack is None else attack
    recorder = Recorder()
    tester = trainer(folder, ForgetPreflight(), AdversarialExamples(attack), recorder, *callbacks)
    tester.test(module, data, verbose=False)
    return {name: value.item() for name, value in tester.callback_metrics.items()}, recorder


def command(subcommand: str, config: str, folder: Path, *more: str) -> list[str]:
    """Arguments of a small run of a configuration with a denoiser of random weights."""
    overrides = {
        "--trainer.default_root_dir": str(folder),
        "--trainer.accelerator": "cpu",
        "--model.purifier.denoiser": "lit_purify.checkpoints.load_denoiser",
        "--model.purifier.denoiser.path": str(denoiser_file(folder)),
        "--model.purifier.t_star": "20",
        "--model.purifier.num_steps": "2",
        "--data.limit": "3",
        **({"--attack.steps": "2"} if subcommand == "test" else {}),
    }
    options = [word for option in overrides.items() for word in option]
    return [subcommand, "--config", str(CONFIGS / config), *options, *more]


def fit(folder: Path, config: str, *, steps: int = 1, images: int = 10, holdout: int = 6) -> Path:
    """Train a tiny network in batches of 4 by a configuration; the run folder."""
    options = {
        "--config": str(CONFIGS / config),
        "--trainer.default_root_dir": str(folder),
        "--trainer.accelerator": "cpu",
        "--trainer.devices": "1",
        "--trainer.max_steps": str(steps),
        "--trainer.val_check_interval": "1",
        "--trainer.log_every_n_steps": "1",
        "--trainer.enable_progress_bar": "false",
        "--model.denoiser.block_out_channels": "[8,16]",
        "--model.denoiser.norm_num_groups": "4",
        "--model.compile": "false",
        "--data.train_source": str(npz_file(folder / "train.npz", images)),
        "--data.num_holdout": str(holdout),
        "--data.batch_size": "4",
    }
    assert main(["fit", *(word for option in options.items() for word in option)]) == 0
    return run_folder(folder)


def run_folder(folder: Path, version: int = 0) -> Path:
    """Where a run with ``folder`` as its root directory writes."""
    return folder / "lightning_logs" / f"version_{version}"


class NoiseRecorder(Callback):
    """Records the Gaussian draws themselves, to compare them bit for bit."""

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        xi = pl_module.noise.normal(batch["index"], "forward", 1, like=batch["image"])
        pl_module.record("noise/xi", xi)


def float64_denoiser(path: str) -> Denoiser:
    """The denoiser of a file, evaluated in float64."""
    return Float64Denoiser(load_denoiser(path))


def quick_test(denoiser: Path, folder: Path, *more: str) -> list[str]:
    """Arguments of a test of a defence in which all is tiny: a second for 16 images.

    Args:
        denoiser: a :func:`denoiser_file`; saved again it has another hash, and it is another run.
        folder: root folder of the run.
        more: arguments.
    """
    overrides = {
        "--trainer.default_root_dir": str(folder),
        "--trainer.accelerator": "cpu",
        "--measure.images": "null",
        "--model.purifier.denoiser": "tiny.float64_denoiser",
        "--model.purifier.denoiser.path": str(denoiser),
        "--model.purifier.t_star": "20",
        "--model.purifier.num_steps": "2",
        "--model.classifier": "tiny.classifier",
        "--attack.steps": "2",
        "--data.limit": "16",
        "--data.batch_size": "2",
    }
    options = [word for option in overrides.items() for word in option]
    return ["test", "--config", str(CONFIGS / "cifar_fixed.yaml"), *options, *more]


def same_row(found: dict[str, Any], expected: dict[str, Any], *, rel: float) -> bool:
    """Whether floats of two rows of the records agree to a tolerance, and all else exactly."""
    return found.keys() == expected.keys() and all(
        math.isclose(found[key], value, rel_tol=rel)
        if type(value) is float
        else found[key] == value
        for key, value in expected.items()
    )
