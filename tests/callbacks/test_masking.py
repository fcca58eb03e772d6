"""Diagnostics of gradient masking on defences whose gradient is known, sound or masked."""

import json
import math
import shutil

import numpy as np
import pytest
import tiny
import torch
from oracles import fill
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import Failing, IdentityPurifier, NoisyPurifier, ScalingPurifier, evaluate
from torch import nn

from lit_purify.attacks import BPDA, PGD, Uniform
from lit_purify.callbacks import AdversarialExamples, MaskingDiagnostics, Records, Summary
from lit_purify.classifiers.wrap import from_module
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.functional import wilson_interval
from lit_purify.modules import PurifiedClassifier
from lit_purify.report.summary import read_summary
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
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))


@pytest.fixture(scope="module")
def pixels(npz):
    return tiny.images_and_labels(N)


def diagnose(
    npz, folder, purifier, classifier=None, *, protocols=("fixed",), attack=None, **options
):
    """Summary, rows by index and tensors of a run with the diagnostics."""
    module = PurifiedClassifier(purifier, classifier or tiny.classifier(), protocols=protocols)
    data = CIFAR10DataModule(source=npz, batch_size=options.pop("batch_size", 3))
    measure = MaskingDiagnostics(**options)
    evaluate(module, data, measure, Records(), Summary(), attack=attack, folder=folder)
    return read(folder)


def read(folder):
    lines = (folder / "records" / "rows.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["protocol"] == "masking"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return (
        read_summary(folder / "summary.json"),
        rows,
        load_file(folder / "records" / "tensors.safetensors"),
    )


def column(rows, name):
    return [row[name] for row in rows if name in row]


class TestSound:
    @pytest.mark.parametrize("c", [1.0, 0.1, 5.0])
    def test_scaling_a_linear_classifier(self, npz, pixels, tmp_path, c):
        """||c W^T (p - y)|| at the input, ||W^T (p - y)|| at the output."""
        summary, rows, tensors = diagnose(
            npz, tmp_path, ScalingPurifier(factor=c), classifier := linear()
        )
        images, labels = pixels
        (weight,) = (parameter.double() for parameter in classifier.parameters())
        p = (c * images.double().flatten(1) @ weight.T).softmax(1)
        at_output = ((p - nn.functional.one_hot(labels, 10)) @ weight).norm(dim=1)
        expected = torch.stack([c * at_output, at_output], 1)
        torch.testing.assert_close(tensors["masking/gradient_norm"], expected, rtol=1e-5, atol=0)
        assert column(rows, "gradient_growth_log10") == pytest.approx([math.log10(c)] * N, abs=1e-6)
        assert max(column(rows, "derivative_error")) < 1e-3
        assert column(rows, "wrong_gradient") == [False] * N
        assert column(rows, "zero_gradient") == [0.0] * N
        assert column(rows, "nonfinite_gradient") == [False] * N
        growth = summary["metrics"]["masking/gradient_growth_log10"]
        assert growth["value"] == pytest.approx(math.log10(c), abs=1e-6)

    @pytest.mark.parametrize("purifier", [IdentityPurifier, NoisyPurifier])
    def test_a_small_network_is_not_flagged(self, npz, tmp_path, purifier, capsys):
        attack = PGD(eps="8/255", steps=10, rel_stepsize=0.25)
        summary, _, _ = diagnose(npz, tmp_path, purifier(), attack=attack)
        assert summary["flags"] == []
        assert "Warning" not in capsys.readouterr().out
        assert set(summary["metrics"]) >= GRADIENT | ATTACK
        assert summary["metrics"]["masking/derivative_error"]["value"] < 0.01
        assert summary["metrics"]["masking/attack_loss_gain"]["value"] > 0.5

    def test_tensors_and_pictures_of_the_attack(self, npz, tmp_path):
        attack = PGD(eps="1/255", steps=4, rel_stepsize=0.5)
        _, rows, tensors = diagnose(npz, tmp_path, IdentityPurifier(), attack=attack)
        losses = tensors["masking/attack_loss"]
        assert losses.shape == (N, 4)
        gain = (losses[:, -1] - losses[:, 0]).tolist()
        assert column(rows, "attack_loss_gain") == pytest.approx(gain, abs=1e-6)
        for name in ("gradient_norm", "attack_loss"):
            assert Image.open(tmp_path / f"masking_{name}.png").format == "PNG"


