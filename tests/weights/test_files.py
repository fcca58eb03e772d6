"""Reading weight files, and refusing the others."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lit_purify.types import InputError
from lit_purify.weights.files import LeftOut, load_content, load_state_dict

STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.steps": torch.tensor(3)}


def _equal(read: dict[str, torch.Tensor]) -> bool:
    return read.keys() == STATE.keys() and all(torch.equal(read[k], STATE[k]) for k in STATE)


def _save(content: object, cut: int | None = None, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save(content, path, **options)
        path.write_bytes(path.read_bytes()[:cut])

    return write


OLD = {"_use_new_zipfile_serialization": False}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        *((f"w.{end}", _save(STATE)) for end in ("pt", "pth", "th", "ckpt", "bin", "pth.tar")),
        ("w.pt", _save(STATE, **OLD)),
        ("w.ckpt", _save({"state_dict": STATE, "epoch": 3})),
        ("w.safetensors", lambda path: save_file(STATE, path)),
    ],
)
def test_what_is_read(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    assert _equal(load_state_dict(str(tmp_path / name)))


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_numbers_of_numpy_and_parsed_arguments_beside_the_tensors(
    tmp_path: Path, core: bytes
) -> None:
    path = tmp_path / "w.pt"
    extra = {
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "losses": np.array([1.0, 2.0]),
        "args": argparse.Namespace(lr=np.float32(0.25)),
    }
    torch.save({"state_dict": STATE, **extra}, path, _use_new_zipfile_serialization=False)
    # The names that numpy 1 and numpy 2 write.
    written = path.read_bytes().replace(b"numpy._core", b"numpy.core")
    path.write_bytes(written.replace(b"numpy.core", core))
    assert _equal(load_state_dict(path))
    content = load_content(path)
    assert all(isinstance(content[name], LeftOut) for name in extra)


def test_other_nestings_are_left_as_they_are(tmp_path: Path) -> None:
    torch.save({"last": STATE, "best": {}}, tmp_path / "w.pt")
    content = load_content(tmp_path / "w.pt")
    assert content.keys() == {"last", "best"}
    assert _equal(content["last"])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pt", lambda p: p.write_bytes(b"\n<!DOCTYPE html><html></html>"), "web page"),
        ("w.pt", _save(STATE, cut=-900), "cannot be read"),
        ("w.pt", _save(STATE, cut=-900, **OLD), "cannot be read"),
        ("w.pt", lambda p: p.write_bytes(b"nonsense" * 99), "cannot be read"),
        ("w.safetensors", _save(STATE), "cannot be read"),
        ("w.pt", _save(torch.zeros(3)), "holds a Tensor"),
        ("w.pt", _save({}), "no tensors"),
        ("w.pt", _save({"model": STATE}), "'model'"),
        ("w.pt", _save(torch.nn.Linear(2, 2)), "holds Python objects"),
    ],
)
def test_refused_files(
    tmp_path: Path, name: str, write: Callable[[Path], None], message: str
) -> None:
    """And others in ``tests/broken_input/test_weights.py``, code among them."""
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        load_state_dict(path)
    assert name in str(caught.value)
    # PyTorch's own advice is to let the file run its code.
    assert "weights_only" not in str(caught.value)
