"""What is drawn of the gradient's norm and of the attack's loss."""

import pytest
import torch

from lit_purify.figures import attack_loss_figure, gradient_norm_figure

STEPS = [0, 5, 10, 5, 0]


def test_median_and_quartiles_at_every_state():
    scales = [1e-4, 1e-2, 1, 1e2, 1e4]
    norms = torch.tensor([1.0, 2, 3, 4, 5]).outer(torch.tensor(scales))
    (axes,) = gradient_norm_figure(norms, STEPS).axes
    (median,), (band, *_) = axes.lines, axes.collections
    assert list(median.get_xdata()) == [0, 5, 10, 15, 20]  # the way travelled in t
    assert list(median.get_ydata()) == pytest.approx([3 * scale for scale in scales])
    corners = band.get_paths()[0].vertices
    for place, scale in zip(median.get_xdata(), scales, strict=True):
        edges = sorted({round(y / scale, 6) for x, y in corners if x == place})
        assert edges == pytest.approx([2, 4])
    assert axes.get_yscale() == "log"


def test_zeros_and_what_is_no_number_are_counted():
    norms = torch.tensor([[0.0, 1.0], [1.0, torch.nan], [2.0, 3.0], [torch.inf, 1.0]])
    (axes,) = gradient_norm_figure(norms, [0, 0]).axes
    assert "4 samples, 3 with a zero or no number" in axes.get_legend().texts[0].get_text()
    assert list(axes.lines[0].get_ydata()) == [1.5, 1.0]


def test_loss_by_query_counts_the_samples_left():
    nan = torch.nan
    losses = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, nan], [5.0, nan, nan]])
    (axes,) = attack_loss_figure(losses).axes
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3]
    assert list(axes.lines[0].get_ydata()) == [3, 3, 3]
    assert "3 at first, 1 at last" in axes.get_legend().texts[0].get_text()
