"""AutoAttack on defences whose answer is known, and what becomes of its warnings."""

from __future__ import annotations

import itertools
import logging
import sys
from typing import Any

import pytest
import torch
from defences import LinearDefence, Rule, attack_whole_and_alone, chain, constant, half_broken
from oracles import some_images
from torch import Tensor

from lit_purify.attacks import PGD, AutoAttack, Watch, autoattack
from lit_purify.attacks.external import ExternalModel
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, NoiseConfiguration
from lit_purify.functional import correct
from lit_purify.types import InputError

LINEAR = LinearDefence()
BATCH = IMAGES, LABELS, INDICES = LINEAR.samples()
FIRST = IMAGES[:1], LABELS[:1], INDICES[:1]
NORMS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


def raised(attack: AutoAttack, row: int = 0) -> set[str]:
    return {name for name, flags in attack.findings.items() if flags[row]}


def ensemble(attack: AutoAttack, defence: Defence) -> tuple[Any, set[str]]:
    """The library's object as it is set up for a sample, and the findings about it."""
    network = ExternalModel(defence.bind(defence.source, INDICES[:1]))
    return attack._ensemble(network, IMAGES[:1], 0), set(network.findings)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("early_stop", [False, True])
def test_the_boundary_is_found_where_it_is(norm: Any, early_stop: bool) -> None:
    """`standard` succeeds 5 % beyond |margin| / ||A^T w||_q, and not 1 % before it."""
    optimum = LINEAR.optimum(IMAGES, NORMS[norm])
    queries = 0
    for row, factor in ((0, 1.05), (1, 1.05), (2, 1.05), (3, 1.05), (0, 0.99)):
        one = slice(row, row + 1)
        eps = factor * optimum[row].item()
        attack = AutoAttack(eps=eps, norm=norm, square_queries=20, early_stop=early_stop)
        watch = Watch(LABELS[one], INDICES[one])
        found = attack(LINEAR.defence().observed(watch), IMAGES[one], LABELS[one], INDICES[one])
        fooled = not correct(LINEAR.defence()(found, INDICES[one]), LABELS[one]).item()
        assert fooled is (factor > 1)
        assert attack.admits(found, IMAGES[one]).all()
        assert raised(attack) == {"flag_few_classes"}
        queries += watch.queries if fooled else 0
    assert queries < 4 * 20 if early_stop else queries > 4 * 100


@pytest.mark.parametrize("version", ["rand", "rand_upstream"])
def test_rand_finds_it_too(version: Any) -> None:
    eps = 1.05 * LINEAR.optimum(IMAGES, 2)[0].item()
    attack = AutoAttack(eps=eps, norm="L2", version=version, draws=3, square_queries=20)
    watch = Watch(LABELS[:1], INDICES[:1])
    found = attack(LINEAR.defence(FreshNoise(0, "attack")).observed(watch), *FIRST)
    assert not correct(LINEAR.defence()(found, INDICES[:1]), LABELS[:1]).item()
    assert watch.queries > 101 * 3  # APGD takes 3 draws at each of its iterations
    assert raised(attack) == ({"counted_fooled"} if version == "rand_upstream" else set())


@pytest.mark.parametrize("version", ["standard", "rand", "rand_upstream"])
def test_a_sample_depends_on_nothing_but_itself(version: Any) -> None:
    def defence() -> Defence:
        noise = FixedNoise(0) if version == "standard" else FreshNoise(0, "attack")
        return LINEAR.double().defence(noise, level=0.02)

    # The first two are within reach, the last two are not.
    eps = LINEAR.optimum(IMAGES, 2)[1:3].mean().item()
    options: Any = {"version": version, "square_queries": 20, "draws": 2, "early_stop": False}
    attack = AutoAttack(eps=eps, norm="L2", **options)
    whole = attack_whole_and_alone(attack, defence, BATCH, [[2], [0]])
    assert not torch.equal(whole[:2], IMAGES[:2])


def test_standard_is_never_weaker_than_pgd_on_a_purifier() -> None:
    """Where PGD fools, so does AutoAttack; and it sees nothing odd about a purifier."""
    defence = chain(FixedNoise(0))
    images, indices = some_images(6).float(), torch.arange(70, 76)
    labels = defence(images, indices).argmax(1)
    standing = {}
    for attack in (PGD(eps="6/255", steps=10), AutoAttack(eps="6/255", square_queries=5)):
        found = attack(defence, images, labels, indices)
        standing[type(attack)] = correct(defence(found, indices), labels)
        assert attack.admits(found, images).all()
    assert not (standing[AutoAttack] & ~standing[PGD]).any()
    assert 0 < standing[PGD].sum() < 6  # the comparison says something
    assert {name for name, flags in attack.findings.items() if flags.any()} == {"flag_few_classes"}


