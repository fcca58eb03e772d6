"""The worst case over several attacks: never above any of them, and at what cost."""

from __future__ import annotations

from typing import Any

import foolbox.attacks as fa
import pytest
import torch
from defences import LinearDefence, Rule, chain, convnet
from oracles import TinyDenoiser, some_images
from torch import Tensor, nn

from lit_purify.attacks import (
    BPDA,
    PGD,
    PGDEOT,
    Attack,
    AutoAttack,
    FoolboxAttack,
    Ladder,
    LowFrequency,
    Perceptual,
    Uniform,
    Watch,
)
from lit_purify.defence import Defence
from lit_purify.diffusion import DiffusionPurifier, FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.functional import correct
from lit_purify.types import InputError

EPS = 12 / 255
INDICES = torch.arange(40, 48)


class Towards(Attack):
    """Moves every pixel by eps in directions that it is given, and takes down who was asked for."""

    def __init__(self, *, directions: Tensor, eps: float = EPS) -> None:
        super().__init__(eps=eps)
        self.directions = directions
        self.given: list[list[int]] = []

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        self.given.append(indices.tolist())
        return images + self.eps * self.directions[indices - 10]


def batch(noise: Any) -> tuple[Tensor, ...]:
    """Images, the classes that the chain gives them but for one, and indices."""
    images = 0.3 + 0.4 * some_images(8).float()
    labels = chain(noise)(images, INDICES).argmax(1)
    labels[3] = (labels[3] + 1) % 4
    return images, labels, INDICES


def rungs(eps: float = EPS) -> dict[str, Attack]:
    return {
        "uniform": Uniform(eps=eps),
        "bpda": BPDA(eps=eps, steps=2, rel_stepsize=0.3),
        "pgd": PGD(eps=eps, steps=3, rel_stepsize=0.6),
        "foolbox": FoolboxAttack(attack=fa.LinfPGD(steps=8), eps=eps),
    }


def standing(attack: Attack, defence: Defence, samples: tuple[Tensor, ...]) -> Tensor:
    """Who is right at every query inside the ball and in the end."""
    images, labels, indices = samples
    watch = Watch(labels, indices, admits=lambda x, rows: attack.admits(x, images[rows]))
    found = attack(defence.observed(watch), *samples, seed=1)
    return correct(defence(found, indices), labels) & ~watch.fooled


def test_a_sample_stands_where_it_does_under_every_rung() -> None:
    samples, defence = batch(FixedNoise(0)), chain(FixedNoise(0))
    alone = {name: standing(rung, defence, samples) for name, rung in rungs().items()}
    ladder = Ladder(eps=EPS, rungs=rungs(1.0))
    found = ladder(defence, *samples, seed=1)
    unattacked = correct(defence(samples[0], INDICES), samples[1])
    assert not unattacked[3]
    stands = correct(defence(found, INDICES), samples[1])
    assert torch.equal(stands, torch.stack([unattacked, *alone.values()]).all(0))
    before = unattacked
    assert torch.equal(ladder.findings["wrong_unattacked"], ~unattacked)
    for name, right in alone.items():
        broken = ladder.findings[f"broken_by_{name}"]
        assert torch.equal(broken.isnan(), ~before)
        assert torch.equal(broken[before] == 1, ~right[before])
        assert torch.equal(ladder.findings[f"image_steps_{name}"].isnan(), ~before)
        before = before & right
    # Some fall to a later rung only, and some to none.
    broken = [ladder.findings[f"broken_by_{name}"].nansum() > 0 for name in alone]
    assert sum(broken) > 1
    assert before.any()


