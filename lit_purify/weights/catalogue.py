"""Published weights: where they come from, what they are for, how they are known to be whole.

A file is verified against the hash that was published with it, or by others who had it from the
same address. Where there is none, the file must be readable as weights; its hash is then written
beside it, and holds from then on.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lit_purify.types import InputError, did_you_mean
from lit_purify.weights.content import sha256
from lit_purify.weights.download import WrongContent, fault, fetch_file

CACHE = "LIT_PURIFY_CACHE"
"""Environment variable: the folder that weights are kept in."""

MIRROR = "LIT_PURIFY_MIRROR"
"""Environment variable: a folder or an address that has the files by their ``file_name``."""

EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"


@dataclass(frozen=True)
class Weights:
    """A published file of weights.

    Attributes:
        name: what it is called here.
        file_name: its path within the cache folder.
        url: where its publisher has it.
        used_for: what it is, in a few words.
        licence: as far as its publisher states one.
        size: bytes; ``None`` where it is not known.
        hash: ``md5:`` or ``sha256:`` and hex digits; ``None`` where none was published.
        shared_with: ``torch hub`` for a file that stays in PyTorch's folder of checkpoints, where
            other programs look for it too.
        is_pickle: the publisher's file holds code besides tensors, which is not run here: it must
            be converted, and is never downloaded.
    """

    name: str
    file_name: str
    url: str
    used_for: str
    licence: str
    size: int | None = None
    hash: str | None = None
    shared_with: Literal["torch hub"] | None = None
    is_pickle: bool = False

    @property
    def path(self) -> Path:
        """Where the file is, or will be."""
        if self.shared_with == "torch hub":
            return _torch_folder() / "checkpoints" / self.file_name
        return cache_folder() / self.file_name

    @property
    def is_here(self) -> bool:
        """Whether there is a file of that name.

        Raises:
            InputError: its folder may not be looked into.
        """
        try:
            return self.path.is_file()
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be looked at ({error.strerror}); choose another folder by "
                f"{'TORCH_HOME' if self.shared_with else CACHE}"
            ) from error

    @property
    def part(self) -> Path:
        """What there is of a download that broke off."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def record(self) -> Path:
        """Where the hash is written that the file had at first, if none was published."""
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def known_hash(self) -> str | None:
        """The published hash, else the one written at the first download, else ``None``."""
        if self.hash is not None:
            return self.hash
        with suppress(OSError):
            words = self.record.read_text(encoding="utf-8", errors="replace").split()
            if words:
                return f"sha256:{words[0]}"
        return None

    @property
    def identity(self) -> str:
        """Address, size and hash, in words."""
        size = "size not known" if self.size is None else f"{self.size:,} bytes"
        converted = "the converted state_dict of " if self.is_pickle else ""
        return f"{converted}{self.url} ({size}, {hash_in_words(self.hash)})"

    def fault(self) -> str | None:
        """What is wrong with the file that is there; ``None`` where nothing is known to be.

        A file without a published hash is read, too.
        """
        wrong = fault(self.path, known_hash=self.hash, size=self.size)
        if wrong is None and self.about_record:
            wrong = fault(self.path, known_hash=self.known_hash, size=None)
            return wrong and f"{wrong}{self.about_record}"
        return wrong

    @property
    def about_record(self) -> str:
        """Where the expected hash comes from, if it is that of the first download; else empty."""
        if self.known_hash == self.hash:
            return ""
        return (
            f"; the expected SHA-256 is that of the first download, kept in {self.record}: delete "
            "it to accept another file"
        )


def drive_url(number: str) -> str:
    """The address of a public file in Google Drive, behind its question about large files."""
    return f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t"


