"""An attack that searches in low precision and is judged in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from defences import chain, convnet
from oracles import some_images
from torch import Tensor, nn

from lit_purify import precision
from lit_purify.attacks import BPDA, BPDAEOT, PGD, PGDEOT, Watch
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise
from lit_purify.functional import correct
from lit_purify.types import InputError

KIN = (PGD, PGDEOT, BPDA, BPDAEOT)
STEPS = 6
CLIMB: Any = {"eps": 0.15, "steps": STEPS, "rel_stepsize": "1/6", "random_start": False}
START = torch.tensor([0.38, 0.44, 0.49, 0.24])
"""Brightness of the first pixel; the k-th query meets ``START + 0.025 k``, k = 0 .. 5."""
STEEP: Any = {"eps": "12/255", "rel_stepsize": 0.2}
INDICES = torch.tensor([30, 10, 20, 40])
LABELS = torch.zeros(4, dtype=torch.int64)


class Threshold(nn.Module):
    """Class 1 where the first pixel is brighter than 0.5, or than ``low`` in low precision.

    Attributes:
        passes: (whether in bfloat16, images) of every pass.
    """

    def __init__(self, low: float) -> None:
        super().__init__()
        self.low = low
        self.passes: list[tuple[bool, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        low = torch.is_autocast_enabled("cpu")
        self.passes.append((low, len(images)))
        score = images.flatten(1)[:, 0] - (self.low if low else 0.5)
        return torch.stack([-score, score], 1)

    def rows(self, *, low: bool) -> list[int]:
        """Images of the passes in one of the precisions."""
        return [rows for was_low, rows in self.passes if was_low == low]


def climbed(attack: PGD, low: float) -> tuple[Threshold, list[float], Watch]:
    """The classifier, the brightness that the attack ends with, and what was seen of it."""
    images = START.view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    classifier, watch = Threshold(low), Watch(LABELS, INDICES, iterations=[1] * STEPS)
    found = attack(Defence(classifier).observed(watch), images, LABELS, INDICES)
    return classifier, found[:, 0, 0, 0].tolist(), watch


@pytest.mark.parametrize("kind", KIN)
class TestThresholds:
    def test_a_success_counts_when_float32_confirms_it(self, kind: type[PGD]) -> None:
        """Low precision sees them from 0.4 on; a sample is asked about until it is fooled."""
        classifier, found, watch = climbed(kind(**CLIMB, precision="bf16"), 0.4)
        assert watch.fooled.tolist() == [True, True, True, False]
        assert found == pytest.approx([0.53, 0.59, 0.64, 0.39])
        assert classifier.rows(low=True) == [4] * STEPS
        assert classifier.rows(low=False) == [2, 3, 2, 2, 1, 1]
        # What confirms is no query of the attack.
        assert watch.queries == STEPS

    def test_until_then_the_attack_goes_on(self, kind: type[PGD]) -> None:
        attack = kind(**CLIMB, precision="bf16", early_stop=True)
        classifier, found, watch = climbed(attack, 0.4)
        assert watch.fooled.tolist() == [True, True, True, False]
        # In float32 the first is fooled at its query 5, the second at 3, the third at 1.
        assert found == pytest.approx([0.505, 0.515, 0.515, 0.39])
        assert classifier.rows(low=True) == [4, 4, 3, 3, 2, 2]
        assert classifier.rows(low=False) == [2, 3, 2, 2, 1, 1]

    @pytest.mark.parametrize("early_stop", [False, True])
    def test_the_best_image_is_one_that_float32_confirmed(
        self, kind: type[PGD], early_stop: bool
    ) -> None:
        attack = kind(**CLIMB, precision="bf16", keep="best", early_stop=early_stop)
        _, found, watch = climbed(attack, 0.4)
        assert watch.fooled.tolist() == [True, True, True, False]
        # The first image of each that float32 gets wrong; of the last sample that of its top loss.
        assert found == pytest.approx([0.505, 0.515, 0.515, 0.39])

    @pytest.mark.parametrize("early_stop", [False, True])
    def test_what_low_precision_does_not_see_is_not_counted(
        self, kind: type[PGD], early_stop: bool
    ) -> None:
        attack = kind(**CLIMB, precision="bf16", early_stop=early_stop)
        classifier, found, watch = climbed(attack, 0.7)
        assert not watch.fooled.any()
        assert classifier.rows(low=False) == []
        assert found == pytest.approx([0.53, 0.59, 0.64, 0.39])  # float32 tests these afterwards

    def test_nothing_is_counted_that_low_precision_imagines(self, kind: type[PGD]) -> None:
        """Whatever it says, a nan too: here nothing ever moves."""
        for low in (-1.0, float("nan")):
            attack = kind(**{**CLIMB, "eps": 0}, precision="bf16", early_stop=True)
            classifier, found, watch = climbed(attack, low)
            assert not watch.fooled.any()
            assert found == START.tolist()
            assert classifier.passes == [(True, 4), (False, 4)] * STEPS

    def test_float32_leaves_the_precision_to_the_caller(self, kind: type[PGD]) -> None:
        attack = kind(**CLIMB)
        assert attack.precision == "float32"
        classifier, _, watch = climbed(attack, 0.4)
        assert classifier.passes == [(False, 4)] * STEPS
        assert watch.fooled.tolist() == [True, True, True, False]
        with torch.autocast("cpu", torch.bfloat16):
            classifier, _, _ = climbed(attack, 0.4)
        assert classifier.passes == [(True, 4)] * STEPS

    def test_float32_judges_inside_autocast_too(self, kind: type[PGD]) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            classifier, _, watch = climbed(kind(**CLIMB, precision="bf16"), 0.4)
        assert classifier.rows(low=False) == [2, 3, 2, 2, 1, 1]
        assert watch.fooled.tolist() == [True, True, True, False]

    def test_the_report_says_it(self, kind: type[PGD]) -> None:
        assert kind(precision="tf32").settings()["attack_precision"] == "tf32"
        assert kind().settings()["attack_precision"] == "float32"
        assert "precision" not in kind().settings()  # which is the run's

    @pytest.mark.parametrize("wrong", ["fp16", "float64", "", None])
    def test_other_precisions_are_refused(self, kind: type[PGD], wrong: Any) -> None:
        with pytest.raises(InputError, match="bf16"):
            kind(precision=wrong)


def test_fresh_noise_is_drawn_for_the_search_alone() -> None:
    """Where a success may be luck there is none to confirm."""
    noise = FreshNoise(0, "attack")
    wrong_labels = torch.zeros(24, dtype=torch.int64)  # of most
    PGDEOT(steps=3, draws=2, precision="bf16")(
        chain(noise), some_images(24).float(), wrong_labels, torch.arange(24)
    )
    assert noise.passes == 3 * 2


def purified(**options: Any) -> tuple[Defence, Tensor, Tensor, Tensor]:
    """A chain in float32 under fixed noise, images, the classes it gives them, and indices."""
    defence = chain(FixedNoise(0), convnet(), dtype=torch.float32, **options)
    images, indices = some_images(24).float(), torch.arange(200, 224)
    return defence, images, defence(images, indices).argmax(1), indices


class TestChain:
    """In real bfloat16."""

    def test_successes_are_those_of_float32_that_the_search_met(self) -> None:
        defence, *batch = purified()
        images, labels, indices = batch
        low, exact = [], []
        for steps in range(8):  # the iterate that query number ``steps`` is about
            x = images
            if steps:
                x = PGD(**STEEP, steps=steps, random_start=False, precision="bf16")(defence, *batch)
            exact.append(~correct(defence(x, indices), labels))
            with torch.autocast("cpu", torch.bfloat16):
                low.append(~correct(defence(x, indices), labels))
        met = (torch.stack(low) & torch.stack(exact)).any(0)
        assert 5 < met.sum() < 19
        for early_stop in (False, True):
            watch = Watch(labels, indices)
            attack = PGD(
                **STEEP,
                steps=8,
                random_start=False,
                precision="bf16",
                early_stop=early_stop,
            )
            found = attack(defence.observed(watch), *batch)
            assert torch.equal(watch.fooled, met)
        # Stopped early, every success is one in float32.
        assert not correct(defence(found, indices), labels)[met].any()

    def test_steps_computed_again_are_so_in_the_precision_of_the_search(self) -> None:
        found = []
        for gib in (0, 2):
            defence, *batch = purified(memory_budget_gib=gib)
            found.append(PGD(**STEEP, steps=5, precision="bf16")(defence, *batch))
        assert torch.equal(*found)

    def test_only_rounding_tells_two_batches_apart(self) -> None:
        defence, images, labels, indices = purified()
        attack = PGD(**STEEP, steps=5, precision="bf16")
        whole = attack(defence, images, labels, indices)
        alone = torch.cat(
            [
                attack(defence, *(column[[row]] for column in (images, labels, indices)))
                for row in range(len(images))
            ]
        )
        assert ((whole - images).sign() == (alone - images).sign()).double().mean() > 0.95


def test_tf32_holds_in_the_backward_pass_and_not_for_the_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The switches are looked at, as a CPU has no TF32 to be seen."""
    monkeypatch.setattr(precision, "check_tf32", lambda device: None)
    seen: dict[str, set[str]] = {"forward": set(), "backward": set(), "judge": set()}
    network = convnet()

    def spied(images: Tensor) -> Tensor:
        mode = torch.get_float32_matmul_precision
        seen["forward" if images.requires_grad else "judge"].add(mode())
        if images.requires_grad:
            images.register_hook(lambda gradient: seen["backward"].add(mode()))
        return network(images)

    before = torch.get_float32_matmul_precision()
    images = some_images(4).float()
    wrong = (network(images).argmax(1) + 1) % 4
    PGD(steps=2, precision="tf32")(Defence(spied), images, wrong, torch.arange(4))
    assert seen == {"forward": {"high"}, "backward": {"high"}, "judge": {"highest"}}
    assert torch.get_float32_matmul_precision() == before


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(InputError, match="TF32"):
        PGD(precision="tf32")(
            Defence(convnet()), some_images(2).float(), torch.zeros(2).long(), torch.arange(2)
        )
