"""Shared by the tests of this folder: none of them may touch the user's own weights."""

from contextlib import contextmanager

import pytest
from file_server import serving

from lit_purify.checkpoints import weights
from lit_purify.types import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no mirror."""
    monkeypatch.setenv(weights.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(weights.MIRROR, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(request):
    """A server of the ``CONTENT`` of the test's module."""
    with serving(request.module.CONTENT) as found:
        yield found


@pytest.fixture
def refusal():
    """A context in which a file is refused in one line that names it and has some words in it."""

    @contextmanager
    def expected(path, *words):
        with pytest.raises(InputError) as caught:
            yield
        for word in (str(path), *words):
            assert word in str(caught.value)
        assert "\n" not in str(caught.value)

    return expected
