"""EDM's preconditioning on a variance-preserving chain: noise levels, limits, derivatives."""

import copy
import math
import pickle

import pytest
import torch
from oracles import ALPHA_BAR, assert_exact, some_images
from torch import Tensor, nn
from unets import small_edm as small

from lit_purify.diffusion import (
    AdaptiveFlowPurifier,
    CosineSchedule,
    DDIMSampler,
    DiffusionPurifier,
    EDMDenoiser,
    EDMSampler,
    FixedNoise,
    KarrasSchedule,
    LinearSchedule,
)
from lit_purify.types import InputError


class Optimal(nn.Module):
    """What F must give for D to be the best denoiser of data of standard deviation s, mean 0.

    D(x; sigma) = s^2 / (s^2 + sigma^2) x, and F = (D - c_skip x) / c_out.
    """

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = s
        self.config = {"in_channels": 3, "block_out_channels": (1,)}
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, scaled: Tensor, labels: Tensor) -> Tensor:
        self.seen.append((scaled, labels))
        sigma = (4 * labels).exp().view(-1, 1, 1, 1)
        x = scaled * (sigma**2 + 0.25).sqrt()
        best = self.s**2 / (self.s**2 + sigma**2) * x
        return (best - 0.25 / (sigma**2 + 0.25) * x) / (sigma / 2 / (sigma**2 + 0.25).sqrt())


