"""Attacks of foolbox on a defence whose smallest perturbation is known."""

from __future__ import annotations

import inspect
import logging
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foolbox.attacks as fa
import pytest
import torch
from defences import LinearDefence, attack_whole_and_alone, constant, half_broken
from foolbox.attacks.base import FixedEpsilonAttack, Repeated
from foolbox.distances import LpDistance
from jsonargparse import ArgumentParser
from torch import Tensor

from lit_purify.attacks import Attack, FoolboxAttack
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise
from lit_purify.functional import correct, lp_distance
from lit_purify.types import InputError

LINEAR = LinearDefence()
BATCH = IMAGES, LABELS, INDICES = LINEAR.samples()
CONFIGS = Path(__file__).parents[2] / "configs"


ATTACKS: dict[str, fa.Attack] = {
    "pgd": fa.L2PGD(steps=40, rel_stepsize=0.1),
    "deepfool": fa.L2DeepFoolAttack(),
    "deepfool_linf": fa.LinfDeepFoolAttack(),
    "carlini_wagner": fa.L2CarliniWagnerAttack(steps=100, binary_search_steps=4, initial_const=0.1),
    "fmn": fa.L2FMNAttack(steps=50),
    "fmn_linf": fa.LInfFMNAttack(steps=50),
    "hopskipjump": fa.HopSkipJumpAttack(steps=10),
}
QUICK = {
    **ATTACKS,
    "carlini_wagner": fa.L2CarliniWagnerAttack(steps=20, binary_search_steps=2, initial_const=1),
    "hopskipjump": fa.HopSkipJumpAttack(steps=1, initial_gradient_eval_steps=10),
    "repeated": fa.LinfPGD(steps=3).repeat(2),
}


CLASSES = sorted(
    {
        kind.__name__
        for kind in vars(fa).values()
        if isinstance(kind, type) and issubclass(kind, fa.Attack) and kind is not fa.Attack
    }
)
REFUSED = {
    "BinarizationRefinementAttack",
    "BinarySearchContrastReductionAttack",
    "DatasetAttack",
    "GaussianBlurAttack",
    "GenAttack",
    "InversionAttack",
    "L0FMNAttack",
    "LinearSearchBlendedUniformNoiseAttack",
    "LinearSearchContrastReductionAttack",
    "PointwiseAttack",
    "SpatialAttack",
}
"""What has none of these norms unless it is given one, or wants a target class."""


def fools(found: Tensor, rows: slice = slice(None)) -> Tensor:
    return ~correct(LINEAR.defence()(found, INDICES[rows]), LABELS[rows])


@pytest.mark.parametrize("name", ATTACKS)
def test_the_smallest_radius_that_succeeds_is_the_distance_to_the_boundary(name: str) -> None:
    """Found 5 % above |margin| / ||A^T w||_q, and nothing 1 % below it, where there is nothing."""
    attack = ATTACKS[name]
    rows = slice(2) if name == "hopskipjump" else slice(None)
    optimum = LINEAR.optimum(IMAGES, FoolboxAttack(attack=attack, eps=0).p)
    for row in range(*rows.indices(len(IMAGES))):
        one = slice(row, row + 1)
        for factor, success in ((1.05, True), (0.99, False)):
            wrapped = FoolboxAttack(attack=attack, eps=factor * optimum[row].item())
            found = wrapped(LINEAR.defence(), IMAGES[one], LABELS[one], INDICES[one])
            assert bool(fools(found, one)) is success
            assert wrapped.admits(found, IMAGES[one]).all()
            if name == "hopskipjump" and success:
                break  # 4,000 queries are enough of them


@pytest.mark.parametrize("name", ["deepfool", "deepfool_linf", "carlini_wagner", "fmn_linf"])
def test_in_a_wide_ball_a_minimal_perturbation_stays_minimal(name: str) -> None:
    wrapped = FoolboxAttack(attack=ATTACKS[name], eps=0.9)
    found = wrapped(LINEAR.defence(), *BATCH)
    ratio = lp_distance(found, IMAGES, wrapped.p) / LINEAR.optimum(IMAGES, wrapped.p)
    assert fools(found).all()
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.05


