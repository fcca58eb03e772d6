"""The figure shows the means it was given, and the paper's where there are any."""

from __future__ import annotations

import pytest
import torch

from lit_purify.figures import Curve, distance_figure
from lit_purify.paper import PAPER_ATTACKED

STEPS = [0, 5, 10, 5, 0]


def curve(label="attack", *, paper=None):
    generator = torch.Generator().manual_seed(0)
    return Curve(label, torch.rand(3, 2, len(STEPS), generator=generator), paper)


def test_means_and_bands():
    given = curve()
    figure = distance_figure([given], STEPS)
    for row, axes in enumerate(figure.axes):
        (line,) = axes.lines
        assert list(line.get_xdata()) == [0, 5, 10, 15, 20]  # the way travelled in t
        mean = given.distances[:, row].double().mean(0)
        assert list(line.get_ydata()) == pytest.approx(mean.tolist())
        (band,) = axes.collections
        spread = given.distances[:, row].double().std(0)
        top = band.get_paths()[0].vertices[:, 1].max()
        assert top == pytest.approx((mean + spread).max().item())
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "5", "10", "5", "0"]
    assert "paper" not in "".join(text.get_text() for text in figure.legends[0].get_texts())


def test_the_papers_values_are_crosses_where_known():
    papers = (PAPER_ATTACKED["ddpm"], PAPER_ATTACKED["reverse"])
    figure = distance_figure([curve(str(paper), paper=paper) for paper in papers], STEPS)
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses]
    assert points == [(0, 1.077), (10, 8.980), (20, 3.646), (0, 1.149), (20, 3.078)]
    assert "paper" in figure.legends[0].get_texts()[-1].get_text()
