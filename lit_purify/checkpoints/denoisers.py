"""Denoisers from files, in every format that their networks are published in."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_purify.checkpoints import (
    ddpm_format,
    diffusers_format,
    edm_format,
    guided_diffusion_format,
    own_format,
    score_sde_format,
)
from lit_purify.checkpoints.layout import Reading, fill
from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.diffusion.schedule import CosineSchedule, Schedule, checked_schedule
from lit_purify.types import InputError, described
from lit_purify.weights.files import load_content, named_tensors

PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel training and ``torch.compile`` put before the names of a network."""

EMBEDDED = {
    "small": "denoiser_cifar10_small.safetensors",
    "base": "denoiser_cifar10_base.safetensors",
}
"""Denoisers that ship with the package: 4.5 and 18 M parameters."""
OFFICIAL = {
    "ddpm_cifar10": "DDPM on CIFAR-10 (Ho et al.), averaged weights, PyTorch conversion by pesser",
    "google_ddpm_cifar10_32": "google/ddpm-cifar10-32",
    "guided_diffusion_256_uncond": "OpenAI guided diffusion, ImageNet 256x256 unconditional",
    "score_sde_cifar10": "Score-SDE VP on CIFAR-10 (DDPM++, deep, continuous), averaged weights",
    "improved_diffusion_cifar10": "OpenAI improved diffusion, CIFAR-10 unconditional, L_hybrid",
    "ddpm_celebahq_256": "DDPM on CelebA-HQ 256x256 (SDEdit's checkpoint)",
    "edm_cifar10_uncond_vp": "EDM on CIFAR-10, unconditional, VP (DDPM++)",
    "edm_cifar10_cond_vp": "EDM on CIFAR-10, class-conditional, VP (DDPM++)",
}
"""Published denoisers by the names of :func:`official_denoiser`, and what a report calls them."""

PARAMETERS = {
    "ddpm_cifar10": 35_746_307,
    "google_ddpm_cifar10_32": 35_746_307,
    "guided_diffusion_256_uncond": 552_814_086,
    "score_sde_cifar10": 106_632_579,
    "improved_diffusion_cifar10": 52_546_438,
    "ddpm_celebahq_256": 113_673_219,
    "edm_cifar10_uncond_vp": 55_733_891,
    "edm_cifar10_cond_vp": 55_735_299,
}
"""Their sizes: where no hash is published, a file of another network is known by this."""

TRAINED: dict[str, dict[str, Any]] = {
    "improved_diffusion_cifar10": {
        "schedule": CosineSchedule(4000),
        "num_heads": 4,
        "rescale_timesteps": True,
    },
}
"""What their files leave out of how they were trained: arguments of :func:`load_denoiser`."""


def load_denoiser(
    path: str,
    *,
    image_size: int | None = None,
    schedule: Schedule | None = None,
    num_head_channels: int | None = None,
    num_heads: int | None = None,
    use_new_attention_order: bool = False,
    rescale_timesteps: bool = False,
) -> UNetDenoiser:
    """Load a denoiser; what the file holds decides how it is read.

    - this project's own ``.safetensors``, written by :func:`save_denoiser`;
    - pesser's conversion of the DDPM networks, a state_dict with ``temb.dense.0.weight``;
    - OpenAI's guided and improved diffusion, an unconditional state_dict with
      ``input_blocks.0.0.weight``, of networks with ``use_scale_shift_norm``;
    - Score-SDE's DDPM++ without filters: a state_dict with ``all_modules``, or the checkpoint of a
      training, of which the averaged weights (``ema.shadow_params``) are taken;
    - EDM's DDPM++ ("VP"), the state_dict of a preconditioned network, with ``model.map_layer0``,
      class-conditional or not;
    - diffusers' ``UNet2DModel``: the folder that ``save_pretrained`` wrote, or its weights file.

    The weights may be stored in any float type. What the files of other projects leave out, the
    arguments say: of the settings that a network was trained with, no tensor tells the noise
    schedule, how the attention of guided diffusion is divided into heads, in what order its rows
    are, and how it counts steps. A wrong one gives another network without an error.

    Args:
        path: a weights file (``.safetensors``, ``.pt``, ``.pth``, ``.th``, ``.ckpt``, ``.bin``),
            or a folder of diffusers'.
        image_size: height and width of the images it is used on. ``None`` takes what the file says,
            32, 64 and 256 for the published networks, and any size where nobody says.
        schedule: the noise schedule it was trained on. ``None`` takes what diffusers' scheduler
            configuration says, where there is one (linear, or ``squaredcos_cap_v2``), and
            otherwise the published networks', linear in 1000 steps.
        num_head_channels: guided diffusion only: width of an attention head; ``None`` is 64, the
            published networks', unless ``num_heads`` says.
        num_heads: guided diffusion only: the number of heads, for a network trained with that
            flag instead of ``num_head_channels``.
        use_new_attention_order: guided diffusion only: whether it was trained with this flag.
        rescale_timesteps: guided and improved diffusion only: whether it was trained with this
            flag, which is improved diffusion's default; it matters where T is not 1000.

    Returns:
        The denoiser in float32, frozen, in evaluation mode.

    Raises:
        InputError: the file is missing, corrupt or of another format, a tensor is missing, extra,
            misshapen or not finite, or an argument is not one that such a network can have, or is
            of another format.
    """
    given = Path(path)
    is_folder = os.path.isdir(path)  # noqa: PTH112 (False for a name that no file can have)
    file = diffusers_format.weights_in(given) if is_folder else given
    stored, averaged = _stored(file)
    tensors, prefix = _without_prefix(stored)
    del stored  # the tensors are freed one by one
    options = {
        "num_head_channels": num_head_channels,
        "num_heads": num_heads,
        "use_new_attention_order": use_new_attention_order,
        "rescale_timesteps": rescale_timesteps,
    }
    reading = _read(tensors, file, schedule, **options)
    denoiser = reading.denoiser
    if schedule is not None:
        denoiser.schedule = checked_schedule(schedule)
    if image_size is not None:
        _set_image_size(denoiser, image_size)
    fill(reading, tensors, file=file, prefix=prefix)
    # A folder is known by its name: the files in all of them have the same.
    name = given.resolve().name if is_folder else file.stem
    chosen = {option: value for option, value in options.items() if value}
    denoiser.source = described(name, chosen) + averaged + reading.note
    denoiser.file = file
    return denoiser.eval().requires_grad_(False)