def defence(fresh: bool) -> Defence:
    noise = FreshNoise(0, "attack") if fresh else FixedNoise(0)
    return LINEAR.double().defence(noise, level=0.02)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_sample_depends_on_nothing_but_itself(name: str, fresh: bool) -> None:
    attack = FoolboxAttack(attack=QUICK[name], eps=0.3)
    parts = [[2], [0], [3], [1], [0, 1, 2, 3]]
    whole = attack_whole_and_alone(attack, lambda: defence(fresh), BATCH, parts)
    # HopSkipJump relies on it that an image which fooled once fools again.
    gave_up = attack.findings["broke_off"] | attack.findings["no_start"]
    assert torch.equal((whole == IMAGES).flatten(1).all(1), gave_up)
    assert gave_up.any() == (fresh and name == "hopskipjump")


@pytest.mark.parametrize("name", sorted(set(CLASSES) - REFUSED))
@pytest.mark.parametrize("fresh", [False, True])
def test_a_batch_gets_what_its_samples_get_alone_in_fewer_passes(name: str, fresh: bool) -> None:
    """Bit for bit, whatever is wrong from the start, and wherever a sample is stopped."""
    if "BrendelBethge" in name:
        pytest.importorskip("numba")
    kind = getattr(fa, name)
    known = inspect.signature(kind).parameters
    options: dict[str, Any] = {"steps": 8} if "steps" in known else {}
    options |= {"binary_search_steps": 3} if "binary_search_steps" in known else {}
    labels = torch.where(torch.tensor([False, False, True, False]), 1 - LABELS, LABELS)
    attack = FoolboxAttack(attack=kind(**options), eps=0.28, early_stop=True)
    passes = []

    def attacked(rows: list[int]) -> Tensor:
        passes.append(0)
        whole = defence(fresh)

        def classify(images: Tensor) -> Tensor:
            passes[-1] += 1
            return whole.classifier(images)

        counted = Defence(classify, whole.purifier, whole.noise)
        return attack(counted, IMAGES[rows], labels[rows], INDICES[rows], seed=1)

    found = attacked([0, 1, 2, 3])
    findings = attack.findings
    for row in range(4):
        assert torch.equal(attacked([row]), found[row : row + 1])
        for finding, rows in attack.findings.items():
            assert torch.equal(rows, findings[finding][row : row + 1])
    # HopSkipJump fills passes with a single sample, and chance soon stops the others.
    few = "HopSkipJump" not in name and "Repeated" not in name
    assert passes[0] < 0.7 * sum(passes[1:]) if few else passes[0] <= sum(passes[1:])


@pytest.mark.parametrize("name", QUICK)
def test_early_stop_asks_about_fewer_images(name: str) -> None:
    eps = 0.9 if FoolboxAttack(attack=QUICK[name], eps=0).p == math.inf else 3.0
    asked = {False: 0, True: 0}
    for early_stop in (False, True):

        def count(images: Tensor, *_: Any, early_stop: bool = early_stop) -> None:
            asked[early_stop] += len(images)

        attack = FoolboxAttack(attack=QUICK[name], eps=eps, early_stop=early_stop)
        assert attack.stops_early is early_stop
        found = attack(LINEAR.defence().observed(count), *BATCH)
        assert fools(found).all()
        assert attack.admits(found, IMAGES).all()
    # DeepFool's first image that fools is its last one; what is saved is its confirmation.
    assert asked[True] <= asked[False] if "deepfool" in name else asked[True] < asked[False]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("early_stop", [False, True])
def test_a_constant_classifier_has_a_defined_result(name: str, early_stop: bool) -> None:
    attack = FoolboxAttack(attack=QUICK[name], eps=0.3, early_stop=early_stop)
    labels = torch.zeros_like(LABELS)
    found = attack(Defence(constant), IMAGES, labels, INDICES)
    assert torch.equal(found, attack(Defence(constant), IMAGES, labels, INDICES))
    assert attack.admits(found, IMAGES).all()
    raised = {name for name, flags in attack.findings.items() if flags.any()}
    if name == "hopskipjump":
        assert raised == {"no_start"}
        assert torch.equal(found, IMAGES)
    else:
        assert raised == (set() if name in ("pgd", "repeated") else {"not_found"})


