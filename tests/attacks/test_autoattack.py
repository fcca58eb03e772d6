"""AutoAttack on defences whose answer is known, and what becomes of its warnings."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch
from linear_defence import LinearDefence
from oracles import TinyDenoiser, fill, some_images
from torch import Tensor, nn

from lit_purify.attacks import PGD, AutoAttack, Target, WatchedTarget, autoattack
from lit_purify.attacks.external import OneSample
from lit_purify.diffusion import DiffusionPurifier, FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.functional import correct
from lit_purify.types import InputError

DEFENCE = LinearDefence()
IMAGES, LABELS, INDICES = DEFENCE.samples()
NORMS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


def raised(attack: AutoAttack, row: int = 0) -> set[str]:
    return {name for name, flags in attack.findings.items() if flags[row]}


def ensemble(attack: AutoAttack, target: Target) -> Any:
    """The library's object as it is set up for a sample."""
    network = OneSample(target, INDICES[:1])
    return attack._ensemble(network, 10, (3, 32, 32), torch.device("cpu"), 0)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("early_stop", [False, True])
def test_the_boundary_is_found_where_it_is(norm: Any, early_stop: bool) -> None:
    """`standard` succeeds 5 % beyond |margin| / ||A^T w||_q, and not 1 % before it."""
    optimum = DEFENCE.optimum(IMAGES, NORMS[norm])
    queries = 0
    for row, factor in ((0, 1.05), (1, 1.05), (2, 1.05), (3, 1.05), (0, 0.99)):
        one = slice(row, row + 1)
        eps = factor * optimum[row].item()
        attack = AutoAttack(eps=eps, norm=norm, square_queries=20, early_stop=early_stop)
        target = WatchedTarget(DEFENCE.target(), LABELS[one], INDICES[one])
        found = attack(target, IMAGES[one], LABELS[one], INDICES[one])
        fooled = not correct(DEFENCE.target()(found, INDICES[one]), LABELS[one]).item()
        assert fooled is (factor > 1)
        assert attack.admits(found, IMAGES[one]).all()
        assert raised(attack) == {"flag_few_classes"}
        queries += target.queries if fooled else 0
    assert queries < 4 * 20 if early_stop else queries > 4 * 100


