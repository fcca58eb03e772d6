"""The best image of every sample, and what it is scored by on a random defence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import Rule, chain, constant, convnet
from oracles import some_images
from torch import Tensor
from torch.nn import functional as F

from lit_purify.attacks import BPDAEOT, PGD, PGDEOT, Attack, Watch
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.diffusion.noise import NoiseSource
from lit_purify.functional import correct, majority
from lit_purify.modules.protocols import fresh_noise
from lit_purify.types import InputError

STEEP: Any = {"eps": "12/255", "rel_stepsize": 0.2}
EVALUATED: Any = {**STEEP, "steps": 3, "draws": 2, "keep": "best", "evaluations": 5}
INDICES = torch.arange(200, 216)


def fresh() -> FreshNoise:
    return FreshNoise(0, "attack")


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Images, the classes that the chain gives them, and dataset indices."""
    images = some_images(16).float()
    return images, chain(FixedNoise(0))(images, INDICES).argmax(1), INDICES


def judged(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which images fool the chain under fixed noise, and their cross-entropy."""
    logits = chain(FixedNoise(0))(images, INDICES)
    return ~correct(logits, labels), F.cross_entropy(logits, labels, reduction="none")


def better(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """By success first, then by loss; rounding apart."""
    return (one[0] & ~other[0]) | ((one[0] == other[0]) & (one[1] >= other[1] - 1e-5))


class TestDeterministic:
    def test_the_best_iterate_is_kept(self, batch: tuple[Tensor, ...]) -> None:
        """That of a descent is its start, that of a zigzag is none of the last."""
        images, labels, _ = batch
        options: Any = {**STEEP, "rel_stepsize": 1.5, "random_start": False}
        lasts = [
            PGD(**options, steps=k)(chain(FixedNoise(0)), *batch) if k else images for k in range(8)
        ]
        found = PGD(**options, steps=7, keep="best")(chain(FixedNoise(0)), *batch)
        of_found = judged(found, labels)
        of_lasts = [judged(x, labels) for x in lasts]
        for last in of_lasts:
            assert better(of_found, last).all()
        same = torch.stack([(found - x).abs().amax((1, 2, 3)) < 1e-6 for x in lasts])
        assert same.any(0).all()
        assert not same[-1].all()

    @pytest.mark.parametrize("options", [{"restarts": 3}, {"targets": "all"}, {"targets": 2}])
    @pytest.mark.parametrize("early_stop", [False, True])
    def test_more_attempts_are_never_worse(
        self, options: Any, early_stop: bool, batch: tuple[Tensor, ...]
    ) -> None:
        _, labels, _ = batch
        fewer: Any = {"restarts": 1} if "restarts" in options else {"targets": 1}
        fixed: Any = {**STEEP, "eps": "8/255", "steps": 4, "keep": "best", "loss": "margin"}
        few, many = (
            judged(
                PGD(**fixed, **some, early_stop=early_stop)(chain(FixedNoise(0)), *batch), labels
            )
            for some in (fewer, options)
        )
        assert (many[0] >= few[0]).all()
        if not early_stop:
            assert few[0].any()
            assert not few[0].all()

    def test_a_fooled_sample_needs_no_more(self, batch: tuple[Tensor, ...]) -> None:
        passes: list[tuple[int, int]] = []
        attack = PGD(**STEEP, steps=3, keep="best", restarts=2, loss="margin")
        attack(chain(FixedNoise(0), passes=passes), *batch)
        once = PGD(**STEEP, steps=3, keep="best", loss="margin")(chain(FixedNoise(0)), *batch)
        standing = int((~judged(once, batch[1])[0]).sum())
        assert 0 < standing < 16
        assert [rows for rows, _ in passes] == [16] * 4 + [standing] * 4

    def test_targets_are_the_likeliest_wrong_classes(self) -> None:
        """The attempt at each class raises its logit; only one of them can be won."""
        seen: list[Tensor] = []

        def classify(images: Tensor) -> Tensor:
            seen.append(images.detach().flatten(1))
            return images.flatten(1)[:, :4] * torch.tensor([1.0, 1.0, 1.0, 0.0])

        images = torch.tensor([0.9, 0.2, 0.4, 0.3]).view(1, 1, 2, 2)
        PGD(
            eps=0.1,
            steps=1,
            rel_stepsize=1,
            random_start=False,
            targets=2,
            keep="best",
            loss="margin",
        )(Defence(classify), images, torch.tensor([0]), torch.tensor([5]))
        clean, first, tried, second, then = seen
        assert torch.equal(clean, images.flatten(1))
        assert torch.equal(first, clean)
        assert torch.equal(second, clean)
        torch.testing.assert_close(tried, clean + torch.tensor([[-0.1, 0.0, 0.1, 0.0]]))
        torch.testing.assert_close(then, clean + torch.tensor([[-0.1, 0.1, 0.0, 0.0]]))

    def test_evaluations_change_nothing(self, batch: tuple[Tensor, ...]) -> None:
        few, many = (PGDEOT(**{**EVALUATED, "evaluations": n}) for n in (0, 5))
        found = [attack(chain(FixedNoise(0)), *batch) for attack in (few, many)]
        assert torch.equal(*found)
        assert many.num_queries(chain(FixedNoise(0))) == 4
        stands = ~judged(found[0], batch[1])[0]
        assert torch.equal(many.findings["standing_in_selection"] == 1, stands)


@pytest.mark.parametrize("noise", [FixedNoise(0), fresh()])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"restarts": 2, "keep": "best"},
        {"targets": 2, "keep": "best", "steps": 1},
        {"targets": "all", "restarts": 2, "keep": "best", "evaluations": 5, "steps": 1},
    ],
)
def test_queries_are_counted(noise: Any, options: Any) -> None:
    """An iteration for every image that is asked about."""

    class Four(torch.nn.Module):
        num_classes = 4

        def forward(self, images: Tensor) -> Tensor:
            return constant(images)

    attack = PGDEOT(**{"steps": 3, "draws": 2, **options})
    defence = Defence(Four(), Rule(lambda x, noise, indices: x), noise)
    labels = torch.zeros(3, dtype=torch.int64)
    iterations = attack.queries_per_iteration(defence)
    watch = Watch(labels, INDICES[:3], iterations=iterations)
    attack(defence.observed(watch), some_images(3).float(), labels, INDICES[:3])
    assert watch.queries == attack.num_queries(defence) == sum(iterations)
    assert len(iterations) == attack.num_iterations(defence)
    asked = watch.trace().gradient_norm.isfinite()[0].tolist()
    climbs = ([True] * attack.steps + [False] * (attack.keep == "best")) * attack.restarts
    targets = {None: 1, 2: 2, "all": 3}[attack.targets]
    assert asked == [False] * (attack.targets is not None) + climbs * targets


def test_a_defence_that_hides_its_classes_has_queries_without_number() -> None:
    attack = PGD(targets="all", keep="best")
    assert attack.num_queries(Defence(convnet())) is None
    assert attack.num_iterations(Defence(convnet())) is None


class TestEvaluations:
    """N answers to every image."""

    @pytest.mark.parametrize("kind", [PGDEOT, BPDAEOT])
    @pytest.mark.parametrize("judged_by", ["mean", "worst", "majority"])
    def test_the_score_is_that_of_the_image_under_the_draws_of_selection(
        self, kind: Any, judged_by: str, batch: tuple[Tensor, ...]
    ) -> None:
        _, labels, indices = batch
        attack = kind(**EVALUATED, judged_by=judged_by)
        found = attack(chain(fresh()), *batch)
        stream = FreshNoise(0, "selection")
        logits = torch.stack([chain(stream)(found, indices) for _ in range(5)])
        right = torch.stack([correct(each, labels) for each in logits])
        want = {
            "mean": right.double().mean(0),
            "worst": right.all(0).double(),
            "majority": (majority(logits) == labels).double(),
        }[judged_by]
        torch.testing.assert_close(attack.findings["standing_in_selection"], want)
        assert 0 < want.mean() < 1
        assert attack.settings()["judged_by"] == judged_by
        assert attack.settings()["attack_evaluations"] == 5

    def test_draws_that_select_follow_no_gradient_and_judge_no_test(self) -> None:
        keys: dict[bool, list[int]] = {True: [], False: []}

        def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
            each: Any = getattr(noise, "configurations", [noise])
            keys[images.requires_grad] += [configuration.seed for configuration in each]
            return images.double()

        defence = Defence(convnet().double(), Rule(purify), fresh())
        labels = torch.zeros(2, dtype=torch.int64)
        attack = PGDEOT(**EVALUATED, restarts=2)
        attack(defence, some_images(2).float(), labels, INDICES[:2])
        followed, selecting = keys[True], keys[False]
        assert len(set(followed)) == len(followed) == 2 * 3 * 2
        # All images are scored under the same.
        assert len(selecting) == 2 * 4 * 5
        assert len(set(selecting)) == 5
        tested = {fresh_noise(0, k).seed for k in range(1000)}
        assert not set(selecting) & (set(followed) | tested | {0})
        assert not set(followed) & tested

    def test_how_they_are_batched_does_not_matter(self, batch: tuple[Tensor, ...]) -> None:
        found = []
        for rows, sizes in ((16, [1] * 5), (40, [2, 2, 1]), (10**6, [5])):
            passes: list[tuple[int, int]] = []
            attack = PGDEOT(**EVALUATED, judged_by="majority", rows_per_pass=rows)
            found.append(attack(chain(fresh(), passes=passes), *batch))
            assert passes[-len(sizes) :] == [(16 * n, n) for n in sizes]
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])

    def test_a_vote_of_many_draws(self, batch: tuple[Tensor, ...]) -> None:
        passes: list[tuple[int, int]] = []
        few = [column[:4] for column in batch]
        attack = PGDEOT(
            **{**EVALUATED, "evaluations": 128, "steps": 1}, judged_by="majority", rows_per_pass=128
        )
        attack(chain(fresh(), passes=passes), *few)
        assert passes == [(8, 2), *[(128, 32)] * 4, *[(128, 32)] * 4]


class Coin(Rule):
    """Right with probability 1/2 at every pass, whatever the image: keyed by draw and sample."""

    def __init__(self) -> None:
        super().__init__(self.toss)

    @staticmethod
    def toss(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        heads = noise.uniform(indices, like=images)[:, :1, :1, :1] > 0
        return 0 * images + heads.to(images)


def by_brightness(images: Tensor) -> Tensor:
    bright = images.mean((1, 2, 3))
    return torch.stack([bright, 1 - bright], 1)


@pytest.mark.parametrize(("judged_by", "low", "high"), [("mean", 0.48, 0.52), ("worst", 0.0, 0.01)])
def test_a_coin_scores_its_mean(judged_by: Any, low: float, high: float) -> None:
    """However many images are tried, none is kept for its luck."""
    images, labels = torch.full((150, 1, 2, 2), 0.5), torch.zeros(150, dtype=torch.int64)
    attack = PGDEOT(
        steps=8,
        draws=2,
        restarts=2,
        keep="best",
        evaluations=20,
        judged_by=judged_by,
        rows_per_pass=10**6,
    )
    indices = torch.arange(150)
    found = attack(Defence(by_brightness, Coin(), fresh()), images, labels, indices)
    standing = attack.findings["standing_in_selection"]
    assert low <= standing.mean() <= high  # 3000 tosses: a deviation of 0.009
    test = torch.stack(
        [
            correct(Defence(by_brightness, Coin(), fresh_noise(0, k))(found, indices), labels)
            for k in range(20)
        ]
    )
    assert 0.47 <= test.double().mean() <= 0.53


@pytest.mark.parametrize(
    ("options", "keyword"),
    [
        *(({name: "none"}, "expected one of") for name in ("norm", "loss", "schedule", "keep")),
        ({"judged_by": "vote"}, "expected one of"),
        *(({"restarts": n, "keep": "best"}, "whole number") for n in (0, 1.5, True)),
        *(({"evaluations": n, "keep": "best"}, "whole number") for n in (-1, 2.5)),
        *(({"targets": n, "keep": "best"}, "wrong classes") for n in (0, -1, 1.5, "some", True)),
        *(({"momentum": m}, "0.25") for m in (-0.1, 1.0, float("nan"))),
        *(({name: 2}, "set keep to best") for name in ("restarts", "targets", "evaluations")),
        ({"restarts": 2, "keep": "best", "random_start": False}, "random_start"),
        ({"judged_by": "majority", "keep": "best"}, "evaluations is 0"),
    ],
)
def test_what_makes_no_sense_together_is_refused(options: Any, keyword: str) -> None:
    for kind in (PGD, PGDEOT):
        with pytest.raises(InputError, match=keyword):
            kind(**options)


def test_noise_without_streams_cannot_be_evaluated(batch: Any) -> None:
    class Own(NoiseSource):
        def next_configuration(self) -> FixedNoise:
            return FixedNoise(3)

    with pytest.raises(InputError, match="Own"):
        PGDEOT(**EVALUATED)(chain(Own()), *batch)


def test_settings_tell_all_that_decides() -> None:
    attack: Attack = PGD(norm="L2", eps=0.5, targets=3, keep="best", schedule="apgd")
    said = attack.settings()
    assert (said["norm"], said["targets"], said["attack_schedule"]) == ("L2", 3, "apgd")
    assert PGD().settings()["targets"] == "none"
    assert "schedule" not in said  # which is the diffusion's
    assert "finding_names" not in PGD(keep="best", evaluations=2).settings()
