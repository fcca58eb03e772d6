"""Chains that tell a class-conditional denoiser the class that a classifier sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import TinyDenoiser, some_images
from torch import Tensor, nn

from lit_purify import Defence
from lit_purify.diffusion import (
    AdaptiveFlowPurifier,
    DiffusionPurifier,
    EDMDenoiser,
    FixedNoise,
    GuidedPurifier,
    RepeatedPurifier,
    StackedNoise,
    edm_unet,
)
from lit_purify.purifiers import AveragedPurifier
from lit_purify.types import InputError

NOISE, INDICES = FixedNoise(3), torch.tensor([5, 2, 7, 0])
CHAINS: dict[str, tuple[Any, dict[str, Any]]] = {
    "one": (DiffusionPurifier, {"t_star": 30, "num_steps": 2}),
    "rounds": (RepeatedPurifier, {"rounds": [20, 30], "num_steps": 2}),
    "guided": (GuidedPurifier, {"rounds": [30, 30], "num_steps": 2, "guidance": 100.0}),
    "adaptive": (AdaptiveFlowPurifier, {"t_star": 30, "rtol": 0.1, "atol": 0.1}),
}
EVERY = pytest.mark.parametrize("name", CHAINS)


class Conditional(TinyDenoiser):
    """Predicts otherwise for each of three classes; ``always`` makes it the network of one."""

    num_classes = 3

    def __init__(self, always: int | None = None) -> None:
        super().__init__()
        self.always = always
        self.told: list[Tensor | None] = []

    def forward(self, x_t: Tensor, t: int | Tensor, classes: Tensor | None = None) -> Tensor:
        self.told.append(classes)
        if self.always is not None:
            classes = torch.full((len(x_t),), self.always)
        factor = torch.ones(len(x_t)) if classes is None else 2 + classes
        return factor.to(x_t).view(-1, 1, 1, 1) * super().forward(x_t, t)


class Bright(nn.Module):
    """Class 0, 1 or 2 by how bright the image is, which counts its calls."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.calls: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(images)
        places = torch.linspace(0.25, 0.75, self.num_classes).to(images)
        return -(images.flatten(1).mean(1, keepdim=True) - places).square()


def small(*, num_classes: int) -> Any:
    sizes: dict[str, Any] = {"block_out_channels": (8, 8), "layers_per_block": 1}
    return edm_unet(image_size=8, model_channels=8, num_classes=num_classes, **sizes).double()


def images() -> Tensor:
    """Of classes 0, 2, 1 and 0."""
    return some_images(4) / 2 + torch.tensor([0.0, 0.5, 0.25, 0.0]).view(-1, 1, 1, 1)


CLASSES = [0, 2, 1, 0]


def make(name: str, denoiser: Any = None, label: Any = "predicted", **options: Any) -> Any:
    kind, known = CHAINS[name]
    return kind(denoiser or Conditional(), label=label, **{**known, **options})


def predicting(name: str, **options: Any) -> Any:
    purifier = make(name, **options)
    Defence(Bright(), purifier)
    return purifier


@EVERY
@pytest.mark.parametrize("budget", [0.0, 1.0])
def test_each_image_is_purified_by_the_network_of_its_class(name: str, budget: float) -> None:
    """Its output and its gradient; the same alone and in a batch of others."""
    purifier = predicting(name, memory_budget_gib=budget)
    x = images().requires_grad_()
    output = purifier.purify(x, NOISE, INDICES)
    cotangent = some_images(4, seed=9) - 0.5
    (found,) = torch.autograd.grad(output, x, cotangent)
    for k, always in enumerate(CLASSES):
        row = slice(k, k + 1)
        of_class = make(name, Conditional(always), label="none", memory_budget_gib=1.0)
        alone = images()[row].requires_grad_()
        want = of_class.purify(alone, NOISE, INDICES[row])
        torch.testing.assert_close(output[row], want, rtol=0, atol=1e-12)
        (exact,) = torch.autograd.grad(want, alone, cotangent[row])
        assert (found[row] - exact).norm() <= 1e-10 * exact.norm()
        torch.testing.assert_close(
            purifier.purify(alone, NOISE, INDICES[row]), want, rtol=0, atol=1e-12
        )


