"""Hostile and broken input, all of it through the command line.

Whatever is wrong: exit status 2, one line on stderr that begins with ``error: ``, no code of the
input executed, and the results of earlier runs in the same root directory as they were. The tables
below are the inputs tried.
"""

import copy
import io
import json
import math
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image
from safetensors.torch import load, save, save_file

from lit_purify.checkpoints import load_denoiser
from lit_purify.cli import main
from lit_purify.data import sources
from lit_purify.data.image_files import read_rgb
from lit_purify.types import InputError

Make = Callable[[Path], None]
"""Writes broken input at a path."""

# What makes a run of each command small; the broken option comes after it.
SMALL = {
    "test": {
        "--model.purifier.denoiser": "lit_purify.checkpoints.load_denoiser",
        "--model.purifier.denoiser.path": "{sound}/tiny.safetensors",
        "--model.classifier": "tiny.classifier",
        "--model.purifier.t_star": "20",
        "--model.purifier.num_steps": "2",
        "--model.protocols": "[fixed]",
        "--attack.steps": "1",
        "--data.source": "{sound}/sound.npz",
        "--data.limit": "1",
        "--trainer.accelerator": "cpu",
        "--trainer.callbacks": "[]",
    },
    "predict": {
        "--model.purifier.denoiser": "lit_purify.checkpoints.load_denoiser",
        "--model.purifier.denoiser.path": "{sound}/tiny.safetensors",
        "--model.classifier": "tiny.classifier",
        "--model.purifier.t_star": "20",
        "--model.purifier.num_steps": "2",
        "--data.source": "{sound}/sound.npz",
        "--trainer.accelerator": "cpu",
    },
    "fit": {
        "--seed_everything": "false",
        "--model.denoiser.block_out_channels": "[8,16]",
        "--model.denoiser.norm_num_groups": "4",
        "--model.compile": "false",
        "--data.train_source": "{sound}/sound.npz",
        "--data.num_holdout": "2",
        "--data.batch_size": "2",
        "--trainer.accelerator": "cpu",
        "--trainer.devices": "1",
        "--trainer.max_steps": "1",
        "--trainer.val_check_interval": "1",
        "--trainer.enable_progress_bar": "false",
        "--trainer.callbacks": "[]",
    },
}
CONFIG = {"test": "cifar_fixed", "predict": "predict", "fit": "train_cifar_small"}
SOURCE = {"test": "--data.source", "predict": "--data.source", "fit": "--data.train_source"}
DENOISER = "--model.purifier.denoiser.path"

IMAGES = np.full((4, 32, 32, 3), 100, np.uint8)
LABELS = np.arange(4)


class Evil:
    """Unpickled, it makes a folder ``executed``."""

    def __init__(self, beside: Path) -> None:
        self.folder = beside.parent / "executed"

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def _write(content: bytes | str) -> Make:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data) and None


def _nothing(path: Path) -> None:
    """The path stays empty."""


def _unreadable(path: Path) -> None:
    """A regular file that nobody can read, not even root, for whom modes mean nothing."""
    if not Path("/proc/self/mem").is_file():
        pytest.skip("needs Linux's /proc/self/mem, a regular file that fails when read")
    path.symlink_to("/proc/self/mem")


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


# --- Image folders ------------------------------------------------------------------------------


def _picture(name: str, mode: str, size: tuple[int, int] = (32, 32), **options: Any) -> Make:
    def make(folder: Path) -> None:
        fill = options.pop("fill", 0)
        Image.new(mode, size, fill).save(folder / name, **options)

    return make


def _file(name: str, make: Make) -> Make:
    return lambda folder: make(folder / name)


def _frames(name: str, kind: str, suffix: str = "") -> Make:
    def make(folder: Path) -> None:
        frames = [Image.new("RGB", (32, 32), (value, 0, 0)) for value in (0, 200)]
        frames[0].save(folder / name, kind, save_all=True, append_images=frames[1:])

    return make


