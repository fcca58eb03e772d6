"""What is in a file: its name by a hash, and whether it is a web page."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lit_purify.types import InputError

_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, 64 hex digits.

    Raises:
        InputError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r} to hash; check the path")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_web_page(start: bytes) -> bool:
    """Whether content is a web page, by its first bytes."""
    return start.lstrip().lower().startswith(_MARKUP)
