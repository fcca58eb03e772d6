"""What is drawn of the singular values and of their vectors."""

import pytest
import torch

from lit_purify.figures import spectrum_figure, vectors_figure


def curves(figure):
    """The thin and thick lines of the right panel, (value, percent below)."""
    return [line.get_xydata() for line in figure.axes[1].lines if len(line.get_xdata()) == 400]


def test_the_shares_of_the_figure_are_those_of_the_values():
    values = torch.tensor([[0.1, 0.2, 0.5, 2.0], [0.01, 0.02, 0.03, 0.5]])
    figure = spectrum_figure(values, below=0.625, above=0.125)
    histogram = figure.axes[0].patches[0].get_data()
    assert histogram.values.sum() == pytest.approx(100)
    inside = histogram.edges[1:] <= 0.25
    assert histogram.values[inside].sum() == pytest.approx(62.5)
    first, second, mean = curves(figure)
    for x, percent in ((0.06, (0, 75, 37.5)), (0.3, (50, 75, 62.5)), (1.5, (75, 100, 87.5))):
        at = int((first[:, 0] < x).sum())
        got = (first[at, 1], second[at, 1], mean[at, 1])
        assert got == pytest.approx(percent)


def test_what_stands_beside_it():
    figure = spectrum_figure(torch.tensor([[0.1, 2.0]]), below=0.931, above=0.0089)
    for share in ("93.1 %", "0.89 %"):
        assert share in figure.axes[0].get_title()
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts][-2:] == ["0.25", "1"]


def test_weights_and_gaps():
    # Two probes of a quadrature: one has fewer nodes.
    values = torch.tensor([[0.1, 2.0, 0.1, torch.nan]])
    shares = torch.tensor([[0.8, 0.2, 1.0, torch.nan]])
    figure = spectrum_figure(values, shares, below=0.9, above=0.1)
    assert any("nodes of a quadrature" in text.get_text() for text in figure.axes[0].texts)
    line, _ = curves(figure)
    assert line[int((line[:, 0] < 1).sum()), 1] == pytest.approx(90)


def test_zeros_and_tiny_values_join_the_first_bin():
    figure = spectrum_figure(torch.tensor([[0.0, 1e-12, 1.0, 1.0]]), below=0.5, above=0)
    histogram = figure.axes[0].patches[0].get_data()
    assert histogram.values[0] == pytest.approx(50)
    assert any("first bin" in text.get_text() for text in figure.axes[0].texts)


def test_vectors():
    images = torch.full((2, 3, 4, 4), 0.5)
    right = torch.zeros(2, 1, 3, 4, 4)
    right[:, :, 0, 0, 0] = -1
    figure = vectors_figure(images, right, 2 * right, torch.tensor([[3.0], [0.25]]), ["a", "b"])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["clean", "1: input", "1: output"]
    assert [figure.axes[k].get_xlabel() for k in (2, 5)] == ["× 3", "× 0.25"]
    for axes in figure.axes[1:3]:
        shown = axes.images[0].get_array()
        assert shown[0, 0].tolist() == pytest.approx([0, 0.5, 0.5])
        assert shown[1:].min() == shown.max() == 0.5
