"""Shared by the tests of this folder: none of them may touch the user's own weights."""

import pytest

from lit_purify.checkpoints import weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no mirror."""
    monkeypatch.setenv(weights.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(weights.MIRROR, raising=False)
    return tmp_path / "cache"