def embedded_denoiser(name: str = "small") -> UNetDenoiser:
    """A CIFAR-10 denoiser that ships with the package; see its model card.

    Args:
        name: ``small`` or ``base``, which is four times as large and slow, and purifies better.

    Raises:
        InputError: another name.
    """
    if name not in EMBEDDED:
        raise InputError(f"no denoiser {name!r} ships; expected {' or '.join(EMBEDDED)}")
    with resources.as_file(resources.files("lit_purify") / "assets" / EMBEDDED[name]) as path:
        return load_denoiser(str(path))


def official_denoiser(*, name: str) -> UNetDenoiser:
    """A published denoiser, fetched and verified first where it is not on this machine yet.

    Args:
        name: ``ddpm_cifar10``, ``google_ddpm_cifar10_32``, ``score_sde_cifar10``,
            ``improved_diffusion_cifar10``, ``ddpm_celebahq_256``,
            ``edm_cifar10_uncond_vp``, ``edm_cifar10_cond_vp`` or ``guided_diffusion_256_uncond``.

    Raises:
        InputError: another name, the weights are not here and cannot be fetched, or the file is
            that of another network.
    """
    if name not in OFFICIAL:
        raise InputError(f"there is no official denoiser {name!r}; expected {', '.join(OFFICIAL)}")
    from lit_purify.weights import weights_file

    file = weights_file(name)
    denoiser = load_denoiser(str(file), **TRAINED.get(name, {}))
    if (found := sum(p.numel() for p in denoiser.network.parameters())) != PARAMETERS[name]:
        raise InputError(
            f"{file} holds a network of {found:,} parameters, and {name} has "
            f"{PARAMETERS[name]:,}: it is another file; remove it (and its .sha256), and hand over "
            f"the right one by 'python -m lit_purify weights fetch {name} --from FILE'"
        )
    denoiser.source = OFFICIAL[name]
    return denoiser


def _stored(file: Path) -> tuple[dict[str, Tensor], str]:
    """The named tensors of a file, and what its weights are if it holds others, too."""
    content = load_content(file)
    if score_sde_format.is_checkpoint(content):
        averaged = score_sde_format.averaged_weights(content, file)
        return named_tensors(averaged, file), ", averaged weights (ema.shadow_params)"
    return named_tensors(content, file), ""


def _without_prefix(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors without what wrappers put before every name, and that."""
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            inner, more = _without_prefix(
                {name.removeprefix(prefix): x for name, x in tensors.items()}
            )
            return inner, prefix + more
    return tensors, ""


def _read(
    tensors: dict[str, Tensor], file: Path, schedule: Schedule | None, **attention: Any
) -> Reading:
    if guided_diffusion_format.recognises(tensors):
        return guided_diffusion_format.read(tensors, file, **attention)
    if given := [name for name, value in attention.items() if value]:
        raise InputError(
            f"{' and '.join(given)} came with {file}, which is not of guided diffusion; expected "
            "with such a file only: drop it"
        )
    if own_format.recognises(file):
        return own_format.read(file)
    if edm_format.recognises(tensors):
        return edm_format.read(tensors, file)
    if score_sde_format.recognises(tensors):
        return score_sde_format.read(tensors, file)
    if ddpm_format.recognises(tensors):
        return ddpm_format.read(tensors, file)
    if diffusers_format.recognises(tensors):
        return diffusers_format.read(tensors, file, schedule)
    first = next(iter(tensors), None)
    raise InputError(
        f"{file} holds no denoiser known here (its first tensor is {first!r}); expected a file of "
        "this project's training, a DDPM state_dict in pesser's conversion, an OpenAI "
        "guided-diffusion or improved-diffusion state_dict, a file of Score-SDE's DDPM++, an EDM "
        "state_dict, or a diffusers UNet2DModel; a checkpoint of a training of your own must be "
        "exported first"
    )


def _set_image_size(denoiser: UNetDenoiser, image_size: int) -> None:
    config = denoiser.network.config
    unit = denoiser.unit
    if image_size < 1 or image_size % unit:
        raise InputError(
            f"image_size is {image_size}; expected a multiple of {unit}, by which this denoiser "
            "divides its images"
        )
    channels = config["in_channels"] // denoiser.patch_size**2
    denoiser.image_shape = (channels, image_size, image_size)
