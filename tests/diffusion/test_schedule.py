"""The noise schedule and its respacing."""

import itertools

import pytest
import torch
from diffusers import DDPMScheduler
from oracles import ALPHA_BAR

from lit_purify.diffusion import LinearSchedule
from lit_purify.types import InputError


def test_alpha_bar_is_that_of_diffusers() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    alpha_bar = LinearSchedule().alpha_bar
    assert alpha_bar.dtype == torch.float64
    assert alpha_bar.shape == (1001,)
    assert alpha_bar[0] == 1
    # diffusers multiplies in float32: each factor and each product is off by 2**-24 at most,
    # and a beta by about that much.
    steps = torch.arange(1, 1001)
    error = (scheduler.alphas_cumprod.double() / alpha_bar[1:] - 1).abs()
    assert (error <= 3 * steps * 2**-24).all()


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
    assert len(visited) == num_steps
    assert visited[-1] == t_star
    assert visited[0] >= 1
    assert all(a < b for a, b in itertools.pairwise(visited))
    ends = schedule.alpha_bar[[0, *visited]]
    alphas = ends[1:] / ends[:-1]
    assert ((alphas > 0) & (alphas < 1)).all()
    torch.testing.assert_close(alphas.prod(), schedule.alpha_bar[t_star], rtol=1e-13, atol=0)


def test_every_step_by_default() -> None:
    assert LinearSchedule().timesteps(5) == [1, 2, 3, 4, 5]
    assert LinearSchedule().timesteps(5, 5) == [1, 2, 3, 4, 5]
    assert LinearSchedule().timesteps(7, 1) == [7]
    for t_star in range(1, 60):
        for num_steps in range(1, t_star + 1):
            visited = LinearSchedule().timesteps(t_star, num_steps)
            assert len(set(visited)) == num_steps
            assert visited == sorted(visited)
            assert min(visited) >= 1
            assert max(visited) == t_star


@pytest.mark.parametrize("t_star", [0, -1, 1001])
def test_depths_outside_the_schedule_are_refused(t_star: int) -> None:
    with pytest.raises(InputError, match=f"between 1 and 1000.*got {t_star}"):
        LinearSchedule().timesteps(t_star)


@pytest.mark.parametrize("num_steps", [0, -1, 11])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(InputError, match=f"between 1 and t_star = 10, got {num_steps}"):
        LinearSchedule().timesteps(10, num_steps)


@pytest.mark.parametrize(
    "arguments",
    [{"num_train_steps": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"beta_start": 0.03}],
)
def test_impossible_schedules_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected|at least"):
        LinearSchedule(**arguments)  # type: ignore[arg-type]