def test_a_rung_is_given_those_that_stand() -> None:
    linear = LinearDefence()
    images, labels, indices = linear.samples()
    needed = linear.optimum(images, torch.inf)
    towards = linear.towards(labels)
    half = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(4, 1, 1, 1)
    each = {"half": half * towards, "none": 0 * towards, "all": towards, "more": towards}
    ladder = Ladder(
        eps=1.02 * float(needed.max()),
        rungs={name: Towards(directions=directions) for name, directions in each.items()},
    )
    found = ladder(linear.defence(), images, labels, indices)
    assert not correct(linear.defence()(found, indices), labels).any()
    given = [rung.given for rung in ladder.rungs.values()]  # type: ignore[attr-defined]
    assert given == [[[10, 11, 12, 13]], [[11, 13]], [[11, 13]], []]


def test_an_image_on_the_way_that_fools_is_kept() -> None:
    class Passing(Attack):
        """Asks about an image that fools, one outside the ball first, and returns the clean one."""

        def perturb(
            self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
        ) -> Tensor:
            for length in (10 * self.eps, self.eps):
                defence(images + length * linear.towards(labels), indices)
            return images

    linear = LinearDefence()
    images, labels, indices = linear.samples((0.2, 0.3))
    for factor in (0.98, 1.02):
        eps = factor * float(linear.optimum(images, torch.inf).max())
        found = Ladder(eps=eps, rungs={"it": Passing(eps=eps)})(
            linear.defence(), images, labels, indices
        )
        right = correct(linear.defence()(found, indices), labels)
        assert right.tolist() == [False, factor < 1]


class Counting(TinyDenoiser):
    """Counts the images that it is asked about with a gradient, and those without."""

    def __init__(self) -> None:
        super().__init__()
        self.with_gradient = self.without = 0

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        if torch.is_grad_enabled() and x_t.requires_grad:
            self.with_gradient += len(x_t)
        else:
            self.without += len(x_t)
        return super().forward(x_t, t)


@pytest.mark.parametrize("fresh", [False, True])
def test_the_cost_is_what_the_denoiser_was_asked(fresh: bool) -> None:
    denoiser = Counting().float()
    # Nothing is kept: a pass without a gradient, and each step again where one is taken.
    purifier = DiffusionPurifier(denoiser, t_star=60, num_steps=3, memory_budget_gib=0)
    noise = FreshNoise(0, "attack") if fresh else FixedNoise(0)
    defence = Defence(convnet(), purifier, noise)
    images, _, indices = batch(FixedNoise(0))
    labels = defence.bind(FixedNoise(5), indices)(images).argmax(1)
    denoiser.with_gradient = denoiser.without = 0
    ladder = Ladder(
        eps=2 / 255,
        rungs={
            "uniform": Uniform(eps=1.0),
            "pgd": PGDEOT(steps=2, draws=3, early_stop=True),
            "square": AutoAttack(attacks=["square"], square_queries=5),
        },
    )
    ladder(defence, images, labels, indices)
    spent = ladder.findings["image_steps"]
    asked = denoiser.without + 2 * denoiser.with_gradient
    assert float(spent.sum()) == pytest.approx(asked / 3)
    parts = [ladder.findings[f"image_steps_{name}"].nan_to_num() for name in ladder.rungs]
    first = 3 * (8 if fresh else 1) / 3  # the clean image: a pass of three steps for each draw
    torch.testing.assert_close(torch.stack(parts).sum(0) + first, spent)
    assert denoiser.with_gradient >= 3 * 2 * (3 if fresh else 1)


