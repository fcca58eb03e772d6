"""Weight files: reading them without running code."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lit_purify.types import InputError
from lit_purify.weights.content import is_web_page

TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".tar")
SAFETENSORS_SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".pkl", ".pickle")
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""What files of torch before 1.6, which are pickles in a row, begin with."""


class LeftOut:
    """What stands in a file's content for objects that old training programs put there."""

    def __new__(cls, *_: object) -> LeftOut:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# numpy's numbers and arrays, by the names of numpy 1 and numpy 2, and parsed arguments: not worth
# the refusal of a file whose tensors are fine. None of their code is called.
_LEFT_OUT: list[Any] = [
    (LeftOut, name)
    for name in (
        *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
        *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
        *("numpy.ndarray", "numpy.dtype", "argparse.Namespace"),
    )
]


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors onto the CPU from a ``.safetensors`` or a torch file.

    A torch file may nest them under the key ``state_dict``, as Lightning and RobustBench write
    them. Names stay as they are in the file. Only data are ever unpickled, never code.

    Args:
        path: file that ends in ``.safetensors``, ``.pt``, ``.pth``, ``.th``, ``.ckpt``, ``.bin``
            or ``.tar`` (the ``.pth.tar`` of some training programs, which is no archive).

    Raises:
        InputError: the file is missing, a web page, damaged, holds code, or holds other things
            than named tensors.
    """
    return named_tensors(load_content(path), path)


def named_tensors(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The named tensors in what :func:`load_content` has read, as :func:`load_state_dict`.

    Raises:
        InputError: it is something else.
    """
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    found = None
    if not isinstance(content, Mapping):
        found = f"a {type(content).__name__}"
    elif not content:
        found = "no tensors"
    elif others := [
        key for key, x in content.items() if not (isinstance(key, str) and isinstance(x, Tensor))
    ]:
        found = f"entries that are not tensors, such as {others[0]!r}"
    if found is not None:
        raise InputError(
            f"the weights file {str(path)!r} holds {found}; expected named tensors, at the top or "
            "under the key 'state_dict': save them with torch.save(model.state_dict(), path)"
        )
    return dict(content)


def load_content(path: str | Path) -> Any:
    """What a weights file holds, on the CPU, nested as it is in the file.

    For checkpoints of a nesting of their own; :func:`load_state_dict` reads the others. A
    :class:`LeftOut` stands for each number or array of numpy's and for parsed arguments.

    Args:
        path: as for :func:`load_state_dict`.

    Raises:
        InputError: the file is missing, a web page, damaged, or holds code.
    """
    path = Path(path)
    _check_file(path)
    if path.suffix == SAFETENSORS_SUFFIX:
        try:
            return load_file(path, device="cpu")
        except Exception as error:  # safetensors' own error class derives from Exception
            raise _damaged(path, error) from error
    return _load_torch(path)


def check_resumable(path: str | Path) -> None:
    """Raise :class:`InputError` unless a training can go on from a file; runs no code in it."""
    content = load_content(path)
    needed = ("pytorch-lightning_version", "state_dict", "optimizer_states", "loops")
    missing = [key for key in needed if not isinstance(content, Mapping) or key not in content]
    if missing:
        raise InputError(
            f"{str(path)!r} is no checkpoint of a training: it holds no {missing[0]!r}; give a "
            ".ckpt file that 'fit' wrote, such as lightning_logs/version_0/checkpoints/last.ckpt"
        )


def _check_file(path: Path) -> None:
    try:
        found = path.is_file()
    except OSError:  # a name that no file can have
        found = False
    if not found:
        raise InputError(
            f"there is no weights file {str(path)!r}; check the path, or download the file first"
        )
    if path.suffix in PICKLE_SUFFIXES:
        raise _pickled(path)
    if path.suffix not in (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES):
        raise InputError(
            f"the weights file {str(path)!r} ends in {path.suffix!r}; expected "
            f"{SAFETENSORS_SUFFIX}, {', '.join(TORCH_SUFFIXES)}: rename or convert it"
        )
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise InputError(
            f"the weights file {str(path)!r} cannot be opened ({error.strerror}); check who may "
            "read it"
        ) from error
    if not start:
        raise InputError(f"the weights file {str(path)!r} is empty; download it again")
    if is_web_page(start):
        raise InputError(
            f"{str(path)!r} is a web page, not weights: the server sent an error or a confirmation "
            "page instead of the file; open the address in a browser and save the file itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{str(path)!r} is a Git LFS pointer, not weights; fetch the file with 'git lfs pull'"
        )


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_LEFT_OUT):
            warnings.simplefilter("ignore")  # of pickle protocols, before the refusal
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        # "Unsupported operand" is a damaged file; these are intact ones that want a class or call.
        if _is_pickle(path):
            raise _pickled(path) from error
        unpickling = isinstance(error, pickle.UnpicklingError)
        if not (unpickling and "unsupported global" in str(error).lower()):
            raise _damaged(path, error) from error
        raise InputError(
            f"the weights file {str(path)!r} holds Python objects besides tensors, and loading "
            "those could run code, so it is refused; save only the tensors: "
            "torch.save(model.state_dict(), path), or use a .safetensors file"
        ) from error


def _is_pickle(path: Path) -> bool:
    """Whether a whole file is one pickle, as Python's own ``pickle.dump`` writes it."""
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(-1, os.SEEK_END)
        return start[:1] == b"\x80" and _TORCH_MAGIC not in start and file.read() == b"."


def _pickled(path: Path) -> InputError:
    return InputError(
        f"the weights file {str(path)!r} is a pickle of Python objects, and loading those could "
        "run code, so it is refused; load it with the code of its project, once, and convert it by "
        "torch.save(network.state_dict(), 'model.pt'); docs/models.md has EDM's"
    )


def _damaged(path: Path, error: Exception) -> InputError:
    reason = str(error).split("\n", 1)[0] or type(error).__name__
    if "weights_only" in reason:  # torch advises to let the file run its code
        reason = "it holds no tensors in torch's format"
    return InputError(
        f"the weights file {str(path)!r} cannot be read ({reason}): it is cut off, damaged or of "
        "another format than its name says; download it again and compare its size"
    )