def _cut(name: str, keep: float) -> Make:
    def make(folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return make


def _png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """A PNG with a header of one's own; Pillow writes neither 16-bit colour nor huge ones."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _twins(folder: Path) -> None:
    for name in ("a.png", "a.webp"):
        Image.new("RGB", (32, 32)).save(folder / name)


PICTURES: dict[str, tuple[Make, str]] = {
    "CMYK": (_picture("a.jpg", "CMYK"), "colour mode CMYK; expected RGB"),
    "16-bit grey": (_picture("a.png", "I;16"), "more than 8 bits"),
    "16-bit colour": (
        _file("a.png", _write(_png(32, 32, 16, (b"\0" + b"\x7f" * 192) * 32))),
        "more than 8 bits",
    ),
    "animated WebP": (_frames("a.webp", "WEBP"), "animated"),
    "animated PNG": (_frames("a.png", "PNG"), "animated"),
    "animated GIF renamed": (_frames("a.png", "GIF"), "expected a complete PNG"),
    "cut off PNG": (_cut("a.png", 0.7), "cannot be read"),
    "cut off JPEG": (_cut("a.jpg", 0.7), "cannot be read"),
    "cut off WebP": (_cut("a.webp", 0.7), "cannot be read"),
    "cut off in the header": (_cut("a.png", 0.005), "cannot be read"),
    "zero bytes": (_file("a.png", _write(b"")), "cannot be read"),
    "text renamed": (_file("a.png", _write("not a picture\n")), "cannot be read"),
    "web page renamed": (_file("a.jpg", _write("<!DOCTYPE html><html></html>")), "cannot be read"),
    "decompression bomb": (
        _file("a.png", _write(_png(60_000, 60_000, 8, b"\0" * 99))),
        "far larger than 32 x 32",
    ),
    "large, not a bomb": (_file("a.png", _write(_png(9_000, 9_000, 8, b"\0"))), "9000 x 9000"),
    "no pixels": (_file("a.png", _write(_png(0, 0, 8, b""))), "a.png"),
    "wrong size": (_picture("a.png", "RGB", (28, 32)), "28 x 32 pixels (width x height)"),
    "transparency": (_picture("a.png", "RGBA", fill=(1, 2, 3, 9)), "transparent pixels"),
    "same stem twice": (_twins, "a.png and a.webp"),
    "zero files": (_nothing, "holds no images"),
    "only other files": (_file("notes.txt", _write("x")), "holds no images"),
    "a folder named as a picture": (lambda f: (f / "a.png").mkdir(), "holds no images"),
    "dangling link": (_file("a.png", _dangling), "holds no images"),
    "unreadable": (_file("a.png", _unreadable), "a.png: cannot be read"),
    "one broken among sound ones": (
        lambda f: [_picture("a.png", "RGB")(f), _picture("c.png", "RGB")(f), _cut("b.png", 0.7)(f)],
        "b.png: cannot be read",
    ),
}

# --- .npz files ---------------------------------------------------------------------------------


def _npz(**arrays: Any) -> Make:
    arrays = {"images": IMAGES, "labels": LABELS} | arrays
    return lambda path: np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def _pickled(key: str) -> Make:
    def make(path: Path) -> None:
        _npz(**{key: np.array([Evil(path)] * 4, dtype=object)})(path)

    return make


def _sound_npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES, labels=LABELS)
    return buffer.getvalue()


def _flipped(after: bytes, offset: int, value: int) -> Make:
    """A sound archive with one byte changed, counted from a marker."""
    content = bytearray(_sound_npz())
    content[content.index(after) + offset] = value
    return _write(bytes(content))


def _members(**members: bytes) -> Make:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(f"{name}.npy", content)

    return make


def _npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"


def _npy_of(shape: str, kind: str = "|u1") -> bytes:
    return _npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}")


EVERY = "test predict fit"
LABELLED = "test fit"
UNREAD = "cannot be read as an .npz file"

ARRAYS: dict[str, tuple[str, Make, str]] = {
    "images are pickled objects": (EVERY, _pickled("images"), "object arrays are refused"),
    "labels are pickled objects": (EVERY, _pickled("labels"), "object arrays are refused"),
    "a bare pickle": ("test", lambda p: p.write_bytes(pickle.dumps(Evil(p))), "no zip archive"),
    "no file": (EVERY, _nothing, "no file"),
    "a folder": ("test", Path.mkdir, "no file"),
    "dangling link": ("test", _dangling, "no file"),
    "unreadable": ("test", _unreadable, UNREAD),
    "zero bytes": ("test", _write(b""), "no zip archive"),
    "text": ("test", _write("images, labels\n"), "no zip archive"),
    "an .npy file": ("test", lambda p: np.save(p.open("wb"), IMAGES), "no zip archive"),
    "cut off": (EVERY, _write(_sound_npz()[:5000]), UNREAD),
    "checksum wrong": ("test", _flipped(b"NUMPY", 500, 7), UNREAD),
    "encrypted": ("test", _flipped(b"PK\1\2", 8, 1), "encrypted"),
    "unknown compression": ("test", _flipped(b"PK\1\2", 10, 99), UNREAD),
    "no arrays inside": (EVERY, _members(images=b"hello", labels=b"x"), "not an array"),
    "terabytes by its header": ("test", _members(images=_npy_of("(9**14, 32, 32, 3)")), UNREAD),
    "petabytes by its header": (
        "test",
        _members(images=_npy_of("(999999999999, 32, 32, 3)"), labels=_npy_of("(0,)")),
        UNREAD,
    ),
    "negative size": ("test", _members(images=_npy_of("(-4, 32, 32, 3)")), UNREAD),
    "unknown type": ("test", _members(images=_npy_of("(4,)", "nonsense")), UNREAD),
    "broken header": ("test", _members(images=_npy("{{{'descr'")), UNREAD),
    "nested header": ("test", _members(images=_npy("(" * 9000)), UNREAD),
    "nothing inside": ("test", lambda p: np.savez(p), "holds nothing"),
    "images missing": (EVERY, _npz(images=None), "holds ['labels']"),
    "labels missing": (LABELLED, _npz(labels=None), "no array 'labels'"),
    "one number": ("test", _npz(images=np.uint8(3)), "not an array"),
    "no images": ("test", _npz(images=IMAGES[:0], labels=LABELS[:0]), "empty"),
    "channels first": (EVERY, _npz(images=IMAGES.transpose(0, 3, 1, 2)), "channels last"),
    "grey": ("test", _npz(images=IMAGES[..., :1]), "(4, 32, 32, 1)"),
    "other size": (EVERY, _npz(images=IMAGES[:, :28]), "pixels"),
    "integers": ("test", _npz(images=IMAGES.astype(int)), "type int64"),
    "complex": ("test", _npz(images=IMAGES.astype(complex)), "type complex128"),
    "text images": ("test", _npz(images=IMAGES.astype(str)), "type <U3"),
    "long doubles": ("test", _npz(images=np.zeros_like(IMAGES, np.longdouble)), "of type float"),
    "records": ("test", _npz(images=np.zeros(4, [("a", "u1")])), "shape (4,)"),
    "0 .. 255 in floats": ("test", _npz(images=IMAGES * 1.0), "divide 0 .. 255 values by 255"),
    "-1 .. 1 in floats": ("test", _npz(images=IMAGES / 100.0 - 2), "[-1, -1]"),
    "one NaN": (
        EVERY,
        _npz(images=np.where(np.arange(12288).reshape(4, 32, 32, 3) == 77, np.nan, 0.5)),
        "NaN or infinity",
    ),
    "infinity": ("test", _npz(images=IMAGES * np.inf), "NaN or infinity"),
    "label too high": (LABELLED, _npz(labels=LABELS + 7), "7 .. 10; expected 0 .. 9"),
    "label negative": ("test", _npz(labels=LABELS - 1), "-1 .. 2; expected 0 .. 9"),
    "label far out of range": (
        "test",
        _npz(labels=np.full(4, 2**64 - 1, np.uint64)),
        "18446744073709551615",
    ),
    "labels too few": (EVERY, _npz(labels=LABELS[:3]), "shape (3,) beside 4 images"),
    "labels in floats": ("test", _npz(labels=LABELS * 1.0), "type float64; expected integers"),
    "labels NaN": ("test", _npz(labels=LABELS * np.nan), "type float64; expected integers"),
    "labels one-hot": ("test", _npz(labels=np.eye(10, dtype=int)[:4]), "shape (4, 10)"),
    "labels in text": ("test", _npz(labels=LABELS.astype(str)), "expected integers"),
    "labels empty": ("test", _npz(labels=LABELS[:0]), "shape (0,) beside 4 images"),
    "one label": ("test", _npz(labels=np.int64(0)), "not an array"),
}

# --- Weights ------------------------------------------------------------------------------------


def _header(**architecture: Any) -> dict[str, str]:
    architecture = tiny.ARCHITECTURE | architecture
    return {"lit_purify": json.dumps({"format": "small_unet/1", "architecture": architecture})}


def _tensors() -> dict[str, torch.Tensor]:
    return {name: x.half().contiguous() for name, x in tiny.denoiser().network.state_dict().items()}


def _sound_weights() -> bytes:
    return save(_tensors(), metadata=_header())


def _spoiled(change: Callable[[dict[str, torch.Tensor]], object]) -> Make:
    def make(path: Path) -> None:
        tensors = _tensors()
        change(tensors)
        save_file(tensors, path, metadata=_header())

    return make


def _one(value: float) -> Make:
    return _spoiled(lambda tensors: tensors["conv_in.weight"].view(-1)[5].fill_(value))


def _described(**architecture: Any) -> Make:
    return lambda path: save_file(_tensors(), path, metadata=_header(**architecture))


def _headed(header: dict[str, str] | None) -> Make:
    return lambda path: save_file(_tensors(), path, metadata=header)


DAMAGED = "Download it again"
FOREIGN = "not a denoiser of this project"
UNBUILT = "cannot build"

WEIGHTS: dict[str, tuple[str, Make, str]] = {
    "NaN": ("w.safetensors", _one(math.nan), "conv_in.weight is not finite"),
    "infinite": ("w.safetensors", _one(math.inf), "conv_in.weight is not finite"),
    "minus infinite": ("w.safetensors", _one(-math.inf), "conv_in.weight is not finite"),
    "beyond float32": (
        "w.safetensors",
        _spoiled(lambda t: t.update({k: x.double() * 0 + 1e300 for k, x in t.items()})),
        "is not finite",
    ),
    "integers": (
        "w.safetensors",
        _spoiled(lambda t: t.update({k: x.int() for k, x in t.items()})),
        "is of type torch.int32 instead of a float",
    ),
    "a tensor missing": (
        "w.safetensors",
        _spoiled(lambda t: t.pop("conv_in.weight")),
        "conv_in.weight is missing",
    ),
    "a tensor too many": (
        "w.safetensors",
        _spoiled(lambda t: t.update(extra=torch.zeros(1))),
        "extra is unknown",
    ),
    "a tensor misshapen": (
        "w.safetensors",
        _spoiled(lambda t: t.update({"conv_in.weight": torch.zeros(1)})),
        "conv_in.weight has shape (1,) instead of (8, 12, 3, 3)",
    ),
    "no tensors": ("w.safetensors", _spoiled(dict.clear), "holds no tensors"),
    "no description": ("w.safetensors", _headed(None), FOREIGN),
    "description no JSON": ("w.safetensors", _headed({"lit_purify": "{"}), FOREIGN),
    "description a list": ("w.safetensors", _headed({"lit_purify": "[1]"}), FOREIGN),
    "description nested": ("w.safetensors", _headed({"lit_purify": "[" * 100_000}), FOREIGN),
    "architecture no object": (
        "w.safetensors",
        _headed({"lit_purify": '{"format": "small_unet/1", "architecture": "abc"}'}),
        FOREIGN,
    ),
    "foreign version": (
        "w.safetensors",
        _headed({"lit_purify": '{"format": "small_unet/99", "architecture": {}}'}),
        FOREIGN,
    ),
    "unknown architecture": ("w.safetensors", _described(attention=True), UNBUILT),
    "no groups": ("w.safetensors", _described(norm_num_groups=0), UNBUILT),
    "groups that do not divide": ("w.safetensors", _described(norm_num_groups=3), UNBUILT),
    "negative width": ("w.safetensors", _described(block_out_channels=[-8, 16]), UNBUILT),
    "no levels": ("w.safetensors", _described(block_out_channels=[]), UNBUILT),
    "null levels": ("w.safetensors", _described(block_out_channels=None), UNBUILT),
    "fractional width": ("w.safetensors", _described(block_out_channels=[8.0, 16.5]), UNBUILT),
    "no patch": ("w.safetensors", _described(patch_size=0), UNBUILT),
    "negative patch": ("w.safetensors", _described(patch_size=-2), UNBUILT),
    "odd patch": ("w.safetensors", _described(patch_size=5), UNBUILT),
    "size in text": ("w.safetensors", _described(image_size="32"), UNBUILT),
    "negative layers": ("w.safetensors", _described(layers_per_block=-1), UNBUILT),
    "terabytes by its description": (
        "w.safetensors",
        _described(block_out_channels=[10**6, 10**6]),
        "has shape",
    ),
    "overflow by its description": (
        "w.safetensors",
        _described(block_out_channels=[4 * 10**30, 4 * 10**30]),
        UNBUILT,
    ),
    "for other images": (
        "w.safetensors",
        _described(image_size=16),
        "expects batches of (3, 16, 16) images",
    ),
    "cut off": ("w.safetensors", lambda p: p.write_bytes(_sound_weights()[:9000]), DAMAGED),
    "cut off in the header": ("w.safetensors", lambda p: p.write_bytes(b"\0" * 4), DAMAGED),
    "header without end": ("w.safetensors", _write(b"\xff" * 8 + b"{}"), DAMAGED),
    "header nested": ("w.safetensors", _write(struct.pack("<Q", 9000) + b"[" * 9000), DAMAGED),
    "zero bytes": ("w.safetensors", _write(b""), "is empty"),
    "web page": ("w.safetensors", _write("<!DOCTYPE html><html></html>"), "is a web page"),
    "error of a server": ("w.safetensors", _write('{"message": "Not Found"}'), DAMAGED),
    "Git LFS pointer": ("w.safetensors", _write("version https://git-lfs.github.com"), "lfs pull"),
    "pickle in disguise": (
        "w.safetensors",
        lambda p: p.write_bytes(pickle.dumps(Evil(p))),
        DAMAGED,
    ),
    "pickle with code": ("w.pt", lambda p: p.write_bytes(pickle.dumps(Evil(p))), "w.pt"),
    "old pickle with code": ("w.pt", lambda p: p.write_bytes(pickle.dumps(Evil(p), 2)), "w.pt"),
    "torch file with code": ("w.pt", lambda p: torch.save({"a": Evil(p)}, p), "could run code"),
    "old torch file with code": (
        "w.pth",
        lambda p: torch.save({"a": Evil(p)}, p, _use_new_zipfile_serialization=False),
        "could run code",
    ),
    "torch file, sound": ("w.pt", lambda p: torch.save(_tensors(), p), "safetensors"),
    "torch file of a list": ("w.pt", lambda p: torch.save([1, 2], p), "holds a list"),
    "other suffix": ("w.npy", _write(b"x"), "ends in '.npy'"),
    "no file": ("w.safetensors", _nothing, "no weights file"),
    "a folder": ("w.safetensors", Path.mkdir, "no weights file"),
    "dangling link": ("w.safetensors", _dangling, "no weights file"),
    "unreadable": ("w.safetensors", _unreadable, "cannot be opened"),
}

# --- Configuration files ------------------------------------------------------------------------

CONFIGURATIONS: dict[str, tuple[Make, str]] = {
    "no file": (_nothing, "not exist"),
    "a folder": (Path.mkdir, "not a file"),
    "broken YAML": (_write("model: [\n"), "pars"),
    "tabs": (_write("model:\n\tseed: 1\n"), "pars"),
    "NUL bytes": (_write(b"\0" * 9), "pars"),
    "code in YAML": (
        lambda p: p.write_text(
            f"model: !!python/object/apply:os.mkdir [{p.parent / 'executed'}]\n"
        ),
        "python/object/apply",
    ),
    "empty": (_write(""), "config"),
    "only comments": (_write("# nothing\n"), "config"),
    "a list": (_write("- model\n- data\n"), "config"),
    "a word": (_write("hello\n"), "config"),
    "two documents": (_write("data: {}\n---\ndata: {}\n"), "document"),
    "unknown key": (_write("trainer:\n  max_stepz: 3\n"), "max_stepz"),
    "unknown section": (_write("modle:\n  seed: 3\n"), "modle"),
    "unknown deep key": (
        _write("model: {init_args: {purifier: {init_args: {t_stra: 3}}}}\n"),
        "t_stra",
    ),
    "a number as key": (_write("1: 2\n"), "1"),
    "model is a list": (_write("model: [1, 2]\n"), "model"),
    "model is a word": (_write("model: hello\n"), "hello"),
    "model null": (_write("model: null\n"), "model"),
    "data null": (_write("data: null\n"), "data"),
    "unknown class": (_write("model: {class_path: lit_purify.Nope}\n"), "lit_purify.Nope"),
    "unknown module": (_write("model: {class_path: nowhere.Nope}\n"), "nowhere"),
    "class of another kind": (
        _write("model: {class_path: lit_purify.attacks.PGD}\n"),
        "lit_purify.attacks.PGD",
    ),
    "function of the system": (
        _write("model: {init_args: {classifier: {class_path: os.getcwd}}}\n"),
        "os.getcwd",
    ),
    "number where text is expected": (_write("data: {init_args: {source: 3.5}}\n"), "source"),
    "mapping where a number is expected": (_write("data: {init_args: {limit: {a: 1}}}\n"), "limit"),
    "bytes": (_write(bytes(range(256))), "c.yaml is not YAML"),
    "UTF-16": (_write("data: {}\n".encode("utf-16")), "c.yaml is not YAML"),
    "a picture": (_write(_png(1, 1, 8, b"\0\0\0\0")), "c.yaml is not YAML"),
    "unreadable": (_unreadable, "c.yaml cannot be read"),
    "empty, by its name": (_write(""), "c.yaml holds nothing"),
    "a list, by its name": (_write("- model\n"), "c.yaml holds a sequence"),
    "a key twice": (
        _write("data:\n  init_args:\n    limit: 1\n    limit: 2\n"),
        "'limit' is given",
    ),
    "a part inside itself": (_write("model: &a\n  init_args: *a\n"), "contains itself"),
    "trainer null": (_write("trainer: null\n"), "trainer is None"),
    "trainer is a list": (_write("trainer: [1]\n"), "trainer is [1]"),
    "attack null": (_write("attack: null\n"), "attack is null"),
    "protocols null": (_write("model: {init_args: {protocols: null}}\n"), "protocols"),
    "model of another kind": (
        _write("model: {class_path: lightning.pytorch.demos.boring_classes.BoringModel}\n"),
        "expects a lit_purify.PurifiedClassifier",
    ),
}

# --- Options ------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[str, list[str], str]] = {
    "t_star 0": ("test", ["--model.purifier.t_star=0"], "between 1 and 1000"),
    "t_star -1": ("predict", ["--model.purifier.t_star=-1"], "between 1 and 1000"),
    "t_star 1001": ("test", ["--model.purifier.t_star=1001"], "between 1 and 1000"),
    "t_star NaN": ("test", ["--model.purifier.t_star=.nan"], "t_star"),
    "t_star fractional": ("test", ["--model.purifier.t_star=1.5"], "t_star"),
    "t_star null": ("test", ["--model.purifier.t_star=null"], "t_star"),
    "num_steps beyond t_star": ("test", ["--model.purifier.num_steps=21"], "t_star = 20"),
    "num_steps 0": ("predict", ["--model.purifier.num_steps=0"], "t_star = 20"),
    "unknown forward process": ("test", ["--model.purifier.forward_process=both"], "one_shot"),
    "memory budget NaN": ("test", ["--model.purifier.memory_budget_gib", ".nan"], "memory_budget"),
    "memory budget infinite": (
        "test",
        ["--model.purifier.memory_budget_gib", ".inf"],
        "memory_budget",
    ),
    "memory budget negative": ("test", ["--model.purifier.memory_budget_gib=-1"], "memory_budget"),
    "DDIM eta 2": (
        "test",
        [
            "--model.purifier.sampler=lit_purify.diffusion.DDIMSampler",
            "--model.purifier.sampler.eta=2",
        ],
        "eta must lie in [0, 1]",
    ),
    "eps negative": ("test", ["--attack.eps=-1/255"], "eps must lie in [0, 1]"),
    "eps NaN": ("test", ["--attack.eps=nan"], "eps must lie in [0, 1]"),
    "eps 8/0": ("test", ["--attack.eps=8/0"], "fraction such as 8/255"),
    "eps huge": ("test", ["--attack.eps=1e308"], "eps must lie in [0, 1]"),
    "eps overflow": ("test", ["--attack.eps=1e308/1e-308"], "eps must lie in [0, 1]"),
    "eps a list": ("test", ["--attack.eps=[8]"], "eps"),
    "eps null": ("test", ["--attack.eps=null"], "eps of lit_purify.attacks.PGD is null"),
    "eps empty": ("test", ["--attack.eps="], "fraction such as 8/255"),
    "step size NaN": ("test", ["--attack.rel_stepsize=nan"], "rel_stepsize must be positive"),
    "steps 0": ("test", ["--attack.steps=0"], "at least 1 step"),
    "steps -3": ("test", ["--attack.steps=-3"], "at least 1 step"),
    "steps 1e308": ("test", ["--attack.steps=1e308"], "steps"),
    "unknown attack": ("test", ["--attack=PDG"], "PDG"),
    "abstract attack": ("test", ["--attack=lit_purify.attacks.Attack"], "abstract"),
    "seed negative": ("test", ["--model.seed=-1"], "at least 0, got -1"),
    "seed no number": ("test", ["--model.seed=abc"], "seed"),
    "unknown protocol": ("test", ["--model.protocols=[fxed]"], "transfer"),
    "protocols no list": ("test", ["--model.protocols=fixed"], "protocols"),
    "batch_size 0": ("test", ["--data.batch_size=0"], "batch_size is 0"),
    "batch_size 0 in predict": ("predict", ["--data.batch_size=0"], "batch_size is 0"),
    "limit 0": ("test", ["--data.limit=0"], "limit is 0"),
    "limit negative": ("predict", ["--data.limit=-1"], "limit is -1"),
    "indices repeated": ("test", ["--data.indices=[1,1]"], "more than once"),
    "indices empty": ("test", ["--data.indices=[]"], "indices is empty"),
    "indices negative": ("test", ["--data.indices=[-1]"], "from 0 upwards"),
    "indices beyond the source": ("test", ["--data.indices=[4]"], "expected 0 .. 3"),
    "indices huge": ("test", [f"--data.indices=[{10**40}]"], "expected 0 .. 3"),
    "workers negative": ("test", ["--data.num_workers=-1"], "num_workers is -1"),
    "image_shape of one channel": ("predict", ["--data.image_shape=[1,32,32]"], "image_shape"),
    "source no .npz": ("test", ["--data.source=images.zip"], "expected 'embedded'"),
    "source empty": ("test", ["--data.source="], "expected 'embedded'"),
    "source of too long a name": ("test", [f"--data.source={'x' * 999}.npz"], "numpy.savez"),
    "source with a NUL": ("test", ["--data.source=a\0b.npz"], "no file"),
    "folder missing": ("predict", ["--data.source=nowhere"], "neither a folder nor"),
    "weights of too long a name": (
        "test",
        [f"{DENOISER}={'x' * 999}.safetensors"],
        "no weights file",
    ),
    "denoiser of another kind": (
        "test",
        ["--model.purifier.denoiser=lit_purify.classifiers.embedded_resnet18"],
        "Denoiser",
    ),
    "classifier of another kind": (
        "test",
        ["--model.classifier=lit_purify.checkpoints.embedded_denoiser"],
        "Classifier",
    ),
    "data of test in predict": ("predict", ["--data=lit_purify.data.CIFAR10DataModule"], "predict"),
    "unknown option": ("test", ["--data.batchsize=3"], "batchsize"),
    "unknown trainer option": ("test", ["--trainer.max_stepz=3"], "max_stepz"),
    "option without value": ("test", ["--trainer.devices"], "expected one argument"),
    "devices 0": ("test", ["--trainer.devices=0"], "devices"),
    "devices empty": ("test", ["--trainer.devices=[]"], "devices"),
    "accelerator absent": ("test", ["--trainer.accelerator=mps"], "accelerator"),
    "precision unknown": ("test", ["--trainer.precision=12"], "precision"),
    "precision of the weights": ("test", ["--trainer.precision=bf16-true"], "32-true"),
    "strategy not installed": ("test", ["--trainer.strategy=deepspeed"], "DeepSpeed"),
    "inference mode": ("test", ["--trainer.inference_mode=true"], "set it to false"),
    "test batches negative": ("test", ["--trainer.limit_test_batches=-1"], "limit_test_batches"),
    "callback unknown": (
        "test",
        ["--trainer.callbacks=[{class_path: lit_purify.callbacks.Nope}]"],
        "lit_purify.callbacks.Nope",
    ),
    "callback of another kind": (
        "test",
        ["--trainer.callbacks=[{class_path: lit_purify.attacks.PGD}]"],
        "Callback",
    ),
    "logger of another kind": ("test", ["--trainer.logger=lit_purify.attacks.PGD"], "Logger"),
    "training in test": ("test", ["--model=lit_purify.modules.DenoiserTraining"], "denoiser"),
    "batches larger than the data": ("fit", ["--data.batch_size=3"], "do not fill one batch"),
    "all images held out": ("fit", ["--data.num_holdout=4"], "do not fill one batch"),
    "holdout negative": ("fit", ["--data.num_holdout=-1"], "num_holdout is -1"),
    "focus beyond the schedule": ("fit", ["--model.focus=[[2000,0.5]]"], "between 1 and 1000"),
    "focus shares above 1": ("fit", ["--model.focus=[[100,1.5]]"], "sum to at most 1"),
    "learning rate NaN": ("fit", ["--model.learning_rate=nan"], "learning_rate"),
    "network of no levels": ("fit", ["--model.denoiser.block_out_channels=[]"], "block_out"),
    "network of no groups": ("fit", ["--model.denoiser.norm_num_groups=0"], "norm_num_groups is 0"),
    "network for other images": ("fit", ["--model.denoiser.image_size=16"], "(3, 16, 16)"),
    "network of other channels": ("fit", ["--model.denoiser.channels=1"], "(1, 32, 32)"),
    "patches that do not fit": ("fit", ["--model.denoiser.patch_size=5"], "image_size is 32"),
    "max_steps negative": ("fit", ["--trainer.max_steps=-5"], "max_steps"),
    "root directory is a file": (
        "test",
        ["--trainer.default_root_dir={sound}/sound.npz"],
        "sound.npz",
    ),
    "root directory below a file": (
        "predict",
        ["--trainer.default_root_dir={sound}/sound.npz/below"],
        "sound.npz",
    ),
    "root directory of too long a name": (
        "test",
        [f"--trainer.default_root_dir={{sound}}/{'x' * 300}"],
        "name too long",
    ),
    "source null": ("test", ["--data.source=null"], "source"),
    "seed null": ("predict", ["--model.seed", "null"], "seed"),
    "steps null": ("test", ["--attack.steps", "null"], "steps"),
    "data of predict in test": (
        "test",
        ["--data=lit_purify.data.ImageFolderDataModule", "--data.source={sound}/sound.npz"],
        "holds no test images",
    ),
    "a very long value": ("test", [f"--model.purifier.t_star={'9' * 3000}"], "9 ... 9"),
    "devices -5": ("test", ["--trainer.devices=-5"], "devices"),
    "devices no number": ("test", ["--trainer.devices=abc"], "devices"),
    "nodes 0": ("test", ["--trainer.num_nodes=0"], "num_nodes"),
    "accelerator unknown": ("test", ["--trainer.accelerator=abacus"], "abacus"),
    "precision not installed": ("test", ["--trainer.precision=transformer-engine"], "transformer"),
    "strategy unknown": ("test", ["--trainer.strategy=magic"], "magic"),
    "strategy for GPUs": ("test", ["--trainer.strategy=fsdp"], "fsdp"),
    "no batches": ("test", ["--trainer.limit_test_batches=0"], "nothing to do"),
    "no batches to purify": ("predict", ["--trainer.limit_predict_batches=0"], "nothing to do"),
    "checkpoint in test": ("test", ["--ckpt_path=last.ckpt"], "ckpt_path"),
    "batch_size huge": ("test", [f"--data.batch_size={10**40}"], "batch_size"),
    "seed_everything negative": ("test", ["--seed_everything=-1"], "seed_everything"),
    "seed_everything huge": ("test", [f"--seed_everything={10**40}"], "seed_everything"),
    "root directory with a NUL": ("test", ["--trainer.default_root_dir=a\0b"], "null byte"),
    "root directory in /proc": ("test", ["--trainer.default_root_dir=/proc/nowhere"], "/proc"),
    "root directory in /proc, fit": ("fit", ["--trainer.default_root_dir=/proc/nowhere"], "/proc"),
    "learning rate negative": ("fit", ["--model.learning_rate=-1"], "learning_rate"),
    "learning rate .nan": ("fit", ["--model.learning_rate", ".nan"], "learning_rate"),
    "weight decay negative": ("fit", ["--model.weight_decay=-1"], "weight_decay"),
    "warmup negative": ("fit", ["--model.warmup_steps=-3"], "warmup_steps"),
    "decay share above 1": ("fit", ["--model.decay_share=5"], "decay_share"),
    "training seed huge": ("fit", [f"--model.seed={10**40}"], "seed must lie"),
    "data seed negative": ("fit", ["--data.seed=-1"], "seed must lie"),
    "checkpoint missing": ("fit", ["--ckpt_path=nowhere.ckpt"], "no weights file"),
    "checkpoint of another kind": ("fit", ["--ckpt_path={sound}/tensors.ckpt"], "no checkpoint of"),
    "checkpoint with code": ("fit", ["--ckpt_path={sound}/evil.ckpt"], "could run code"),
}


class Case(NamedTuple):
    """One broken input.

    Attributes:
        command: subcommand.
        options: what is added to a sound run; ``{input}`` is where ``make`` writes, ``{sound}`` a
            folder of sound files.
        fragment: what the error line must hold.
        name: file name of the input; empty for a folder that exists already.
        make: writes the input.
    """

    command: str
    options: list[str]
    fragment: str
    name: str = ""
    make: Make = _nothing


CASES = {
    **{
        f"predict-picture-{what}": Case("predict", ["--data.source={input}"], words, make=make)
        for what, (make, words) in PICTURES.items()
    },
    **{
        f"{command}-npz-{what}": Case(command, [SOURCE[command] + "={input}"], words, "a.npz", make)
        for what, (commands, make, words) in ARRAYS.items()
        for command in commands.split()
    },
    **{
        f"test-weights-{what}": Case("test", [DENOISER + "={input}"], words, name, make)
        for what, (name, make, words) in WEIGHTS.items()
    },
    **{
        f"test-config-{what}": Case("test", ["--config={input}"], words, "c.yaml", make)
        for what, (make, words) in CONFIGURATIONS.items()
    },
    **{
        f"{command}-option-{what}": Case(command, options, words)
        for what, (command, options, words) in OPTIONS.items()
    },
}


class Workplace:
    """A root directory with earlier runs in it, and the arguments of sound ones."""

    def __init__(self, folder: Path) -> None:
        self.sound = folder / "sound"
        self.root = folder / "root"
        self.sound.mkdir()
        tiny.denoiser_file(self.sound)
        np.savez(self.sound / "sound.npz", images=IMAGES, labels=LABELS)
        torch.save({"state_dict": {"a": torch.zeros(1)}}, self.sound / "tensors.ckpt")
        torch.save({"state_dict": Evil(self.sound)}, self.sound / "evil.ckpt")
        for command in ("test", "predict"):
            assert main(self.arguments(command)) == 0
        self.runs = self.root / "lightning_logs"
        self.before = self.content()
        names = {path.name for path in self.before}
        assert {"summary.json", "config.yaml", "purified.npz"} <= names

    def arguments(self, command: str, *more: str) -> list[str]:
        """A sound run, and what else is given."""
        options = SMALL[command] | {"--trainer.default_root_dir": str(self.root)}
        words = [w.format(sound=self.sound) for option in options.items() for w in option]
        return [command, "--config", str(tiny.CONFIGS / f"{CONFIG[command]}.yaml"), *words, *more]

    def content(self) -> dict[Path, bytes]:
        """Every file of the earlier runs."""
        return {
            path: path.read_bytes()
            for run in ("version_0", "version_1")
            for path in sorted((self.runs / run).rglob("*"))
            if path.is_file()
        }

    def assert_untouched(self) -> None:
        """Earlier runs are as they were, and no later one looks finished."""
        assert self.content() == self.before
        for run in set(self.runs.iterdir()) - {self.runs / "version_0", self.runs / "version_1"}:
            if (summary := run / "summary.json").exists():
                assert json.loads(summary.read_text())["status"] != "finished"
            assert not (run / "purified.npz").exists()
            shutil.rmtree(run)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("workplace"))


def the_error_line(printed: str) -> str:
    """The last line of stderr, the only one that is an error."""
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], printed
    return lines[-1]


def broken(case: Case, workplace: Workplace, folder: Path) -> list[str]:
    """The arguments of a case, whose input now exists."""
    case.make(folder / case.name)
    more = [
        option.replace("{input}", str(folder / case.name)).replace("{sound}", str(workplace.sound))
        for option in case.options
    ]
    return workplace.arguments(case.command, *more)


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line(name, workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input").mkdir()
    args = broken(CASES[name], workplace, tmp_path / "input")
    status = main(args)
    line = the_error_line(capsys.readouterr().err)
    assert status == 2
    assert CASES[name].fragment in line
    workplace.assert_untouched()
    assert not [*tmp_path.rglob("executed"), *workplace.sound.parent.rglob("executed")]


@pytest.mark.parametrize(
    "name",
    [
        "predict-picture-decompression bomb",
        "test-weights-torch file with code",
        "fit-npz-images are pickled objects",
    ],
)
def test_a_process_says_so_and_fails(name, workplace, tmp_path):
    (tmp_path / "input").mkdir()
    args = broken(CASES[name], workplace, tmp_path / "input")
    done = subprocess.run(
        [sys.executable, "-m", "lit_purify", *args],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    line = the_error_line(done.stderr)
    assert done.returncode == 2
    assert CASES[name].fragment in line
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.rglob("executed"))
    workplace.assert_untouched()


# --- Fuzz ---------------------------------------------------------------------------------------

# null joins these with the pending cases: the parser lets it pass everywhere.
ODD = [None, "", "abc", -1, 0, 1e308, math.nan, [], {}, "x" * 5000, {"a": [{"b": None}]}, [[1]]]
MUTATIONS = 100


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the leaves of a configuration are, and its sections."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += _leaves(value, (*path, key))
    return found


def _configuration(workplace: Workplace) -> dict[str, Any]:
    """The paper's evaluation with small models and data."""
    config = yaml.safe_load((tiny.CONFIGS / "cifar_fixed.yaml").read_text(encoding="utf-8"))
    model, purifier = config["model"]["init_args"], config["model"]["init_args"]["purifier"]
    purifier["init_args"]["denoiser"] = {
        "class_path": "lit_purify.checkpoints.load_denoiser",
        "init_args": {"path": str(workplace.sound / "tiny.safetensors")},
    }
    purifier["init_args"] |= {"t_star": 20, "num_steps": 2}
    model["classifier"] = {"class_path": "tiny.classifier"}
    config["attack"]["init_args"] |= {"steps": 1}
    config["data"]["init_args"] |= {"source": str(workplace.sound / "sound.npz"), "limit": 1}
    config["trainer"] = {"callbacks": config["trainer"]["callbacks"][:1]}
    return config


@pytest.mark.parametrize("seed", range(MUTATIONS))
def test_an_odd_value_anywhere_is_used_or_refused(seed, workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = _configuration(workplace)
    rng = random.Random(seed)
    *path, key = rng.choice(_leaves(config))
    place = config
    for step in path:
        place = place[step]
    place[key] = copy.deepcopy(rng.choice(ODD))
    file = tmp_path / "odd.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    args = ["test", "--config", str(file), "--trainer.accelerator", "cpu"]
    status = main([*args, "--trainer.default_root_dir", str(tmp_path)])
    printed = capsys.readouterr().err
    assert status in (0, 2)
    if status == 2:
        the_error_line(printed)
    assert "Traceback" not in printed


def _damaged(content: bytes, rng: random.Random) -> bytes:
    """A file that lost its end, or in which some bytes are others."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    near_an_end = rng.random() < 0.7  # where headers and directories lie
    for _ in range(rng.choice((1, 3, 30))):
        place = (
            rng.randrange(min(300, len(changed))) if near_an_end else rng.randrange(len(changed))
        )
        changed[-place if rng.random() < 0.5 else place] = rng.randrange(256)
    return bytes(changed)


def _picture_bytes(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _torch_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(9.0)}, buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")  # libraries warn of what they meet in damaged files
@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("a.npz", _sound_npz, sources.npz_optional_labels),
        ("a.png", partial(_picture_bytes, "PNG"), lambda p: read_rgb(p, 32, 32)),
        ("a.jpg", partial(_picture_bytes, "JPEG"), lambda p: read_rgb(p, 32, 32)),
        ("a.webp", partial(_picture_bytes, "WEBP"), lambda p: read_rgb(p, 32, 32)),
        ("a.safetensors", _sound_weights, load_denoiser),
        ("a.pt", _torch_bytes, load_denoiser),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_read_or_refused(name, content, read, tmp_path):
    sound = content()
    path = tmp_path / name
    refusals = []
    for seed in range(150):
        path.write_bytes(_damaged(sound, random.Random(seed)))
        try:
            read(path)
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert all(name in refusal for refusal in refusals)


def test_the_sound_files_are_sound():
    """What the tables spoil is accepted as it is."""
    assert set(load(_sound_weights())) == set(_tensors())
    assert zipfile.is_zipfile(io.BytesIO(_sound_npz()))
