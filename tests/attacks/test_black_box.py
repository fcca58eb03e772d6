"""Attacks that see answers only: against closed forms, within their budget, sample by sample."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from defences import LinearDefence, Rule, attack_whole_and_alone, chain, constant, convnet
from oracles import some_images
from torch import Tensor

from lit_purify import embedded_resnet18
from lit_purify.attacks import PGD, SPSA, AutoAttack, RayS, Square
from lit_purify.attacks.squares import HALVINGS, L2, Window, opposites, share_at, side_of
from lit_purify.data import sources
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration, NoiseSource
from lit_purify.functional import correct, lp_distance, wilson_interval
from lit_purify.types import InputError

MIXING = LinearDefence(
    matrix=torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) / 8,
)
"""Its purifier mixes all pixels."""
BATCH = MIXING.samples((0.05, 0.055, 0.06))
OPTIMUM = {p: MIXING.optimum(BATCH[0], p) for p in (math.inf, 2.0)}

SMALL: dict[str, Any] = {
    "Square": lambda eps, **more: Square(eps=eps, **{"queries": 40, "draws": 2, **more}),
    "Square, L2": lambda eps, **more: Square(
        eps=eps, norm="L2", **{"queries": 40, "draws": 2, **more}
    ),
    "SPSA": lambda eps, **more: SPSA(eps=eps, **{"queries": 40, "directions": 4, **more}),
    "SPSA, sign": lambda eps, **more: SPSA(
        eps=eps, update="sign", **{"queries": 40, "directions": 4, **more}
    ),
    "RayS": lambda eps, **more: RayS(eps=eps, **{"queries": 40, "draws": 2, **more}),
}
NOISES: dict[str, Any] = {
    "fixed": lambda: FixedNoise(0),
    "fresh": lambda: FreshNoise(0, "attack"),
}
INDICES = torch.arange(40, 44)
EVERY = pytest.mark.parametrize("name", SMALL)
BOTH = pytest.mark.parametrize("noise", NOISES)


def standing(attack: Any, noise: NoiseSource | None = None) -> Tensor:
    found = attack(MIXING.defence(noise), *BATCH)
    return correct(MIXING.defence()(found, BATCH[2]), BATCH[1])


def gain(attack: Any, p: float, noise: NoiseSource | None = None, level: float = 0.0) -> Tensor:
    """What an attack changes the score by, in units of the best change in its ball, shape (B,)."""
    images, labels, _ = BATCH
    found = attack(MIXING.defence(noise, level), *BATCH)
    change = (MIXING.score(found) - MIXING.score(images)) * (2 * labels - 1)
    return change / (attack.eps * MIXING.normal.double().norm(1 if p == math.inf else 2))


class Counted:
    """Observes how often each sample was asked about: one for every image and draw."""

    def __init__(self) -> None:
        self.of = torch.zeros(100, dtype=torch.int64)

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        assert len(images) == len(indices)
        self.of += indices.bincount(minlength=100)


class TestLinear:
    """An affine purifier before a linear classifier: the smallest perturbation is known."""

    ATTACKS: ClassVar[dict[str, Any]] = {
        "Square": (lambda eps: Square(eps=eps, queries=500), 1.02),
        "SPSA": (lambda eps: SPSA(eps=eps, queries=4000, directions=32, probe=0.003), 1.02),
        "RayS": (lambda eps: RayS(eps=eps, queries=1500), 1.05),
    }

    @pytest.mark.parametrize("name", ATTACKS)
    def test_the_boundary_is_found_where_it_is(self, name: str) -> None:
        attack, ratio = self.ATTACKS[name]
        largest = OPTIMUM[math.inf].max().item()
        assert not standing(attack(ratio * largest)).any()
        assert standing(attack(0.98 * largest))[OPTIMUM[math.inf].argmax()]

    @pytest.mark.parametrize("early_stop", [False, True])
    def test_rays_finds_the_smallest_radius(self, early_stop: bool) -> None:
        """Unless it is told to be content with eps."""
        optimum = OPTIMUM[math.inf]
        attack = RayS(eps=2 * optimum.max().item(), queries=2500, early_stop=early_stop)
        found = attack(MIXING.defence(), *BATCH)
        assert not correct(MIXING.defence()(found, BATCH[2]), BATCH[1]).any()
        needed = lp_distance(found, BATCH[0], math.inf).double() / optimum
        assert (needed > 1 - 1e-5).all()
        assert (needed < 1.005).all() != early_stop

    def test_square_goes_on_to_the_corner_of_the_ball(self) -> None:
        attack = Square(eps=0.01, queries=1000, early_stop=False)
        assert (gain(attack, math.inf) > 1 - 1e-4).all()

    def test_square_in_l2_is_coarse(self) -> None:
        """Its windows of nine pixels do not fit a perturbation of 64 freely."""
        attack = Square(eps=0.1, norm="L2", queries=600, early_stop=False)
        assert ((found := gain(attack, 2.0)) < 1).all()
        assert (found > 0.55).all()
        largest = OPTIMUM[2.0].max().item()
        assert not standing(Square(eps=largest / 0.55, norm="L2", queries=600)).any()
        assert standing(Square(eps=0.98 * largest, norm="L2", queries=300))[2]

    def test_noise_in_the_score_misleads_nobody_who_compares_under_the_same(self) -> None:
        """It cancels, even where it is thousands of times larger than what a step changes."""
        square = Square(eps=0.01, queries=2000, draws=2)
        spsa = SPSA(eps=0.01, queries=4000, directions=32, probe=0.003)
        for attack, least in ((square, 1 - 1e-3), (spsa, 1 / 1.05)):
            assert (gain(attack, math.inf, FreshNoise(0, "attack"), 10.0) > least).all()

    def test_rays_is_not_led_down_by_lucky_decisions(self) -> None:
        """Under noise as wide as a tenth of the distance to the boundary."""
        attack = RayS(eps=0.01, queries=3 * 800, draws=3)
        noise = FreshNoise(0, "attack")
        assert (gain(attack, math.inf, noise, 0.005) > 1 / 1.05).all()
        assert noise.passes == 0  # every decision meets the first three


class TestMasked:
    """A defence that rounds: its gradient is zero everywhere, and says so of itself to nobody."""

    @staticmethod
    def defence(noise: NoiseSource | None = None) -> Defence:
        def rounded(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
            return (images.double() * 8).round() / 8

        return Defence(convnet().double(), Rule(rounded), noise or FixedNoise(0))

    @pytest.mark.parametrize("name", ["Square", "SPSA", "RayS"])
    def test_what_the_gradient_leaves_standing_falls(self, name: str) -> None:
        images, indices = some_images(6).float(), torch.arange(6)
        labels = self.defence()(images, indices).argmax(1)
        eps = 32 / 255
        found = PGD(eps=eps, random_start=False)(self.defence(), images, labels, indices)
        assert torch.equal(found, images)
        more = {"probe": 0.05} if name == "SPSA" else {}
        attack = SMALL[name](eps, queries=1000, **more)
        found = attack(self.defence(), images, labels, indices)
        assert not correct(self.defence()(found, indices), labels).any()


@EVERY
@BOTH
class TestContract:
    @staticmethod
    def images() -> Tensor:
        """Many pixels are 0 or 1, where the box meets the ball."""
        return (some_images(4).float() * 1.6 - 0.3).clamp(0, 1)

    def test_images_stay_in_the_ball_and_the_box(self, name: str, noise: str) -> None:
        images, attack = self.images(), SMALL[name](0.1, early_stop=False)
        labels = chain(FixedNoise(0))(images, INDICES).argmax(1)
        for mode in (torch.enable_grad, torch.no_grad):
            with mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                defence = chain(NOISES[noise](), dtype=torch.float32)
                found = attack(defence, images, labels, INDICES, seed=1)
            assert torch.equal(images, self.images())
            assert found.dtype == torch.float32
            assert attack.admits(found, images).all()
            assert (lp_distance(found, images, attack.p) > 0).sum() >= 2

    def test_no_budget_and_no_images(self, name: str, noise: str) -> None:
        defence, labels = chain(NOISES[noise]()), torch.zeros(4).long()
        found = SMALL[name](0.0)(defence, self.images(), labels, INDICES)
        assert torch.equal(found, self.images())
        none = SMALL[name](0.1)(defence, self.images()[:0], labels[:0], labels[:0])
        assert len(none) == 0

    def test_a_sample_does_not_depend_on_its_batch(self, name: str, noise: str) -> None:
        """Nor on its place in it: bit for bit, with samples that leave and such that stay."""

        def bound() -> Defence:
            return chain(FixedNoise(0)).bind(NOISES[noise](), INDICES)

        images = self.images()
        batch = images, chain(FixedNoise(0))(images, INDICES).argmax(1), INDICES
        order = [2, 0, 3, 1]
        parts = [order, order[:3], *([row] for row in order)]
        whole = attack_whole_and_alone(SMALL[name](0.1), bound, batch, parts)
        again = SMALL[name](0.1, rows_per_pass=3)(bound(), *batch, seed=1)
        assert torch.equal(again, whole)
        assert not torch.equal(whole, images)

    @pytest.mark.parametrize("queries", [16, 41])
    def test_no_more_is_asked_than_allowed(self, name: str, noise: str, queries: int) -> None:
        """And on a defence that is never fooled as much as fits."""
        labels, images = torch.zeros(4).long(), self.images()
        attack = SMALL[name](0.1, queries=queries)
        counts = []
        for classifier in (constant, None):
            counted, passes = Counted(), []
            defence = chain(NOISES[noise](), classifier, passes=passes, dtype=torch.float32)
            attack(defence.observed(counted), images, labels, INDICES)
            counts.append(counted.of[INDICES])
            assert sum(draws for _, draws in passes) <= attack.num_queries(defence)
        never, real = counts
        assert (real <= queries).all()
        unit = {"Square": 1, "RayS": 1, "SPSA": 9}[name.split(",")[0]]
        if noise == "fresh":
            unit = {"Square": 4, "RayS": 2, "SPSA": 8}[name.split(",")[0]]
        assert never.tolist() == [queries // unit * unit] * 4

    def test_what_is_wrong_already_stays_as_it_is(self, name: str, noise: str) -> None:
        defence, images = chain(NOISES[noise](), constant), self.images()
        counted = Counted()
        found = SMALL[name](0.1)(defence.observed(counted), images, torch.ones(4).long(), INDICES)
        assert not correct(defence(found, INDICES), torch.ones(4).long()).any()
        if noise == "fixed":
            assert torch.equal(found, images)
            assert counted.of[INDICES].tolist() == [1] * 4


class TestSquares:
    def test_the_schedule_is_the_published_one(self) -> None:
        """Halved after 10, 50, ... of 10,000 iterations, and after a tenth of those of 1,000."""
        for iterations in (10_000, 1000):
            shares = [share_at(k, iterations, 0.8) for k in range(iterations)]
            falls = [k for k in range(1, iterations) if shares[k] < shares[k - 1]]
            assert falls == [limit * iterations // 10_000 + 1 for limit in HALVINGS]
            assert (shares[0], shares[-1]) == (0.8, 0.8 / 2**9)

    @pytest.mark.parametrize(
        ("share", "shape", "side"),
        [(0.8, (3, 32, 32), 29), (0.8 / 512, (3, 32, 32), 1), (1e-9, (8, 8), 1), (1, (4, 9), 4)],
    )
    def test_a_square_holds_its_share(self, share: float, shape: Any, side: int) -> None:
        assert side_of(share, torch.Size(shape)) == side

    def test_the_bumps_of_a_window_of_three(self) -> None:
        """By hand: 1/4, 1 + 1/4, 1/4 down a column that is one wide or two, next to its middle."""
        column = torch.tensor([0.25, 1.25, 0.25], dtype=torch.float64)
        beside = torch.full((3,), 0.25, dtype=torch.float64)
        want = torch.stack([column, -beside, -column], 1)
        torch.testing.assert_close(opposites(3), want / want.norm())

    @pytest.mark.parametrize("side", [1, 2, 5, 8])
    def test_windows_lie_everywhere_inside(self, side: int) -> None:
        images = torch.zeros(400, 2, 8, 10)
        uniform = FixedNoise(0).uniform(torch.arange(400), like=torch.empty(0, 2))
        uniform[:2] = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
        window = Window.drawn(uniform, side, images)
        covered = window.mask()[:, 0]
        assert (covered.sum((1, 2)) == side**2).all()
        assert len({*map(tuple, window.rows.tolist())}) == 9 - side
        assert covered.any(0).all()
        written = window.written(images, torch.ones(400, 2, side, side))
        assert torch.equal(written, covered[:, None].expand_as(images).float())
        assert window.read(written).all()

    @pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (3, 12, 7), (1, 4, 3)])
    def test_in_l2_all_of_the_ball_is_used(self, shape: Any) -> None:
        """Away from the walls every proposal has the length eps."""
        clean, noise = torch.full((5, *shape), 0.5), FixedNoise(3)

        def uniform(k: int, count: int) -> Tensor:
            like = torch.empty(0, count)
            return noise.derived("step", k).uniform(torch.arange(5), like=like)

        moves = L2()
        images = moves.start(clean, uniform(0, moves.num_start(clean.shape[1:])), 0.1)
        for k in range(1, 6):
            want = torch.full((5,), 0.1)
            torch.testing.assert_close(lp_distance(images, clean), want, rtol=1e-4, atol=0)
            count = moves.num_move(clean.shape[1:])
            before, images = images, moves.move(images, clean, uniform(k, count), 0.1, 0.1)
            assert ((before - images).abs() > 1e-6).flatten(1).any(1).all()


@pytest.mark.slow
def test_square_succeeds_as_often_as_the_librarys() -> None:
    """On the embedded classifier: the intervals of the two shares overlap."""
    pixels, classes = sources.embedded()
    images = torch.from_numpy(pixels[:10]).permute(0, 3, 1, 2).float() / 255
    labels, indices = torch.from_numpy(classes[:10]).long(), torch.arange(10)
    defence, shares = Defence(embedded_resnet18()), []
    library = AutoAttack(eps="6/255", attacks=["square"], square_queries=60)
    for attack in (Square(eps="6/255", queries=60), library):
        found = attack(defence.bind(None, indices), images, labels, indices)
        fooled = int((~correct(defence(found), labels)).sum())
        shares.append(wilson_interval(fooled, 10))
    (low, high), (other_low, other_high) = shares
    assert low <= other_high
    assert other_low <= high
    assert high < 1
    assert low > 0.05


@pytest.mark.parametrize(
    ("attack", "options", "keyword"),
    [
        (Square, {"norm": "L1"}, "Linf or L2"),
        (Square, {"queries": 19}, "at least 20"),
        (Square, {"draws": 0}, "draws"),
        (Square, {"first_share": 0}, "first_share"),
        (Square, {"rows_per_pass": 0}, "rows_per_pass"),
        (SPSA, {"queries": 128}, "at least 129"),
        (SPSA, {"directions": 0}, "directions"),
        (SPSA, {"probe": 0.0}, "probe"),
        (SPSA, {"rel_stepsize": "-1/3"}, "rel_stepsize"),
        (SPSA, {"update": "sgd"}, "adam, sign"),
        (RayS, {"queries": 9}, "at least 10"),
        (RayS, {"draws": 1.5}, "whole number"),
        (RayS, {"tolerance": 1}, "tolerance"),
    ],
)
def test_senseless_arguments_are_refused(attack: Any, options: Any, keyword: str) -> None:
    with pytest.raises(InputError, match=keyword):
        attack(**options)


def test_settings_name_what_was_run() -> None:
    said = Square(eps=0.5, norm="L2", queries=300).settings()
    assert said.items() >= {"attack": "Square", "norm": "L2", "eps": 0.5, "queries": 300}.items()
    assert said["draws"] == 10
    assert SPSA().settings()["directions"] == 64
    assert RayS(early_stop=False).settings()["early_stop"] is False
    assert (Square().stops_early, RayS().stops_early, SPSA().stops_early) == (False, False, True)
