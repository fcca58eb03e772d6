"""Diagnostics of gradient masking on defences whose gradient is known, sound or masked."""

import math

import numpy as np
import pytest
import tiny
import torch
from measured_run import MeasuredRun, measured_run
from oracles import fill
from PIL import Image
from run_files import RunFiles
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import IdentityPurifier, NoisyPurifier, ScalingPurifier
from torch import nn

from lit_purify.attacks import BPDA, PGD, LowFrequency, Square, Uniform
from lit_purify.callbacks import AdversarialExamples, MaskingDiagnostics, Records
from lit_purify.classifiers.wrap import from_module
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.functional import wilson_interval
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

N = 7
GRADIENT = {
    f"masking/{name}"
    for name in (
        *("gradient_growth_log10", "zero_gradient", "nonfinite_gradient"),
        *("derivative_error", "wrong_gradient"),
    )
}
ATTACK = {"masking/attack_loss_gain", "masking/lost_to_longer_attack"}


class Stairs(IdentityPurifier):
    """Rounds to eighths; the gradient of rounding is zero."""

    def purify(self, images, noise, indices):
        return (8 * images).round() / 8


class Claimed(IdentityPurifier):
    """The identity, with a gradient that claims to be c."""

    def __init__(self, c):
        super().__init__()
        self.c = c

    def purify(self, images, noise, indices):
        return images.detach() + self.c * (images - images.detach())


class Overflowing(IdentityPurifier):
    """The identity, with a gradient that is infinite where a pixel is bright."""

    def purify(self, images, noise, indices):
        given = images.detach()
        return images + torch.where(given > 0.99, (images - given).sqrt(), 0)


def linear(*, scale=1.0):
    """Logits W x, float32."""
    network = nn.Linear(3 * 32 * 32, 10, bias=False)
    fill(network, seed=3, std=0.02 * scale)
    return from_module(nn.Sequential(nn.Flatten(), network), 10, (3, 32, 32))


def two_sided(w):
    """Logits w (x - 1/2) and its negative for the classes 0 and 1, and no other class."""
    network = nn.Linear(w.numel(), 10).double()
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0], network.weight[1] = w, -w
        network.bias.fill_(-1000)
        network.bias[0], network.bias[1] = -w.sum() / 2, w.sum() / 2
    flat = nn.Sequential(nn.Flatten(), tiny._Double(), network)
    return from_module(flat, 10, (3, 32, 32))


@pytest.fixture(scope="module")
def pixels():
    return tiny.images_and_labels(N)


def diagnose(
    npz,
    folder,
    purifier,
    classifier=None,
    *,
    longer=10,
    samples=8,
    black_box=None,
    protocols=("fixed",),
    **options,
):
    """A run with the diagnostics."""
    measure = MaskingDiagnostics(longer=longer, samples=samples, black_box=black_box)
    options |= {"classifier": classifier, "protocols": protocols}
    return measured_run(folder, npz, purifier, measure, **options)


def column(run, name):
    return run.column(f"masking/{name}")


class TestSound:
    @pytest.mark.parametrize("c", [1.0, 0.1, 5.0])
    def test_scaling_a_linear_classifier(self, npz, pixels, tmp_path, c):
        """||c W^T (p - y)|| at the input, ||W^T (p - y)|| at the output."""
        run = diagnose(npz, tmp_path, ScalingPurifier(factor=c), classifier := linear())
        images, labels = pixels
        (weight,) = (parameter.double() for parameter in classifier.parameters())
        p = (c * images.double().flatten(1) @ weight.T).softmax(1)
        at_output = ((p - nn.functional.one_hot(labels, 10)) @ weight).norm(dim=1)
        expected = torch.stack([c * at_output, at_output], 1)
        torch.testing.assert_close(
            run.tensors["masking/gradient_norm"], expected, rtol=1e-5, atol=0
        )
        assert column(run, "gradient_growth_log10") == pytest.approx([math.log10(c)] * N, abs=1e-6)
        assert max(column(run, "derivative_error")) < 1e-3
        assert column(run, "wrong_gradient") == [False] * N
        assert column(run, "zero_gradient") == [0.0] * N
        assert column(run, "nonfinite_gradient") == [False] * N
        growth = run.metrics["masking/gradient_growth_log10"]
        assert growth["value"] == pytest.approx(math.log10(c), abs=1e-6)

    @pytest.mark.parametrize("purifier", [IdentityPurifier, NoisyPurifier])
    def test_a_small_network_is_not_flagged(self, npz, tmp_path, purifier, capsys):
        attack = PGD(eps="8/255", steps=10, rel_stepsize=0.25)
        run = diagnose(npz, tmp_path, purifier(), attack=attack)
        assert run.summary["flags"] == []
        assert "Warning" not in capsys.readouterr().out
        assert set(run.metrics) >= GRADIENT | ATTACK
        assert run.metrics["masking/derivative_error"]["value"] < 0.01
        assert run.metrics["masking/attack_loss_gain"]["value"] > 0.5

    def test_tensors_and_pictures_of_the_attack(self, npz, tmp_path):
        attack = PGD(eps="1/255", steps=4, rel_stepsize=0.5)
        run = diagnose(npz, tmp_path, IdentityPurifier(), attack=attack)
        losses = run.tensors["masking/attack_loss"]
        assert losses.shape == (N, 4)
        gain = (losses[:, -1] - losses[:, 0]).tolist()
        assert column(run, "attack_loss_gain") == pytest.approx(gain, abs=1e-6)
        for name in ("gradient_norm", "attack_loss"):
            assert Image.open(tmp_path / f"masking_{name}.png").format == "PNG"