class TestMasked:
    def test_rounding(self, npz, tmp_path, capsys):
        summary, rows, tensors = diagnose(npz, tmp_path, Stairs())
        metrics = summary["metrics"]
        assert column(rows, "zero_gradient") == [1.0] * N
        assert metrics["masking/derivative_error"]["n"] == 0
        assert metrics["masking/derivative_error"]["missing"] == N
        assert metrics["masking/wrong_gradient"]["n"] == 0
        assert metrics["masking/gradient_growth_log10"]["n"] == 0
        assert metrics["masking/attack_loss_gain"]["value"] == 0
        assert tensors["masking/gradient_norm"][:, 0].tolist() == [0] * N
        assert (tensors["masking/gradient_norm"][:, 1] > 0).all()
        zero, gain = summary["flags"]
        assert "exactly zero in 100.0 %" in zero
        assert "own loss by +0" in gain
        assert capsys.readouterr().out.count("Warning: ") == 2

    @pytest.mark.parametrize("c", [0.5, 2.0])
    def test_a_gradient_of_the_wrong_length(self, npz, tmp_path, c):
        summary, rows, _ = diagnose(npz, tmp_path, Claimed(c))
        assert column(rows, "derivative_error") == pytest.approx([abs(1 - 1 / c)] * N, abs=1e-2)
        assert summary["metrics"]["masking/wrong_gradient"]["value"] == 1
        (flag,) = [flag for flag in summary["flags"] if "derivative" in flag]
        assert "100.0 %" in flag

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
        summary, rows, _ = diagnose(str(path), tmp_path, IdentityPurifier(), classifier)
        assert column(rows, "zero_gradient") == (right * 1.0).tolist()
        assert "exactly zero in 71.4 %" in summary["flags"][0]

    def test_a_gradient_without_numbers(self, npz, pixels, tmp_path):
        summary, rows, _ = diagnose(npz, tmp_path, Overflowing(), linear())
        assert (pixels[0].flatten(1).amax(1) > 0.99).all()
        assert column(rows, "nonfinite_gradient") == [True] * N
        assert summary["metrics"]["masking/wrong_gradient"]["n"] == 0
        assert "not a number in 100.0 %" in summary["flags"][0]


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
        summary, rows, _ = diagnose(
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
        found = {
            r["index"]: r["lost_to_longer_attack"] for r in rows if "lost_to_longer_attack" in r
        }
        assert found == {index: bool(falls[index]) for index in tried}
        metric = summary["metrics"]["masking/lost_to_longer_attack"]
        assert metric["n"] == len(tried)
        assert metric["value"] == pytest.approx(sum(found.values()) / len(tried))
        surely = wilson_interval(sum(found.values()), len(tried))[0] > 0.05
        assert surely == any("longer attack" in flag for flag in summary["flags"])
        assert summary["settings"]["masking_longer"] == longer
        assert summary["settings"]["steps"] == 2

    def test_one_that_has_converged_loses_nothing(self, case, tmp_path):
        npz, classifier, margins = case
        attack = PGD(eps=self.EPS, steps=4, rel_stepsize=1, random_start=False)
        summary, rows, _ = diagnose(
            npz, tmp_path, IdentityPurifier(), classifier, attack=attack, samples=12
        )
        assert summary["metrics"]["masking/lost_to_longer_attack"]["value"] == 0
        stood = int((margins > self.EPS).sum())
        assert 0 < stood < 12
        assert column(rows, "lost_to_longer_attack") == [False] * stood
        assert not any("longer attack" in flag for flag in summary["flags"])


class TestEarlyStop:
    def test_the_loss_of_those_that_left_is_unknown(self, npz, tmp_path):
        attack = PGD(eps="2/255", steps=6, rel_stepsize=0.25, early_stop=True)
        summary, rows, tensors = diagnose(npz, tmp_path, IdentityPurifier(), attack=attack)
        losses = tensors["masking/attack_loss"]
        known = losses.isfinite().sum(1)
        assert known.min() < 6
        for row, values, count in zip(rows, losses, known.tolist(), strict=True):
            if count > 1:
                gain = (values[count - 1] - values[0]).item()
                assert row["attack_loss_gain"] == pytest.approx(gain, abs=1e-6)
            else:
                assert row["attack_loss_gain"] is None
        assert summary["metrics"]["masking/attack_loss_gain"]["n"] == int((known > 1).sum())


class TestLeftOut:
    def found(self, summary):
        names = {name for name in summary["metrics"] if name.startswith("masking/")}
        return names, summary["settings"].get("masking_left_out")

    def test_without_an_attack_on_fixed_noise(self, npz, tmp_path):
        summary, _, tensors = diagnose(npz, tmp_path, IdentityPurifier(), protocols=("base",))
        names, left_out = self.found(summary)
        assert names == GRADIENT
        assert left_out == ["attack_loss and lost_to_longer_attack (no protocol fixed)"]
        assert set(tensors) == {"index", "base/adversarial", "masking/gradient_norm"}
        assert not (tmp_path / "masking_attack_loss.png").exists()

    def test_an_attack_without_queries_or_steps(self, npz, tmp_path):
        summary, _, _ = diagnose(npz, tmp_path, IdentityPurifier(), attack=Uniform(eps=0.1))
        names, left_out = self.found(summary)
        assert names == GRADIENT
        assert left_out == [
            "attack_loss (the attack does not know its number of queries)",
            "lost_to_longer_attack (Uniform has no steps)",
        ]

    def test_no_samples_for_the_longer_attack(self, npz, tmp_path):
        summary, _, _ = diagnose(npz, tmp_path, IdentityPurifier(), samples=0)
        names, left_out = self.found(summary)
        assert names == GRADIENT | {"masking/attack_loss_gain"}
        assert left_out == ["lost_to_longer_attack (samples is 0)"]

    def test_nothing(self, npz, tmp_path):
        names, left_out = self.found(diagnose(npz, tmp_path, IdentityPurifier())[0])
        assert names == GRADIENT | ATTACK
        assert left_out is None

    def test_the_gradient_is_the_chains_own_also_under_bpda(self, npz, tmp_path):
        summary, rows, _ = diagnose(npz, tmp_path, Stairs(), attack=BPDA(eps="8/255", steps=4))
        assert column(rows, "zero_gradient") == [1.0] * N
        assert summary["metrics"]["masking/attack_loss_gain"]["value"] > 0.1

    @pytest.mark.parametrize(
        ("options", "words"), [({"longer": 1}, "longer is 1"), ({"samples": -1}, "samples is -1")]
    )
    def test_arguments_are_checked(self, options, words):
        with pytest.raises(InputError, match=words):
            MaskingDiagnostics(**options)


def close(rows, expected):
    """Equal up to the rounding of networks that met other batches."""
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            if name == "derivative_error":  # is itself no more than rounding
                assert max(row[name], value) < 1e-2
            elif isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
            else:
                assert row[name] == value, name


class TestBatchesAndResume:
    @pytest.fixture(scope="class")
    def run(self, npz):
        def run(folder, *, at=None, batch_size=3, resume=False):
            module = PurifiedClassifier(Failing(at), tiny.classifier(), protocols=("fixed",))
            data = CIFAR10DataModule(source=npz, batch_size=batch_size)
            measures = MaskingDiagnostics(samples=5), Records(resume=resume), Summary()
            attack = PGD(eps="1/255", steps=3, rel_stepsize=0.1)
            evaluate(module, data, *measures, attack=attack, folder=folder)
            return read(folder)

        return run

    @pytest.fixture(scope="class")
    def whole(self, run, tmp_path_factory):
        folder = tmp_path_factory.mktemp("whole")
        return folder, run(folder)

    @pytest.mark.parametrize("batch_size", [1, 7])
    def test_batches_do_not_matter(self, run, whole, tmp_path, batch_size):
        _, rows, tensors = run(tmp_path, batch_size=batch_size)
        _, expected, other = whole[1]
        close(rows, expected)
        assert column(rows, "lost_to_longer_attack")  # the longer attack had someone to try
        for name in ("masking/gradient_norm", "masking/attack_loss"):
            torch.testing.assert_close(tensors[name], other[name], rtol=1e-4, atol=1e-6)

    def test_a_resumed_run_is_the_undisturbed_one(self, run, whole, tmp_path):
        with pytest.raises(RuntimeError, match="this purifier fails"):
            run(tmp_path, at=6)
        assert not (tmp_path / "masking_gradient_norm.png").exists()
        assert read_summary(tmp_path / "summary.json")["flags"] == []
        summary, _, _ = run(tmp_path, resume=True)
        for name in ("rows.jsonl", "tensors.safetensors"):
            path, other = tmp_path / "records" / name, whole[0] / "records" / name
            assert path.read_bytes() == other.read_bytes()
        assert summary["metrics"] == whole[1][0]["metrics"]
        for name in ("gradient_norm", "attack_loss"):  # of all samples, not of this sitting's
            picture = Image.open(tmp_path / f"masking_{name}.png").tobytes()
            assert picture == Image.open(whole[0] / f"masking_{name}.png").tobytes()

    def test_a_finished_run_shows_its_figures_again(self, run, whole, tmp_path):
        folder = shutil.copytree(whole[0], tmp_path / "copy")
        (folder / "masking_gradient_norm.png").unlink()
        summary, _, _ = run(folder, resume=True)
        assert summary == whole[1][0]
        picture = Image.open(folder / "masking_gradient_norm.png").tobytes()
        assert picture == Image.open(whole[0] / "masking_gradient_norm.png").tobytes()


def test_mixed_precision(npz, tmp_path):
    """The gradient is a bfloat16 one, of 8 bits; the differences it is compared with are not."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.Linear(800, 10)
    )
    classifier = from_module(fill(network, seed=1, std=0.2), 10, (3, 32, 32))
    module = PurifiedClassifier(NoisyPurifier(), classifier, protocols=("fixed",))
    attack = AdversarialExamples(PGD(eps="1/255", steps=2))
    callbacks = attack, MaskingDiagnostics(), Records(), Summary()
    trainer = tiny.trainer(tmp_path, *callbacks, precision="bf16-mixed")
    trainer.test(module, CIFAR10DataModule(source=npz, batch_size=4), verbose=False)
    _, rows, _ = read(tmp_path)
    errors = column(rows, "derivative_error")
    assert 1e-5 < max(errors) < 0.05


def test_the_overlay_adds_to_the_measurements(tmp_path, capsys):
    args = tiny.command(
        "test", "cifar_fixed.yaml", tmp_path, "--model.classifier", "tiny.classifier"
    )
    args[3:3] = ["--config", str(tiny.CONFIGS / "measure" / "masking.yaml")]
    assert main([*args, "--measure.masking.samples", "1"]) == 0
    folder = tiny.run_folder(tmp_path)
    summary, _, tensors = read(folder)
    assert "uniform/compression_rate" in summary["metrics"]  # the base's own
    assert (folder / "images_fixed.png").exists()
    assert set(summary["metrics"]) >= GRADIENT | ATTACK
    assert summary["settings"]["masking_samples"] == 1
    assert tensors["masking/gradient_norm"].shape == (3, 5)  # the input, two up, two down
    assert summary["metrics"]["masking/derivative_error"]["value"] < 0.1
    printed = capsys.readouterr().out
    assert printed.count("Warning: ") == len(summary["flags"])
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {"masking/gradient_norm", "masking/attack_loss"} <= set(events.Tags()["images"])
