"""Attacks through a surrogate: it is what they ask, and the defence is what is tested."""

import pytest
import tiny
import torch
from measured_run import measured_run
from torch import nn

from lit_purify.attacks import PGD
from lit_purify.callbacks import (
    AttackAgreement,
    AttackCurves,
    MaskingDiagnostics,
    RobustnessPrediction,
)
from lit_purify.classifiers import from_module
from lit_purify.data import ArrayDataModule
from lit_purify.defence import Defence
from lit_purify.diffusion import DiffusionPurifier, FixedNoise, FreshNoise
from lit_purify.modules import PurifiedClassifier
from lit_purify.report.conclusion import conclusion
from lit_purify.types import InputError

ALL = ("base", "fixed", "transfer", "fresh")
N, SEED = 4, 5
ATTACK = PGD(eps="2/255", steps=2, rel_stepsize=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Finds the results of a run, by its surrogate and whether its attack stops early."""
    npz = str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))
    made = {}

    def find(surrogate, early_stop=False):
        if (surrogate, early_stop) not in made:
            attack = PGD(eps="2/255", steps=2, rel_stepsize=0.5, early_stop=early_stop)
            made[surrogate, early_stop] = measured_run(
                tmp_path_factory.mktemp("run"),
                npz,
                tiny.NoisyPurifier(),
                *(AttackCurves(), AttackAgreement(), MaskingDiagnostics(longer=2, samples=N)),
                RobustnessPrediction(eps=["2/255"], gradients=1),
                protocols=ALL,
                seed=SEED,
                batch_size=N,
                attack=attack,
                surrogate={
                    "none": None,
                    "same": tiny.NoisyPurifier(),
                    "other": tiny.ScalingPurifier(factor=0.5),
                }[surrogate],
            )
        return made[surrogate, early_stop]

    return find


def test_attacks_are_given_the_surrogate_under_the_noise_of_the_surface(run):
    seen = run("other").seen
    batch = seen.batches[0]
    indices = batch["index"]
    for purifier, name in (
        (tiny.ScalingPurifier(factor=0.5), "other"),
        (tiny.NoisyPurifier(), "same"),
    ):
        for surface, noise in (
            ("fixed", FixedNoise(SEED)),
            ("fresh", FreshNoise(SEED, "attack")),
        ):
            target = Defence(tiny.classifier(), purifier).bind(noise, indices)
            want = ATTACK(target, batch["image"], batch["label"], indices, seed=SEED)
            assert torch.equal(run(name).seen.adversarial(surface), want)
    assert seen.attack_calls == []  # nobody asked the defence
    assert torch.equal(seen.adversarial("base"), run("none").seen.adversarial("base"))


def test_the_defence_itself_is_what_is_tested(run):
    seen = run("other").seen
    purifier, labels = tiny.NoisyPurifier(), seen.batches[0]["label"]
    indices = seen.batches[0]["index"]
    purified = purifier.purify(seen.adversarial("fixed"), FixedNoise(SEED), indices)
    outcome = seen.outcomes[0]["fixed/adversarial"]
    assert torch.equal(outcome.image, purified)
    assert torch.equal(outcome.correct, tiny.classifier()(purified).argmax(1) == labels)


def test_a_surrogate_that_is_the_defence_finds_the_same(run):
    plain, same = run("none"), run("same")
    for surface in ("base", "fixed", "fresh"):
        assert torch.equal(plain.seen.adversarial(surface), same.seen.adversarial(surface))
    for name in set(plain.metrics) & set(same.metrics):
        assert plain.metrics[name] == same.metrics[name], name
    # Whether a query of the attack fooled the defence is not known of a surrogate's answers.
    lost = set(plain.metrics) - set(same.metrics)
    assert lost == {"fixed/robust_accuracy_any_iteration"}
    assert set(same.metrics) < set(plain.metrics)


def test_gradients_that_are_measured_are_those_of_the_defence(run):
    for start in ("agreement/gradient", "masking/derivative_error", "prediction/first_order"):
        found = run("other").of(start)
        assert found
        assert found == run("none").of(start)


def test_an_attack_that_stops_early_is_still_tested_after_its_end(run):
    stopped = run("other", early_stop=True).metrics
    assert "fixed/robust_accuracy" in stopped
    assert "base/robust_accuracy" not in stopped
    assert "base/robust_accuracy_any_iteration" in stopped
    assert "fixed/robust_accuracy" not in run("none", early_stop=True).metrics


def test_every_result_is_named_as_one_of_a_surrogate(run):
    found = run("other")
    settings, labels = found.settings, found.summary["labels"]
    assert settings["surrogate"] == tiny.ScalingPurifier(factor=0.5).settings()
    assert settings["gradient"] == "exact, of a surrogate"
    for name in ("fixed/robust_accuracy", "transfer/robust_accuracy", "fresh/zero_gradient"):
        assert "surrogate" in labels[name]["label"]
        assert "surrogate" not in run("none").summary["labels"][name]["label"]
    assert "surrogate" not in labels["base/robust_accuracy"]["label"]
    assert [flag for flag in found.summary["flags"] if "surrogate" in flag]
    assert "surrogate" in conclusion(found.summary)
    assert "surrogate" not in conclusion(run("none").summary)
    assert not [flag for flag in run("none").summary["flags"] if "surrogate" in flag]
    assert "surrogate" not in run("none").settings


def test_what_the_attack_met_is_not_taken_for_what_it_left(run):
    """The curve of a surrogate ends with its own answers."""
    iterations = ATTACK.steps
    for name, points in (("none", iterations + 1), ("other", iterations)):
        found = run(name)
        curves = AttackCurves().curves(_module(found, name), found.table)
        assert len(list(curves["attack/fixed/robust_accuracy"].points())) == points


def _module(found, name):
    surrogate = None if name == "none" else tiny.ScalingPurifier(factor=0.5)
    return PurifiedClassifier(tiny.NoisyPurifier(), tiny.classifier(), surrogate=surrogate)


def test_its_networks_are_named_and_must_have_weights_and_fit_the_images(tmp_path):
    def module(surrogate):
        return PurifiedClassifier(
            tiny.IdentityPurifier(),
            from_module(nn.Flatten(), 10),
            protocols=["fixed"],
            surrogate=surrogate,
        )

    chain = DiffusionPurifier(tiny.denoiser(), t_star=2)
    assert module(chain).models().keys() == {"surrogate's denoiser", "classifier"}
    with pytest.raises(InputError, match="surrogate"):
        module(DiffusionPurifier(tiny.denoiser().to("meta"), t_star=2))
    denoiser = tiny.denoiser()
    denoiser.image_shape = (3, 16, 16)
    images, labels = tiny.images_and_labels(2)
    data = ArrayDataModule(images=images, labels=labels, num_classes=10)
    with pytest.raises(InputError, match="16"):
        tiny.trainer(tmp_path).test(module(DiffusionPurifier(denoiser, t_star=2)), data)