class TestMasked:
    def test_rounding(self, npz, tmp_path, capsys):
        run = diagnose(npz, tmp_path, Stairs())
        found = run.of("masking/")
        assert column(run, "zero_gradient") == [1.0] * N
        assert found["derivative_error"]["missing"] == N
        for name in ("derivative_error", "wrong_gradient", "gradient_growth_log10"):
            assert found[name]["n"] == 0
        assert found["attack_loss_gain"]["value"] == 0
        at_input, at_output = run.tensors["masking/gradient_norm"].unbind(1)
        assert at_input.tolist() == [0] * N
        assert (at_output > 0).all()
        measured, followed, gain = run.summary["flags"]
        assert "zero" in measured
        assert "zero" in followed
        assert "fixed noise" in followed
        assert "loss" in gain
        assert capsys.readouterr().out.count("Warning: ") == 1 + 3  # before the work, and after it

    @pytest.mark.parametrize("c", [0.5, 2.0])
    def test_a_gradient_of_the_wrong_length(self, npz, tmp_path, c):
        run = diagnose(npz, tmp_path, Claimed(c))
        assert column(run, "derivative_error") == pytest.approx([abs(1 - 1 / c)] * N, abs=1e-2)
        assert run.metrics["masking/wrong_gradient"]["value"] == 1
        assert [flag for flag in run.summary["flags"] if "derivative" in flag]

    def test_a_saturated_softmax(self, pixels, tmp_path):
        """Where the right class wins by far its probability is 1 in float32, and the others' 0."""
        images, _ = pixels
        classifier = linear(scale=1e4)
        ranking = classifier(images).sort(1, descending=True)
        assert (ranking.values[:, 0] - ranking.values[:, 1]).min() > 110  # exp(-110) is 0
        right = torch.arange(N) % 3 != 2
        labels = ranking.indices[:, 0].where(right, ranking.indices[:, 1])
        path = tmp_path / "saturated.npz"
        np.savez(path, images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
        run = diagnose(str(path), tmp_path, IdentityPurifier(), classifier)
        assert column(run, "zero_gradient") == (right * 1.0).tolist()
        assert any("exactly zero in 71.4 %" in flag for flag in run.summary["flags"])

    def test_a_gradient_without_numbers(self, npz, pixels, tmp_path):
        run = diagnose(npz, tmp_path, Overflowing(), linear())
        assert (pixels[0].flatten(1).amax(1) > 0.99).all()
        assert column(run, "nonfinite_gradient") == [True] * N
        assert run.metrics["masking/wrong_gradient"]["n"] == 0
        assert any("not a number in 100.0 %" in flag for flag in run.summary["flags"])


class TestLongerAttack:
    """A linear classifier between two classes: every step of size s lowers the margin by
    s ||w||_1, so how many steps a sample stands is known."""

    EPS, STEP = 0.02, 0.001

    @pytest.fixture(scope="class")
    def case(self, tmp_path_factory):
        """(npz, classifier, drop of the margin a unit of the step, margins)."""
        w = torch.where(torch.arange(3072) % 2 == 0, 0.05, -0.05).double()
        generator = torch.Generator().manual_seed(1)
        images = 0.4 + 0.2 * torch.rand(12, 3, 32, 32, generator=generator, dtype=torch.float64)
        images = images.float()
        # Margins spread over what 1, 10 and 20 steps reach, half of them on either side.
        wanted = torch.linspace(0.0003, 0.0275, 12) * w.abs().sum()
        now = (images.double().flatten(1) - 0.5) @ w
        shift = ((wanted - now) / w.square().sum())[:, None] * w
        images = (images.double() + shift.view(12, 3, 32, 32)).float()
        path = tmp_path_factory.mktemp("linear") / "images.npz"
        labels = np.zeros(12, np.int64)
        np.savez(path, images=images.permute(0, 2, 3, 1).numpy(), labels=labels)
        margins = (images.double().flatten(1) - 0.5) @ w / w.abs().sum()
        return str(path), two_sided(w), margins

    @pytest.mark.parametrize("early_stop", [False, True])
    @pytest.mark.parametrize(("samples", "longer"), [(8, 10), (12, 2), (12, 100)])
    def test_those_fall_that_the_longer_way_reaches(
        self, case, tmp_path, samples, longer, early_stop
    ):
        npz, classifier, margins = case
        attack = PGD(
            eps=self.EPS,
            steps=2,
            rel_stepsize=self.STEP / self.EPS,
            random_start=False,
            early_stop=early_stop,
        )
        run = diagnose(
            npz,
            tmp_path,
            IdentityPurifier(),
            classifier,
            attack=attack,
            samples=samples,
            longer=longer,
            batch_size=5,
        )
        stood = margins > 2 * self.STEP
        falls = margins < min(2 * longer * self.STEP, self.EPS)
        edges = torch.tensor([2 * self.STEP, min(2 * longer * self.STEP, self.EPS)])
        assert (margins[:, None] - edges).abs().min() > 1e-5  # rounding decides none of them
        tried = [index for index in range(samples) if stood[index]]
        name = "masking/lost_to_longer_attack"
        found = {row["index"]: row[name] for row in run.rows if name in row}
        assert found == {index: bool(falls[index]) for index in tried}
        metric = run.metrics[name]
        assert metric["n"] == len(tried)
        assert metric["value"] == pytest.approx(sum(found.values()) / len(tried))
        surely = wilson_interval(sum(found.values()), len(tried))[0] > 0.05
        assert surely == any("longer attack" in flag for flag in run.summary["flags"])
        assert run.settings["masking_longer"] == longer
        assert run.settings["steps"] == 2

    def test_one_that_has_converged_loses_nothing(self, case, tmp_path):
        npz, classifier, margins = case
        attack = PGD(eps=self.EPS, steps=4, rel_stepsize=1, random_start=False)
        run = diagnose(npz, tmp_path, IdentityPurifier(), classifier, attack=attack, samples=12)
        assert run.metrics["masking/lost_to_longer_attack"]["value"] == 0
        stood = int((margins > self.EPS).sum())
        assert 0 < stood < 12
        assert column(run, "lost_to_longer_attack") == [False] * stood
        assert not any("longer attack" in flag for flag in run.summary["flags"])


class TestBlackBox:
    """What stood is asked about again, without gradients."""

    SQUARE = Square(queries=100)
    NAME = "masking/lost_to_black_box"

    @pytest.fixture(scope="class")
    def masked(self, npz, tmp_path_factory):
        """Rounded pixels give no gradient, so that PGD stays where it starts."""
        attack = PGD(eps="64/255", steps=2, random_start=False)
        folder = tmp_path_factory.mktemp("masked")
        return diagnose(npz, folder, Stairs(), attack=attack, samples=6, black_box=self.SQUARE)

    def test_it_breaks_what_the_gradient_could_not(self, masked):
        right = [row["fixed/robust_accuracy"] for row in masked.rows]
        assert sum(right) >= 4
        found = {row["index"]: row[self.NAME] for row in masked.rows if self.NAME in row}
        assert found == {k: True for k in range(6) if right[k]}
        assert masked.metrics[self.NAME]["value"] == 1
        assert masked.metrics["masking/lost_to_longer_attack"]["value"] == 0
        assert [flag for flag in masked.summary["flags"] if "without gradients broke" in flag]

    def test_it_searches_the_runs_ball(self, masked):
        """Not one of its own radius, which its settings do not say."""
        said = masked.settings["masking_black_box"]
        assert (said["attack"], said["queries"]) == ("Square", 100)
        assert "eps" not in said
        assert self.SQUARE.eps == 8 / 255
        assert masked.settings["eps"] == 64 / 255

    def test_a_sound_gradient_finds_as_much(self, npz, tmp_path):
        attack = PGD(eps="1/255", steps=20, rel_stepsize=0.2)
        run = diagnose(npz, tmp_path, IdentityPurifier(), attack=attack, black_box=self.SQUARE)
        assert run.metrics[self.NAME]["n"] > 0
        assert run.metrics[self.NAME]["value"] == 0
        assert not [flag for flag in run.summary["flags"] if "without gradients broke" in flag]

    def test_balls_of_two_norms_are_not_compared(self, npz, tmp_path):
        with pytest.raises(InputError, match="the same norm"):
            diagnose(npz, tmp_path, Stairs(), black_box=Square(eps=0.5, norm="L2"))

    def test_threat_models_are_not_compared(self, npz, tmp_path):
        # The whole ball has more in it than its low frequencies, whatever the gradient is.
        with pytest.raises(InputError, match="threat model"):
            diagnose(npz, tmp_path, Stairs(), attack=LowFrequency(), black_box=self.SQUARE)

    def test_it_is_named_where_it_is_left_out(self, npz, tmp_path):
        run = diagnose(npz, tmp_path, IdentityPurifier(), samples=0, black_box=self.SQUARE)
        (reason,) = run.settings["masking_left_out"]
        assert "lost_to_black_box" in reason
        assert self.NAME not in run.metrics


class TestEarlyStop:
    def test_the_loss_of_those_that_left_is_unknown(self, npz, tmp_path):
        attack = PGD(eps="2/255", steps=6, rel_stepsize=0.25, early_stop=True)
        run = diagnose(npz, tmp_path, IdentityPurifier(), attack=attack)
        losses = run.tensors["masking/attack_loss"]
        known = losses.isfinite().sum(1)
        assert known.min() < 6
        gains = column(run, "attack_loss_gain")
        for gain, values, count in zip(gains, losses, known.tolist(), strict=True):
            if count > 1:
                assert gain == pytest.approx((values[count - 1] - values[0]).item(), abs=1e-6)
            else:
                assert gain is None
        assert run.metrics["masking/attack_loss_gain"]["n"] == int((known > 1).sum())


class TestLeftOut:
    @pytest.mark.parametrize(
        ("options", "names", "left_out"),
        [
            ({}, GRADIENT | ATTACK, []),
            ({"protocols": ("base",)}, GRADIENT, ["no protocol fixed"]),
            ({"attack": Uniform(eps=0.1)}, GRADIENT, ["iterations", "Uniform has no steps"]),
            ({"samples": 0}, GRADIENT | {"masking/attack_loss_gain"}, ["samples is 0"]),
        ],
    )
    def test_what_is_left_out_is_named(self, npz, tmp_path, options, names, left_out):
        run = diagnose(npz, tmp_path, IdentityPurifier(), **options)
        assert {name for name in run.metrics if "masking" in name} == names
        reasons = run.settings.get("masking_left_out", [])
        for reason, keyword in zip(reasons, left_out, strict=True):
            assert keyword in reason
        drawn = (tmp_path / "masking_attack_loss.png").exists()
        assert drawn == ("masking/attack_loss" in run.tensors)
        assert drawn == ("masking/attack_loss_gain" in names)

    def test_the_gradient_is_the_chains_own_also_under_bpda(self, npz, tmp_path):
        run = diagnose(npz, tmp_path, Stairs(), attack=BPDA(eps="8/255", steps=4))
        assert column(run, "zero_gradient") == [1.0] * N
        assert run.metrics["masking/attack_loss_gain"]["value"] > 0.1


def test_mixed_precision(npz, tmp_path):
    """The gradient is a bfloat16 one, of 8 bits; the differences it is compared with are not."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.Linear(800, 10)
    )
    classifier = from_module(fill(network, seed=1, std=0.2), 10, (3, 32, 32))
    module = PurifiedClassifier(NoisyPurifier(), classifier, protocols=("fixed",))
    callbacks = AdversarialExamples(PGD(eps="1/255", steps=2)), MaskingDiagnostics(), Records()
    trainer = tiny.trainer(tmp_path, *callbacks, precision="bf16-mixed")
    trainer.test(module, CIFAR10DataModule(source=npz, batch_size=4), verbose=False)
    errors = [row["masking/derivative_error"] for row in RunFiles(tmp_path).rows]
    assert 1e-5 < max(errors) < 0.05


def test_the_overlay_adds_to_the_measurements(tmp_path, capsys):
    args = tiny.command(
        "test", "cifar_fixed.yaml", tmp_path, "--model.classifier", "tiny.classifier"
    )
    args[3:3] = ["--config", str(tiny.CONFIGS / "measure" / "masking.yaml")]
    assert main([*args, "--measure.masking.samples", "1"]) == 0
    run = MeasuredRun(folder := tiny.run_folder(tmp_path))
    assert "uniform/compression_rate" in run.metrics  # the base's own
    assert (folder / "images_fixed.png").exists()
    assert set(run.metrics) >= GRADIENT | ATTACK
    assert run.settings["masking_samples"] == 1
    assert run.tensors["masking/gradient_norm"].shape == (3, 5)  # the input, two up, two down
    assert run.metrics["masking/derivative_error"]["value"] < 0.1
    printed = capsys.readouterr().out
    assert printed.count("Warning: ") == len(run.summary["flags"])
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {"masking/gradient_norm", "masking/attack_loss"} <= set(events.Tags()["images"])
