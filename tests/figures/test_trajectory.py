import torch

from lit_purify.figures import trajectory_figure

IMAGE = torch.full((3, 8, 8), 0.5)


def test_up_and_down():
    states = [(f"t = {t}", IMAGE) for t in (0, 4, 0)]
    steps = [0, 1, 2, 3, 4, 2, 0]  # a respaced way back
    curves = {"clean": [0.0, 1, 2, 3, 4, 3, 2], "attacked": [1.0, 2, 3, 4, 5, 4, 3]}
    *strip, plot = trajectory_figure(states, curves, steps).axes
    assert [axes.get_xlabel() for axes in strip] == ["t = 0", "t = 4", "t = 0"]
    assert [list(line.get_ydata()) for line in plot.lines] == list(curves.values())
    assert list(plot.lines[0].get_xdata()) == [0, 1, 2, 3, 4, 6, 8]
    ticks = [label.get_text() for label in plot.get_xticklabels()]
    assert ticks == ["0", "1", "2", "3", "4", "3", "2", "1", "0"]
    labels = [text.get_text() for text in plot.get_legend().get_texts()]
    assert labels[1] == "attacked (largest 5.00, end 3.00)"
