"""Where the weights of RobustBench's entries lie, and how a missing file comes there."""

from __future__ import annotations

import os
from pathlib import Path

from lit_purify.checkpoints.download import fetch_file
from lit_purify.checkpoints.files import load_content
from lit_purify.checkpoints.weights import MIRROR, WEIGHTS, cache_folder, weights_file
from lit_purify.types import InputError

FOLDER = "robustbench"
"""Folder in the cache, and of a mirror."""


def parts(path: Path, number: int | None) -> list[Path]:
    """The files of an entry: ``X.pt``, or ``X.pt_m0.pt``, ``X.pt_m1.pt``, ... of an ensemble.

    Args:
        path: the file, as if there were one.
        number: how many networks the ensemble has; ``None`` where it is none.
    """
    if number is None:
        return [path]
    return [path.with_name(f"{path.name}_m{part}.pt") for part in range(number)]


def fetched(name: str, address: str, model_dir: str | None) -> Path:
    """A file in a folder of RobustBench's layout, downloaded first where it is missing.

    RobustBench publishes no hashes: what cannot be read as weights is refused and not kept.

    Args:
        name: path below the folder, such as ``cifar10/Linf/Standard.pt``.
        address: an address, or the number of a file in Google Drive.
        model_dir: the folder; ``None`` is the one in the cache.

    Raises:
        InputError: it is missing and cannot be downloaded.
    """
    folder = cache_folder() / FOLDER if model_dir is None else Path(model_dir)
    path = folder / name
    for weights in WEIGHTS.values():  # known by more than an address
        if weights.path == path:
            return weights_file(weights.name)
    if path.is_file():
        return path
    page = url = address
    if not address.startswith("https://"):
        page = f"https://drive.google.com/file/d/{address}/view"
        url = (
            f"https://drive.usercontent.google.com/download?id={address}&export=download&confirm=t"
        )
    mirror = os.environ.get(MIRROR)
    where = f"{mirror.rstrip('/')}/{FOLDER}/{name}" if mirror else url
    try:
        fetch_file(where, path, known_hash=None, size=None, check=load_content)
    except InputError as error:
        raise InputError(
            f"The weights {str(path)!r} are missing, and could not be fetched from {where} "
            f"({error}). Download {page} in a browser and save it as that file, or give the path "
            "of a copy as file."
        ) from error
    return path