@EVERY
def test_without_a_label_the_network_is_told_none(name: str) -> None:
    purifier = make(name, label="none")
    purifier.purify(images(), NOISE, INDICES)
    assert purifier.denoiser.told
    assert all(told is None for told in purifier.denoiser.told)


def test_the_prediction_is_of_the_image_that_comes_in_once() -> None:
    """Whatever becomes of it in the chain; and without a graph."""
    classifier, purifier = Bright(), make("rounds")
    x = images().requires_grad_()
    Defence(classifier, purifier).bind(NOISE, INDICES).purify(x)
    (seen,) = classifier.calls
    assert torch.equal(seen, images())
    assert not seen.requires_grad
    told = [classes for classes in purifier.denoiser.told if classes is not None]
    assert len(told) >= 4
    assert all(classes.tolist() == CLASSES for classes in told)


def test_an_attack_meets_the_label_of_the_image_that_it_asks_about() -> None:
    """Across the border between two classes, on both sides as a test of that image does."""
    defence = Defence(Bright(), make("one")).bind(NOISE, INDICES[:1])
    dark = images()[:1]
    for image, always in ((dark, 0), (dark + 0.25, 1)):
        x = image.clone().requires_grad_()
        (found,) = torch.autograd.grad(defence(x).sum(), x)
        known = make("one", Conditional(always), label="none")
        y = image.clone().requires_grad_()
        plain = Defence(Bright(), known).bind(NOISE, INDICES[:1])
        (exact,) = torch.autograd.grad(plain(y).sum(), y)
        assert torch.equal(defence(image), plain(image))
        assert (found - exact).norm() <= 1e-10 * exact.norm()


def test_several_draws_and_averages_tell_the_same_labels() -> None:
    purifier = predicting("one")
    whole = purifier.purify(images(), NOISE, INDICES)
    both = StackedNoise([NOISE, FixedNoise(4)])
    stacked = purifier.purify(images().repeat(2, 1, 1, 1), both, INDICES.repeat(2))
    torch.testing.assert_close(stacked[:4], whole, rtol=0, atol=1e-12)
    average = AveragedPurifier(make("one"), draws=1)
    Defence(Bright(), average)
    assert torch.equal(average.purify(images(), NOISE, INDICES), whole)


def test_it_is_said_and_neither_compiled_nor_taken_for_a_smoothing() -> None:
    purifier = predicting("one")
    assert "predicted" in str(purifier.settings()["denoiser_label"])
    assert "none" in str(make("one", label="none").settings()["denoiser_label"])
    assert "denoiser_label" not in make("one", TinyDenoiser(), label="none").settings()
    assert purifier.smoothing_sigma is None
    assert make("one", label="none").smoothing_sigma is not None
    want = purifier.purify(images(), NOISE, INDICES)
    purifier.compile_step(backend="eager")
    assert not purifier.compiles_steps
    assert torch.equal(purifier.purify(images(), NOISE, INDICES), want)


def test_a_network_of_edms_is_told_by_a_vector() -> None:
    """sqrt(K) at the place of the class, as in Karras et al.'s code; zeros where none is given."""
    denoiser = small(num_classes=3)
    assert isinstance(denoiser, EDMDenoiser)
    assert denoiser.num_classes == 3
    x, classes = some_images(3), torch.tensor([2, 0, 1])
    told = denoiser(x, 50, classes)
    layer = denoiser.network.classes
    for k, label in enumerate(classes.tolist()):
        bias = layer.bias.detach().clone()
        with torch.no_grad():
            layer.bias += 3**0.5 * layer.weight[:, label]
            want = denoiser(x[k : k + 1], 50)
            layer.bias.copy_(bias)
        torch.testing.assert_close(told[k : k + 1], want, rtol=0, atol=1e-12)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="takes no class"):
        make("one", TinyDenoiser())
    with pytest.raises(InputError, match="none or predicted"):
        make("one", label="true")
    with pytest.raises(InputError, match="no classifier"):
        make("one").purify(images(), NOISE, INDICES)
    purifier = make("one")
    with pytest.raises(InputError, match="4 classes"):
        Defence(Bright(4), purifier).bind(NOISE, INDICES).purify(images())
    with pytest.raises(InputError, match="another defence"):
        Defence(Bright(), purifier)
    with pytest.raises(InputError, match="unconditional"):
        small(num_classes=0)(some_images(2), 5, torch.tensor([0, 1]))
