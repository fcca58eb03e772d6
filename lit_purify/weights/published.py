"""A published file of weights: where it comes from, where it is kept, how it is known to be whole.

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

from lit_purify.types import InputError
from lit_purify.weights.download import fault

CACHE = "LIT_PURIFY_CACHE"
"""Environment variable: the folder that weights are kept in."""


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
