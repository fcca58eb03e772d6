"""What holds for every figure: it can be read, also in grey, and it refuses what it cannot draw."""

from __future__ import annotations

import io
import sys
from itertools import combinations

import matplotlib
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from lit_purify.figures import (
    Curve,
    CurvePoint,
    MeasuredPoint,
    attack_loss_figure,
    base_curve_figure,
    distance_figure,
    gradient_norm_figure,
    image_grid,
    magnitude_figure,
    sigmoid_figure,
    spectrum_figure,
    trajectory_figure,
    variance_figure,
    vectors_figure,
)
from lit_purify.paper import PAPER_ATTACKED, PAPER_CENTROID, PAPER_DIRECTION, paper_fit
from lit_purify.types import Estimate

UP_AND_DOWN = [0, 25, 50, 75, 100, 75, 50, 25, 0]
LOSSES = torch.tensor([[0.1, 0.5, 2.0, 2.5], [0.2, 0.8, 1.0, torch.nan]])


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def shares(*values):
    return [Estimate(value, max(0, value - 0.1), min(1, value + 0.1)) for value in values]


def base_curve(count=4):
    curve = [CurvePoint(*pair) for pair in zip((0, 0.5, 1), shares(0.9, 0.3, 0), strict=True)]
    names = [f"DDPM, t* = {number}" for number in range(count)]
    points = zip((0.2, 0.4, 0.6, 0.9), shares(0.7, 0.4, 0.2, 0), names, strict=False)
    return base_curve_figure(curve, [CurvePoint(*point) for point in points], eps=8 / 255)


def distances(steps=UP_AND_DOWN):
    levels = ("attack", *(f"uniform {k}/255" for k in (8, 16, 32, 64, 128)))
    values = 5 * random(len(levels), 4, 2, len(steps))
    curves = zip(levels, values, len(levels) * [PAPER_ATTACKED["ddpm"]], strict=True)
    return distance_figure([Curve(*curve) for curve in curves], steps)


def grid():
    images = random(3, 3, 8, 8)
    columns = {"clean": images, "purified adversarial": images, "difference": images - 0.5}
    return image_grid(columns, ["cat:\ncat → dog", "automobile:\nautomobile → automobile", "a"])


def law(draw=sigmoid_figure, **more):
    estimates = shares(0.2, 0.5, 0.8)
    points = [
        MeasuredPoint(method, 10 + number, estimates[number], estimates[2 - number], estimates[0])
        for number, method in enumerate(("DDPM", "Reverse", "Blur"))
    ]
    return draw(points, **more)


def trajectory(steps=UP_AND_DOWN):
    states = [(f"t = {t}", image) for t, image in zip(steps, random(9, 3, 8, 8), strict=False)]
    curves = {"clean": steps, "attacked": [1 + t for t in steps]}
    return trajectory_figure(states, curves, steps)


def variance(**more):
    columns = {name: [value, 1.1 * value] for name, value in PAPER_CENTROID.items()}
    columns |= {name: [value, value] for name, value in PAPER_DIRECTION.items()}
    return variance_figure(columns, inputs=8, draws=8, **more)


def vectors():
    images, pictures = random(2, 3, 8, 8), random(2, 2, 3, 8, 8)
    return vectors_figure(images, pictures, pictures, random(2, 2), ["image 0", "image 1000"])


def gradient(steps=UP_AND_DOWN):
    return gradient_norm_figure(0.1 + random(9, len(steps)), steps)


FIGURES = {
    "attack_loss": lambda: attack_loss_figure(LOSSES),
    "base_curve": base_curve,
    "base_curve alone": lambda: base_curve(count=0),
    "distances": distances,
    "distances, reverse only": lambda: distances([10, 5, 0]),
    "distances, without steps": lambda: distances([0, 0]),
    "gradient_norm": gradient,
    "gradient_norm, one shot": lambda: gradient([0, 100, 50, 0]),
    "gradient_norm, without steps": lambda: gradient([0, 0]),
    "gradient_norm, all zero": lambda: gradient_norm_figure(torch.zeros(2, 3), [0, 9, 0]),
    "grid": grid,
    "magnitude": lambda: law(magnitude_figure),
    "sigmoid": lambda: law(fit=paper_fit(), base_clean=0.94),
    "sigmoid of the paper": lambda: sigmoid_figure([], paper=paper_fit(free_ceiling=True)),
    "sigmoid, empty": lambda: sigmoid_figure([]),
    "spectrum": lambda: spectrum_figure(random(3, 50), below=0.25, above=0),
    "spectrum of one image": lambda: spectrum_figure(random(1, 2), random(1, 2), below=1, above=0),
    "trajectory": trajectory,
    "trajectory, reverse only": lambda: trajectory([10, 5, 0]),
    "variance": lambda: variance(paper=True),
    "vectors": vectors,
}
GREY = ("attack_loss", "gradient_norm", "gradient_norm, one shot")


