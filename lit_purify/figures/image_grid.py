"""Images side by side: clean, attacked, purified, and what changed between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from lit_purify.figures.style import draw_grid, new_figure

if TYPE_CHECKING:  # reports are drawn without PyTorch
    from torch import Tensor

DIFFERENCE = "difference"
_CELL = 1.25  # inches
_CHARACTER = 0.065  # inches, of a row's label
_SCALES = (100, 50, 20, 10, 5, 2, 1)


def image_grid(columns: Mapping[str, Tensor], rows: Sequence[str] | None = None) -> Figure:
    """A grid with one kind of image per column and one sample per row.

    Args:
        columns: title -> images, shape (B, 3, H, W) or, in grey, (B, 1, H, W), in [0, 1]; values
            outside are clipped for display. A title that begins with ``difference`` holds signed
            differences: they are scaled, drawn around mid-grey, and the title tells the scale, such
            as "×10".
        rows: a label for each sample, such as "cat → dog"; may have several lines.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no columns, shapes that are not (B, 1 or 3, H, W) with one B, or another number
            of labels than samples.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> figure = image_grid({"clean": images, "difference": images - images.flip(0)})
        >>> len(figure.axes)
        4
    """
    count = _check(columns, rows)
    longest = max((len(line) for row in rows or () for line in row.splitlines()), default=0)
    width = _CELL * len(columns) + _CHARACTER * longest
    with new_figure(width, _CELL * count + 0.5) as figure:
        draw_grid(figure, dict(_shown(*column) for column in columns.items()), rows or ())
    return figure


def _shown(title: str, images: Tensor) -> tuple[str, Tensor]:
    """A column as it is drawn."""
    if not title.startswith(DIFFERENCE):
        return title, images
    scale = difference_scale(images)
    return f"{title}\n×{scale}", 0.5 + scale * images


def difference_scale(differences: Tensor) -> int:
    """The largest of 1, 2, 5, ..., 100 that keeps 99.5 % of the differences within ±0.5.

    Args:
        differences: any shape, at least one value.

    Example:
        >>> import torch
        >>> difference_scale(torch.full((1, 3, 2, 2), 8 / 255))
        10
    """
    # kthvalue, since quantile refuses the size of a few ImageNet images.
    sizes = differences.detach().float().nan_to_num().abs().flatten()
    reach = sizes.kthvalue(max(1, round(0.995 * sizes.numel()))).values.item()
    if reach == 0:  # at most a few stray pixels: let them decide
        reach = sizes.max().item()
    if reach == 0:
        return 1
    return next((scale for scale in _SCALES if scale * reach <= 0.5), 1)


def _check(columns: Mapping[str, Tensor], rows: Sequence[str] | None) -> int:
    shapes = {title: tuple(images.shape) for title, images in columns.items()}
    counts = {
        shape[0] if len(shape) == 4 and shape[1] in (1, 3) else 0 for shape in shapes.values()
    }
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"expected columns of shape (B, 1 or 3, H, W) with one B > 0, got {shapes}"
        )
    count = counts.pop()
    if rows is not None and len(rows) != count:
        raise ValueError(f"got {len(rows)} row labels for {count} samples; expected one per sample")
    return count