WEIGHTS = {
    weights.name: weights
    for weights in (
        Weights(
            name="ddpm_cifar10",
            file_name="ddpm_cifar10_ema.ckpt",
            url="https://heibox.uni-heidelberg.de/f/2e4f01e2d9ee49bab1d5/?dl=1",
            used_for="denoiser, CIFAR-10: DDPM of Ho et al., averaged weights (the paper's)",
            licence="MIT (of the conversion)",
            size=143_046_049,
            hash="md5:1fa350b952534ae442b1d5235cce5cd3",
        ),
        Weights(
            name="google_ddpm_cifar10_32",
            file_name="google_ddpm_cifar10_32.safetensors",
            url="https://huggingface.co/google/ddpm-cifar10-32/resolve/"
            "267b167dc01f0e4e61923ea244e8b988f84deb80/diffusion_pytorch_model.safetensors",
            used_for="denoiser, CIFAR-10: DDPM of Ho et al. in the format of diffusers",
            licence="Apache-2.0",
            hash="sha256:1558dbe3fb093b0857d473e376b711eeda1b186c557be5e85b3a56300cd49f0f",
        ),
        Weights(
            name="guided_diffusion_256_uncond",
            file_name="256x256_diffusion_uncond.pt",
            url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
            "256x256_diffusion_uncond.pt",
            used_for="denoiser, ImageNet 256x256: guided diffusion, unconditional (the paper's)",
            licence="MIT",
            size=2_211_383_297,
            hash="sha256:a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        ),
        # A public copy has 1,707,310,559 bytes and MD5 db26ca82b7ea36b75199abf6ed94339d; whether it
        # is this file is not known.
        Weights(
            name="score_sde_cifar10",
            file_name="score_sde_vp_cifar10_ddpmpp_deep_continuous_checkpoint_8.pth",
            url=drive_url("16_-Ahc6ImZV5ClUc0vM5Iivf8OJ1VSif"),
            used_for="denoiser, CIFAR-10: Score-SDE VP, DDPM++ deep continuous (DiffPure's)",
            licence="Apache-2.0 (of the code)",
        ),
        Weights(
            name="improved_diffusion_cifar10",
            file_name="cifar10_uncond_50M_500K.pt",
            url="https://openaipublic.blob.core.windows.net/diffusion/march-2021/"
            "cifar10_uncond_50M_500K.pt",
            used_for="denoiser, CIFAR-10: improved diffusion, cosine schedule of 4000 steps",
            licence="MIT",
        ),
        Weights(
            name="ddpm_celebahq_256",
            file_name="celeba_hq.ckpt",
            url="https://image-editing-test-12345.s3-us-west-2.amazonaws.com/checkpoints/"
            "celeba_hq.ckpt",
            used_for="denoiser, CelebA-HQ 256x256: DDPM in Ho et al.'s format (SDEdit's)",
            licence="MIT (of SDEdit's code)",
        ),
        Weights(
            name="edm_cifar10_uncond_vp",
            file_name="edm-cifar10-32x32-uncond-vp.pt",
            url=f"{EDM}/edm-cifar10-32x32-uncond-vp.pkl",
            used_for="denoiser, CIFAR-10: EDM unconditional, VP; to be converted",
            licence="CC BY-NC-SA 4.0",
            is_pickle=True,
        ),
        Weights(
            name="edm_cifar10_cond_vp",
            file_name="edm-cifar10-32x32-cond-vp.pt",
            url=f"{EDM}/edm-cifar10-32x32-cond-vp.pkl",
            used_for="denoiser, CIFAR-10: EDM class-conditional, VP; to be converted",
            licence="CC BY-NC-SA 4.0",
            is_pickle=True,
        ),
        Weights(
            name="robustbench_cifar10_standard",
            file_name="robustbench/cifar10/Linf/Standard.pt",
            url=drive_url("1t98aEuzeTL8P7Kpd5DIrCoCL21BNZUhC"),
            used_for="classifier, CIFAR-10: WRN-28-10, RobustBench's Standard (the paper's)",
            licence="MIT (RobustBench's default)",
        ),
        Weights(
            name="resnet50_imagenet",
            file_name="resnet50-0676ba61.pth",
            url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
            used_for="classifier, ImageNet: torchvision's ResNet-50, V1 (the paper's)",
            licence="BSD-3-Clause (torchvision)",
            size=102_530_333,
            hash="sha256:0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
            shared_with="torch hub",
        ),
        Weights(
            name="inception_fid",
            file_name="pt_inception-2015-12-05-6726825d.pth",
            url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
            used_for="features of the FID: pytorch-fid's Inception",
            licence="Apache-2.0",
            size=95_628_359,
            hash="sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            shared_with="torch hub",
        ),
    )
}
"""Every published file that this project can use, by name."""


def weights_file(name: str) -> Path:
    """A published file of weights on this machine, verified; fetched first where it is missing.

    Args:
        name: such as ``ddpm_cifar10``; :data:`WEIGHTS` has them all.

    Raises:
        InputError: there is no such name; the file is missing and cannot be fetched; or it is
            damaged.
    """
    weights = find(name)
    if not weights.is_here:
        return fetch(weights)
    if (wrong := weights.fault()) is not None:
        raise InputError(
            f"{name}: {weights.path} is damaged or another file ({wrong}); replace it by 'python "
            f"-m lit_purify weights fetch {name}'"
        )
    _write_record(weights)
    return weights.path


def verified_copy(name: str, path: Path) -> Path:
    """A file of the user's own, if it is a copy of the published one.

    Raises:
        InputError: it is missing, or another file.
    """
    weights = find(name)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; put {weights.identity} there")
    if (wrong := fault(path, known_hash=weights.known_hash, size=None)) is not None:
        raise InputError(
            f"{str(path)!r} is damaged or another file ({wrong}); put {weights.identity} there"
        )
    return path


def fetch(weights: Weights, *, source: str | None = None, mirror: str | None = None) -> Path:
    """Bring a file here, unless it is here and verified. A damaged one is replaced.

    Args:
        weights: the file.
        source: another address of it, or a local copy, which stays where it is.
        mirror: an address or a folder that has it by its ``file_name``; ``None`` takes the one of
            ``$LIT_PURIFY_MIRROR``, else its publisher's.

    Returns:
        Where it is.

    Raises:
        InputError: it cannot be fetched from there, or what is there is another file.
    """
    path, name = weights.path, weights.name
    where = source or mirrored(weights.file_name, mirror) or weights.url
    try:
        if not weights.is_here or weights.fault() is not None:
            if weights.is_pickle and where == weights.url:
                raise InputError(
                    "it is published as a pickle that could run code; load that once with the code "
                    "of its project and torch.save(network.state_dict(), FILE), see docs/models.md"
                )
            fetch_file(where, path, known_hash=weights.known_hash, size=weights.size)
    except InputError as error:
        reason = f"{error}{weights.about_record if isinstance(error, WrongContent) else ''}"
        elsewhere = "" if where == weights.url else f" from {where}"
        raise InputError(
            f"{name} could not be fetched{elsewhere}: {reason}; save {weights.identity} as {path}, "
            f"or hand over a copy by 'python -m lit_purify weights fetch {name} --from FILE'"
        ) from error
    _write_record(weights)
    return path


def mirrored(file_name: str, mirror: str | None = None) -> str | None:
    """Where a mirror has a file: the one given, else that of ``$LIT_PURIFY_MIRROR``, if any."""
    mirror = mirror or os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}/{file_name}" if mirror else None


