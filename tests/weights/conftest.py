"""Shared by the tests of this folder: none of them may touch the user's own weights."""

import pytest
from file_server import serving

from lit_purify.weights import CACHE, MIRROR


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no mirror."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(MIRROR, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(request):
    """A server of the ``CONTENT`` of the test's module."""
    with serving(request.module.CONTENT) as found:
        yield found
