"""Several rounds, and rounds guided to the input, against a plain loop in float64."""

from typing import Any

import pytest
import torch
from oracles import ALPHA_BAR, TinyDenoiser, budget_for, draws, some_images, ssim, waves
from torch import Tensor

from lit_purify.diffusion import (
    DDIMSampler,
    DDPMSampler,
    Denoiser,
    DiffusionPurifier,
    FixedNoise,
    GuidedPurifier,
    RepeatedPurifier,
    StackedNoise,
    derive_seed,
)
from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.diffusion.memory import memory_plan
from lit_purify.diffusion.recompute import activation_bytes
from lit_purify.types import InputError

INDICES = torch.tensor([5, 2])
SEED = 1
NOISE = FixedNoise(SEED)
ROUNDS: dict[str, Any] = {"rounds": [30, 30, 50], "num_steps": [3, 3, 2]}
VISITED = [[10, 20, 30], [10, 20, 30], [25, 50]]
GUIDANCE = 2000.0


def repeated(denoiser: Denoiser | None = None, **options: Any) -> RepeatedPurifier:
    return RepeatedPurifier(
        denoiser or TinyDenoiser(scale=3), **{**ROUNDS, "memory_budget_gib": 0.0, **options}
    )


def guided(denoiser: Denoiser | None = None, **options: Any) -> GuidedPurifier:
    return GuidedPurifier(
        denoiser or TinyDenoiser(scale=3),
        **{**ROUNDS, "guidance": GUIDANCE, "memory_budget_gib": 0.0, **options},
    )


def by_hand(
    images: Tensor,
    *,
    guidance: float = 0.0,
    clip: bool = True,
    detached: bool = False,
    similar: bool = False,
) -> list[Tensor]:
    """States of stepwise DDPM with the larger variance, in plain loops, [0, 1] scale."""
    denoiser, start = TinyDenoiser(scale=3), 2 * images - 1
    x, states = start, [images]

    def keep(x: Tensor) -> Tensor:
        states.append((x + 1) / 2)  # on the way of all that follows
        return 2 * states[-1] - 1

    for k, visited in enumerate(VISITED):
        seed = derive_seed(SEED, "round", k) if k else SEED
        past = 0
        for t in visited:
            alpha = ALPHA_BAR[t] / ALPHA_BAR[past]
            x = alpha**0.5 * x + (1 - alpha) ** 0.5 * draws(seed, INDICES, 2 * t, x)
            past = t
            x = keep(x)
        for t, s in zip(visited[::-1], [*visited[-2::-1], 0], strict=True):
            a, b = ALPHA_BAR[t], ALPHA_BAR[s]
            clean = (x - (1 - a) ** 0.5 * denoiser(x, t)) / a**0.5
            clean = clean.clamp(-1, 1) if clip else clean
            y = b**0.5 * (1 - a / b) / (1 - a) * clean + (a / b) ** 0.5 * (1 - b) / (1 - a) * x
            if s:
                y = y + (1 - a / b) ** 0.5 * draws(seed, INDICES, 2 * t + 1, x)
                z = draws(derive_seed(seed, "guidance", 0), INDICES, 2 * t, x)
                target = a**0.5 * start + (1 - a) ** 0.5 * z
                distance = (x - target).square().flatten(1).mean(1).sum()
                if similar:
                    distance = (1 - ssim((x + 1) / 2, (target + 1) / 2)).sum()
                if guidance:
                    (slope,) = torch.autograd.grad(distance, x, create_graph=True)
                    slope = slope.detach() if detached else slope
                    y = y - guidance * ((1 - a) / a) ** 0.5 * (1 - a / b) * slope
            x = keep(y)
    return states


def guided_by_ssim(denoiser: Denoiser | None = None, **options: Any) -> GuidedPurifier:
    return guided(denoiser, **{"distance": "ssim", **options})


KINDS = pytest.mark.parametrize(
    ("make", "guidance"), [(repeated, 0.0), (guided, GUIDANCE), (guided_by_ssim, GUIDANCE)]
)