def test_rand_finds_it_too() -> None:
    eps = 1.05 * DEFENCE.optimum(IMAGES, 2)[0].item()
    attack = AutoAttack(eps=eps, norm="L2")
    target = WatchedTarget(DEFENCE.target(FreshNoise(0, "attack")), LABELS[:1], INDICES[:1])
    found = attack(target, IMAGES[:1], LABELS[:1], INDICES[:1])
    assert not correct(DEFENCE.target()(found, INDICES[:1]), LABELS[:1]).item()
    assert target.queries > 101 * 20  # APGD takes 20 draws at each of its iterations
    assert raised(attack) == set()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_sample_depends_on_nothing_but_itself(
    fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoattack, "_EOT_DRAWS", 2)

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        xi = noise.normal(indices, "forward", 1, like=images)
        return DEFENCE.purify(images, noise, indices) + 0.02 * xi

    def target() -> Target:
        noise = FreshNoise(0, "attack") if fresh else FixedNoise(0)
        return Target(DEFENCE.classify, purify, noise)

    # The first two are within reach, the last two are not.
    eps = DEFENCE.optimum(IMAGES, 2)[1:3].mean().item()
    attack = AutoAttack(eps=eps, norm="L2", square_queries=20, early_stop=False)
    state = torch.get_rng_state()
    whole = attack(target(), IMAGES, LABELS, INDICES, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    findings = attack.findings
    for row in (2, 0):
        one = slice(row, row + 1)
        alone = attack(target(), IMAGES[one], LABELS[one], INDICES[one], seed=1)
        assert torch.equal(alone, whole[one])
        assert all(findings[name][row] == attack.findings[name][0] for name in findings)
    assert not torch.equal(whole[:2], IMAGES[:2])


def test_standard_is_never_weaker_than_pgd_on_a_purifier() -> None:
    """Where PGD fools, so does AutoAttack; and it sees nothing odd about a purifier."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(128, 4)
    )
    network = fill(network.double(), seed=1, std=0.3).requires_grad_(False)
    purifier = DiffusionPurifier(TinyDenoiser(), t_star=60, num_steps=3)

    def target() -> Target:
        def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
            return purifier.purify(images.double(), noise, indices)

        return Target(network, purify, FixedNoise(0))

    images, indices = some_images(6).float(), torch.arange(70, 76)
    labels = target()(images, indices).argmax(1)
    standing = {}
    for attack in (PGD(eps="6/255", steps=10), AutoAttack(eps="6/255", square_queries=5)):
        found = attack(target(), images, labels, indices)
        standing[type(attack)] = correct(target()(found, indices), labels)
        assert attack.admits(found, images).all()
    assert not (standing[AutoAttack] & ~standing[PGD]).any()
    assert 0 < standing[PGD].sum() < 6  # the comparison says something
    assert {name for name, flags in attack.findings.items() if flags.any()} == {"flag_few_classes"}


def masked(images: Tensor) -> Tensor:
    """The linear defence with a gradient of 0, as quantisation gives."""
    return DEFENCE.classify(images.detach()) + 0 * images.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("early_stop", [False, True])
def test_a_defence_that_hides_its_gradient_is_seen_through(early_stop: bool) -> None:
    labels = masked(IMAGES).argmax(1)
    # Three times the distance to the boundary, and still too little for a random start.
    attack = AutoAttack(eps=0.1, square_queries=300, early_stop=early_stop)
    found = attack(Target(masked), IMAGES[:1], labels[:1], INDICES[:1])
    assert not correct(masked(found), labels[:1]).item()
    assert raised(attack) == {"flag_zero_gradient", "flag_square", "flag_few_classes"}


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_constant_classifier_has_a_defined_result(norm: Any) -> None:
    def constant(images: Tensor) -> Tensor:
        return 0 * images.flatten(1).sum(1, keepdim=True) + torch.tensor([2.0, 1.0, 0.0, -1.0])

    attack = AutoAttack(eps=0.3, norm=norm, square_queries=5)
    found = attack(Target(constant), IMAGES[:1], LABELS[:1], INDICES[:1])
    assert torch.equal(found, IMAGES[:1])
    assert raised(attack) == {"flag_zero_gradient", "flag_few_classes"}


def test_a_gradient_of_nan_does_no_harm() -> None:
    def broken(images: Tensor) -> Tensor:
        upper = images[:, :, :4]
        return DEFENCE.classify(images) + (upper - upper).sqrt().flatten(1).sum(1, keepdim=True)

    labels = broken(IMAGES).argmax(1)
    attack = AutoAttack(eps=0.2, attacks=["apgd-ce", "fab"], early_stop=False)
    found = attack(Target(broken), IMAGES, labels, INDICES)
    assert attack.admits(found, IMAGES).all()
    assert not correct(broken(found), labels).any()  # the lower half of the image suffices
    assert attack.findings["gradient_not_finite"].all()
    assert not attack.findings["not_finite"].any()


def test_probabilities_in_place_of_logits_are_reported() -> None:
    attack = AutoAttack(eps=0.01, attacks=["apgd-ce"])
    target = Target(lambda images: DEFENCE.classify(images).softmax(1))
    labels = target(IMAGES, INDICES).argmax(1)
    attack(target, IMAGES[:1], labels[:1], INDICES[:1])
    assert raised(attack) == {"flag_probabilities"}


def test_hidden_randomness_is_reported() -> None:
    calls = iter(range(10**6))

    def classify(images: Tensor) -> Tensor:
        return DEFENCE.classify(images) + 0.1 * (next(calls) % 2) * torch.arange(4)

    attack = AutoAttack(eps=0.01, attacks=["apgd-ce"])
    labels = DEFENCE.classify(IMAGES).argmax(1)
    attack(Target(classify), IMAGES[:1], labels[:1], INDICES[:1])
    assert raised(attack) == {"flag_randomized"}


def test_a_defence_that_takes_gradients_is_reported_and_no_other_after_it() -> None:
    def classify(images: Tensor) -> Tensor:
        with torch.enable_grad():
            x = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(x.square().sum(), x)
        return DEFENCE.classify(images - 0 * gradient)

    attack = AutoAttack(eps=0.01, attacks=["apgd-ce"])
    labels = DEFENCE.classify(IMAGES).argmax(1)
    for target, want in ((Target(classify), {"flag_dynamic"}), (Target(DEFENCE.classify), set())):
        attack(target, IMAGES[:1], labels[:1], INDICES[:1])
        assert raised(attack) == want


def test_a_tracer_gets_its_place_back() -> None:
    def tracer(frame: Any, event: str, argument: Any) -> None:
        return None

    before = sys.gettrace()
    try:
        sys.settrace(tracer)
        attack = AutoAttack(eps=0.01, attacks=["apgd-ce"])
        attack(DEFENCE.target(), IMAGES[:1], LABELS[:1], INDICES[:1])
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is tracer


def test_it_says_nothing_on_the_console(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    with caplog.at_level(logging.WARNING):
        attack = AutoAttack(eps=0.01, attacks=["apgd-dlr"])
        attack(Target(masked), IMAGES[:1], masked(IMAGES).argmax(1)[:1], INDICES[:1])
    assert raised(attack) == {"flag_zero_gradient"}
    assert not caplog.records
    assert "".join(capsys.readouterr()) == ""


def test_a_version_is_that_of_the_library() -> None:
    fixed, fresh = DEFENCE.target(), DEFENCE.target(FreshNoise(0, "attack"))
    standard = ensemble(AutoAttack(), fixed)
    assert standard.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert standard.square.n_queries == 5000
    assert standard.apgd_targeted.n_target_classes == standard.fab.n_target_classes == 9
    assert standard.epsilon == 8 / 255
    rand = ensemble(AutoAttack(), fresh)
    assert rand.attacks_to_run == ["apgd-ce", "apgd-dlr"]
    assert rand.apgd.eot_iter == 20
    assert ensemble(AutoAttack(version="rand"), fresh).version == "rand"
    assert len(ensemble(AutoAttack(version="plus"), fixed).attacks_to_run) == 6
    custom = ensemble(AutoAttack(attacks=["apgd-t"]), fresh)
    assert custom.attacks_to_run == ["apgd-t"]
    assert custom.apgd_targeted.eot_iter == 20


@pytest.mark.parametrize(
    ("num_classes", "options", "targets"),
    [(4, {}, 3), (9, {}, 8), (10, {}, 9), (12, {}, 9), (5, {"norm": "L1"}, 4), (6, {}, 5)],
)
def test_targets_are_as_many_as_there_are_wrong_classes(
    num_classes: int, options: dict[str, Any], targets: int
) -> None:
    network = OneSample(DEFENCE.target(), INDICES[:1])
    found = AutoAttack(**options)._ensemble(
        network, num_classes, (1, 8, 8), torch.device("cpu"), seed=0
    )
    assert found.apgd_targeted.n_target_classes == targets
    assert network.findings == ({"flag_few_classes"} if num_classes < 10 else set())


@pytest.mark.parametrize(
    ("num_classes", "options"),
    [(2, {}), (3, {}), (3, {"attacks": ["apgd-t"]}), (2, {"attacks": ["apgd-dlr"]})],
)
def test_too_few_classes_are_refused(num_classes: int, options: dict[str, Any]) -> None:
    few = LinearDefence(num_classes)
    images, labels, indices = few.samples()
    with pytest.raises(InputError, match=rf"at least [34] classes .* has {num_classes}; choose"):
        AutoAttack(**options)(few.target(), images, labels, indices)


def test_two_classes_will_do_for_the_others() -> None:
    few = LinearDefence(2)
    images, labels, indices = (part[:1] for part in few.samples())
    attack = AutoAttack(eps=0.1, attacks=["apgd-ce", "fab", "square"], square_queries=5)
    found = attack(few.target(), images, labels, indices)
    assert not correct(few.target()(found, indices), labels).any()


@pytest.mark.parametrize(
    ("version", "fresh"), [("standard", True), ("plus", True), ("rand", False)]
)
def test_a_version_for_the_other_kind_of_defence_is_refused(version: Any, fresh: bool) -> None:
    target = WatchedTarget(DEFENCE.target(FreshNoise(0, "a") if fresh else None), LABELS, INDICES)
    with pytest.raises(InputError, match=rf"version {version} is not made for this defence.*auto"):
        AutoAttack(version=version)(target, IMAGES, LABELS, INDICES)
    assert target.queries == 0


def test_tiny_images_are_refused_where_square_cannot_work() -> None:
    images = some_images(1, (3, 4, 4)).float()
    target = Target(lambda x: x.flatten(1)[:, :4])
    labels = target(images, INDICES[:1]).argmax(1)
    with pytest.raises(InputError, match="at least 5 x 5 pixels, got 4 x 4"):
        AutoAttack(norm="L2")(target, images, labels, INDICES[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "L0"}, "Linf, L2 or L1"),
        ({"version": "custom"}, "auto, standard, plus or rand"),
        ({"attacks": ["pgd"]}, "attacks must be some of apgd-ce"),
        ({"attacks": []}, "attacks must be some of"),
        ({"attacks": ["fab"], "version": "standard"}, "with version left at auto"),
        ({"square_queries": 0}, "at least 1"),
        ({"eps": 8}, "eps must lie in"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AutoAttack(**options)


def test_settings_and_names_are_for_reports() -> None:
    settings = AutoAttack(norm="L2", eps=0.5, attacks=["apgd-ce"]).settings()
    assert settings["attack"] == "AutoAttack"
    assert settings["norm"] == "L2"
    assert settings["version"] == "custom"
    assert settings["attacks"] == ["apgd-ce"]
    assert AutoAttack().settings()["version"] == "auto"
    assert not AutoAttack().stops_early  # its success is the same either way
    assert AutoAttack.finding_names[:6] == (*autoattack.FLAGS, "flag_few_classes")
