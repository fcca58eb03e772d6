"""Reading weight files, and refusing the others."""

import argparse
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weights_files import Code

from lit_purify.checkpoints.files import LeftOut, load_content, load_state_dict, sha256
from lit_purify.types import InputError

STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.steps": torch.tensor(3)}


def _equal(read: dict[str, torch.Tensor]) -> bool:
    return read.keys() == STATE.keys() and all(torch.equal(read[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "bin", "pth.tar"])
def test_torch_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    torch.save(STATE, path)
    assert _equal(load_state_dict(str(path)))


def test_old_torch_format(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert _equal(load_state_dict(tmp_path / "w.pt"))


def test_nested_state_dict(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "w.ckpt")
    assert _equal(load_state_dict(tmp_path / "w.ckpt"))


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


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert _equal(load_state_dict(tmp_path / "w.safetensors"))


def _save(content: object) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def _cut(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-900])


def _cut_old(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-900])


def _cut_safetensors(path: Path) -> None:
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pt", lambda p: None, "no weights file"),
        ("w.pt", lambda p: p.mkdir(), "no weights file"),
        ("w.pt", lambda p: p.write_bytes(b""), "empty"),
        ("w.txt", lambda p: p.write_bytes(b"x"), r"ends in '\.txt'"),
        ("w.pt", lambda p: p.write_bytes(b"\n<!DOCTYPE html><html></html>"), "web page"),
        ("w.safetensors", lambda p: p.write_bytes(b"<html></html>"), "web page"),
        ("w.pt", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "git lfs"),
        ("w.pt", _cut, "cannot be read"),
        ("w.pt", _cut_old, "cannot be read"),
        ("w.safetensors", _cut_safetensors, "cannot be read"),
        ("w.pt", lambda p: p.write_bytes(b"nonsense" * 99), "cannot be read"),
        ("w.safetensors", lambda p: p.write_bytes(b"nonsense" * 99), "cannot be read"),
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
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        load_state_dict(path)
    assert name in str(caught.value)
    # PyTorch's own advice is to let the file run its code.
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("bare", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, bare: bool) -> None:
    path, folder = tmp_path / "w.pt", tmp_path / "made"
    content = {"a": Code(folder)}
    path.write_bytes(pickle.dumps(content, protocol=2)) if bare else torch.save(content, path)
    with pytest.raises(InputError, match=r"w\.pt"):
        load_state_dict(path)
    assert not folder.exists()


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(InputError, match="no file"):
        sha256(tmp_path / "nowhere")
