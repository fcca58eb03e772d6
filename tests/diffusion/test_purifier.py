"""The contract of a purifier: what is recorded of one that somebody else wrote."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiny
from oracles import TinyDenoiser
from torch import Tensor

from lit_purify.diffusion import (
    CosineSchedule,
    Denoiser,
    DiffusionPurifier,
    NoiseConfiguration,
    Purifier,
)


class Blur(tiny.IdentityPurifier):
    """Keeps nothing of what it is told."""

    def __init__(self, sigma: float, *, sides: tuple[int, ...] = (3, 5), inner: Any = None) -> None:
        super().__init__()


class StrongBlur(Blur):
    def __init__(self, *, power: int = 2, **more: Any) -> None:
        super().__init__(power * 1.5)


class Guided(DiffusionPurifier):
    def __init__(self, denoiser: Denoiser, *, guidance: float, **options: Any) -> None:
        super().__init__(denoiser, **options)


class Plain(Purifier):
    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return images


@pytest.mark.parametrize(
    ("purifier", "options"),
    [
        (Blur(2.0), {"sigma": 2.0, "sides": [3, 5], "inner": None}),
        (
            Blur(sigma=1.0, sides=(), inner={"a": TinyDenoiser(), "b": [True, Path("x")]}),
            {"sigma": 1.0, "sides": [], "inner": {"a": "TinyDenoiser", "b": [True, "x"]}},
        ),
        (StrongBlur(other="x"), {"power": 2, "other": "x"}),
    ],
)
def test_the_arguments_of_a_class_of_ones_own_are_recorded(
    purifier: Purifier, options: dict[str, Any]
) -> None:
    want = {"purifier": type(purifier).__name__, "purifier_options": options}
    assert purifier.settings() == want
    assert copy.deepcopy(purifier).settings() == want


def test_a_class_without_arguments_has_none() -> None:
    assert Plain().settings() == {"purifier": "Plain"}


def test_diffusion_purifiers_say_what_decides_their_images() -> None:
    denoiser = TinyDenoiser()
    denoiser.schedule = CosineSchedule(400)
    settings = DiffusionPurifier(denoiser, t_star=20, num_steps=4, resize_to=8).settings()
    assert settings == {
        "purifier": "DiffusionPurifier",
        "t_star": 20,
        "num_steps": 4,
        "evaluations": 4,
        "schedule": "squared cosine, 400 steps",
        "forward_process": "stepwise",
        "sampler": "DDPMSampler",
        "sampler_options": {"variance": "fixed_small", "clip": True},
        "clip_output": False,
        "resize_to": 8,
    }
    own = Guided(denoiser, guidance=2.0, t_star=20, num_steps=4, resize_to=8).settings()
    assert own == {**settings, "purifier": "Guided", "purifier_options": {"guidance": 2.0}}


def test_a_purifier_can_be_sent_to_a_process() -> None:
    purifier = tiny.ScalingPurifier(factor=0.5)
    assert pickle.loads(pickle.dumps(purifier)).settings() == purifier.settings()
