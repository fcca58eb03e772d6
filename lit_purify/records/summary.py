"""``summary.json``: the numbers of one run, with what is needed to trust and repeat them."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lit_purify.records.files import write_whole

KEYS = ("status", "versions", "settings", "metrics")
PACKAGES = (
    "lit-purify",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "diffusers",
    "numpy",
    "scipy",
    "foolbox",
    "pytorch-fid",
    "pyautoattack",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number; absent ones are left out.

    Example:
        >>> sorted(versions())[-1]
        'torchvision'
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_summary(path: str | os.PathLike[str], summary: Mapping[str, Any]) -> None:
    """Write a summary as strict JSON, all of it or nothing.

    JSON knows no nan or infinity: they become ``null``.

    Args:
        path: the target, such as ``lightning_logs/version_0/summary.json``; its folder is created.
        summary: a mapping with the keys ``status`` (``finished`` only when the run is),
            ``versions``, ``settings`` and ``metrics`` (name -> ``value`` and, where they make
            sense, ``low``, ``high``, ``std``, ``n``). Tensors, arrays and paths are converted.

    Raises:
        ValueError: one of the four keys is missing.
        TypeError: a value has no JSON form.
    """
    _check_keys(summary, "the summary")
    write_json(path, summary)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write strict JSON, all of it or nothing; what is not finite becomes ``null``.

    Raises:
        TypeError: a value has no JSON form.
    """
    text = json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"
    write_whole(Path(path), text.encode())


def read_summary(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`write_summary` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a summary.
    """
    summary: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    _check_keys(summary, str(path))
    return summary


def _check_keys(summary: Mapping[str, Any], what: str) -> None:
    missing = [key for key in KEYS if key not in summary]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}; expected the keys {', '.join(KEYS)}")


def _plain(value: Any) -> Any:
    """The same value in JSON's own types."""
    if hasattr(value, "tolist"):  # tensors, arrays and their scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, os.PathLike) else value
