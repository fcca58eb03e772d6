"""What holds for every figure: it can be read, also in grey, and it refuses what it cannot draw."""

from __future__ import annotations

import io
import math
import sys
from itertools import combinations

import matplotlib
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from lit_purify import figures
from lit_purify.figures import Curve, CurvePoint, MeasuredPoint
from lit_purify.paper import PAPER_ATTACKED, PAPER_CENTROID, PAPER_DIRECTION, paper_fit
from lit_purify.types import Estimate

UP_AND_DOWN = [0, 25, 50, 75, 100, 75, 50, 25, 0]
SHARES = [Estimate(0.9, 0.8, 1), Estimate(0.4, 0.3, 0.6), Estimate(0.02, 0, 0.1)]
LAW = [
    MeasuredPoint(name, 10, share, share, SHARES[1])
    for name, share in zip(("DDPM", "Reverse", "Blur"), SHARES, strict=True)
]
DEPTHS = [point._replace(t_star=t) for point in LAW for t in (10, 20, 150, 200, 300)]
BARS = {
    name: figures.Bar(share, 0.02)
    for name, share in zip(("clean images", "fixed noise", "fresh noise"), SHARES, strict=True)
}
COLUMNS = {name: [mean, 1.1 * mean] for name, mean in (PAPER_CENTROID | PAPER_DIRECTION).items()}


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def base_curve(count):
    rates = (0.1, 0.5, 1)
    points = [CurvePoint(*each, "DDPM, t* = 10") for each in zip(rates, SHARES, strict=True)]
    return figures.base_curve_figure(points, points[:count], eps=8 / 255)


def distances(steps):
    labels = ("attack", *(f"uniform {k}/255" for k in (8, 16, 32, 64, 128)))
    values = random(4, 2, len(steps))
    curves = [Curve(label, n * values, PAPER_ATTACKED["ddpm"]) for n, label in enumerate(labels)]
    return figures.distance_figure(curves, steps)


def gradient(steps):
    return figures.gradient_norm_figure(0.1 + random(9, len(steps)), steps)


def trajectory(steps):
    states = [(f"t = {t}", random(3, 8, 8)) for t in steps]
    curves = {"clean": steps, "attacked": [1 + t for t in steps]}
    return figures.trajectory_figure(states, curves, steps)


def spectrum(values, shares=None):
    return figures.spectrum_figure(values, shares, below=0.9, above=0.01)


def vectors(*shape):
    pictures = random(2, 2, 3, 8, 8)
    return figures.vectors_figure(random(*shape), pictures, pictures, random(2, 2), ["1", "1000"])


IMAGES = random(2, 3, 8, 8)
GRID = {"clean": IMAGES, "purified adversarial": IMAGES, "difference": IMAGES - 0.5}
FIGURES = {
    "attack": lambda: figures.attack_figure({"fixed": 9 * SHARES, "Purified (fresh)": SHARES}, 9),
    "attack_loss": lambda: figures.attack_loss_figure(random(5, 9)),
    "base_curve": lambda: base_curve(3),
    "base_curve alone": lambda: base_curve(0),
    "budgets": lambda: figures.budgets_figure({2: LAW, 8: LAW[:2]}, {8: paper_fit()}, paper_fit()),
    "certified": lambda: figures.certified_figure(
        [0.6, math.nan, 0.2, 0.6, 0.4], largest=0.6, sigma=0.25, n=1000, named={0.0: SHARES[0]}
    ),
    "certified, none": lambda: figures.certified_figure([math.nan], largest=0.6, sigma=1, n=99),
    "depth": lambda: figures.depth_figure(DEPTHS, paper=True),
    "distances": lambda: distances(UP_AND_DOWN),
    "distances, reverse only": lambda: distances([10, 5, 0]),
    "distances, without steps": lambda: distances([0, 0]),
    "gradient_norm": lambda: gradient(UP_AND_DOWN),
    "gradient_norm, one shot": lambda: gradient([0, 100, 50, 0]),
    "gradient_norm, all zero": lambda: figures.gradient_norm_figure(torch.zeros(2, 2), [0, 0]),
    "grid": lambda: figures.image_grid(GRID, ["a", "automobile:\nautomobile → automobile"]),
    "magnitude": lambda: figures.magnitude_figure(LAW),
    "protocols": lambda: figures.protocols_figure({"DDPM\nt* = 10": BARS, "Blur": BARS}),
    "sigmoid": lambda: figures.sigmoid_figure(LAW, paper_fit(), base_clean=0.94),
    "sigmoid of the paper": lambda: figures.sigmoid_figure([], paper=paper_fit(free_ceiling=True)),
    "sigmoid, empty": lambda: figures.sigmoid_figure([]),
    "spectrum": lambda: spectrum(random(3, 50)),
    "spectrum by quadrature": lambda: spectrum(random(1, 2), random(1, 2)),
    "trajectory": lambda: trajectory(UP_AND_DOWN),
    "trajectory, reverse only": lambda: trajectory([10, 5, 0]),
    "variance": lambda: figures.variance_figure(COLUMNS, inputs=8, draws=8, paper=True),
    "vectors": lambda: vectors(2, 3, 8, 8),
}