SCHEDULES = [LinearSchedule(), CosineSchedule(1000), KarrasSchedule(1000)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("s", [0.5, 0.3])
def test_the_best_denoiser_gives_the_best_noise(schedule: object, s: float) -> None:
    r"""For x_0 ~ N(0, s^2), E[eps | x_t] = sqrt(1 - abar) x_t / (abar s^2 + 1 - abar)."""
    denoiser = EDMDenoiser(Optimal(s), schedule=schedule)
    x = some_images(3) * 4 - 2
    t = torch.tensor([1, 40, 700])
    alpha_bar = schedule.alpha_bar[t].view(-1, 1, 1, 1)
    want = (1 - alpha_bar).sqrt() * x / (alpha_bar * s**2 + 1 - alpha_bar)
    torch.testing.assert_close(denoiser(x, t), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cast", ["half", "float", "double"])
def test_a_step_is_told_by_its_exact_noise_level(cast: str) -> None:
    """Whatever the type of the weights, before or after a copy or a change of schedule."""
    network = Optimal(0.5)
    denoiser = getattr(EDMDenoiser(network), cast)()
    for model in (denoiser, copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        for t in (1, 100, torch.tensor([100, 900])):
            model(torch.zeros(2, 3, 4, 4), t)
            alpha_bar = torch.from_numpy(ALPHA_BAR)[t].reshape(-1)
            want = 0.125 * ((1 - alpha_bar) / alpha_bar).log()
            _, labels = model.network.seen[-1]
            torch.testing.assert_close(labels, want.expand(2), rtol=0, atol=1e-12)
    denoiser.schedule = KarrasSchedule(18)
    denoiser(torch.ones(2, 3, 4, 4), 18)
    scaled, labels = network.seen[-1]
    torch.testing.assert_close(labels.exp(), torch.full((2,), 80**0.25).double())
    expected = torch.full_like(scaled, math.sqrt(6401 / 6400.25))
    torch.testing.assert_close(scaled, expected)


def test_the_unconditional_answer_of_a_conditional_network_is_its_bias() -> None:
    denoiser = small(num_classes=10)
    x = some_images(2).float()
    before = denoiser(x, 50)
    with torch.no_grad():
        denoiser.network.classes.weight.add_(1)
        denoiser.network.augmentations.weight.add_(1)
        assert torch.equal(denoiser(x, 50), before)
        denoiser.network.classes.bias.add_(1)
        assert not torch.allclose(denoiser(x, 50), before)


@pytest.mark.parametrize(
    ("schedule", "t_star", "message"),
    [
        (LinearSchedule(), 931, r"step 931 .*sigma = 80\.\d.* between 1 and 930"),
        (LinearSchedule(10, 1e-7, 1e-6), 5, "sigma = 0.000316.* between 9 and 10"),
        (LinearSchedule(2, 1e-9, 1e-9), 1, "give the denoiser another schedule"),
    ],
)
def test_noise_levels_that_it_was_not_made_for(
    schedule: LinearSchedule, t_star: int, message: str
) -> None:
    denoiser = small(seed=None)
    denoiser.schedule = schedule
    with pytest.raises(InputError, match=message):
        DiffusionPurifier(denoiser, t_star=t_star)


def test_all_levels_of_edms_own_schedule_are_known() -> None:
    denoiser = small(seed=None)
    denoiser.schedule = KarrasSchedule(40)
    assert DiffusionPurifier(denoiser, t_star=40).settings()["schedule"] == str(KarrasSchedule(40))


def test_ddim_on_its_schedule_is_edms_euler_method() -> None:
    """x + (sigma_s - sigma_t) (x - D) / sigma_t (Alg. 1 without line 7), on unscaled states."""
    denoiser = EDMDenoiser(Optimal(0.4), schedule=KarrasSchedule(6))
    sampler = DDIMSampler(clip=False)
    purifier = DiffusionPurifier(
        denoiser, t_star=5, forward_process="one_shot", sampler=sampler
    ).double()
    images, indices = some_images(2), torch.arange(2)
    _, noised, *found = purifier.trajectory(images, FixedNoise(3), indices)
    root = 7.0
    grid = [
        (0.002 ** (1 / root) + k / 5 * (80 ** (1 / root) - 0.002 ** (1 / root))) ** root
        for k in range(5)
    ]
    x = (2 * noised.image - 1) * math.sqrt(1 + grid[-1] ** 2)
    for state, sigma, lower in zip(found, grid[::-1], [*grid[-2::-1], 0.0], strict=True):
        x = x + (lower - sigma) * (x - 0.16 / (0.16 + sigma**2) * x) / sigma
        want = (x / math.sqrt(1 + lower**2) + 1) / 2
        torch.testing.assert_close(state.image, want, rtol=0, atol=1e-10)


def test_the_gradient_through_a_chain_is_exact() -> None:
    denoiser = small(num_classes=3).double()
    purifier = DiffusionPurifier(denoiser, t_star=100, num_steps=3, memory_budget_gib=0)
    assert_exact(purifier, some_images(2), 5, torch.tensor([4, 9]))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    purifier = DiffusionPurifier(small().double(), t_star=60, num_steps=2)
    images, noise, indices = some_images(3), FixedNoise(1), torch.arange(3)
    together = purifier.purify(images, noise, indices)
    alone = purifier.purify(images[1:2], noise, indices[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_compiled_step_is_the_same() -> None:
    purifier = DiffusionPurifier(small().double(), t_star=60, num_steps=2)
    images, noise, indices = some_images(2), FixedNoise(1), torch.arange(2)
    want = purifier.purify(images, noise, indices)
    purifier.compile_step(backend="aot_eager")
    torch.testing.assert_close(purifier.purify(images, noise, indices), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"model_channels": 0}, "model_channels is 0"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_augmentations": -1}, "num_augmentations is -1"),
        ({"attention_levels": (2,)}, "attention_levels"),
        ({"image_size": 9}, "multiple of 2"),
    ],
)
def test_impossible_sizes(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**sizes)


@pytest.mark.parametrize(
    "wrong", [(1,), (18, 0.0), (18, 2.0, 1.0), (18, 0.1, math.inf), (18, 0.1, 1.0, 0.0)]
)
def test_impossible_noise_levels(wrong: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        KarrasSchedule(*wrong)


def test_between_steps_the_noise_level_is_that_of_the_ode() -> None:
    """A solver that chooses its steps takes -ln abar for linear in t, which the network is told."""
    network = Optimal(0.5)
    denoiser = EDMDenoiser(network)
    x = torch.zeros(3, 3, 4, 4, dtype=torch.float64)
    denoiser(x, torch.tensor([1.0, 40.25, 1000.0], dtype=torch.float64))
    log = torch.from_numpy(ALPHA_BAR).log()
    want = torch.stack([log[1], 0.75 * log[40] + 0.25 * log[41], log[1000]])
    _, labels = network.seen[-1]
    torch.testing.assert_close(labels, ((-want).expm1().log() / 8), rtol=0, atol=1e-12)


def test_its_probability_flow_is_the_closed_form_by_an_adaptive_solver() -> None:
    """Data of standard deviation s are scaled by sqrt(m_1 / m_t*), m_t = abar s^2 + 1 - abar."""
    s, t_star = 0.4, 300
    purifier = AdaptiveFlowPurifier(
        EDMDenoiser(Optimal(s)), t_star=t_star, rtol=1e-10, atol=1e-10
    ).double()
    images, indices = some_images(2), torch.arange(2)
    _, start, found, _ = purifier.trajectory(images, FixedNoise(3), indices)
    m_1, m_star = (ALPHA_BAR[t] * s**2 + 1 - ALPHA_BAR[t] for t in (1, t_star))
    want = ((2 * start.image - 1) * math.sqrt(m_1 / m_star) + 1) / 2
    assert (found.process, found.t) == ("reverse", 1)
    torch.testing.assert_close(found.image, want, rtol=0, atol=1e-8)


def test_its_stochastic_sampler_is_algorithm_2() -> None:
    """The denoiser's own noise levels, between the steps of the schedule too."""
    s, churn, steps = 0.4, 3.0, 10
    purifier = DiffusionPurifier(
        EDMDenoiser(Optimal(s)),
        t_star=300,
        num_steps=steps,
        forward_process="none",
        sampler=EDMSampler(s_churn=churn),
    ).double()
    images, noise, indices = some_images(2), FixedNoise(3), torch.arange(2)
    visited = [0, *purifier.timesteps]
    sigmas = [math.sqrt((1 - ALPHA_BAR[t]) / ALPHA_BAR[t]) for t in visited]
    y = (2 * images - 1) / math.sqrt(ALPHA_BAR[300])
    for t, low, high in zip(visited[:0:-1], sigmas[-2::-1], sigmas[:0:-1], strict=True):
        raised = (1 + churn / steps) * high
        y = y + math.sqrt(raised**2 - high**2) * noise.normal(indices, "reverse", t, like=y)
        slope = raised * y / (s**2 + raised**2)
        z = y + (low - raised) * slope
        if low > 0:
            slope = (slope + low * z / (s**2 + low**2)) / 2
        y = y + (low - raised) * slope
    found = purifier.purify(images, noise, indices)
    torch.testing.assert_close(found, (y + 1) / 2, rtol=0, atol=1e-12)
