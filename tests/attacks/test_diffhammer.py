"""Shared directions against a hand-made mixture of draws; what the search keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from defences import LinearDefence, Rule, attack_whole_and_alone, chain
from oracles import some_images
from torch import Tensor

from lit_purify.attacks import PGD, PGDEOT, Attack, DiffHammer
from lit_purify.attacks.diffhammer import shared_direction
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.functional import correct, margin
from lit_purify.types import InputError

INDICES = torch.arange(70, 74)


def fresh() -> FreshNoise:
    return FreshNoise(0, "attack")


def random_draws() -> tuple[Tensor, Tensor]:
    """Losses and gradients of five draws for three images, in float64."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return losses, torch.randn(5, 3, 2, 4, generator=generator, dtype=torch.float64)


def test_the_steps_are_those_of_the_equations() -> None:
    losses, gradients = random_draws()
    found, shares = shared_direction(losses, gradients, eps=0.3, em_steps=2, sharpness=1.7)
    for image in range(3):
        loss, g = losses[:, image].tolist(), gradients[:, image].flatten(1).tolist()

        def after(
            direction: list[float], loss: list[float] = loss, g: list[list[float]] = g
        ) -> list[float]:
            return [
                li + 0.3 * sum(math.copysign(1, r) * x for r, x in zip(direction, gi, strict=True))
                for li, gi in zip(loss, g, strict=True)
            ]

        r = max(g, key=lambda one: sum(v if v > 0 else math.expm1(v) for v in after(one)))
        for _ in range(2):
            w = [1 / (1 + math.exp(-1.7 * v)) for v in after(r)]
            columns = zip(*g, strict=True)
            r = [sum(map(math.prod, zip(w, one, strict=True))) / sum(w) for one in columns]
        assert found[image].flatten().tolist() == pytest.approx(r, rel=1e-12)
        assert shares[:, image].tolist() == pytest.approx([v / sum(w) for v in w], rel=1e-12)


def test_without_sharpness_it_is_the_mean_of_the_draws() -> None:
    losses, gradients = random_draws()
    found, _ = shared_direction(losses, gradients, eps=0.3, sharpness=0)
    torch.testing.assert_close(found, gradients.mean(0), rtol=1e-12, atol=0)


def test_hopeless_losses_still_have_a_direction() -> None:
    losses, gradients = random_draws()
    found, shares = shared_direction(losses - 1e6, gradients, eps=0.3, sharpness=10)
    assert found.isfinite().all()
    torch.testing.assert_close(shares.sum(0), torch.ones(3, dtype=torch.float64))


def opposed(noise: Any, *, share: float) -> Defence:
    """Two kinds of purifications: a few are fooled by +x, the rest pull the other way and never.

    What is purified is a pixel's x under the one and -9 x under the other; class 1 wins where it is
    above 0.6 for the first, and never for the second, whose gradient points to -x.
    """

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        kind = noise.uniform(indices, like=images[:, :1, :1, :1]) > 1 - 2 * share
        return torch.where(kind, images - 0.6, -1 - 9 * images)

    def classify(images: Tensor) -> Tensor:
        score = images.flatten(1).mean(1) / 10  # so that cross-entropy pulls at all draws
        return torch.stack([-score, score, score - 50], 1)

    return Defence(classify, Rule(purify), noise)


def test_it_passes_the_dilemma_that_stops_the_mean_gradient() -> None:
    images, labels = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    options: Any = {"eps": 0.2, "steps": 8, "rel_stepsize": 0.5, "draws": 10}

    def robust(attack: Attack) -> float:
        found = attack(opposed(fresh(), share=0.4), images, labels, INDICES)
        judge = opposed(FreshNoise(0, "test"), share=0.4)
        answers = [correct(judge(found, INDICES), labels) for _ in range(20)]
        return torch.stack(answers).double().mean().item()

    # A share of 0.4 can be fooled together, the others never: 80 answers, five standard errors.
    assert robust(PGDEOT(**options)) == 1
    found = robust(DiffHammer(**options, losses=["margin"], sharpness=20))
    assert found == pytest.approx(0.6, abs=5 * math.sqrt(0.24 / 80))


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    images = some_images(4).float()
    return images, chain(FixedNoise(0))(images, INDICES).argmax(1), INDICES