@pytest.fixture(scope="module", params=FIGURES)
def figure(request):
    return FIGURES[request.param]()


def test_every_text_is_on_the_canvas_and_on_no_other(figure, monkeypatch):
    drawn, draw = set(), Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, to: (drawn.add(text), draw(text, to)))
    figure.canvas.draw()
    shown = [text for text in drawn if text.get_visible() and text.get_text().strip()]
    boxes = {text: text.get_window_extent().padded(-0.5) for text in shown}
    for text, box in boxes.items():
        assert figure.bbox.contains(*box.min), f"{text} leaves the canvas"
        assert figure.bbox.contains(*box.max), f"{text} leaves the canvas"
        assert text.get_fontsize() >= 7
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), f"{one} lies on {other}"


def test_it_can_be_saved_and_read_in_grey(figure):
    figure.savefig(file := io.BytesIO())
    low, high = Image.open(file).convert("L").getextrema()
    assert low < 64 < 192 < high
    for axes in figure.axes:
        named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert len({look_without_colour(line) for line in named}) == len(named)


def look_without_colour(line):
    hollow = line.get_markerfacecolor() == "none"
    size = line.get_linewidth()
    return str(line._dash_pattern), size, line.get_marker(), line.get_fillstyle(), hollow


def test_axes_have_names(figure):
    for axes in figure.axes:
        assert axes.images or (axes.get_xlabel() and axes.get_ylabel())


def test_no_global_state():
    before = dict(matplotlib.rcParams)
    base_curve(3)
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("draw", "keyword"),
    [
        (lambda: figures.attack_figure({}, 1), "points"),
        (lambda: figures.attack_loss_figure(torch.ones(3)), "losses"),
        (lambda: figures.base_curve_figure([], eps=0.1), "points"),
        (lambda: figures.base_curve_figure([CurvePoint(1, SHARES[0])], eps=0.0), "budget"),
        (lambda: figures.certified_figure([], largest=1.0, sigma=1.0, n=9), "images"),
        (lambda: figures.distance_figure([], UP_AND_DOWN), "curves"),
        (lambda: figures.distance_figure([Curve("", torch.ones(0, 2, 3))], [0, 1, 0]), "shape"),
        (lambda: figures.distance_figure([Curve("", torch.ones(1, 2, 4))], [0, 1, 0]), "shape"),
        (lambda: figures.gradient_norm_figure(torch.ones(3, 4), UP_AND_DOWN), r"\(N, 9\)"),
        (lambda: figures.gradient_norm_figure(torch.ones(0, 9), UP_AND_DOWN), r"\(N, 9\)"),
        (lambda: figures.gradient_norm_figure(torch.ones(9), UP_AND_DOWN), r"\(N, 9\)"),
        (lambda: figures.image_grid({}), "B, 1 or 3, H, W"),
        (lambda: figures.image_grid({"x": IMAGES[0]}), "B, 1 or 3, H, W"),
        (lambda: figures.image_grid({"x": IMAGES, "y": IMAGES[:1]}), "B, 1 or 3, H, W"),
        (lambda: figures.image_grid({"x": IMAGES}, ["a"]), "labels"),
        (lambda: figures.protocols_figure({}), "bars"),
        (lambda: figures.protocols_figure({"a": {"other": BARS["fixed noise"]}}), "bars"),
        (lambda: spectrum(torch.ones(3)), "shape"),
        (lambda: spectrum(torch.zeros(1, 3)), "above 0"),
        (lambda: figures.trajectory_figure([("x", IMAGES[0])], {"x": [0]}, [1, 0]), "steps"),
        (lambda: figures.trajectory_figure([], {}, [0, 1, 0]), "states"),
        (lambda: figures.variance_figure({"a": [None]}, inputs=2, draws=2), "images"),
        (lambda: vectors(2, 3, 4, 4), "together"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, keyword):
    with pytest.raises(ValueError, match=keyword):
        draw()