def test_a_budget_ends_the_ladder_at_a_rung_image_by_image() -> None:
    linear = LinearDefence()
    images, labels, indices = linear.samples()
    still = torch.zeros(4, *linear.shape)
    steps = {"pgd": PGD(steps=4), "longer": PGD(steps=9), "last": Towards(directions=still)}

    def ladder(budget: int | None) -> Ladder:
        eps = 0.5 * float(linear.optimum(images, torch.inf).min())
        return Ladder(eps=eps, rungs=steps, budget=budget)

    # A clean image and every candidate are a pass each, a third; an iteration has a gradient.
    for budget, run in ((1, ["pgd"]), (4, ["pgd"]), (5, ["pgd", "longer"]), (15, [*steps])):
        limited = ladder(budget)
        limited(linear.defence(), images, labels, indices)
        for name in steps:
            assert limited.findings[f"not_run_{name}"].tolist() == 4 * [name not in run]
            assert limited.findings[f"broken_by_{name}"].isnan().tolist() == 4 * [name not in run]
    whole = ladder(None)
    whole(linear.defence(), images, labels, indices)
    assert not any(name.startswith("not_run") for name in whole.findings)
    assert whole.findings["image_steps"].tolist() == pytest.approx(4 * [4 + 9 + 4 / 3])
    assert whole.settings()["budget"] == "unlimited"
    # The cheapest image to break is not asked about again, and the others are not cut by it.
    labels[0] = 1 - labels[0]
    limited = ladder(5)
    limited(linear.defence(), images, labels, indices)
    assert limited.findings["not_run_last"].tolist() == [False, True, True, True]


