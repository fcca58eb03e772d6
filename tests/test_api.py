"""``lit_purify.purify``, and that ``predict`` gives the same images."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import lit_purify
from lit_purify.callbacks import CompressionRate, ImageGrid
from lit_purify.checkpoints import load_denoiser
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule, sources
from lit_purify.diffusion import PRESETS, DiffusionPurifier, FixedNoise
from lit_purify.diffusion.denoiser import frozen_copy
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

SMALL = {"t_star": 20, "num_steps": 2}


@pytest.fixture(scope="module")
def denoiser():
    return tiny.denoiser()


@pytest.fixture(scope="module")
def images():
    return tiny.images_and_labels(5)[0]


def purify(images, denoiser, **options):
    return lit_purify.purify(images, denoiser=denoiser, **{**SMALL, **options})


class TestPurify:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_it_is_the_purifier_of_the_preset(self, images, denoiser, preset):
        forward_process, sampler = PRESETS[preset]
        purifier = DiffusionPurifier(
            denoiser, forward_process=forward_process, sampler=sampler, **SMALL
        )
        expected = purifier.purify(images, FixedNoise(3), torch.arange(5))
        assert torch.equal(purify(images, denoiser, preset=preset, seed=3), expected)

    def test_presets_differ(self, images, denoiser):
        results = [purify(images, denoiser, preset=preset) for preset in PRESETS]
        for k in range(3):
            assert not torch.allclose(results[k], results[k - 1], atol=1e-3)

    def test_it_repeats_and_hangs_on_the_seed(self, images, denoiser):
        first = purify(images, denoiser)
        assert 0 <= first.min() <= first.max() <= 1
        torch.manual_seed(12345)
        assert torch.equal(purify(images, denoiser), first)
        assert not torch.equal(purify(images, denoiser, seed=1), first)

    def test_an_image_alone_is_what_it_is_among_others(self, images, denoiser):
        double = tiny.Float64Denoiser(tiny.denoiser())
        together = purify(images.double(), double)
        for i in range(5):
            alone = purify(images[i : i + 1].double(), double, indices=[i])
            torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)

    def test_the_index_keys_the_noise(self, images, denoiser):
        same = images[:1].expand(2, -1, -1, -1)
        first, second = purify(same, denoiser, indices=[4, 7])
        assert not torch.allclose(first, second, atol=1e-3)

    def test_it_is_differentiable(self, images, denoiser):
        x = images.clone().requires_grad_()
        purify(x, denoiser).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_the_callers_denoiser_is_left_alone(self, images, dtype):
        """Its type, mode and gradients, and its place: the meta device stands for a GPU."""
        denoiser = tiny.denoiser().train()
        before = {name: x.detach().clone() for name, x in denoiser.state_dict().items()}
        x = images[:1].to(dtype).requires_grad_()
        purified = purify(x, denoiser)
        purified.float().sum().backward()  # computes steps again
        assert purified.dtype == dtype
        assert frozen_copy(denoiser).to("meta").network.conv_in.weight.is_meta
        assert denoiser.training
        assert all(module.training for module in denoiser.modules())
        for name, parameter in denoiser.named_parameters():
            assert torch.equal(parameter, before[name])
            assert parameter.dtype == torch.float32
            assert parameter.requires_grad
            assert parameter.grad is None

    def test_rounding_is_told_with_its_digits(self, images):
        with pytest.raises(InputError, match=r"1\.0000002.*clamp\(0, 1\)"):
            lit_purify.purify((images / images.max()) * (1 + 2**-22))

    def test_the_shipped_denoiser_brings_a_noisy_image_closer(self):
        pixels = torch.from_numpy(sources.embedded()[0][:8].copy()).permute(0, 3, 1, 2)
        clean = pixels.float() / 255
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = (clean + 0.1 * noise).clamp(0, 1)
        purified = lit_purify.purify(noisy, t_star=50, num_steps=5)
        before, after = ((x - clean).square().mean() for x in (noisy, purified))
        assert after < 0.7 * before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x.numpy(), "ndarray"),
            (lambda x: x * 2, r"in \[0, 1\]"),
            (lambda x: x - 0.5, r"in \[0, 1\]"),
            (lambda x: x * torch.nan, r"in \[0, 1\]"),
            (lambda x: (x * 255).byte(), "divide 8-bit images by 255"),
            (lambda x: x[:, :1], r"expects batches of \(3, 32, 32\)"),
            (lambda x: x[0], r"expects batches of \(3, 32, 32\)"),
            (lambda x: x[:, :, :28, :28], r"expects batches of \(3, 32, 32\)"),
        ],
    )
    def test_wrong_images(self, images, denoiser, change, message):
        with pytest.raises(InputError, match=message):
            purify(change(images), denoiser)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"preset": "ddpmm"}, "ddpm, reverse, ddim"),
            ({"t_star": 0}, "t_star"),
            ({"t_star": 1001}, "t_star"),
            ({"t_star": 20.5}, "t_star"),
            ({"num_steps": 2.5}, "num_steps"),
            ({"seed": 2**32}, "would repeat the noise"),
            ({"seed": 1.5}, "seed"),
            ({"denoiser": torch.nn.Identity()}, "Identity"),
            ({"num_steps": 21}, "num_steps"),
            ({"indices": [0, 1]}, "5 images came with 2 dataset indices"),
        ],
    )
    def test_wrong_options(self, images, denoiser, options, message):
        with pytest.raises(InputError, match=message):
            purify(images, **{"denoiser": denoiser, **options})


@pytest.mark.parametrize("name", ["api", "cli", "defence", "paper", "types", "records"])
def test_a_room_is_an_attribute(name):
    assert lit_purify.__getattr__(name).__name__ == f"lit_purify.{name}"


class TestPredict:
    NAMES = ("ant", "bee", "cat")

    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        """(run folder, the images it purified, what lit_purify.purify makes of them)."""
        folder = tmp_path_factory.mktemp("predict")
        source = folder / "images"
        source.mkdir()
        pixels = sources.embedded()[0][:3]
        for name, array in zip(self.NAMES, pixels, strict=True):
            Image.fromarray(array).save(source / f"{name}.png")
        args = tiny.command(
            "predict",
            "predict.yaml",
            folder,
            *("--data.source", str(source)),
            *("--data.batch_size", "2"),
            *("--model.seed", "5"),
        )
        assert main(args) == 0
        images = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255
        expected = lit_purify.purify(
            images,
            denoiser=load_denoiser(str(folder / "tiny.safetensors")),
            seed=5,
            **SMALL,
        )
        return tiny.run_folder(folder), expected

    def test_the_arrays_are_those_of_purify(self, run):
        folder, expected = run
        with np.load(folder / "purified.npz") as archive:
            images = torch.from_numpy(archive["images"]).permute(0, 3, 1, 2)
            assert archive["index"].tolist() == [0, 1, 2]
            assert tuple(archive["name"]) == self.NAMES
        assert images.dtype == torch.float32
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)

    def test_the_pngs_are_the_arrays_in_8_bits(self, run):
        folder, _ = run
        with np.load(folder / "purified.npz") as archive:
            arrays = archive["images"]
        for name, array in zip(self.NAMES, arrays, strict=True):
            with Image.open(folder / "purified" / f"{name}.png") as picture:
                pixels = np.asarray(picture)
            assert pixels.shape == (32, 32, 3)
            assert np.abs(pixels / 255 - array.clip(0, 1)).max() <= 0.5 / 255 + 1e-6

    def test_there_is_a_trajectory_of_every_image(self, run):
        for name in self.NAMES:
            with Image.open(run[0] / "trajectories" / f"{name}.png") as picture:
                picture.load()
                assert picture.width > 400

    def test_the_last_line_is_the_run_folder(self, tmp_path, capsys):
        assert main(tiny.command("predict", "predict.yaml", tmp_path, "--data.limit", "1")) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(tiny.run_folder(tmp_path))


MODULE = PurifiedClassifier(tiny.IdentityPurifier(), tiny.classifier(), protocols=("base",))
OWN = ({"protocols": ["fixed"]}, {"seed": 0}, {"test_draws": 1})
"""What a PurifiedClassifier brings itself, also where it is the default."""


class TestEvaluate:
    @pytest.fixture(scope="class")
    def parts(self):
        return lit_purify.Defence(tiny.classifier(), tiny.ScalingPurifier(factor=0.5))

    @pytest.fixture
    def evaluate(self, parts, tmp_path):
        """A function that evaluates four images, with other options where they are given."""
        images, labels = tiny.images_and_labels(4)
        options = {"attack": lit_purify.PGD(eps="1/255", steps=2), "root": tmp_path}

        def run(defence=parts, data=(images, labels), **more):
            return lit_purify.evaluate(defence, data, progress=False, **{**options, **more})

        return run

    def test_it_is_what_the_trainer_finds(self, evaluate, parts, tmp_path):
        found = evaluate(measurements=[CompressionRate(), ImageGrid()], seed=3)
        module = PurifiedClassifier(
            parts.purifier, parts.classifier, seed=3, protocols=("base", "fixed")
        )
        data = CIFAR10DataModule(source=str(tiny.npz_file(tmp_path / "images.npz", 4)))
        attack = lit_purify.PGD(eps="1/255", steps=2)
        expected, seen = tiny.evaluate(module, data, CompressionRate(), attack=attack)
        assert {name: metric["value"] for name, metric in found.metrics.items()} == pytest.approx(
            expected, nan_ok=True
        )
        assert found.metrics["uniform/compression_rate"]["value"] == pytest.approx(0.5, rel=1e-5)
        assert torch.equal(found.table["fixed/adversarial"], seen.adversarial("fixed"))
        assert [row["fixed/robust_accuracy"] for row in found.rows] == seen.correct(
            "fixed/adversarial"
        ).tolist()
        assert set(found.figures) == {"attack_curves", "images_base", "images_fixed"}
        assert found.settings["seed"] == 3
        assert "Random perturbations (uniform)" in str(found)

    def test_the_callers_modes_do_not_matter(self, evaluate):
        expected = evaluate().metrics
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert evaluate().metrics == expected

    def test_a_module_brings_its_own_protocols(self, evaluate, parts):
        module = PurifiedClassifier(parts.purifier, parts.classifier, protocols=("fixed",))
        first, second = evaluate(module), evaluate(module)
        assert first.metrics == second.metrics
        assert "base/robust_accuracy" not in first.metrics
        assert first.folder != second.folder

    def test_an_interrupted_one_goes_on(self, evaluate, tmp_path, capsys):
        options = {"root": tmp_path / "stopped", "batch_size": 2}
        broken = lit_purify.Defence(tiny.classifier(), tiny.Failing(at=3))
        with pytest.raises(RuntimeError, match="fails"):
            evaluate(broken, **options)
        folder = tiny.run_folder(tmp_path / "stopped")
        assert f"resume={folder}" in capsys.readouterr().err
        found = evaluate(broken, resume=folder, **options)
        whole = evaluate(lit_purify.Defence(tiny.classifier(), tiny.Failing()), batch_size=2)
        assert found.folder == folder
        assert found.rows == whole.rows
        assert found.metrics == whole.metrics

    @pytest.mark.parametrize(
        ("number", "kind", "status"),
        [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)],
    )
    def test_a_signal_is_an_interruption(self, number, kind, status, evaluate, tmp_path, capsys):
        class Signalling(tiny.IdentityPurifier):
            def purify(self, images, noise, indices):
                if 3 in indices:
                    os.kill(os.getpid(), number)
                return images

        defence = lit_purify.Defence(tiny.classifier(), Signalling())
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with pytest.raises(kind) as stop:
            evaluate(defence, batch_size=2)
        assert type(stop.value) is kind
        assert getattr(stop.value, "code", None) == status
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        folder = tiny.run_folder(tmp_path)
        assert read_summary(folder / "summary.json")["status"] == "interrupted"
        assert f"resume={folder}" in capsys.readouterr().err

    def test_every_process_has_the_result(self, tmp_path):
        program = Path(__file__).parent / "evaluated_by_two.py"
        command = [sys.executable, str(program), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("rank_*.json"))]
        assert len(found) == 2
        assert found[0] == found[1]
        assert [run["n"] for run in found[0]] == [5, 5]
        assert [run["figures"] for run in found[0]] == 2 * [["attack_curves", "distances"]]

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"defence": lit_purify.Defence(tiny.classifier())}, "Defence"),
            ({"defence": lit_purify.Defence(torch.nn.Flatten(), tiny.IdentityPurifier())}, "from_"),
            ({"attack": lit_purify.PGD}, "attack"),
            ({"measurements": [CompressionRate]}, "measurements"),
            ({"measurements": CompressionRate()}, "expected a list"),
            ({"trainer": {"fast_dev_run": True}}, "fast_dev_run"),
            ({"trainer": ["cpu"]}, "by name"),
            ({"resume": "nowhere"}, "no run to resume"),
            ({"test_draws": 1.5}, "test_draws"),
            ({"seed": 2**32}, "seed"),
            ({"data": tiny.images_and_labels(2), "batch_size": 1.5}, "batch_size"),
            ({"data": "cifar10"}, "ImageDataModule"),
            ({"data": (torch.ones(2, 3, 32, 32) * 2, torch.zeros(2))}, "0, 1"),
            ({"protocols": ["fixd"]}, "protocols"),
            ({"trainer": {"callbacks": []}}, "trainer"),
            ({"trainer": {"divices": 2}}, "trainer"),
            ({"root": "/proc/nowhere"}, "folder"),
            ({"root": "s3://bucket/runs"}, "URL"),
            ({"trainer": {"strategy": "ddp_spawn"}}, "ddp"),
            ({"data": tiny.TwoClasses(), "batch_size": 2}, "batch_size"),
            *(({"defence": MODULE, **own}, next(iter(own))) for own in OWN),
        ],
    )
    def test_wrong_arguments(self, evaluate, change, word, tmp_path):
        with pytest.raises(InputError, match=word):
            evaluate(**change)
        assert not list(tmp_path.rglob("*"))
