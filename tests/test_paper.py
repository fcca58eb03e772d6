"""The paper's values: printed twice alike, and beside no other setting than its own."""

from __future__ import annotations

import pytest

from lit_purify.attacks import PGD, Uniform
from lit_purify.diffusion import PRESETS
from lit_purify.paper import (
    PAPER_ATTACKED,
    PAPER_POINTS,
    PAPER_UNIFORM,
    paper_distances,
)


def test_each_point_is_there_once():
    assert len(PAPER_POINTS) == len({(point.method, point.t_star) for point in PAPER_POINTS}) == 15
    (left_out,) = [point for point in PAPER_POINTS if not point.used_in_fit]
    assert left_out[:4] == ("Reverse", 300, 0.200, 0.426)
    both = {point.method: point[2:4] for point in PAPER_POINTS if point.table == "6 and 7"}
    assert both == {"DDPM": (0.231, 0.237), "Reverse": (0.195, 0.349)}


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
    assert found == {"distance": PAPER_ATTACKED[name]}


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
    for level, values in PAPER_UNIFORM.items():
        assert values.linf[0] == pytest.approx(level / 255, abs=5e-4)
        assert values.l2[0] == pytest.approx(level / 255 * 3072**0.5 / 3**0.5, rel=1e-3)
    names = {f"u{k}": k / 255 for k in (8, 16, 32, 64, 128)}
    found = paper_distances(purifier(), {}, names)
    assert found == {f"u{k}": PAPER_UNIFORM[k] for k in (8, 32, 64, 128)}
    assert paper_distances(purifier("ddim"), {}, names) == {}