@pytest.mark.parametrize("name", QUICK)
def test_a_gradient_of_nan_does_no_harm(name: str) -> None:
    attack = FoolboxAttack(attack=QUICK[name], eps=0.3)
    labels = LINEAR.classify(IMAGES).argmax(1)
    found = attack(Defence(half_broken(LINEAR.classify)), IMAGES, labels, INDICES)
    assert found.isfinite().all()
    assert attack.admits(found, IMAGES).all()
    assert attack.findings["gradient_not_finite"].all() == (name != "hopskipjump")
    assert not attack.findings["not_finite"].any()


class Fails(FixedEpsilonAttack):
    """Raises for images of these channels."""

    distance = LpDistance(2)

    def __init__(self, error: Exception, channels: tuple[int, ...]) -> None:
        self.error = error
        self.channels = channels

    def run(self, model: Any, inputs: Any, criterion: Any, *, epsilon: float, **_: Any) -> Any:
        if inputs.shape[1] in self.channels:
            raise self.error
        return inputs


def test_an_attack_that_breaks_off_leaves_the_clean_image() -> None:
    attack = FoolboxAttack(attack=Fails(AssertionError(), (1,)), eps=0.3)
    assert torch.equal(attack(LINEAR.defence(), *BATCH), IMAGES)
    assert attack.findings["broke_off"].all()


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (lambda: fa.GenAttack(), "criterion.*untargeted"),
        (lambda: fa.GenAttack().repeat(2), "GenAttack.*untargeted"),
        (lambda: fa.BinarizationRefinementAttack(distance=LpDistance(2)), "starting_points"),
        (lambda: fa.DatasetAttack(distance=LpDistance(2)), "feed"),
        (lambda: fa.L2DeepFoolAttack(candidates=1), "2 classes"),
        (lambda: fa.LinfDeepFoolAttack(loss="hinge"), "hinge"),  # type: ignore[arg-type]
        (lambda: fa.L2PGD(steps=0), "0 steps"),
        (lambda: Fails(AssertionError(), (1, 3, 4)), "asserts"),
        (lambda: Fails(KeyError("temperature"), (1, 3, 4)), "temperature"),
    ],
)
def test_an_attack_that_cannot_run_is_refused_where_it_is_made(
    attack: Callable[[], fa.Attack], words: str
) -> None:
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=words), torch.inference_mode():
        FoolboxAttack(attack=attack(), eps=0.3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_trial_of_an_attack_is_short_and_leaves_no_trace() -> None:
    attack = fa.LinfPGD(steps=10**9)
    before = dict(vars(attack))
    FoolboxAttack(attack=attack, eps=0)
    assert vars(attack) == before


UNTRIED = {
    "BinarizationRefinementAttack": "starting_points",
    "DatasetAttack": "feed",
    "GenAttack": "untargeted",
    "L0FMNAttack": "l1, l2 or linf",
    "PointwiseAttack": "l1, l2 or linf",
    "SpatialAttack": "l1, l2 or linf",
}
"""What foolbox exports and cannot run here -> a word of the reason."""


@pytest.mark.parametrize("name", CLASSES)
def test_every_attack_of_foolbox_runs_or_is_refused_in_one_line(name: str) -> None:
    if "BrendelBethge" in name:
        pytest.importorskip("numba")
    kind = getattr(fa, name)
    known = inspect.signature(kind).parameters
    options: dict[str, Any] = {"steps": 3} if "steps" in known else {}
    if "distance" in known and name in REFUSED:
        options["distance"] = LpDistance(2)
    if name in UNTRIED:
        with pytest.raises(InputError, match=UNTRIED[name]):
            FoolboxAttack(attack=kind(**options), eps=0.3)
    else:
        attack = FoolboxAttack(attack=kind(**options), eps=0.3)
        assert attack.admits(attack(LINEAR.defence(), *BATCH), IMAGES).all()


@pytest.mark.parametrize(
    ("attack", "p"),
    [
        (fa.L1PGD(), 1),
        (fa.L2PGD(), 2),
        (fa.LinfPGD(), math.inf),
        (fa.HopSkipJumpAttack(constraint="linf"), math.inf),
        (Repeated(fa.L2FMNAttack(), 3), 2),
        (fa.GaussianBlurAttack(distance=LpDistance(2)), 2),
    ],
)
def test_the_norm_is_the_attacks(attack: fa.Attack, p: float) -> None:
    wrapped = FoolboxAttack(attack=attack, eps="1/2")
    assert wrapped.p == p
    assert wrapped.settings()["norm"] == {1: "L1", 2: "L2", math.inf: "Linf"}[p]
    assert wrapped.settings()["eps"] == 0.5
    assert type(attack).__name__.split("Attack")[0] in str(wrapped.settings()["foolbox_attack"])


def test_it_leaves_logging_and_the_console_alone(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = list(logging.root.handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("hopskipjump", "deepfool"):
            attack = FoolboxAttack(attack=QUICK[name], eps=0.3)
            attack(Defence(constant), IMAGES, torch.zeros_like(LABELS), INDICES)
    assert logging.root.handlers == handlers
    assert "".join(capsys.readouterr()) == ""


def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Attack, "attack")
    return parser


NO_DEFAULT = {"VirtualAdversarialAttack": ["--attack.attack.steps=5"]}


def named(attack: str, *more: str) -> Attack:
    """The attack that a command line names."""
    words = ["--attack=lit_purify.attacks.FoolboxAttack", f"--attack.attack={attack}", *more]
    return parser().instantiate_classes(parser().parse_args([*words, "--attack.eps=0.1"])).attack


@pytest.mark.parametrize("name", CLASSES)
def test_every_attack_can_be_named(name: str) -> None:
    if "BrendelBethge" in name:
        pytest.importorskip("numba")
    path, more = f"foolbox.attacks.{name}", NO_DEFAULT.get(name, [])
    if name in REFUSED:
        with pytest.raises(ValueError, match=r"linf|untargeted"):
            named(path, *more)
    else:
        attack = named(path, *more)
        assert isinstance(attack, FoolboxAttack)
        assert name in str(attack.settings()["foolbox_attack"])


def test_an_attack_without_a_norm_can_be_given_one() -> None:
    distance = "--attack.attack.distance=foolbox.distances.LpDistance"
    attack = named("foolbox.attacks.InversionAttack", distance, f"{distance.split('=')[0]}.p=2")
    assert attack.p == 2


OVERLAYS = [
    path.name
    for path in sorted(CONFIGS.glob("attack/*.yaml"))
    if path.name.startswith(("autoattack", "foolbox"))
]


@pytest.mark.parametrize(
    "words",
    [
        ["--attack=lit_purify.attacks.FoolboxAttack", "--attack.attack=foolbox.attacks.L2PGD"],
        ["--attack=lit_purify.attacks.FoolboxAttack", "--attack.attack=foolbox.attacks.EADAttack"],
        ["--attack=lit_purify.attacks.AutoAttack", "--attack.norm=L2"],
        ["--attack=lit_purify.attacks.AutoAttack", "--attack.norm=L1"],
    ],
)
@pytest.mark.parametrize("radius", ["8/255", "4/255", "0.5"])
def test_a_radius_that_an_attack_inherits_from_linf_is_told(
    words: list[str], radius: str, tmp_path: Path
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(
        f"attack: {{class_path: lit_purify.attacks.PGD, init_args: {{eps: {radius}, steps: 40}}}}"
    )
    config = parser().parse_args([f"--config={base}", *words])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        parser().instantiate_classes(config)
    found = [str(w.message) for w in told if "l_inf" in str(w.message)]
    assert len(found) == (radius != "0.5")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_takes_the_place_of_the_attack(overlay: str, tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(
        "attack: {class_path: lit_purify.attacks.PGD, init_args: {eps: 8/255, steps: 40}}"
    )
    config = parser().parse_args([f"--config={base}", f"--config={CONFIGS / 'attack' / overlay}"])
    assert "rel_stepsize" not in config.attack.init_args
    attack = parser().instantiate_classes(config).attack
    assert type(attack).__name__ == config.attack.class_path.rsplit(".", 1)[1]
    assert attack.eps in (0.5, 8 / 255)
    # What both have is merged: an overlay that left it out would keep the value of the attack that
    # it replaces.
    assert "early_stop:" in (CONFIGS / "attack" / overlay).read_text(encoding="utf-8")
    assert set(vars(config.attack.init_args)) == set(inspect.signature(type(attack)).parameters)


def test_libraries_are_imported_where_they_are_used_and_without_git(tmp_path: Path) -> None:
    """foolbox imports GitPython, which refuses where there is no git."""
    code = (
        "import sys, lit_purify.attacks\n"
        "print({'foolbox', 'pyautoattack'} & set(sys.modules))\n"
        "import foolbox"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_PYTHON")}
    environment["PATH"] = str(tmp_path)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "set()"
