"""This project's own denoiser files: safetensors that carry their architecture.

The header's metadata holds ``lit_purify`` (a JSON object: the file's format, the arguments of
:func:`~lit_purify.diffusion.denoiser.small_unet`) and ``model_card``, plain text. Weights may be
stored in float16; they are loaded as float32.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lit_purify.checkpoints.files import load_state_dict
from lit_purify.diffusion.denoiser import UNetDenoiser, small_unet
from lit_purify.types import InputError

FORMAT = "small_unet/1"
EMBEDDED = "denoiser_cifar10_small.safetensors"


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
    """
    header = {
        "lit_purify": json.dumps({"format": FORMAT, "architecture": architecture}),
        "model_card": model_card,
    }
    tensors = {
        name: tensor.to(dtype).contiguous()
        for name, tensor in denoiser.network.state_dict().items()
    }
    save_file(tensors, path, metadata=header)


def load_denoiser(path: str) -> UNetDenoiser:
    """Load a denoiser file of this project.

    Args:
        path: a ``.safetensors`` file that :func:`save_denoiser` wrote.

    Returns:
        The denoiser in float32, frozen, in evaluation mode.

    Raises:
        InputError: the file is missing, corrupt or of another format, or a tensor is missing,
            extra, misshapen or not finite.
    """
    file = Path(path)
    tensors = load_state_dict(file)
    architecture = _architecture(file)
    try:
        # Without memory for its weights: only those of the file are ever needed, and a wrong
        # description may ask for any amount.
        with torch.device("meta"):
            denoiser = small_unet(**architecture)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(
            f"{file} describes a network this version cannot build ({reason}); "
            "install the version of lit_purify that wrote it"
        ) from error
    expected = denoiser.network.state_dict()
    wrong = [f"{name} is missing" for name in expected if name not in tensors]
    wrong += [f"{name} is unknown" for name in tensors if name not in expected]
    wrong += [
        f"{name} has shape {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    wrong += [
        f"{name} is of type {x.dtype} instead of a float"
        for name, x in tensors.items()
        if not x.is_floating_point()
    ]
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    wrong += [f"{name} is not finite" for name, x in tensors.items() if not x.isfinite().all()]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(
            f"{file} does not fit its own architecture: {'; '.join(wrong[:3])}{more}; "
            "export the checkpoint again"
        )
    denoiser.network.load_state_dict(tensors, assign=True)
    denoiser.network.to(memory_format=torch.channels_last)
    denoiser.source, denoiser.file = file.stem, file
    return denoiser.eval().requires_grad_(False)


def embedded_denoiser() -> UNetDenoiser:
    """The small CIFAR-10 denoiser that ships with the package; see its model card."""
    with resources.as_file(resources.files("lit_purify") / "assets" / EMBEDDED) as path:
        return load_denoiser(str(path))


def model_card(path: str) -> str:
    """The text on the training that a denoiser file carries."""
    return _metadata(Path(path)).get("model_card", "")


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); expected a denoiser file "
            "written by this project's training"
        ) from error


def _architecture(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(_metadata(path)["lit_purify"])
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
        return dict(header["architecture"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is a safetensors file but not a denoiser of this project ({FORMAT}); "
            "give a file written by this project's training"
        ) from error