@KINDS
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("budget", [0.0, 3e-5, 1.0])
def test_states_and_gradient_are_those_of_plain_autograd(
    make: Any, guidance: float, clip: bool, budget: float
) -> None:
    """With no activations kept, those of some steps, and all."""
    purifier = make(
        sampler=DDPMSampler(variance="fixed_large", clip=clip), memory_budget_gib=budget
    )
    x = some_images(2).requires_grad_()
    want = by_hand(x, guidance=guidance, clip=clip, similar=make is guided_by_ssim)
    got = list(purifier.trajectory(x, NOISE, INDICES))
    assert [(state.process, state.t) for state in got] == purifier.depths
    for state, plain in zip(got, want, strict=True):
        torch.testing.assert_close(state.image, plain, rtol=0, atol=1e-12)
    cotangent = some_images(2, seed=9) - 0.5
    output = purifier.purify(x, NOISE, INDICES)
    assert torch.equal(output, got[-1].image)
    (found,) = torch.autograd.grad(output, x, cotangent)
    (exact,) = torch.autograd.grad(want[-1], x, cotangent)
    assert exact.norm() > 0
    assert (found - exact).norm() <= 1e-10 * exact.norm()


@KINDS
def test_the_gradient_at_every_state_pulls_back_to_that_at_the_input(
    make: Any, guidance: float
) -> None:
    """Without guidance a state decides all that follows; with it the input does too."""
    purifier = make(sampler=DDPMSampler(variance="fixed_large"))
    images = some_images(2)
    x = images.clone().requires_grad_()
    _, *plain = by_hand(x, guidance=guidance, similar=make is guided_by_ssim)

    def loss(images: Tensor) -> Tensor:
        return images.flatten(1).square().sum(1) / 2

    found = purifier.state_gradients(images, NOISE, INDICES, loss)
    wanted = torch.autograd.grad(loss(plain[-1]).sum(), [x, *plain], retain_graph=True)
    for state, exact in zip(found, wanted, strict=True):
        assert (state.image - exact).norm() <= 1e-10 * exact.norm()
    assert [(state.process, state.t) for state in found] == purifier.depths


@pytest.mark.parametrize(("similar", "guidance"), [(False, GUIDANCE), (True, 4 * GUIDANCE)])
def test_a_guidance_taken_for_a_constant_has_another_gradient(
    similar: bool, guidance: float
) -> None:
    """The one that an attack gets where the guidance is computed without a graph."""
    x = some_images(2).requires_grad_()
    exact, cut = (
        torch.autograd.grad(
            by_hand(x, guidance=guidance, detached=detached, similar=similar)[-1].sum(), x
        )[0]
        for detached in (False, True)
    )
    assert (exact - cut).norm() > 0.05 * exact.norm()


@pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])
@pytest.mark.parametrize("sampler", [DDPMSampler(), DDIMSampler()])
def test_one_round_is_the_plain_purifier(forward: Any, sampler: Any) -> None:
    options: dict[str, Any] = {"num_steps": 3, "forward_process": forward, "sampler": sampler}
    plain = DiffusionPurifier(TinyDenoiser(), t_star=30, **options)
    once = RepeatedPurifier(TinyDenoiser(), rounds=[30], **options)
    images = some_images(2)
    for one, other in zip(
        once.trajectory(images, NOISE, INDICES),
        plain.trajectory(images, NOISE, INDICES),
        strict=True,
    ):
        assert torch.equal(one.image, other.image)
    assert once.depths == plain.depths


@pytest.mark.parametrize("make", [guided, guided_by_ssim])
def test_guidance_of_zero_is_none_and_a_stronger_one_ends_nearer_to_the_input(make: Any) -> None:
    images = some_images(2)
    found = [
        make(guidance=strength * GUIDANCE).purify(images, NOISE, INDICES) for strength in (0, 1, 10)
    ]
    assert torch.equal(found[0], repeated().purify(images, NOISE, INDICES))
    distances = [float((purified - images).norm()) for purified in found]
    assert distances == sorted(distances, reverse=True)


@KINDS
def test_a_sample_gets_the_same_in_any_batch_and_order_and_with_kept_draws(
    make: Any, guidance: float
) -> None:
    images, purifier = some_images(2), make()
    whole = purifier.purify(images, NOISE, INDICES)
    alone = purifier.purify(images[1:], NOISE, INDICES[1:])
    torch.testing.assert_close(alone, whole[1:], rtol=0, atol=1e-14)
    kept = NOISE.cached(INDICES)
    for _ in range(2):
        assert torch.equal(purifier.purify(images.flip(0), kept, INDICES.flip(0)).flip(0), whole)
    both = StackedNoise([NOISE, FixedNoise(4)])
    stacked = purifier.purify(images.repeat(2, 1, 1, 1), both, INDICES.repeat(2))
    torch.testing.assert_close(stacked[:2], whole, rtol=0, atol=1e-14)
    assert not torch.allclose(stacked[2:], whole)


