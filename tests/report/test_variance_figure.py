"""The figure of directions and centroids shows the numbers it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.patches import Rectangle

from lit_purify.report.variance_figure import PAPER_CENTROID, variance_figure

COLUMNS: dict[str, list[float | None]] = {
    "direction/fixed_input": [0.2, 0.24, 0.31, None],
    "direction/fixed_noise": [0.91, 0.93, 0.95, 0.9],
    "centroid/l2_inputs": [1.0, 1.0, 1.0, 1.0],
    "centroid/l2_fixed_noise": [0.2, 0.3, 0.25, 0.25],
    "centroid/l2_fixed_input": [3.0, 3.5, None, 3.1],
    "centroid/l2_both": [3.1, 3.6, 3.2, 3.2],
}


def draw(columns: dict[str, Any] = COLUMNS, *, paper: bool = True) -> Any:
    return variance_figure(columns, inputs=8, draws=8, paper=paper)


def bars(axes: Any) -> list[float]:
    return [p.get_height() for p in axes.patches if isinstance(p, Rectangle) and p.get_height()]


def test_bars_are_means_over_the_images_that_have_a_value(tmp_path: Path) -> None:
    figure = draw()
    left, right = figure.axes
    assert bars(right) == pytest.approx([1.0, 0.25, 3.2, 3.275])
    assert sum(bars(left)) == 3 + 4
    legend = [text.get_text() for text in left.get_legend().get_texts()]
    assert legend[:2] == [
        "same input, other noises (mean 0.25)",
        "same noise, other inputs (mean 0.92)",
    ]
    assert "4 images, 8 inputs and 8 noise draws" in figure.get_supxlabel()
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_papers_values_are_drawn_where_they_apply() -> None:
    left, right = draw().axes
    assert [line.get_xdata()[0] for line in left.lines] == [0.22, 0.93]
    marks = [line for line in right.lines if line.get_marker() == "D"]
    assert [list(line.get_ydata()) for line in marks] == [list(PAPER_CENTROID.values())]
    left, right = draw(paper=False).axes
    assert not left.lines
    assert not [line for line in right.lines if line.get_marker() == "D"]


def test_axes_have_units_and_shades_differ() -> None:
    left, right = draw().axes
    assert "cosine" in left.get_xlabel()
    assert right.get_ylabel() == "l2 distance to the centroid\n(pixels in [0, 1])"
    shades = {(patch.get_facecolor(), patch.get_hatch()) for patch in left.patches}
    assert len(shades) == 2


def test_negative_agreement_is_in_the_picture() -> None:
    left, _ = draw(COLUMNS | {"direction/fixed_input": [-0.4, 0.1]}).axes
    assert left.get_xlim()[0] < -0.4


def test_what_is_missing_is_left_out_and_nothing_is_refused() -> None:
    figure = draw({"centroid/l2_both": [2.0]}, paper=False)
    assert bars(figure.axes[1]) == [2.0]
    with pytest.raises(ValueError, match="one or more images"):
        draw({"centroid/l2_both": [None]})
