"""Images and labels in ``.npz`` files."""

import pickle
import struct
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import IMAGES, LABELS, Make, dangling, evil, nothing, sound_npz, unreadable, write

SOURCE = {"test": "--data.source", "predict": "--data.source", "fit": "--data.train_source"}


def _npz(**arrays: Any) -> Make:
    arrays = {"images": IMAGES, "labels": LABELS} | arrays
    return lambda path: np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def _pickled(key: str) -> Make:
    def make(path: Path) -> None:
        _npz(**{key: np.array([evil(path)] * 4, dtype=object)})(path)

    return make


def _flipped(after: bytes, offset: int, value: int) -> Make:
    """A sound archive with one byte changed, counted from a marker."""
    content = bytearray(sound_npz())
    content[content.index(after) + offset] = value
    return write(bytes(content))


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
UNREAD = "cannot be read"

ARRAYS: dict[str, tuple[str, Make, str]] = {
    "images are pickled objects": (EVERY, _pickled("images"), "object arrays"),
    "labels are pickled objects": (EVERY, _pickled("labels"), "object arrays"),
    "a bare pickle": ("test", lambda p: p.write_bytes(pickle.dumps(evil(p))), "no zip archive"),
    "no file": (EVERY, nothing, "no file"),
    "a folder": ("test", Path.mkdir, "no file"),
    "dangling link": ("test", dangling, "no file"),
    "unreadable": ("test", unreadable, UNREAD),
    "zero bytes": ("test", write(b""), "no zip archive"),
    "text": ("test", write("images, labels\n"), "no zip archive"),
    "an .npy file": ("test", lambda p: np.save(p.open("wb"), IMAGES), "no zip archive"),
    "cut off": (EVERY, write(sound_npz()[:5000]), UNREAD),
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
    "images missing": (EVERY, _npz(images=None), "labels"),
    "labels missing": (LABELLED, _npz(labels=None), "'labels'"),
    "one number": ("test", _npz(images=np.uint8(3)), "not an array"),
    "no images": ("test", _npz(images=IMAGES[:0], labels=LABELS[:0]), "empty"),
    "channels first": (EVERY, _npz(images=IMAGES.transpose(0, 3, 1, 2)), "channels last"),
    "grey": ("test", _npz(images=IMAGES[..., :1]), "grey"),
    "other size": (EVERY, _npz(images=IMAGES[:, :28]), "pixels"),
    "integers": ("test", _npz(images=IMAGES.astype(int)), "int64"),
    "complex": ("test", _npz(images=IMAGES.astype(complex)), "complex128"),
    "text images": ("test", _npz(images=IMAGES.astype(str)), "<U3"),
    "long doubles": ("test", _npz(images=np.zeros_like(IMAGES, np.longdouble)), "float"),
    "records": ("test", _npz(images=np.zeros(4, [("a", "u1")])), "(4,)"),
    "0 .. 255 in floats": ("test", _npz(images=IMAGES * 1.0), "255"),
    "-1 .. 1 in floats": ("test", _npz(images=IMAGES / 100.0 - 2), "[-1, -1]"),
    "one NaN": (
        EVERY,
        _npz(images=np.where(np.arange(12288).reshape(4, 32, 32, 3) == 77, np.nan, 0.5)),
        "NaN",
    ),
    "infinity": ("test", _npz(images=IMAGES * np.inf), "NaN"),
    "label too high": (LABELLED, _npz(labels=LABELS + 7), "0 .. 9"),
    "label negative": ("test", _npz(labels=LABELS - 1), "0 .. 9"),
    "label far out of range": (
        "test",
        _npz(labels=np.full(4, 2**64 - 1, np.uint64)),
        "18446744073709551615",
    ),
    "labels too few": (EVERY, _npz(labels=LABELS[:3]), "(3,)"),
    "labels in floats": ("test", _npz(labels=LABELS * 1.0), "integers"),
    "labels NaN": ("test", _npz(labels=LABELS * np.nan), "integers"),
    "labels one-hot": ("test", _npz(labels=np.eye(10, dtype=int)[:4]), "(4, 10)"),
    "labels in text": ("test", _npz(labels=LABELS.astype(str)), "integers"),
    "labels empty": ("test", _npz(labels=LABELS[:0]), "(0,)"),
    "one label": ("test", _npz(labels=np.int64(0)), "not an array"),
}
CASES = [(what, command) for what, (commands, *_) in ARRAYS.items() for command in commands.split()]


@pytest.mark.parametrize(("what", "command"), CASES)
def test_it_is_refused(what, command, refuse):
    _, make, word = ARRAYS[what]
    refuse(command, SOURCE[command] + "={input}", word, make, "a.npz")


def test_what_is_spoiled_was_sound():
    assert zipfile.is_zipfile(BytesIO(sound_npz()))