def test_rounds_of_one_depth_meet_different_noise() -> None:
    class Asked(FixedNoise):
        def normal(self, indices: Tensor, process: Any, t: int, *, like: Tensor) -> Tensor:
            asked.append((self.seed, process, t))
            return super().normal(indices, process, t, like=like)

        def derived(self, purpose: str, k: int) -> FixedNoise:
            return Asked(super().derived(purpose, k).seed)

    asked: list[tuple[int, str, int]] = []
    purifier = guided()
    purifier.purify(some_images(2), Asked(SEED), INDICES)
    assert len(asked) == len(set(asked)) == purifier.num_draws
    assert repeated().num_draws == purifier.num_draws - 5


@KINDS
@pytest.mark.parametrize(("kept", "calls"), [(0, 16), (2, 14), (3, 13), (8, 8)])
def test_the_budget_is_spent_on_the_last_steps_of_all_rounds(
    make: Any, guidance: float, kept: int, calls: int
) -> None:
    images = some_images(2)
    purifier = make(memory_budget_gib=budget_for(TinyDenoiser(scale=3), images, kept))
    for _ in range(2):  # the first time also measures a pass
        purifier.denoiser.calls = 0
        purifier.purify(images.requires_grad_(), NOISE, INDICES).sum().backward()
    assert purifier.denoiser.calls == calls


@KINDS
def test_memory_without_a_budget_is_that_of_the_states(make: Any, guidance: float) -> None:
    images = some_images(2)
    purifier, noise = make(), NOISE.cached(INDICES)
    purifier.purify(images, noise, INDICES)

    def purify(x: Tensor) -> Tensor:
        return purifier.purify(x, noise, INDICES)

    with LiveBytes():
        assert activation_bytes(purify, images) <= (purifier.total_steps + 1) * images.nbytes
    plan = memory_plan(purifier.float(), torch.nn.Flatten(), (3, 8, 8), batch_size=2)
    state = images.float().nbytes
    assert plan.states == 8 * state
    assert plan.noise == purifier.num_draws * state


@KINDS
def test_a_compiled_step_serves_all_rounds(make: Any, guidance: float) -> None:
    images = some_images(2).requires_grad_()
    gradients = []
    for compiled in (False, True):
        purifier = make(waves())
        if compiled:
            purifier.compile_step(backend="eager")
        output = purifier.purify(images, NOISE, INDICES)
        gradients.append(torch.autograd.grad(output.square().sum(), images)[0])
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_only_the_output_is_clipped_and_states_keep_the_size_of_the_chain() -> None:
    purifier = repeated(clip_output=True, resize_to=6)
    images = some_images(2)
    states = [state.image for state in purifier.trajectory(images, NOISE, INDICES)]
    assert all(state.shape == images.shape for state in states)
    assert states[-1].min() >= 0
    assert states[-1].max() <= 1
    unclipped = repeated(resize_to=6).trajectory(images, NOISE, INDICES)
    for state, other in zip(states[:-1], unclipped, strict=False):
        assert torch.equal(state, other.image)


def test_settings_say_what_the_rounds_are() -> None:
    settings = repeated().settings()
    assert settings["purifier"] == "RepeatedPurifier"
    assert settings["purifier_options"] == {"rounds": "30 in 3 steps x 2, 50 in 2 steps"}
    assert (settings["t_star"], settings["num_steps"]) == (50, 8)
    options = guided(rounds=[36] * 4, num_steps=None).settings()["purifier_options"]
    assert options == {"rounds": "36 x 4", "guidance": GUIDANCE, "distance": "mse"}


@pytest.mark.parametrize(
    ("make", "options", "word"),
    [
        (repeated, {"rounds": []}, "rounds"),
        (repeated, {"num_steps": [3]}, "num_steps"),
        (repeated, {"rounds": [30, 30, 0]}, "t_star"),
        (repeated, {"num_steps": 40}, "num_steps"),
        (guided, {"guidance": -1.0}, "guidance"),
        (guided, {"guidance": float("nan")}, "guidance"),
        (guided, {"distance": "l2"}, "distance"),
        (guided, {"sampler": DDIMSampler()}, "variance"),
        (guided, {"sampler": DDPMSampler(variance="learned_range")}, "variance"),
    ],
)
def test_what_is_refused(make: Any, options: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        make(**options)
