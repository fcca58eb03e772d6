"""The figure shows the means it was given; the paper's values stand only beside its own setting."""

from __future__ import annotations

import io

import pytest
import torch
from lit_purify.report.labels import OTHER, sections

from lit_purify.attacks import PGD, Uniform
from lit_purify.diffusion import PRESETS
from lit_purify.report.distance_figure import Curve, distance_figure
from lit_purify.report.paper_distances import ATTACKED, UNIFORM, paper_distances

STEPS = [0, 5, 10, 5, 0]


def curve(label="attack", *, n=3, states=5, paper=None):
    generator = torch.Generator().manual_seed(0)
    return Curve(label, torch.rand(n, 2, states, generator=generator), paper)


def lines(axes, label):
    return [line for line in axes.lines if str(line.get_label()).startswith(label)]


def test_means_and_bands():
    given = curve()
    figure = distance_figure([given], STEPS)
    for row, axes in enumerate(figure.axes):
        (line,) = lines(axes, "attack")
        assert list(line.get_xdata()) == [0, 5, 10, 15, 20]  # the way travelled in t
        values = given.distances[:, row].double()
        assert list(line.get_ydata()) == pytest.approx(values.mean(0).tolist())
        (band,) = axes.collections
        corners = band.get_paths()[0].vertices
        spread = values.std(0)
        assert corners[:, 1].max() == pytest.approx((values.mean(0) + spread).max().item())
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "5", "10", "5", "0"]


def test_every_curve_can_be_told_without_colour():
    levels = [curve("attack"), *(curve(f"uniform {k}/255") for k in (8, 16, 32, 64, 128))]
    axes = distance_figure(levels, STEPS).axes[0]
    looks = {(str(line._dash_pattern), line.get_marker()) for line in axes.lines}
    assert len(looks) == len(levels)


def test_the_papers_values_are_crosses_where_known():
    given = [curve(paper=ATTACKED["ddpm"]), curve("uniform 8/255", paper=ATTACKED["reverse"])]
    axes = distance_figure(given, STEPS).axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    points = [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in crosses]
    assert points == [[(0, 1.077), (10, 8.980), (20, 3.646)], [(0, 1.149), (20, 3.078)]]


def test_without_the_papers_values_it_is_not_mentioned():
    figure = distance_figure([curve()], STEPS)
    assert "paper" not in "".join(text.get_text() for text in figure.legends[0].get_texts())


@pytest.mark.parametrize("steps", [[10, 5, 0], [0, 0], [0, 10, 0]])
def test_other_trajectories_can_be_drawn(steps):
    figure = distance_figure([curve(states=len(steps), n=1)], steps)
    figure.savefig(file := io.BytesIO())
    assert file.getvalue().startswith(b"\x89PNG")
    left, right = figure.axes[0].get_xlim()
    assert left < right


@pytest.mark.parametrize("bad", [[], [curve(n=0)], [curve(states=4)]])
def test_what_cannot_be_drawn_is_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        distance_figure(bad, STEPS)


def purifier(name="ddpm", **changes):
    preset = PRESETS[name]
    settings = {
        "t_star": 100,
        "forward_process": preset.forward_process,
        "sampler": type(preset.sampler).__name__,
        "sampler_options": dict(vars(preset.sampler)),
    }
    return settings | changes


@pytest.mark.parametrize("name", PRESETS)
def test_the_papers_setting_has_its_values(name):
    found = paper_distances(purifier(name), PGD(eps="8/255").settings(), {"distance": None})
    assert found == {"distance": ATTACKED[name]}


@pytest.mark.parametrize(
    ("chain", "attack"),
    [
        (purifier(t_star=50), PGD(eps="8/255")),
        (purifier(sampler_options={"variance": "fixed_large", "clip": False}), PGD(eps="8/255")),
        (purifier(forward_process="one_shot"), PGD(eps="8/255")),
        ({"purifier": "Blur"}, PGD(eps="8/255")),
        (purifier(), PGD(eps="4/255")),
        (purifier(), Uniform(eps="8/255")),
    ],
)
def test_another_setting_has_none(chain, attack):
    assert paper_distances(chain, attack.settings(), {"distance": None}) == {}


def test_uniform_levels():
    """l_inf at the start is the level: it tells which rows of Tables S3, S4 are which."""
    for level, values in UNIFORM.items():
        assert values.linf[0] == pytest.approx(level / 255, abs=5e-4)
        assert values.l2[0] == pytest.approx(level / 255 * 3072**0.5 / 3**0.5, rel=1e-3)
    names = {f"u{k}": k / 255 for k in (8, 16, 32, 64, 128)}
    found = paper_distances(purifier(), {}, names)
    assert found == {f"u{k}": UNIFORM[k] for k in (8, 32, 64, 128)}
    assert paper_distances(purifier("ddim"), {}, names) == {}


def test_labels():
    names = [f"distance_uniform_{k}/l2_end" for k in (128, 8, 25.5)]
    (rows,) = sections(["distance/l2_end", *names]).values()
    assert list(rows.items()) == [
        ("distance/l2_end", "l2 after purification"),
        ("distance_uniform_8/l2_end", "... uniform noise of 8/255"),
        ("distance_uniform_25.5/l2_end", "... uniform noise of 25.5/255"),
        ("distance_uniform_128/l2_end", "... uniform noise of 128/255"),
    ]
    alone = sections(names[:1])
    assert next(iter(alone.values()))[names[0]] == "l2 after purification, uniform noise of 128/255"
    assert OTHER in sections(["distance_uniform_x/l2_end", "distance_uniform_8/l2_end_too"])
