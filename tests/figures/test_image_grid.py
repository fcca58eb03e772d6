import pytest
import torch
from torch import Tensor

from lit_purify.figures.image_grid import difference_scale, image_grid


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_grid_titles_rows_and_scale():
    x = images()
    columns = {"clean": x, "difference by attack": torch.full_like(x, -8 / 255)}
    figure = image_grid(columns, ["a", "b", "c"])
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:2]] == ["clean", "difference by attack\n×10"]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["a", "b", "c"]
    shown = figure.axes[1].images[0].get_array()
    assert shown.flatten().tolist() == pytest.approx([0.5 - 80 / 255] * 192)


def test_grid_clips_for_display():
    shown = image_grid({"x": 4 * images(1) - 2}).axes[0].images[0].get_array()
    assert (shown.min(), shown.max()) == (0, 1)


def test_one_channel_is_grey() -> None:
    x = images(1)[:, :1]
    shown = image_grid({"x": x}).axes[0].images[0].get_array()
    assert shown is not None
    assert torch.equal(torch.tensor(shown), x[0].permute(1, 2, 0).expand(-1, -1, 3))


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (3, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1 or 3"):
        image_grid({"x": torch.zeros(shape)})


@pytest.mark.parametrize(
    ("size", "scale"), [(0.0, 1), (0.004, 100), (0.03, 10), (0.2, 2), (0.5, 1), (0.9, 1)]
)
def test_difference_scale(size, scale):
    assert difference_scale(torch.full((2, 3, 4, 4), -size)) == scale
