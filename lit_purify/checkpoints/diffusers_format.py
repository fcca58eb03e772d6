"""Networks saved by diffusers: ``UNet2DModel`` weights and the ``config.json`` beside them.

The weights alone do not describe the network (nothing in them tells how the step is embedded or
what an attention head is), so without a ``config.json`` only the tensors of
``google/ddpm-cifar10-32`` are accepted: their architecture is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_purify.checkpoints.layout import Reading, Source, build
from lit_purify.diffusion.architectures import ddpm_unet
from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.diffusion.schedule import CosineSchedule, LinearSchedule, Schedule
from lit_purify.types import InputError

CONFIG = "config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
FORMER_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Projections of an attention block: the name of today, and the one until diffusers 0.17."""

REQUIRED = {
    "_class_name": "UNet2DModel",
    "time_embedding_type": "positional",
    "center_input_sample": False,
    "class_embed_type": None,
    "num_class_embeds": None,
}
"""What a network must be for the purifier to run it; where a config is silent, it is so."""

TRAINING = {"prediction_type": "epsilon"}
"""What a network must have been trained for; where a scheduler's config is silent, it was so."""

ADVICE = (
    "as this package runs networks trained for that only; give the checkpoint of such a network"
)

PLAIN = {"trained_betas": None, "rescale_betas_zero_snr": False}
"""How a schedule is that its name tells; where a scheduler's config is silent, it is so."""

ENDS = {"beta_start": 1e-4, "beta_end": 0.02}
"""Variances of a linear schedule's first and last step, where a scheduler's config is silent."""


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are of this format."""
    return "time_embedding.linear_1.weight" in tensors or any(
        name.startswith("down_blocks.") for name in tensors
    )


def weights_in(folder: Path) -> Path:
    """The weights file of a folder that ``save_pretrained`` wrote, of a network or a pipeline.

    Raises:
        InputError: there is none.
    """
    inner = folder / "unet" if (folder / "unet").is_dir() else folder
    for name in WEIGHTS:
        if (inner / name).is_file() and (inner / CONFIG).is_file():
            return inner / name
    raise InputError(
        f"{folder} is a folder and holds no weights file of diffusers: expected {CONFIG} beside "
        f"{' or '.join(WEIGHTS)} in it or in its folder unet; give such a folder, or a weights file"
    )


def read(tensors: Mapping[str, Tensor], file: Path, schedule: Schedule | None = None) -> Reading:
    """The network that the ``config.json`` beside a weights file describes.

    Args:
        tensors: of the file.
        file: the weights file.
        schedule: the noise schedule, which the caller sets; ``None`` takes that of a scheduler's
            configuration.

    Raises:
        InputError: there is no such file and the tensors are not google/ddpm-cifar10-32's, or it
            describes a network or a training that this package does not run.
    """
    config_file = file.parent / CONFIG
    source = partial(_source, tensors=tensors)
    if config_file.is_file():
        reading = Reading(_described(config_file, file), source)
    else:
        reading = Reading(ddpm_unet(seed=None), source)
        google = {known.name: known.shape for known in reading.sources().values()}
        if google != {name: tuple(x.shape) for name, x in tensors.items()}:
            raise InputError(
                f"{file} is not a denoiser of this project (a .safetensors file of format "
                "small_unet/1), and what diffusers network it is, its tensors alone do not say; "
                f"put its {CONFIG} beside it"
            )
    scheduler, config = _scheduler(file)
    _require(config, TRAINING, scheduler)
    if schedule is None:
        reading.denoiser.schedule = _schedule(config, scheduler)
    return reading


def _described(config_file: Path, file: Path) -> UNetDenoiser:
    config = _json(config_file)
    _require(config, REQUIRED, config_file)
    denoiser = build(file, _from_config, config=config)
    read_in, given = (denoiser.network.config[key] for key in ("in_channels", "out_channels"))
    if given not in (read_in, 2 * read_in):
        raise InputError(
            f"{config_file} says in_channels = {read_in} and out_channels = {given}; expected a "
            "noise predictor, which gives as many as it takes, or twice as many"
        )
    return denoiser


def _require(
    config: Mapping[str, Any], values: Mapping[str, Any], file: Path, advice: str = ADVICE
) -> None:
    """Raise :class:`InputError` if a configuration says another value than the only one run."""
    for key, needed in values.items():
        if config.get(key, needed) != needed:
            raise InputError(f"{file} says {key} = {config[key]!r}; expected {needed!r}, {advice}")


def _from_config(config: dict[str, Any]) -> UNetDenoiser:
    from diffusers import UNet2DModel

    known = {key: value for key, value in config.items() if not key.startswith("_")}
    network = UNet2DModel(**known)
    side = network.config["sample_size"]
    sides = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
    image_shape = None if side is None else (network.config["in_channels"], *map(int, sides))
    return UNetDenoiser(network, image_shape=image_shape)


def _scheduler(file: Path) -> tuple[Path, dict[str, Any]]:
    """The scheduler's configuration of a weights file, and what it says; nothing without one."""
    folder = file.parent
    places = [folder, folder / "scheduler"]
    if folder.name == "unet":
        places.append(folder.parent / "scheduler")
    files = [place / "scheduler_config.json" for place in places]
    scheduler = next(filter(Path.is_file, files), None)
    return (file, {}) if scheduler is None else (scheduler, _json(scheduler))


def _schedule(config: Mapping[str, Any], scheduler: Path) -> Schedule:
    """The noise schedule that a scheduler's configuration names."""
    known = "'linear' and 'squaredcos_cap_v2' are the schedules known here by name"
    own = "give load_denoiser the schedule that the network was trained on"
    _require(config, PLAIN, scheduler, f"as {known}; {own}")
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(
            f"{scheduler} says num_train_timesteps = {steps!r}; expected an integer of 1 or more, "
            "so download it again"
        )
    name = config.get("beta_schedule", "linear")
    if name == "squaredcos_cap_v2":
        return CosineSchedule(steps)
    if name != "linear":
        raise InputError(f"{scheduler} says beta_schedule = {name!r}; {known}; {own}")
    start, end = (config.get(key, usual) for key, usual in ENDS.items())
    try:
        return LinearSchedule(steps, start, end)
    except (InputError, TypeError) as error:
        raise InputError(f"{scheduler} names a schedule that cannot be: {error}") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is not a readable configuration ({error}); expected a JSON object as "
            "diffusers writes it, so download it again"
        ) from error
    return content


def _source(name: str, shape: tuple[int, ...], *, tensors: Mapping[str, Tensor]) -> Source:
    """Under the name of today or the former one; projections may be stored as 1x1 convolutions."""
    for today, former in FORMER_NAMES.items():
        if f".{today}." in name:
            old = name.replace(f".{today}.", f".{former}.")
            stored = old if old in tensors else name
            is_convolution = stored in tensors and tensors[stored].ndim == 4
            return Source(stored, (*shape, 1, 1) if is_convolution else shape)
    return Source(name, shape)