@pytest.mark.parametrize("samples", [0, 2])
def test_a_fixed_defence_is_asked_under_its_noise_alone(samples: int) -> None:
    """Whoever watches would take a wrong answer under another noise for a success."""
    seeds = []

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        assert isinstance(noise, FixedNoise)
        seeds.append(noise.seed)
        return images

    attack = AutoAttack(eps=0.01, attacks=["apgd-ce"])
    watch = Watch(LABELS[:samples], INDICES[:samples])
    defence = Defence(LINEAR.classify, Rule(purify), FixedNoise(3)).observed(watch)
    attack(defence, IMAGES[:samples], LABELS[:samples], INDICES[:samples])
    assert set(seeds) == ({3} if samples else set())
    assert {len(flags) for flags in attack.findings.values()} == {samples}


def masked(images: Tensor) -> Tensor:
    """The linear defence with a gradient of 0, as quantisation gives."""
    return LINEAR.classify(images.detach()) + 0 * images.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("early_stop", [False, True])
def test_a_defence_that_hides_its_gradient_is_seen_through(early_stop: bool) -> None:
    labels = masked(IMAGES).argmax(1)
    # Three times the distance to the boundary, and still too little for a random start.
    attack = AutoAttack(eps=0.1, square_queries=300, early_stop=early_stop)
    found = attack(Defence(masked), IMAGES[:1], labels[:1], INDICES[:1])
    assert not correct(masked(found), labels[:1]).item()
    assert raised(attack) == {"flag_zero_gradient", "flag_square", "flag_few_classes"}


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_constant_classifier_has_a_defined_result(norm: Any) -> None:
    attack = AutoAttack(eps=0.3, norm=norm, square_queries=5)
    found = attack(Defence(constant), *FIRST)
    assert torch.equal(found, IMAGES[:1])
    assert raised(attack) == {"flag_zero_gradient", "flag_few_classes"}


def test_a_gradient_of_nan_does_no_harm() -> None:
    labels = LINEAR.classify(IMAGES).argmax(1)
    attack = AutoAttack(eps=0.2, attacks=["apgd-ce", "fab"], early_stop=False)
    found = attack(Defence(half_broken(LINEAR.classify)), IMAGES, labels, INDICES)
    assert attack.admits(found, IMAGES).all()
    # The lower half of the image suffices.
    assert not correct(LINEAR.classify(found), labels).any()
    assert attack.findings["gradient_not_finite"].all()
    assert not attack.findings["not_finite"].any()


def probabilities(images: Tensor) -> Tensor:
    return LINEAR.classify(images).softmax(1)


def unsteady(images: Tensor, calls: Any = itertools.count()) -> Tensor:  # noqa: B008 - its memory
    """Every other answer is another one."""
    return LINEAR.classify(images) + 0.1 * (next(calls) % 2) * torch.arange(4)


