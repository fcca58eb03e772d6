"""This project's own denoiser files: safetensors that carry their architecture.

The header's metadata holds ``lit_purify`` (a JSON object: the file's format, the arguments of
:func:`~lit_purify.diffusion.architectures.small_unet`) and ``model_card``, plain text. Weights may
be stored in float16; they are loaded as float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lit_purify.checkpoints.layout import Reading, build
from lit_purify.diffusion.architectures import small_unet
from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.diffusion.schedule import LinearSchedule
from lit_purify.types import InputError
from lit_purify.weights.files import SAFETENSORS_SUFFIX

FORMAT = "small_unet/1"


def save_denoiser(
    path: Path,
    denoiser: UNetDenoiser,
    architecture: dict[str, Any],
    *,
    model_card: str = "",
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a denoiser made by ``small_unet(**architecture)``.

    Args:
        path: target, ``.safetensors``.
        denoiser: the network.
        architecture: the arguments it was made with.
        model_card: data, steps, losses, seeds and command of the training, plain text.
        dtype: how the weights are stored.

    Raises:
        InputError: a noise schedule other than the linear one, which such a file cannot name.
    """
    if denoiser.schedule != LinearSchedule():
        raise InputError(
            f"the denoiser's schedule is {denoiser.schedule}; files of format {FORMAT} are of "
            f"networks trained on {LinearSchedule()}, so keep this one in a format of its own"
        )
    header = {
        "lit_purify": json.dumps({"format": FORMAT, "architecture": architecture}),
        "model_card": model_card,
    }
    tensors = {
        name: tensor.to(dtype).contiguous()
        for name, tensor in denoiser.network.state_dict().items()
    }
    save_file(tensors, path, metadata=header)


def model_card(path: str) -> str:
    """The text on the training that a denoiser file carries."""
    return _metadata(Path(path)).get("model_card", "")


def recognises(file: Path) -> bool:
    """Whether a readable weights file says that it is of this project."""
    return file.suffix == SAFETENSORS_SUFFIX and "lit_purify" in _metadata(file)


def read(file: Path) -> Reading:
    """The network that the header describes.

    Raises:
        InputError: it describes none.
    """
    try:
        header = json.loads(_metadata(file)["lit_purify"])
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
        architecture = dict(header["architecture"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is a safetensors file but not a denoiser of this project ({FORMAT}); "
            "give a file written by this project's training"
        ) from error
    return Reading(build(file, small_unet, **architecture))


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); expected a denoiser file "
            "written by this project's training"
        ) from error
