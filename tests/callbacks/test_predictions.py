"""Where ``predict`` writes: images in one folder, their figures in another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from lit_purify.cli import main

NAMES = ["a", "a_trajectory", "a_trajectory_trajectory", "purified"]
"""One image's name is what a figure of another might be called."""


def predict(source: Path, folder: Path, *more: str) -> Path:
    options = ["--data.source", str(source), "--data.limit", "9", *more]
    assert main(tiny.command("predict", "predict.yaml", folder, *options)) == 0
    return tiny.run_folder(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of four images, each with a figure."""
    folder = tmp_path_factory.mktemp("predict")
    pixels = np.random.default_rng(0).integers(0, 256, (len(NAMES), 32, 32, 3), np.uint8)
    (folder / "source").mkdir()
    for name, image in zip(NAMES, pixels, strict=True):
        Image.fromarray(image).save(folder / "source" / f"{name}.png")
    return predict(folder / "source", folder)


def arrays(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "purified.npz") as archive:
        return dict(zip(archive["name"].tolist(), archive["images"], strict=True))


def test_no_figure_takes_the_place_of_an_image(run: Path) -> None:
    for folder in ("purified", "trajectories"):
        assert sorted(path.stem for path in (run / folder).iterdir()) == NAMES
    for name, array in arrays(run).items():
        with Image.open(run / "purified" / f"{name}.png") as picture:
            assert np.abs(np.asarray(picture) / 255 - array.clip(0, 1)).max() <= 0.5 / 255 + 1e-6
        with Image.open(run / "trajectories" / f"{name}.png") as picture:
            assert picture.width > 400


def test_what_was_written_can_be_purified_again(run: Path, tmp_path: Path) -> None:
    again = predict(run / "purified", tmp_path, "--data.limit", "null")
    assert sorted(arrays(again)) == NAMES
