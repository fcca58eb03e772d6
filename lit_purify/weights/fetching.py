"""Published weights on this machine: looked for, fetched where they are missing, verified."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lit_purify.types import InputError
from lit_purify.weights.catalogue import find
from lit_purify.weights.content import sha256
from lit_purify.weights.download import WrongContent, fault, fetch_file
from lit_purify.weights.published import Weights

MIRROR = "LIT_PURIFY_MIRROR"
"""Environment variable: a folder or an address that has the files by their ``file_name``."""


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


def _write_record(weights: Weights) -> None:
    """Write down what a file without a published hash holds, in the format of sha256sum."""
    if weights.known_hash is None:
        with suppress(OSError):  # a folder that others own: then it is not recorded
            text = f"{sha256(weights.path)}  {weights.path.name}\n"
            weights.record.write_text(text, encoding="utf-8")
