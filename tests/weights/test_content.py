"""What is in a file."""

import hashlib

import pytest

from lit_purify.types import InputError
from lit_purify.weights.content import sha256


def test_sha256(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(InputError, match="no file"):
        sha256(tmp_path / "nowhere")
