"""The noise schedule and its respacing."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from oracles import ALPHA_BAR, cosine_alpha_bar

from lit_purify.diffusion import CosineSchedule, LinearSchedule, Schedule
from lit_purify.types import InputError


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (LinearSchedule(), "linear"),
        (CosineSchedule(), "squaredcos_cap_v2"),
        (CosineSchedule(200), "squaredcos_cap_v2"),
    ],
)
def test_alpha_bar_is_that_of_diffusers(schedule: Schedule, name: Any) -> None:
    steps = schedule.num_train_steps
    scheduler = DDPMScheduler(num_train_timesteps=steps, beta_schedule=name)
    alpha_bar = schedule.alpha_bar
    assert alpha_bar.dtype == torch.float64
    assert alpha_bar.shape == (steps + 1,)
    assert alpha_bar[0] == 1
    # diffusers multiplies in float32: each factor and each product is off by 2**-24 at most,
    # and a beta by about that much. The last step of the cosine keeps a thousandth, 1 - 0.999,
    # in which that of a beta is a thousand times as much.
    last = torch.arange(1, steps + 1) == steps
    error = (scheduler.alphas_cumprod.double() / alpha_bar[1:] - 1).abs()
    bound = 3 * torch.arange(1, steps + 1) * 2**-24 + last * (name != "linear") * 1000 * 2**-24
    assert (error <= bound).all()


def test_the_squared_cosine_in_closed_form() -> None:
    """The factors telescope up to the last steps, which would leave nothing of the image."""
    alpha_bar = CosineSchedule(500).alpha_bar
    for t in range(490):
        assert alpha_bar[t].item() == pytest.approx(cosine_alpha_bar(t, 500), rel=1e-11)
    assert alpha_bar[500] / alpha_bar[499] == pytest.approx(0.001)


def test_alpha_bar_in_float64() -> None:
    torch.testing.assert_close(
        LinearSchedule().alpha_bar, torch.from_numpy(ALPHA_BAR), rtol=1e-13, atol=0
    )


def test_alpha_bar_of_other_lengths() -> None:
    alpha_bar = LinearSchedule(num_train_steps=2, beta_start=0.1, beta_end=0.5).alpha_bar
    torch.testing.assert_close(alpha_bar, torch.tensor([1, 0.9, 0.45], dtype=torch.float64))


@pytest.mark.parametrize(("t_star", "num_steps"), [(100, 20), (100, 7), (150, 11), (1000, 50)])
def test_respacing_keeps_alpha_bar(t_star: int, num_steps: int) -> None:
    schedule = LinearSchedule()
    visited = schedule.timesteps(t_star, num_steps)
    ends = schedule.alpha_bar[[0, *visited]]
    alphas = ends[1:] / ends[:-1]
    assert ((alphas > 0) & (alphas < 1)).all()
    torch.testing.assert_close(alphas.prod(), schedule.alpha_bar[t_star], rtol=1e-13, atol=0)


def test_every_step_by_default() -> None:
    assert LinearSchedule().timesteps(5) == [1, 2, 3, 4, 5]
    assert LinearSchedule().timesteps(5, 5) == [1, 2, 3, 4, 5]
    assert LinearSchedule().timesteps(7, 1) == [7]
    for t_star in (*range(1, 60), 150):
        for num_steps in range(1, t_star + 1):
            visited = LinearSchedule().timesteps(t_star, num_steps)
            assert len(set(visited)) == num_steps
            assert visited == sorted(visited)
            assert min(visited) >= 1
            assert max(visited) == t_star


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(40)])
def test_depths_outside_the_schedule_are_refused(schedule: Schedule) -> None:
    for t_star in (0, -1, schedule.num_train_steps + 1):
        with pytest.raises(InputError, match="t_star"):
            schedule.timesteps(t_star)


@pytest.mark.parametrize("num_steps", [0, -1, 11])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(InputError, match="num_steps"):
        LinearSchedule().timesteps(10, num_steps)


@pytest.mark.parametrize(
    "arguments",
    [{"num_train_steps": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"beta_start": 0.03}],
)
def test_impossible_schedules_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        LinearSchedule(**arguments)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(200)])
def test_steps_and_their_sigma(schedule: Schedule) -> None:
    last = schedule.num_train_steps
    sigmas = [schedule.sigma(t) for t in range(1, last + 1)]
    alpha_bar = schedule.alpha_bar[1:].numpy()
    assert sigmas == pytest.approx(np.sqrt(1 / alpha_bar - 1), rel=1e-9)
    assert [schedule.step_of(sigma) for sigma in sigmas] == list(range(1, last + 1))
    middle = (sigmas[50] + sigmas[51]) / 2
    assert [schedule.step_of(middle * factor) for factor in (0.999, 1.001)] == [51, 52]
    for sigma in (0.99 * sigmas[0], 1.01 * sigmas[-1], math.nan):
        with pytest.raises(InputError, match="schedule"):
            schedule.step_of(sigma)


def test_what_a_report_says() -> None:
    assert LinearSchedule().settings() == {"schedule": "linear, 1000 steps, beta 0.0001 to 0.02"}
    assert CosineSchedule().settings() == {"schedule": "squared cosine, 4000 steps"}
