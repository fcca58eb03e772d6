"""Files of which some bytes are lost or others: each is read or refused, whatever it is."""

import io
import random
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from refusals import sound_npz

from lit_purify.checkpoints import load_denoiser
from lit_purify.data import sources
from lit_purify.data.image_files import read_pixels
from lit_purify.types import InputError


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


def _weights_bytes() -> bytes:
    with TemporaryDirectory() as folder:
        return tiny.denoiser_file(Path(folder)).read_bytes()


def _torch_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(9.0)}, buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")  # libraries warn of what they meet in damaged files
@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("a.npz", sound_npz, sources.npz_optional_labels),
        ("a.png", partial(_picture_bytes, "PNG"), lambda p: read_pixels(p, (3, 32, 32))),
        ("a.jpg", partial(_picture_bytes, "JPEG"), lambda p: read_pixels(p, (3, 32, 32))),
        ("a.webp", partial(_picture_bytes, "WEBP"), lambda p: read_pixels(p, (3, 32, 32))),
        ("a.safetensors", _weights_bytes, load_denoiser),
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
