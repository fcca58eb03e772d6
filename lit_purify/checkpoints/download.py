"""Files known by their hash, downloaded where they are missing."""

from __future__ import annotations

import os
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from filelock import FileLock

from lit_purify.checkpoints.files import sha256 as sha256_of
from lit_purify.types import InputError

TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""


def verified_file(path: Path, *, sha256: str, url: str | None, cure: str) -> Path:
    """A file with the expected content, downloaded first where it is missing.

    A download is verified before it takes its name, so what is there is whole. Of several
    processes on a machine one downloads.

    Args:
        path: where the file is, or will be.
        sha256: hash of its content, 64 hex digits.
        url: where it comes from; ``None`` downloads nothing.
        cure: what to do where it is missing, for the message.

    Returns:
        The path.

    Raises:
        InputError: the file is missing and cannot be downloaded, or has another content.
    """
    if not path.is_file():
        if url is None:
            raise InputError(f"there is no file {str(path)!r}; {cure}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                if not path.is_file():  # another process may have been first
                    _download(url, path, sha256)
        except (OSError, HTTPException) as error:
            raise InputError(
                f"{str(path)!r} is missing and could not be downloaded ({error}); {cure}"
            ) from error
    found = sha256_of(path)
    if found != sha256:
        raise InputError(
            f"{str(path)!r} is damaged or another file (SHA-256 {found[:12]}..., expected "
            f"{sha256[:12]}...); delete it, and {cure}"
        )
    return path


def _download(url: str, path: Path, sha256: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with urlopen(url, timeout=TIMEOUT) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file)
        found = sha256_of(part)
        if found != sha256:
            raise OSError(f"what came has SHA-256 {found[:12]}..., expected {sha256[:12]}...")
        os.replace(part, path)  # noqa: PTH105
    finally:
        part.unlink(missing_ok=True)