def test_a_sample_does_not_depend_on_its_batch_nor_on_how_draws_are_batched(
    batch: tuple[Tensor, ...],
) -> None:
    options: Any = {"eps": "6/255", "steps": 3, "rel_stepsize": 0.4, "draws": 3}
    whole = attack_whole_and_alone(
        DiffHammer(**options), lambda: chain(fresh()), batch, [[3, 0, 2, 1], [1], [2, 3]]
    )
    one_by_one = DiffHammer(**options, rows_per_pass=1)
    assert torch.equal(one_by_one(chain(fresh()), *batch, seed=1), whole)


def test_the_best_of_all_iterates_is_kept(batch: tuple[Tensor, ...]) -> None:
    """On one fixed draw all is known: no iterate was better, neither was plain PGD's."""
    defence, (_, labels, indices) = chain(FixedNoise(0)), batch
    options: Any = {"eps": "3/255", "steps": 4, "rel_stepsize": 0.5}
    asked: list[tuple[Tensor, Tensor]] = []
    watched = defence.observed(lambda _, logits, indices, __: asked.append((logits, indices)))
    found = DiffHammer(**options, averaging=0)(watched, *batch, seed=1)
    reached = margin(defence(found, indices), labels)
    lowest = torch.full_like(reached, math.inf)
    for logits, samples in asked:
        rows = samples - indices[0]
        lowest[rows] = torch.minimum(lowest[rows], margin(logits, labels[rows]))
    torch.testing.assert_close(reached, lowest)
    last = margin(defence(PGD(**options)(defence, *batch, seed=1), indices), labels)
    assert ((reached < 0) >= (last < 0)).all()
    assert 0 < (reached < 0).sum() < 4


@pytest.mark.parametrize("score", [(0.2, 0.3), (0.001, 0.002)], ids=["out_of_reach", "fooled"])
def test_it_reaches_the_optimum_of_a_linear_classifier(score: tuple[float, float]) -> None:
    """Also where the two draws of an early iterate are fooled, as that may be their luck."""
    linear = LinearDefence()
    images, labels, indices = linear.samples(score)
    attack = DiffHammer(eps=0.01, steps=20, rel_stepsize=0.2, draws=2)
    found = attack(linear.defence(fresh(), 0.01), images, labels, indices)
    change = (linear.score(found) - linear.score(images)) * (2 * labels - 1)
    assert (change > 0.01 * linear.normal.double().norm(1) / 1.02).all()


def test_what_it_asks_is_counted_and_its_draws_are_its_own(batch: tuple[Tensor, ...]) -> None:
    passes: list[tuple[int, int]] = []
    attack = DiffHammer(steps=2, draws=3, eps=0.0, losses=["margin", "dlr"])
    defence = chain(fresh(), passes=passes)
    attack(defence, *batch)
    asked = sum(configurations for _, configurations in passes)
    assert asked == attack.num_queries(defence) == 2 * 3 * 3
    assert attack.num_iterations(defence) == 6
    assert attack.num_queries(chain(FixedNoise(0))) == 6
    assert passes[0] == (12, 3)
    keys = [FreshNoise(0, stream).next_configuration().seed for stream in ("attack", "test")]
    assert keys[0] != keys[1]


def test_settings_name_what_was_run() -> None:
    said = DiffHammer(eps="4/255", draws=7, losses=["dlr"]).settings()
    assert (said["attack"], said["eps"], said["draws"]) == ("DiffHammer", 4 / 255, 7)
    assert said["losses"] == ["dlr"]
    assert said["early_stop"] is True  # where the defence is deterministic
    assert {"em_steps", "sharpness", "averaging", "rel_stepsize", "steps"} <= said.keys()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"draws": 0}, "draws"),
        ({"steps": 1.5}, "steps"),
        ({"em_steps": -1}, "em_steps"),
        ({"losses": []}, "losses"),
        ({"losses": ["hinge"]}, "hinge"),
        ({"sharpness": -1}, "sharpness"),
        ({"averaging": 2}, "averaging"),
        ({"rel_stepsize": 0}, "rel_stepsize"),
    ],
)
def test_senseless_arguments_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        DiffHammer(**options)
