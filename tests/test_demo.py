"""``make demo``: what it shows, and what it costs, counted instead of timed."""

import pytest
import tiny
import yaml

from lit_purify import embedded_denoiser, embedded_resnet18
from lit_purify.diffusion.memory import count_operations
from lit_purify.modules.protocols import ATTACK_NOISE, PROTOCOLS

CONFIG = yaml.safe_load((tiny.CONFIGS / "demo.yaml").read_text())
MODEL, ATTACK, DATA = (CONFIG[part]["init_args"] for part in ("model", "attack", "data"))

SECONDS = 160
"""Three minutes without the start, the tests and the pictures."""
OPERATIONS_PER_SECOND = 2 * 75e9
"""Two AVX2 cores at three fifths of their peak at 4 GHz (32 operations a cycle)."""


def test_the_demo_shows_every_row_of_the_readme_under_the_whole_attack():
    assert set(MODEL["protocols"]) == set(PROTOCOLS) - {"blind"}
    assert DATA["limit"] >= 32
    assert ATTACK["eps"] == "8/255"
    assert ATTACK["steps"] == 40
    # `transfer` tests images after the last iteration; stopped early they would transfer less.
    assert "early_stop" not in ATTACK


@pytest.mark.slow
def test_the_attacks_of_the_demo_take_less_than_three_minutes_of_arithmetic():
    shape = (3, 32, 32)
    step = sum(
        count_operations(embedded_denoiser(), shape, MODEL["purifier"]["init_args"]["t_star"])
    )
    classifier = sum(count_operations(embedded_resnet18(), shape))
    chain = MODEL["purifier"]["init_args"]["num_steps"] * step
    surfaces = {PROTOCOLS[name].surface for name in MODEL["protocols"]}
    purified = sum(ATTACK_NOISE[surface] is not None for surface in surfaces)
    iteration = len(surfaces) * classifier + purified * chain
    operations = DATA["limit"] * ATTACK["steps"] * iteration
    assert operations <= SECONDS * OPERATIONS_PER_SECOND
