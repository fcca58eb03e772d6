"""Denoisers and schedules of a user's own that no image can be purified by: one line for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from oracles import TinyDenoiser, random_unet, some_images
from torch import Tensor, nn

from lit_purify.diffusion import Denoiser, DiffusionPurifier, FixedNoise, Schedule, UNetDenoiser
from lit_purify.modules import DenoiserTraining
from lit_purify.types import InputError

INDICES = torch.tensor([5, 2])


@dataclass(frozen=True)
class Own(Schedule):
    """Any variances."""

    num_train_steps: int = 4
    variances: object = (0.1, 0.2, 0.3, 0.4)

    @property
    def betas(self) -> Tensor:
        return self.variances  # type: ignore[return-value]


@dataclass(frozen=True)
class Rising(Own):
    """One whose author gave the products."""

    @cached_property
    def alpha_bar(self) -> Tensor:
        return torch.tensor([1, 0.9, 0.5, 0.6, 0.4], dtype=torch.float64)


class Taught(Denoiser):
    """Gives what a rule makes of the state."""

    source = "taught by hand"

    def __init__(self, rule: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self.rule(x_t)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "variances", [[0.1, 0.2], torch.tensor([0.1, 0.2]), torch.tensor([0.1, 0.2]).double().numpy()]
)
def test_a_sound_schedule_of_ones_own(variances: object) -> None:
    denoiser = TinyDenoiser()
    denoiser.schedule = Own(2, variances)
    purifier = DiffusionPurifier(denoiser, t_star=2)
    torch.testing.assert_close(
        purifier.schedule.alpha_bar, torch.tensor([1, 0.9, 0.72]).double(), rtol=1e-7, atol=0
    )


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Own(4, (0.1, torch.nan, 0.1, 0.1)), "step 2"),
        (Own(4, (0.1, 0.0, 0.1, 0.1)), "step 2"),
        (Own(4, (0.1, 0.2, -0.1, 0.1)), "step 3"),
        (Own(4, (0.1, 0.2, 0.3, 1.0)), "step 4"),
        (Own(4, (1.5, 0.2, 0.3, 0.4)), "step 1"),
        (Own(4, (0.1, 1e-20, 0.3, 0.4)), "step 2"),  # lost in rounding
        (Own(4, (0.1, 0.2, torch.inf, 0.4)), "step 3"),
        (Own(4, (0.1, 0.2)), "2 variances for 4 steps"),
        (Own(4, (0.1,) * 5), "5 variances for 4 steps"),
        (Rising(), "step 3"),
        ([0.1, 0.2], "LinearSchedule"),
        ("cosine", "LinearSchedule"),
    ],
)
def test_senseless_schedules_are_refused_where_they_are_given(
    schedule: Schedule, message: str
) -> None:
    denoiser = TinyDenoiser()
    denoiser.schedule = schedule
    for take in (
        lambda: DiffusionPurifier(denoiser, t_star=2),
        lambda: UNetDenoiser(random_unet().network, schedule=schedule),
        lambda: DenoiserTraining(denoiser, focus=[]),
    ):
        with pytest.raises(InputError, match=f"noise schedule.*{message}"):
            take()


OUTPUTS = {
    "one channel": (lambda x: x[:, :1], r"\(\d, 1, 8, 8\)"),
    "half the size": (lambda x: nn.functional.avg_pool2d(x, 2), r"\(\d, 3, 4, 4\)"),
    "one image": (lambda x: x[:1], r"\(1, 3, 8, 8\)"),
    "three times the channels": (lambda x: x.repeat(1, 3, 1, 1), r"\(\d, 9, 8, 8\)"),
    "a tuple": (lambda x: (x,), "tuple"),
    "a dictionary": (lambda x: {"sample": x}, "dict"),
    "nothing": (lambda x: None, "NoneType"),
    "another type": (lambda x: x.half(), "float16"),
    "whole numbers": (lambda x: x.long(), "int64"),
}


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_that_are_no_noise_are_refused(case: str, gradient: bool) -> None:
    """By the first step, also where a pass is first measured for the gradient."""
    rule, found = OUTPUTS[case]
    purifier = DiffusionPurifier(Taught(rule), t_star=4, num_steps=2)
    images = some_images(2).requires_grad_(gradient)
    with pytest.raises(InputError, match=rf"Taught \(taught by hand\) gives .*{found}") as caught:
        purifier.purify(images, FixedNoise(0), INDICES)
    assert "3, 8, 8)" in str(caught.value)


@pytest.mark.parametrize("channels", [3, 6])
def test_noise_and_noise_with_variances_pass(channels: int) -> None:
    purifier = DiffusionPurifier(Taught(lambda x: x.repeat(1, channels // 3, 1, 1)), t_star=4)
    assert purifier.purify(some_images(2), FixedNoise(0), INDICES).shape == (2, 3, 8, 8)


def test_the_type_of_mixed_precision_passes() -> None:
    purifier = DiffusionPurifier(TinyDenoiser().float(), t_star=4)
    images = some_images(2).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert purifier.purify(images, FixedNoise(0), INDICES).dtype == torch.float32


@pytest.mark.parametrize(
    ("purifier", "fits", "others"),
    [
        (
            DiffusionPurifier(random_unet(16), t_star=2),
            (3, 16, 16),
            {(1, 16, 16): r"\(3, 16, 16\)", (3, 8, 8): "resize_to", (16, 16): r"\(3, 16, 16\)"},
        ),
        (
            DiffusionPurifier(random_unet(16), t_star=2, resize_to=16),
            (3, 10, 10),
            {(3, 10, 12): "square", (1, 10, 10): r"\(3, 16, 16\)"},
        ),
        (DiffusionPurifier(TinyDenoiser(), t_star=2), (3, 7, 9), {(3, 8): r"\(C, H, W\)"}),
    ],
)
def test_a_purifier_says_which_images_it_takes(
    purifier: DiffusionPurifier, fits: tuple[int, ...], others: dict[tuple[int, ...], str]
) -> None:
    """Without an image, and as it does with one."""
    purifier.check_shape(fits)
    purifier.float().purify(torch.zeros(1, *fits), FixedNoise(0), INDICES[:1])
    for shape, message in others.items():
        for ask in (
            lambda shape=shape: purifier.check_shape(shape),
            lambda shape=shape: purifier.to_chain(torch.zeros(1, *shape)),
        ):
            with pytest.raises(InputError, match=message):
                ask()


@pytest.mark.parametrize("indices", [[5, 2], (5, 2), torch.tensor([5, 2], dtype=torch.uint8)])
def test_indices_may_be_any_whole_numbers(indices: object) -> None:
    purifier = DiffusionPurifier(TinyDenoiser(), t_star=4)
    want = purifier.purify(some_images(2), FixedNoise(0), INDICES)
    assert torch.equal(purifier.purify(some_images(2), FixedNoise(0), indices), want)
