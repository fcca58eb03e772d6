"""Two objects of one class that were made differently are told apart, whatever the class."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_purify import Classifier, Denoiser, Purifier, evaluate, from_module
from lit_purify.attacks import PGD, Attack
from lit_purify.defence import Defence
from lit_purify.diffusion import DiffusionPurifier, NoiseConfiguration
from lit_purify.records.runs import FinishedRun


class Jpeg(Purifier):
    def __init__(self, *, quality: int = 50) -> None:
        super().__init__()
        self._quality = quality

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return images * self._quality / 50


class Cooled(Classifier):
    num_classes = 3

    def __init__(self, temperature: float, *, names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) / self._temperature


class Named(Cooled):
    source = "by hand"


class Lazy(Denoiser):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self.scale * x_t


class Nudge(Attack):
    def __init__(self, *, eps: float | str = "8/255", towards: float = 1.0) -> None:
        super().__init__(eps=eps)
        self._towards = towards

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        return images + self.eps * self._towards


class Scaled(nn.Module):
    """A network that knows nothing of this package."""

    def __init__(self, factor: float, sizes: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.factor, self.sizes, self.table = factor, sizes, torch.ones(3)
        self.register_buffer("bias", torch.zeros(3))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.mean((2, 3))


PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "purifier": (lambda: Jpeg(quality=50), lambda: Jpeg(quality=20)),
    "purifier, by default": (lambda: Jpeg(), lambda: Jpeg(quality=20)),
    "denoiser": (
        lambda: DiffusionPurifier(Lazy(2.0), t_star=1),
        lambda: DiffusionPurifier(Lazy(), t_star=1),
    ),
    "classifier": (lambda: Cooled(1.0), lambda: Cooled(temperature=2.0)),
    "classifier, its second argument": (lambda: Cooled(1.0), lambda: Cooled(1.0, names=("a",))),
    "module": (lambda: from_module(Scaled(1.0), 3), lambda: from_module(Scaled(2.0), 3)),
    "attack": (lambda: Nudge(), lambda: Nudge(towards=-1.0)),
}


def run(folder: Path, part: Any) -> dict[str, Any]:
    """The settings of a run with this part in it."""
    purifier = part if isinstance(part, Purifier) else Jpeg()
    classifier = part if isinstance(part, Classifier) else Cooled(1.0)
    result = evaluate(
        Defence(classifier, purifier),
        (torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(2)),
        attack=part if isinstance(part, Attack) else PGD(steps=1),
        root=folder,
        progress=False,
        trainer={"accelerator": "cpu"},
    )
    return result.settings


@pytest.mark.parametrize("pair", PAIRS)
def test_the_settings_of_runs_differ(pair: str, tmp_path: Path) -> None:
    first, second = (run(tmp_path, make()) for make in PAIRS[pair])
    again = run(tmp_path, PAIRS[pair][0]())
    assert first == again
    assert len([name for name in first if first[name] != second.get(name)]) == 1


def test_a_report_tells_them_apart() -> None:
    made = ({"purifier": "Jpeg", "purifier_options": {"quality": q}} for q in (50, 20))
    methods = [FinishedRun(Path(), settings, {}, "").method for settings in made]
    assert methods == ["Jpeg(quality=50)", "Jpeg(quality=20)"]
    guided = {"sampler": "DDIMSampler", "purifier_options": {"guidance": 2.0}}
    assert FinishedRun(Path(), guided, {}, "").method == "DDIM(guidance=2.0)"


@pytest.mark.parametrize(
    ("model", "source"),
    [
        (Cooled(2.0, names=("a",)), "Cooled(temperature=2.0, names=['a'])"),
        (Named(2.0), "by hand"),
        (Lazy(), "Lazy(scale=1.0)"),
        (from_module(Scaled(2.0), 3), "Scaled(factor=2.0, sizes=(1, 2))"),
        (from_module(Scaled(2.0), 3, source="mine"), "mine"),
        (from_module(nn.Sequential(Scaled(2.0)), 3), "Sequential"),
    ],
)
def test_a_network_names_itself_unless_it_has_a_name(model: Any, source: str) -> None:
    assert model.source == source
    assert copy.deepcopy(model).source == source
    assert pickle.loads(pickle.dumps(model)).source == source


def test_an_attack_says_what_it_was_made_with() -> None:
    settings = Nudge(eps="2/255", towards=0.5).settings()
    assert settings == {"attack": "Nudge", "eps": 2 / 255, "towards": 0.5}


def test_arguments_that_do_not_fit_are_told_with_the_class() -> None:
    with pytest.raises(TypeError, match=r"Jpeg\.__init__\(\) .*'qualty'"):
        Jpeg(qualty=20)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [Jpeg, Cooled, Lazy, Nudge, PGD, DiffusionPurifier])
def test_signatures_are_those_of_the_constructors(kind: type) -> None:
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    assert list(inspect.signature(kind).parameters.values()) == parameters
