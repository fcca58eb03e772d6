"""The chain against diffusers' schedulers and against eqs. 1-3, in float64, state by state."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from oracles import (
    ALPHA_BAR,
    ChosenNoise,
    TinyDenoiser,
    draws,
    reference_states,
    some_images,
)
from torch import Tensor

from lit_purify.diffusion import (
    PRESETS,
    DDIMSampler,
    DDPMSampler,
    DiffusionPurifier,
    FixedNoise,
    LinearSchedule,
    Sampler,
)
from lit_purify.types import InputError

INDICES = torch.tensor([3, 41])
SEED = 2


def in_float64(scheduler: Any, visited: list[int]) -> Any:
    """Diffusers computes its tables in float32; give it exact ones, for the visited steps only."""
    alpha_bar = torch.from_numpy(ALPHA_BAR)[visited]
    alphas = alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    scheduler.alphas_cumprod, scheduler.alphas, scheduler.betas = alpha_bar, alphas, 1 - alphas
    return scheduler


def visited_steps(num_steps: int | None) -> list[int]:
    """Every step: a scheduler of all 1000. Respaced: one of these steps alone."""
    return list(range(1, 1001)) if num_steps is None else LinearSchedule().timesteps(20, num_steps)


def compare(
    sampler: Sampler, denoiser: TinyDenoiser, num_steps: int | None, step: Any, visited: list[int]
) -> None:
    """Walk down with a scheduler's ``step(output, position, x, noise)`` beside the purifier."""
    purifier = DiffusionPurifier(denoiser, t_star=20, num_steps=num_steps, sampler=sampler)
    states = list(purifier.trajectory(some_images(2), FixedNoise(SEED), INDICES))
    chain = [state.image for state in states if state.process == "reverse"]
    (x,) = (2 * s.image - 1 for s in states if s.process == "forward" and s.t == 20)
    assert len(chain) == len(purifier.timesteps)
    for state, t in zip(chain, reversed(purifier.timesteps), strict=True):
        x = step(denoiser(x, t), visited.index(t), x, draws(SEED, INDICES, 2 * t + 1, x))
        torch.testing.assert_close(state, (x + 1) / 2, rtol=0, atol=1e-12)


def clips_some(denoiser: TinyDenoiser) -> bool:
    """Whether clipping the predicted clean image is put to the test at all."""
    x = 2 * some_images(2) - 1
    t = 20
    clean = (x - (1 - ALPHA_BAR[t]) ** 0.5 * denoiser(x, t)[:, :3]) / ALPHA_BAR[t] ** 0.5
    outside = (clean.abs() > 1).double().mean()
    return bool(0.02 < outside < 0.9)


@pytest.mark.parametrize("num_steps", [None, 20, 6])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_ddpm_is_that_of_diffusers(
    variance: Any, clip: bool, num_steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = TinyDenoiser(learns_variance=variance == "learned_range", scale=3)
    assert clips_some(denoiser)
    visited = visited_steps(num_steps)
    scheduler = in_float64(
        DDPMScheduler(num_train_timesteps=len(visited), variance_type=variance, clip_sample=clip),
        visited,
    )

    def step(output: Tensor, position: int, x: Tensor, noise: Tensor) -> Tensor:
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: noise)
        return scheduler.step(output, position, x).prev_sample

    compare(DDPMSampler(variance=variance, clip=clip), denoiser, num_steps, step, visited)


@pytest.mark.parametrize("num_steps", [None, 20, 6])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers(eta: float, clip: bool, num_steps: int | None) -> None:
    denoiser = TinyDenoiser(scale=3)
    assert clips_some(denoiser)
    visited = visited_steps(num_steps)
    scheduler = in_float64(
        DDIMScheduler(num_train_timesteps=len(visited), clip_sample=clip), visited
    )
    scheduler.set_timesteps(len(visited))

    def step(output: Tensor, position: int, x: Tensor, noise: Tensor) -> Tensor:
        return scheduler.step(
            output, position, x, eta=eta, variance_noise=noise if eta else None
        ).prev_sample

    compare(DDIMSampler(eta=eta, clip=clip), denoiser, num_steps, step, visited)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (DDPMSampler, {"variance": "fixed_large"}),
        (DDPMSampler, {"variance": "fixed_small"}),
        (DDPMSampler, {"variance": "learned_range"}),
        (DDIMSampler, {}),
        (DDIMSampler, {"eta": 0.5}),
    ],
)
@pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])
def test_the_whole_trajectory_is_eqs_1_to_3(
    sampler: Any, options: dict[str, Any], clip: bool, forward: Any
) -> None:
    purifier = DiffusionPurifier(
        TinyDenoiser(learns_variance="learned_range" in options.values(), scale=3),
        t_star=30,
        num_steps=7,
        forward_process=forward,
        sampler=sampler(clip=clip, **options),
    )
    states = list(purifier.trajectory(some_images(2), FixedNoise(SEED), INDICES))
    visited = LinearSchedule().timesteps(30, 7)
    noising = {"stepwise": visited, "one_shot": [30], "none": []}[forward]
    labels = [("forward", t) for t in [0, *noising]]
    labels += [("reverse", t) for t in [*visited[-2::-1], 0]]
    assert [(state.process, state.t) for state in states] == labels == purifier.depths
    want = reference_states(purifier, some_images(2), SEED, INDICES)
    for state, expected in zip(states, want, strict=True):
        torch.testing.assert_close(state.image, expected, rtol=0, atol=1e-12)
    assert torch.equal(purifier.purify(some_images(2), FixedNoise(SEED), INDICES), states[-1].image)


