"""The images that most measurements of these tests are taken of."""

import pytest
import tiny


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven images, two thirds of which the tiny classifier gets right."""
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", 7))
