import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_purify.report import image_grid, trajectory_figure
from lit_purify.report.grid import difference_scale


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_grid_titles_rows_and_scale(tmp_path: Path) -> None:
    x = images()
    columns = {"clean": x, "difference by attack": torch.full_like(x, -8 / 255)}
    figure = image_grid(columns, ["a", "b", "c"])
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:2]] == ["clean", "difference by attack\n×10"]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["a", "b", "c"]
    shown = figure.axes[1].images[0].get_array()
    assert shown is not None
    assert shown.flatten().tolist() == pytest.approx([0.5 - 80 / 255] * 192)
    figure.savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_grid_clips_for_display() -> None:
    shown = image_grid({"x": 4 * images(1) - 2}).axes[0].images[0].get_array()
    assert shown is not None
    assert (shown.min(), shown.max()) == (0, 1)


@pytest.mark.parametrize(
    ("size", "scale"), [(0.0, 1), (0.004, 100), (0.03, 10), (0.2, 2), (0.5, 1), (0.9, 1)]
)
def test_difference_scale(size: float, scale: int) -> None:
    assert difference_scale(torch.full((2, 3, 4, 4), -size)) == scale


def test_grid_refuses_what_it_cannot_draw() -> None:
    for columns in ({}, {"x": images()[0]}, {"x": images(), "y": images(2)}):
        with pytest.raises(ValueError, match="B, 3, H, W"):
            image_grid(columns)
    with pytest.raises(ValueError, match="2 row labels"):
        image_grid({"x": images()}, ["a", "b"])


def test_trajectory_up_and_down(tmp_path: Path) -> None:
    states = [(f"t = {t}", images(1)[0]) for t in (0, 4, 0)]
    steps = [0, 1, 2, 3, 4, 2, 0]  # a respaced way back
    curves = {"clean": [0.0, 1, 2, 3, 4, 3, 2], "attacked": [1.0, 2, 3, 4, 5, 4, 3]}
    figure = trajectory_figure(states, curves, steps)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "t = 0",
        "t = 4",
        "t = 0",
        "diffusion step t",
    ]
    plot = figure.axes[-1]
    lines = [line for line in plot.lines if len(line.get_xdata()) == 7]  # type: ignore[arg-type]
    assert list(lines[0].get_xdata()) == [0, 1, 2, 3, 4, 6, 8]  # type: ignore[arg-type]
    assert len({line.get_linestyle() for line in lines}) == 2
    assert len({line.get_marker() for line in lines}) == 2
    ticks = [label.get_text() for label in plot.get_xticklabels()]
    assert ticks == ["0", "1", "2", "3", "4", "3", "2", "1", "0"]
    figure.savefig(tmp_path / "t.png")


def test_trajectory_reverse_only() -> None:
    figure = trajectory_figure([("x", images(1)[0])], {"x": [0.0, 1, 2]}, [100, 50, 0])
    texts = [text.get_text() for text in figure.axes[-1].texts]
    assert texts == ["reverse: noise is removed"]


def test_trajectory_refuses_another_length() -> None:
    with pytest.raises(ValueError, match="2 distances for 3 steps"):
        trajectory_figure([("x", images(1)[0])], {"x": [0.0, 1]}, [0, 1, 0])
    with pytest.raises(ValueError, match="expected states"):
        trajectory_figure([], {}, [0, 1, 0])


def test_no_global_state() -> None:
    image_grid({"x": images(1)})
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