@pytest.mark.parametrize("forward", ["stepwise", "one_shot"])
@pytest.mark.parametrize("num_steps", [None, 13])
def test_the_noised_image_has_the_marginal_of_eq_1(forward: Any, num_steps: int | None) -> None:
    r"""It is sqrt(alpha_bar) x_0 + sum_k w_k z_k, and the squared weights sum to 1 - alpha_bar."""
    t_star = 100
    visited = LinearSchedule().timesteps(t_star, num_steps) if forward == "stepwise" else [t_star]
    chosen: Any = [("forward", t, 5) for t in visited]
    purifier = DiffusionPurifier(
        TinyDenoiser(), t_star=t_star, num_steps=num_steps, forward_process=forward
    )

    def noised(images: Tensor, noise: FixedNoise) -> Tensor:
        indices = torch.arange(len(images))
        for state in purifier.trajectory(images, noise, indices):
            if state.t == t_star:
                return 2 * state.image - 1
        raise AssertionError

    images = some_images(1).expand(len(chosen), -1, -1, -1)
    silent = noised(images, ChosenNoise())
    want = ALPHA_BAR[t_star] ** 0.5 * (2 * images - 1)
    torch.testing.assert_close(silent, want, rtol=0, atol=1e-13)
    weights = (noised(images, ChosenNoise(chosen)) - silent).flatten(1)
    assert (weights[:, 5] > 0).all()
    assert weights.count_nonzero() == len(chosen)
    variance = weights[:, 5].square().sum().item()
    assert variance == pytest.approx(1 - ALPHA_BAR[t_star], rel=1e-12)


@pytest.mark.parametrize(
    ("sampler", "draws_reverse"),
    [(DDPMSampler(), True), (DDIMSampler(), False), (DDIMSampler(eta=0.5), True)],
)
def test_the_draws_asked_for(sampler: Sampler, draws_reverse: bool) -> None:
    """t counts 1 .. t* on the full schedule, and the last step draws nothing."""
    noise = ChosenNoise()
    purifier = DiffusionPurifier(TinyDenoiser(), t_star=10, num_steps=5, sampler=sampler)
    purifier.purify(some_images(1), noise, torch.tensor([0]))
    want = {("forward", t) for t in (2, 4, 6, 8, 10)}
    if draws_reverse:
        want |= {("reverse", t) for t in (4, 6, 8, 10)}
    assert noise.asked == want  # type: ignore[attr-defined]


@pytest.mark.parametrize("preset", ["ddpm", "reverse", "ddim"])
def test_presets_are_the_papers(preset: Any) -> None:
    forward, sampler = PRESETS[preset]
    assert forward == ("none" if preset == "reverse" else "stepwise")
    assert isinstance(sampler, DDIMSampler if preset == "ddim" else DDPMSampler)
    assert sampler.draws_noise == (preset != "ddim")
    assert sampler.clip


@pytest.mark.parametrize(("side", "resize_to"), [(8, None), (6, 8), (12, 8)])
def test_clipping_the_output(side: int, resize_to: int | None) -> None:
    arguments: Any = {
        "t_star": 20,
        "num_steps": 4,
        "sampler": DDPMSampler(clip=False),
        "resize_to": resize_to,
    }
    noise, indices = FixedNoise(0), torch.arange(2)
    free = DiffusionPurifier(TinyDenoiser(scale=3), **arguments)
    bound = DiffusionPurifier(TinyDenoiser(scale=3), clip_output=True, **arguments)
    x = (3 * some_images(2, (3, side, side)) - 1).requires_grad_()
    output = free.purify(x, noise, indices)
    assert output.min() < 0
    assert output.max() > 1
    clipped = bound.purify(x, noise, indices)
    assert torch.equal(clipped, output.clamp(0, 1))
    within = ((output >= 0) & (output <= 1)).double()
    (want,) = torch.autograd.grad(output, x, within)
    (got,) = torch.autograd.grad(clipped.sum(), x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_outside_the_unit_interval_is_refused(eta: float) -> None:
    with pytest.raises(InputError, match="eta"):
        DDIMSampler(eta=eta)


@pytest.mark.parametrize("num_steps", [None, 1])
def test_a_learned_variance_needs_twice_the_channels(num_steps: int | None) -> None:
    sampler = DDPMSampler(variance="learned_range")
    purifier = DiffusionPurifier(TinyDenoiser(), t_star=5, num_steps=num_steps, sampler=sampler)
    with pytest.raises(InputError, match="6 output channels"):
        purifier.purify(some_images(1), FixedNoise(0), torch.tensor([0]))


@pytest.mark.parametrize("sampler", [DDPMSampler(), DDIMSampler(eta=0.5)])
def test_a_fixed_variance_ignores_the_learned_half(sampler: Sampler) -> None:
    class FirstHalf(TinyDenoiser):
        def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
            return super().forward(x_t, t)[:, :3]

    results = [
        DiffusionPurifier(kind(learns_variance=True), t_star=5, sampler=sampler).purify(
            some_images(1), FixedNoise(0), torch.tensor([0])
        )
        for kind in (TinyDenoiser, FirstHalf)
    ]
    assert torch.equal(*results)


def test_wrong_arguments_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="t_star"):
        DiffusionPurifier(TinyDenoiser(), t_star=1001)
    with pytest.raises(InputError, match="num_steps"):
        DiffusionPurifier(TinyDenoiser(), t_star=10, num_steps=11)
    with pytest.raises(InputError, match="indices"):
        DiffusionPurifier(TinyDenoiser(), t_star=5).purify(
            some_images(2), FixedNoise(0), torch.arange(3)
        )
