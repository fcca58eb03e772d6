"""What a user calls from Python: purify images, evaluate a defence."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from torch import Tensor

from lit_purify.attacks import PGD, Attack
from lit_purify.callbacks import (
    AdversarialExamples,
    AttackCurves,
    Dashboard,
    EvaluationProgress,
    Interruption,
    Measurement,
    MemoryUse,
    Records,
    Summary,
    Terminated,
)
from lit_purify.callbacks.interruption import interruptible
from lit_purify.callbacks.quiet import quiet
from lit_purify.callbacks.run_folder import remove_unused, run_logger
from lit_purify.callbacks.trainers import make_trainer
from lit_purify.checkpoints import embedded_denoiser
from lit_purify.classifiers import Classifier
from lit_purify.data import ArrayDataModule, ImageDataModule
from lit_purify.defence import Defence
from lit_purify.diffusion import PRESETS, Denoiser, DiffusionPurifier, FixedNoise, Purifier
from lit_purify.diffusion.denoiser import frozen_copy
from lit_purify.diffusion.noise import as_indices
from lit_purify.diffusion.presets import PresetName
from lit_purify.diffusion.seeds import check_seed
from lit_purify.metrics import Statistics
from lit_purify.modules import PurifiedClassifier
from lit_purify.modules.protocols import ProtocolName
from lit_purify.records import SampleTable, read_summary, records_folder
from lit_purify.records.header import read_header
from lit_purify.report import flags, summary_table
from lit_purify.types import Auto, InputError


def purify(
    images: Tensor,
    *,
    t_star: int = 100,
    num_steps: int | None = 20,
    preset: PresetName = "ddpm",
    denoiser: Denoiser | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """Purify images with a diffusion model.

    Args:
        images: shape (B, 3, 32, 32) for the shipped denoiser, in [0, 1]. Differentiable.
        t_star: diffusion depth t* in units of the denoiser's schedule (1000 steps for the shipped
            one).
        num_steps: steps the chain takes across t*; ``None`` takes every one, as in the paper.
        preset: ``ddpm``, ``reverse`` or ``ddim``, the paper's three kinds of purification.
        denoiser: noise predictor, left as it is; ``None`` takes the small CIFAR-10 one that ships.
        seed: base seed of the noise: the same seed, image index and settings give the same result.
        indices: dataset index of each image, which keys its noise; ``None`` counts from 0.

    Returns:
        Purified images, same shape, in [0, 1] (the presets clip the predicted clean image).

    Raises:
        InputError: images outside [0, 1] or of a shape the denoiser was not made for, something
            that is no denoiser, or a seed outside 0 .. 2**32 - 1.

    Example:
        >>> import torch
        >>> import lit_purify
        >>> lit_purify.purify(torch.full((2, 3, 32, 32), 0.5), num_steps=2).shape
        torch.Size([2, 3, 32, 32])
    """
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    check_seed(seed)
    if not isinstance(images, Tensor):
        raise InputError(
            f"purify needs a tensor of images, got a {type(images).__name__}; convert an array of "
            "channels last by torch.from_numpy(images).movedim(-1, 1)"
        )
    if not isinstance(denoiser, Denoiser | None):
        raise InputError(
            f"the denoiser is a {type(denoiser).__name__}; expected a lit_purify.Denoiser; derive "
            "yours from it, or read a file by lit_purify.load_denoiser(path)"
        )
    if not (images.is_floating_point() and ((images >= 0) & (images <= 1)).all()):
        raise InputError(
            "purify needs finite floating-point images in [0, 1], got "
            f"{images.dtype} from {images.min()} to {images.max()}; divide 8-bit images by 255, or "
            "clip what rounding has left outside with images.clamp(0, 1)"
        )
    forward_process, sampler = PRESETS[preset]
    purifier = DiffusionPurifier(
        embedded_denoiser() if denoiser is None else frozen_copy(denoiser),
        t_star=t_star,
        num_steps=num_steps,
        forward_process=forward_process,
        sampler=sampler,
    ).to(images)
    rows = range(len(images)) if indices is None else indices
    return purifier.purify(images, FixedNoise(seed), as_indices(rows))


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: name -> ``value`` and, where they make sense, ``low``, ``high`` (95 % interval),
            ``std``, ``n``.
        rows: what was found for every image, one mapping per image, by ``<protocol>/<column>``.
        table: the same with the tensors, such as ``table["fixed/adversarial"]``, (N, C, H, W).
        figures: the pictures that were drawn, by name.
        flags: what looks suspicious, in sentences.
        settings: what decides the numbers.
        folder: the run folder, with everything above as files.
    """

    metrics: dict[str, Statistics]
    rows: list[dict[str, Any]]
    table: SampleTable
    figures: dict[str, Path]
    flags: list[str]
    settings: dict[str, Any]
    folder: Path

    def __str__(self) -> str:
        console = Console(width=100)
        with console.capture() as text:
            console.print(summary_table(read_summary(self.folder / "summary.json")))
        flags = (f"Warning: {flag}" for flag in self.flags)
        return "\n".join([text.get(), *flags, str(self.folder)])