def dynamic(images: Tensor) -> Tensor:
    """Takes a gradient before it answers."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(x.square().sum(), x)
    return LINEAR.classify(images - 0 * gradient)


@pytest.mark.parametrize(
    ("classify", "finding"),
    [
        (probabilities, "flag_probabilities"),
        (unsteady, "flag_randomized"),
        (dynamic, "flag_dynamic"),
    ],
)
def test_what_is_odd_about_a_defence_is_reported_and_of_no_other(
    classify: Any, finding: str
) -> None:
    attack = AutoAttack(eps=0.01, attacks=["apgd-ce"])
    labels = LINEAR.classify(IMAGES[:1]).argmax(1)
    for defence, want in ((classify, {finding}), (LINEAR.classify, set())):
        attack(Defence(defence), IMAGES[:1], labels, INDICES[:1])
        assert raised(attack) == want


def test_a_tracer_gets_its_place_back() -> None:
    def tracer(frame: Any, event: str, argument: Any) -> None:
        return None

    before = sys.gettrace()
    try:
        sys.settrace(tracer)
        attack = AutoAttack(eps=0.01, attacks=["apgd-ce"])
        attack(LINEAR.defence(), *FIRST)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is tracer


def test_it_says_nothing_on_the_console(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    with caplog.at_level(logging.WARNING):
        attack = AutoAttack(eps=0.01, attacks=["apgd-dlr"])
        attack(Defence(masked), IMAGES[:1], masked(IMAGES).argmax(1)[:1], INDICES[:1])
    assert raised(attack) == {"flag_zero_gradient"}
    assert not caplog.records
    assert "".join(capsys.readouterr()) == ""


def test_a_version_is_that_of_the_library() -> None:
    ten = LinearDefence(10)
    fixed, fresh = ten.defence(), ten.defence(FreshNoise(0, "attack"))
    standard, _ = ensemble(AutoAttack(), fixed)
    assert standard.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert standard.square.n_queries == 5000
    assert standard.epsilon == 8 / 255
    rand, _ = ensemble(AutoAttack(), fresh)
    assert rand.attacks_to_run == ["apgd-ce", "apgd-dlr", "square"]
    assert rand.apgd.eot_iter == 1  # the model that it asks draws 20 times
    assert rand.model.draws == 20
    assert rand.square.n_queries == 1000
    assert ensemble(AutoAttack(version="rand"), fresh)[0].version == "rand"
    upstream, _ = ensemble(AutoAttack(version="rand_upstream"), fresh)
    assert upstream.attacks_to_run == ["apgd-ce", "apgd-dlr"]
    assert upstream.apgd.eot_iter == 20
    assert isinstance(upstream.model, ExternalModel)
    assert len(ensemble(AutoAttack(version="plus"), fixed)[0].attacks_to_run) == 6
    custom, _ = ensemble(AutoAttack(attacks=["apgd-t"], draws=3), fresh)
    assert custom.attacks_to_run == ["apgd-t"]
    assert custom.model.draws == 3


@pytest.mark.parametrize(
    ("num_classes", "options", "targets"),
    [
        (4, {}, 3),
        (9, {}, 8),
        (10, {}, 9),
        (12, {}, 9),
        (5, {"norm": "L1", "eps": 12}, 4),
        (6, {}, 5),
    ],
)
def test_targets_are_as_many_as_there_are_wrong_classes(
    num_classes: int, options: dict[str, Any], targets: int
) -> None:
    found, findings = ensemble(AutoAttack(**options), LinearDefence(num_classes).defence())
    assert found.apgd_targeted.n_target_classes == targets
    assert findings == ({"flag_few_classes"} if num_classes < 10 else set())


@pytest.mark.parametrize(
    ("num_classes", "options"),
    [(2, {}), (3, {}), (3, {"attacks": ["apgd-t"]}), (2, {"attacks": ["apgd-dlr"]})],
)
def test_too_few_classes_are_refused(num_classes: int, options: dict[str, Any]) -> None:
    few = LinearDefence(num_classes)
    with pytest.raises(InputError, match="classes"):
        AutoAttack(**options)(few.defence(), *few.samples())


def test_two_classes_will_do_for_the_others() -> None:
    few = LinearDefence(2)
    images, labels, indices = (part[:1] for part in few.samples())
    attack = AutoAttack(eps=0.1, attacks=["apgd-ce", "fab", "square"], square_queries=5)
    found = attack(few.defence(), images, labels, indices)
    assert not correct(few.defence()(found, indices), labels).any()


@pytest.mark.parametrize(
    ("version", "fresh"),
    [("standard", True), ("plus", True), ("rand", False), ("rand_upstream", False)],
)
def test_a_version_for_the_other_kind_of_defence_is_refused(version: Any, fresh: bool) -> None:
    watch = Watch(LABELS, INDICES)
    defence = LINEAR.defence(FreshNoise(0, "attack") if fresh else None).observed(watch)
    with pytest.raises(InputError, match=version):
        AutoAttack(version=version)(defence, *BATCH)
    assert watch.queries == 0


def test_tiny_images_are_refused_where_square_cannot_work() -> None:
    images = some_images(1, (3, 4, 4)).float()
    defence = Defence(lambda x: x.flatten(1)[:, :4])
    with pytest.raises(InputError, match="5 x 5 pixels"):
        AutoAttack(norm="L2", eps=0.5)(defence, images, defence(images).argmax(1), INDICES[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "L0"}, "norm"),
        ({"norm": "L2"}, "eps"),
        ({"norm": "L1", "version": "rand"}, "eps"),
        ({"version": "custom"}, "version"),
        ({"attacks": ["pgd"]}, "apgd-ce"),
        ({"attacks": []}, "apgd-ce"),
        ({"attacks": ["fab"], "version": "standard"}, "auto"),
        ({"square_queries": 0}, "square_queries"),
        ({"draws": 0}, "draws"),
        ({"eps": 8}, "eps"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AutoAttack(**options)


def test_a_radius_is_taken_for_granted_in_linf_alone() -> None:
    assert AutoAttack().eps == 8 / 255
    assert AutoAttack(norm="L1", eps=12).eps == 12


def test_settings_and_names_are_for_reports() -> None:
    assert AutoAttack(norm="L2", eps=0.5, attacks=["apgd-ce"]).settings() == {
        "attack": "AutoAttack",
        "norm": "L2",
        "eps": 0.5,
        "version": "custom",
        "attacks": ["apgd-ce"],
        "square_queries": None,
        "early_stop": True,
        "draws": 20,
    }
    assert AutoAttack().settings()["version"] == "auto"
    assert not AutoAttack().stops_early  # its success is the same either way
    assert AutoAttack.finding_names[:6] == (*autoattack.FLAGS, "flag_few_classes")
    # What the library would report is known of its own version alone.
    counting = [AutoAttack(version=version) for version in ("auto", "rand", "rand_upstream")]
    assert ["counted_fooled" in each.finding_names for each in counting] == [False, False, True]