def find(name: str) -> Weights:
    """The entry of a name.

    Raises:
        InputError: there is none.
    """
    if name in WEIGHTS:
        return WEIGHTS[name]
    meant = did_you_mean(name, WEIGHTS) or f"; expected {', '.join(sorted(WEIGHTS))}."
    raise InputError(
        f"there are no weights {name!r}{meant} See 'python -m lit_purify weights list'"
    )


def cache_folder() -> Path:
    """Where weights are kept: ``$LIT_PURIFY_CACHE``, or a folder in the user's cache."""
    import pooch

    return Path(os.environ.get(CACHE) or pooch.os_cache("lit_purify")).expanduser().absolute()


def _torch_folder() -> Path:
    """What ``torch.hub.get_dir()`` says; PyTorch is not loaded for it."""
    if "torch" in sys.modules:
        return Path(sys.modules["torch"].hub.get_dir())
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"


def hash_in_words(value: str | None) -> str:
    """A hash such as ``md5:1fa3`` in words.

    Example:
        >>> hash_in_words("md5:1fa3")
        'MD5 1fa3'
    """
    if value is None:
        return "no hash published"
    algorithm, _, digits = value.partition(":")
    return f"{'MD5' if algorithm == 'md5' else 'SHA-256'} {digits}"


def _write_record(weights: Weights) -> None:
    """Write down what a file without a published hash holds, in the format of sha256sum."""
    if weights.known_hash is None:
        with suppress(OSError):  # a folder that others own: then it is not recorded
            text = f"{sha256(weights.path)}  {weights.path.name}\n"
            weights.record.write_text(text, encoding="utf-8")