@pytest.fixture(scope="module", params=FIGURES)
def figure(request):
    return FIGURES[request.param]()


def test_every_text_is_on_the_canvas_and_on_no_other(figure, monkeypatch):
    drawn, draw = [], Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, to: (drawn.append(text), draw(text, to)))
    figure.canvas.draw()
    shown = [text for text in set(drawn) if text.get_visible() and text.get_text().strip()]
    boxes = {text: text.get_window_extent().padded(-0.5) for text in shown}
    width, height = figure.canvas.get_width_height()
    for text, box in boxes.items():
        inside = box.xmin >= 0 and box.ymin >= 0 and box.xmax <= width and box.ymax <= height
        assert inside, f"{text} leaves the canvas"
        assert text.get_fontsize() >= 7
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), f"{one} lies on {other}"


def test_it_can_be_saved_and_read_in_grey(figure):
    figure.savefig(file := io.BytesIO())
    low, high = Image.open(file).convert("L").getextrema()
    assert low < 64 < 192 < high


def fill(line):
    return line.get_fillstyle(), line.get_markerfacecolor() == "none"


def test_curves_can_be_told_without_colour(figure):
    for axes in figure.axes:
        named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        looks = {
            (str(line._dash_pattern), line.get_linewidth(), line.get_marker(), fill(line))
            for line in named
        }
        assert len(looks) == len(named)


def test_axes_have_names(figure):
    for axes in figure.axes:
        told_apart = axes.get_xticklabels()[0].get_text() if axes.get_xticklabels() else ""
        assert axes.images or axes.get_xlabel() or told_apart.startswith("the inputs")
        assert axes.images or axes.get_ylabel()


@pytest.mark.parametrize("name", GREY)
def test_what_needs_no_colour_has_none(name):
    FIGURES[name]().savefig(file := io.BytesIO())
    red, green, blue = Image.open(file).convert("RGB").split()
    assert red.tobytes() == green.tobytes() == blue.tobytes()


def test_no_global_state():
    before = dict(matplotlib.rcParams)
    for draw in FIGURES.values():
        draw()
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("draw", "keyword"),
    [
        (lambda: attack_loss_figure(torch.ones(3)), "losses"),
        (lambda: base_curve_figure([], eps=0.1), "points"),
        (lambda: base_curve_figure([CurvePoint(1, Estimate(0, 0, 0))], eps=0.0), "budget"),
        (lambda: distance_figure([], UP_AND_DOWN), "curves"),
        (lambda: distance_figure([Curve("attack", torch.ones(0, 2, 3))], [0, 1, 0]), "shape"),
        (lambda: distance_figure([Curve("attack", torch.ones(1, 2, 4))], [0, 1, 0]), "shape"),
        (lambda: gradient_norm_figure(torch.ones(3, 4), UP_AND_DOWN), r"\(N, 9\)"),
        (lambda: gradient_norm_figure(torch.ones(0, 9), UP_AND_DOWN), r"\(N, 9\)"),
        (lambda: gradient_norm_figure(torch.ones(9), UP_AND_DOWN), r"\(N, 9\)"),
        (lambda: image_grid({}), "B, 3, H, W"),
        (lambda: image_grid({"x": torch.ones(3, 8, 8)}), "B, 3, H, W"),
        (lambda: image_grid({"x": random(3, 3, 8, 8), "y": random(2, 3, 8, 8)}), "B, 3, H, W"),
        (lambda: image_grid({"x": random(3, 3, 8, 8)}, ["a", "b"]), "labels"),
        (lambda: spectrum_figure(torch.ones(3), below=0, above=0), "shape"),
        (lambda: spectrum_figure(torch.zeros(1, 3), below=1, above=0), "above 0"),
        (lambda: trajectory_figure([("x", random(3, 8, 8))], {"x": [0, 1]}, [0, 1, 0]), "steps"),
        (lambda: trajectory_figure([], {}, [0, 1, 0]), "states"),
        (lambda: variance_figure({"centroid/l2_both": [None]}, inputs=2, draws=2), "images"),
        (
            lambda: vectors_figure(
                random(2, 3, 4, 4), torch.ones(1), torch.ones(1), torch.ones(2, 1), []
            ),
            "together",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, keyword):
    with pytest.raises(ValueError, match=keyword):
        draw()
