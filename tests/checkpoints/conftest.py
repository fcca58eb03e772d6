"""Shared by the tests of this folder."""

from contextlib import contextmanager

import pytest

from lit_purify.types import InputError


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
