"""Averaged and straight-through gradients against closed forms and against PGD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import Rule, chain, convnet
from oracles import some_images
from torch import Tensor
from torch.nn import functional as F

from lit_purify.attacks import BPDA, BPDAEOT, PGD, PGDEOT, Uniform, input_gradient
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.types import InputError

INDICES = torch.arange(70, 76)
KINDS = pytest.mark.parametrize(("eot", "plain"), [(PGDEOT, PGD), (BPDAEOT, BPDA)])


def fresh() -> FreshNoise:
    return FreshNoise(0, "attack")


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    """Images, the classes that the chain gives them, and dataset indices."""
    images = some_images(6).float()
    return images, chain(FixedNoise(0))(images, INDICES).argmax(1), INDICES


def test_the_gradient_is_the_mean_over_the_next_draws(batch: tuple[Tensor, ...]) -> None:
    source = fresh()
    configurations = [source.next_configuration() for _ in range(5)]
    each = [input_gradient(chain(xi), *batch)[0] for xi in configurations]
    found, logits = input_gradient(chain(fresh()), *batch, draws=5)
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-6, atol=1e-9)
    assert logits.shape == (30, 4)
    want = torch.cat([chain(xi)(batch[0], INDICES) for xi in configurations])
    torch.testing.assert_close(logits, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attack", [PGDEOT, BPDAEOT])
def test_how_draws_are_batched_does_not_matter(attack: Any, batch: tuple[Tensor, ...]) -> None:
    found, gradients = [], []
    for rows, sizes in ((1, [1] * 5), (6, [1] * 5), (13, [2, 2, 1]), (10**6, [5])):
        options: Any = {"steps": 3, "rel_stepsize": 0.3, "draws": 5, "rows_per_pass": rows}
        passes: list[tuple[int, int]] = []
        found.append(attack(**options)(chain(fresh(), passes=passes), *batch))
        assert passes == [(6 * n, n) for n in sizes] * 3
        gradients.append(attack(**options).gradient(chain(fresh()), *batch)[0])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-6, atol=1e-9)
    for other in found[1:]:
        assert torch.equal(other, found[0])


@KINDS
def test_one_draw_is_the_plain_attack(eot: Any, plain: Any, batch: tuple[Tensor, ...]) -> None:
    one = eot(steps=4, draws=1)(chain(fresh()), *batch, seed=2)
    assert torch.equal(one, plain(steps=4)(chain(fresh()), *batch, seed=2))
    two = eot(steps=4, draws=2)(chain(fresh()), *batch, seed=2)
    assert not torch.equal(one, two)


@KINDS
def test_on_a_deterministic_defence_draws_are_not_wasted(
    eot: Any, plain: Any, batch: tuple[Tensor, ...]
) -> None:
    passes: list[tuple[int, int]] = []
    attack = eot(steps=3, early_stop=True)
    defence = chain(FixedNoise(0), passes=passes)
    assert attack.num_queries(defence) == 3
    assert attack.num_queries(chain(fresh())) == 45
    found = attack(defence, *batch)
    assert {configurations for _, configurations in passes} == {1}
    want = plain(steps=3, early_stop=True)(chain(FixedNoise(0)), *batch)
    assert torch.equal(found, want)


def test_straight_through_is_the_gradient_of_the_classifier_at_the_purified_image(
    batch: tuple[Tensor, ...],
) -> None:
    images, labels, _ = batch
    defence, alone = chain(FixedNoise(0)), Defence(convnet().double())
    purified = defence.purify(images, INDICES)
    want, logits = input_gradient(alone, purified, labels, INDICES)
    found, seen = input_gradient(defence, *batch, straight_through=True)
    torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=1e-9)
    assert torch.equal(seen, logits)
    exact, _ = input_gradient(defence, *batch)
    assert not torch.allclose(exact, found)


def test_bpda_passes_a_purifier_without_gradient(batch: tuple[Tensor, ...]) -> None:
    images, labels, _ = batch

    def quantized(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return ((images * 31).round() / 31).detach().double()

    defence = Defence(convnet().double(), Rule(quantized), FixedNoise(0))
    with pytest.raises(InputError, match="no gradient"):
        PGD(steps=1)(defence, *batch)
    found = BPDA(eps="16/255", steps=10)(defence, *batch)
    before, after = (
        F.cross_entropy(defence(x, INDICES), labels, reduction="none") for x in (images, found)
    )
    assert (after > before).all()


def test_a_draw_whose_gradient_is_no_number_adds_nothing(batch: tuple[Tensor, ...]) -> None:
    images, labels, _ = batch

    def spoil(gradient: Tensor) -> Tensor:
        """With nan in the first pixel of the second half of the batch, the second draw."""
        gradient = gradient.clone()
        gradient[len(gradient) // 2 :, 0, 0, 0] = torch.nan
        return gradient

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        purified = images.double()
        purified.register_hook(spoil)
        return purified

    defence = Defence(convnet().double(), Rule(purify), fresh())
    found, _ = input_gradient(defence, *batch, draws=2)
    alone = Defence(convnet().double())
    sound, _ = input_gradient(alone, images.double(), labels, INDICES)
    torch.testing.assert_close(found[:, 0, 0, 0].double(), sound[:, 0, 0, 0] / 2)
    torch.testing.assert_close(found[:, 1].double(), sound[:, 1])


@pytest.mark.parametrize("options", [{"draws": 0}, {"rows_per_pass": 0}, {"draws": -1}])
def test_no_draws_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        PGDEOT(**options)


def test_settings_name_what_was_run() -> None:
    settings = PGDEOT(eps="4/255", steps=7).settings()
    assert (settings["attack"], settings["eps"], settings["steps"]) == ("PGDEOT", 4 / 255, 7)
    assert settings["draws"] == 15
    assert PGD().settings()["gradient"] == settings["gradient"] == "exact"
    for attack in (BPDA(), BPDAEOT()):
        assert "identity" in str(attack.settings()["gradient"])


def test_uniform_noise_fills_the_ball_and_asks_nothing() -> None:
    images = torch.full((6, 3, 32, 32), 0.5)
    passes: list[tuple[int, int]] = []
    defence = chain(FixedNoise(0), passes=passes)
    found = Uniform(eps="16/255")(defence, images, INDICES, INDICES, seed=1)
    delta = (found - images) / (16 / 255)
    assert not passes
    want = FixedNoise(1).uniform(INDICES, like=images)
    torch.testing.assert_close(delta, want, atol=1e-5, rtol=0)
    assert delta.abs().max() <= 1 + 1e-5
    assert delta.std() == pytest.approx(3**-0.5, rel=0.02)