def test_only_a_rung_without_gradients_breaks_a_defence_that_hides_them() -> None:
    linear = LinearDefence()
    images, labels, indices = linear.samples()

    def hidden(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return linear.purify(images.detach()) + 0 * images

    defence = Defence(linear.classify, Rule(hidden), FixedNoise(0))
    blind = Towards(directions=linear.towards(labels))
    eps = 1.02 * float(linear.optimum(images, torch.inf).max())
    for names, flagged in ((["pgd", "blind"], True), (["blind", "pgd"], False)):
        every: dict[str, Attack] = {"pgd": PGD(steps=3, random_start=False), "blind": blind}
        ladder = Ladder(eps=eps, rungs={name: every[name] for name in names})
        ladder(defence, images, labels, indices)
        assert ladder.findings["broken_by_blind"].tolist() == [1, 1, 1, 1]
        assert ladder.findings["broken_without_gradients"].tolist() == 4 * [flagged]


def share_right(defence: Defence, seeds: list[int], images: Tensor, labels: Tensor) -> Tensor:
    answers = [defence.bind(FixedNoise(seed), INDICES)(images) for seed in seeds]
    return torch.stack([correct(logits, labels) for logits in answers]).double().mean(0)


def test_on_a_random_defence_candidates_are_told_apart_by_draws_of_their_own() -> None:
    asked: list[int] = []
    inner = DiffusionPurifier(TinyDenoiser().double(), t_star=60, num_steps=3)

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        asked.extend(one.seed for one in getattr(noise, "configurations", [noise]))
        return inner.purify(images.double(), noise, indices)

    defence = Defence(convnet().double(), Rule(purify), FreshNoise(0, "attack"))
    samples = batch(FixedNoise(7))
    each: dict[str, Attack] = {
        "bpda": BPDA(steps=2, rel_stepsize=0.3),
        "eot": PGDEOT(steps=3, rel_stepsize=0.6, draws=4),
    }
    ladder = Ladder(eps=EPS, rungs=each, selection_draws=5)
    found = ladder(defence, *samples, seed=1)
    passes = FreshNoise(0, "attack")
    gradients = [passes.next_configuration().seed for _ in range(12)]
    selecting = list(dict.fromkeys(seed for seed in asked if seed not in gradients))
    assert len(selecting) == 5
    judging = {FreshNoise(0, "test", k).next_configuration().seed for k in range(100)}
    assert judging.isdisjoint(asked)
    right = share_right(defence, selecting, found, samples[1])
    unattacked = share_right(defence, selecting, samples[0], samples[1])
    assert (right <= unattacked).all()
    for name, rung in each.items():
        alone = rung(defence.bind(FreshNoise(0, "attack"), INDICES), *samples, seed=1)
        given = ~ladder.findings[f"image_steps_{name}"].isnan()
        share = share_right(defence, selecting, alone, samples[1])
        assert (right <= share).all()
        assert given.any()
    broken = torch.stack([ladder.findings[f"broken_by_{name}"] for name in each]).nansum(0) > 0
    assert torch.equal(broken | ladder.findings["wrong_unattacked"], right < 0.5)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_sample_does_not_depend_on_its_batch(fresh: bool) -> None:
    def bound() -> Defence:
        source = FreshNoise(0, "attack") if fresh else FixedNoise(0)
        return chain(FixedNoise(0)).bind(source, INDICES)

    samples, budget = batch(FixedNoise(0)), 20
    each: dict[str, Attack] = {
        "pgd": PGDEOT(steps=3, rel_stepsize=0.6, draws=2, early_stop=True),
        "square": AutoAttack(attacks=["square"], square_queries=5),
        "longer": PGD(steps=4, rel_stepsize=0.6),
    }
    ladder = Ladder(eps=4 / 255, rungs=each, budget=budget, selection_draws=3)
    whole = ladder(bound(), *samples, seed=1)
    expected = dict(ladder.findings)
    for rows in ([4, 0, 5, 2, 1, 3, 7, 6], [4, 3, 2], [1]):
        part = ladder(bound(), *(column[rows] for column in samples), seed=1)
        assert torch.equal(part, whole[rows])
        for name, found in ladder.findings.items():
            torch.testing.assert_close(found, expected[name][rows], rtol=0, atol=0, equal_nan=True)


def test_another_radius_is_that_of_every_rung() -> None:
    ladder = Ladder(eps="2/255", rungs=rungs())
    for scaled in (ladder, ladder.with_eps(0.02)):
        assert {rung.eps for rung in scaled.rungs.values()} == {scaled.eps}
    assert ladder.eps == 2 / 255


def test_settings_name_the_rungs_in_their_order() -> None:
    said = Ladder(eps=0.1, rungs=rungs()).settings()
    assert [*said["rungs"]] == [*rungs()]  # type: ignore[misc]
    assert said["rungs"]["pgd"]["steps"] == 3  # type: ignore[index]
    assert said["eps"] == 0.1
    assert "eps" not in said["rungs"]["pgd"]  # type: ignore[index]


def test_the_lowest_precision_is_said() -> None:
    low: dict[str, Attack] = {"pgd": PGD(), "low": PGD(precision="bf16")}
    assert Ladder(rungs=low).precision == "bf16"
    assert Ladder(rungs=rungs()).precision == "float32"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rungs": {}}, "norm"),
        ({"rungs": {"pgd": PGD(), "l2": AutoAttack(norm="L2", eps=0.5)}}, "norm"),
        ({"rungs": {"low": LowFrequency()}}, "DCT"),
        ({"rungs": {"seen": Perceptual(eps=0.5, features=nn.Flatten())}}, "feature_l2"),
        ({"rungs": {"a/b": PGD()}}, "a/b"),
        ({"rungs": {"ladder": Ladder(rungs={"pgd": PGD()})}}, "no Ladder"),
        ({"rungs": {"pgd": PGD()}, "budget": 0}, "budget"),
        ({"rungs": {"pgd": PGD()}, "budget": 1.5}, "budget"),
        ({"rungs": {"pgd": PGD()}, "selection_draws": 0}, "selection_draws"),
    ],
    ids=[
        "none",
        "norms",
        "frequencies",
        "features",
        "name",
        "nested",
        "no budget",
        "half a step",
        "no draws",
    ],
)
def test_what_makes_no_ladder(options: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Ladder(**options)


def test_a_rung_may_be_left_out() -> None:
    ladder = Ladder(rungs={"pgd": PGD(), "autoattack": None}, budget=9)
    assert [*ladder.rungs] == ["pgd"]
    assert not any("autoattack" in name for name in ladder.finding_names)
    with pytest.raises(InputError, match="norm"):
        Ladder(rungs={"pgd": None})