def evaluate(
    defence: Defence | PurifiedClassifier,
    data: ImageDataModule | tuple[Tensor, Tensor],
    *,
    attack: Attack | None = None,
    protocols: Sequence[ProtocolName] | None = None,
    measurements: Sequence[Measurement] = (),
    seed: int | None = None,
    test_draws: int | None = None,
    batch_size: int | Auto | None = None,
    root: str | Path = ".",
    resume: str | Path | None = None,
    progress: bool = True,
    trainer: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Attack a defence and measure it; what ``python -m lit_purify test`` does, without YAML.

    Args:
        defence: a classifier behind a purifier. A ``PurifiedClassifier`` brings its own protocols,
            seed and test draws; none may be given beside it.
        data: a data module, or images (N, C, H, W) in [0, 1] and their labels (N,).
        attack: finds the adversarial images; ``None`` takes PGD at 8/255 in 40 steps.
        protocols: how the defence is attacked and tested (:mod:`lit_purify.modules.protocols`);
            ``None`` takes ``base`` and ``fixed``.
        measurements: what to measure besides, such as ``lit_purify.callbacks.CompressionRate()``.
        seed: base seed of everything random; ``None`` takes 0.
        test_draws: noise draws that `transfer` and `fresh` test an image under; ``None`` takes 1.
        batch_size: images per batch where ``data`` are images and labels; ``None`` takes 64,
            ``auto`` as many as the memory takes. A data module has its own.
        root: folder in which ``lightning_logs/version_N`` is made.
        resume: run folder of an interrupted evaluation of the same settings, to go on with.
        progress: show a progress bar.
        trainer: further arguments of the Lightning Trainer; it takes one device unless told more,
            ``{"accelerator": "gpu", "devices": 4, "strategy": "ddp"}``.

    Returns:
        Metrics with intervals, rows, tensors, pictures and flags, the same on every process. They
        are files of a run folder too, which ``python -m lit_purify report`` reads.

    Raises:
        InputError: an argument is not as above, or the parts do not fit together.
        KeyboardInterrupt: Ctrl-C; after SIGTERM a SystemExit of status 143. What was done is
            recorded, and ``resume`` goes on with it.

    Example::

        defence = Defence(embedded_resnet18(), DiffusionPurifier(embedded_denoiser(), num_steps=10))
        result = evaluate(defence, CIFAR10DataModule(limit=20), attack=PGD(steps=10))
        result.metrics["fixed/robust_accuracy"]
    """
    module = _module(defence, protocols=protocols, seed=seed, test_draws=test_draws)
    data = _data_module(data, module.classifier, batch_size)
    if not isinstance(attack, Attack | None):
        raise InputError(f"attack must be one such as lit_purify.PGD(), got {attack!r}")
    if isinstance(measurements, Callback):
        raise InputError(f"measurements is one {type(measurements).__name__}; expected a list")
    for measurement in measurements:
        if not isinstance(measurement, Callback):
            raise InputError(
                "measurements must be made, such as lit_purify.callbacks.CompressionRate(), got "
                f"{measurement!r}"
            )
    if not isinstance(trainer, Mapping | None):
        raise InputError(f"trainer is {trainer!r}; expected the Trainer's arguments by name")
    if resume is not None and read_header(records_folder(Path(resume))) is None:
        raise InputError(
            f"there is no run to resume in {resume}; give the folder that an interrupted "
            "evaluation printed, or leave resume out"
        )
    records, summary = Records(resume=resume is not None), Summary(verbose=False)
    callbacks = [
        Interruption(),
        MemoryUse(verbose=progress),
        *([EvaluationProgress()] if progress else []),
        AdversarialExamples(PGD() if attack is None else attack),
        AttackCurves(),
        *measurements,
        records,
        summary,
        Dashboard(),
    ]
    options: dict[str, Any] = {"devices": 1, **(trainer or {})}
    # Attacks need gradients, also where the caller has switched them off.
    with quiet(), torch.inference_mode(False):
        tester = make_trainer(
            lambda: Trainer(
                inference_mode=False,
                logger=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                enable_progress_bar=progress,
                default_root_dir=root,
                callbacks=callbacks,
                **options,
            )
        )
        if tester.fast_dev_run:  # type: ignore[attr-defined]
            raise InputError("fast_dev_run leaves no result; drop it from trainer")
        tester.logger = run_logger(tester, None if resume is None else Path(resume).resolve())
        try:
            with interruptible():
                tester.test(module, data, verbose=False)
        except BaseException as error:
            if tester.is_global_zero and resume is None:
                remove_unused(Path(tester.logger.log_dir))
            if isinstance(error, Terminated):
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
    if not tester.is_global_zero:  # the first process alone has put the records together
        module.conclude(records.read())
    folder = records.run_folder
    return Evaluation(
        metrics=module.statistics,
        rows=list(module.table.rows()),
        table=module.table,
        figures={path.stem: path for path in sorted(folder.glob("*.png"))},
        flags=flags(module.statistics, records.settings, module.preflight),
        settings=records.settings,
        folder=folder,
    )


def _module(defence: Defence | PurifiedClassifier, **arguments: Any) -> PurifiedClassifier:
    """The module that evaluates a defence, with those arguments that are given.

    Raises:
        InputError: it is no defence, or brings the arguments itself.
    """
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if isinstance(defence, PurifiedClassifier):
        if arguments:
            raise InputError(
                f"a PurifiedClassifier brings its own {', '.join(arguments)}; give them to it, or "
                "evaluate lit_purify.Defence(classifier, purifier)"
            )
        return defence
    if not isinstance(defence, Defence):
        raise InputError(
            "evaluate needs lit_purify.Defence(classifier, purifier) or a PurifiedClassifier, got "
            f"a {type(defence).__name__}"
        )
    _check_parts(defence)
    return PurifiedClassifier(
        cast(Purifier, defence.purifier),
        cast(Classifier, defence.classifier),
        **{"protocols": ("base", "fixed"), **arguments},
    )


def _data_module(
    data: ImageDataModule | tuple[Tensor, Tensor],
    classifier: Classifier,
    batch_size: int | Auto | None,
) -> ImageDataModule:
    """What serves the images of an evaluation.

    Raises:
        InputError: it is neither a data module nor images and labels, or it has a batch size.
    """
    if isinstance(data, ImageDataModule):
        if batch_size is not None:
            raise InputError(
                "batch_size goes with images and labels; a data module has its own: give it to the "
                "data module"
            )
        return data
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise InputError(
            "data must be a lit_purify.data.ImageDataModule or a pair (images, labels), got a "
            f"{type(data).__name__}"
        )
    if not all(isinstance(part, (Tensor, np.ndarray)) for part in data):
        raise InputError("images and labels must be tensors or numpy arrays")
    images, labels = data
    return ArrayDataModule(
        images=images,
        labels=labels,
        num_classes=classifier.num_classes,
        batch_size=64 if batch_size is None else batch_size,
    )


def _check_parts(defence: Defence) -> None:
    """Raise :class:`InputError` unless a whole run can be made of a defence."""
    if not isinstance(defence.classifier, Classifier):
        raise InputError(
            f"the classifier is a {type(defence.classifier).__name__}; expected a "
            "lit_purify.Classifier; wrap a network by lit_purify.from_module"
        )
    if not isinstance(defence.purifier, Purifier):
        raise InputError(
            f"the purifier is a {type(defence.purifier).__name__}; expected a lit_purify.Purifier, "
            "as in lit_purify.Defence(classifier, purifier)"
        )
    if defence.noise is not None:
        raise InputError(
            "the defence is bound to a randomness, which an evaluation chooses itself; give the "
            "defence unbound, and seed"
        )
