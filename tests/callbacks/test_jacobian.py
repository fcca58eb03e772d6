"""Spectra of purifiers whose Jacobian is known, through the Trainer."""

import json
import math

import numpy as np
import pytest
import tiny
import torch
from oracles import TinyDenoiser, fill
from safetensors.torch import load_file
from tiny import Float64Denoiser, IdentityPurifier, ScalingPurifier, evaluate
from torch import nn

from lit_purify.callbacks import CompressionRate, JacobianSpectrum, Records, Summary
from lit_purify.classifiers.wrap import from_module
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import DDPMSampler, DiffusionPurifier, FixedNoise, Purifier
from lit_purify.functional import singular_values
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

SHAPE = (3, 4, 4)
N = 48  # values of an image
MODES = ["dense", "matrix_free"]


class SmallImages(CIFAR10DataModule):
    """Images of 4 x 4 pixels, whose Jacobian is quickly had."""

    image_shape = SHAPE


class LinearPurifier(Purifier):
    """f_xi(x) = A x + xi, with singular values 0.01 .. 2 in known directions."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        left, right = torch.randn(2, N, N, generator=generator, dtype=torch.float64)
        self.left, self.right = torch.linalg.qr(left).Q, torch.linalg.qr(right).Q
        self.values = torch.logspace(math.log10(2), -2, N, dtype=torch.float64)
        self.matrix = self.left @ torch.diag(self.values) @ self.right.T

    def purify(self, images, noise, indices):
        rows = images.flatten(1) @ self.matrix.to(images).T
        return rows.view_as(images) + noise.normal(indices, "forward", 1, like=images)


class FailsOnce(LinearPurifier):
    """Breaks on the given sample, once."""

    def __init__(self, at=None):
        super().__init__()
        self.at = at

    def purify(self, images, noise, indices):
        if self.at is not None and self.at in indices:
            self.at = None
            raise RuntimeError("this purifier fails")
        return super().purify(images, noise, indices)


class Rounding(torch.autograd.Function):
    """Rounds, and lets gradients through; it has no rule of forward mode."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class RoundingPurifier(Purifier):
    """As a JPEG does it."""

    def purify(self, images, noise, indices):
        return Rounding.apply(images)


def chain():
    """A diffusion purifier that is smooth, so that small perturbations show its derivative."""
    return DiffusionPurifier(
        Float64Denoiser(TinyDenoiser()), t_star=60, num_steps=2, sampler=DDPMSampler(clip=False)
    )


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.random((7, 4, 4, 3), dtype=np.float32), labels=np.arange(7))
    return str(path)


@pytest.fixture(scope="module")
def run(npz):
    """A function that measures a purifier; returns the metrics, the rows and the tensors."""

    def run(purifier, folder, *, batch_size=3, resume=False, indices=None, more=(), **options):
        with torch.random.fork_rng():
            network = nn.Sequential(nn.Flatten(), nn.Linear(N, 10))
        classifier = from_module(fill(network, seed=1, std=0.2), 10, SHAPE)
        module = PurifiedClassifier(purifier, classifier, protocols=(), seed=5)
        data = SmallImages(source=npz, batch_size=batch_size, indices=indices)
        options = {"images": 3, "top_k": 2, "probes": 4, "lanczos_steps": 20, **options}
        measure = JacobianSpectrum(**options)
        evaluate(module, data, *more, measure, Records(resume=resume), Summary(), folder=folder)
        summary = read_summary(folder / "summary.json")
        lines = (folder / "records" / "rows.jsonl").read_text().splitlines()
        tensors = folder / "records" / "tensors.safetensors"
        return (
            {name: figure for name, figure in summary["metrics"].items() if "jacobian" in name},
            {row["index"]: row for row in map(json.loads, lines) if row["protocol"] == "jacobian"},
            load_file(tensors) if tensors.exists() else {},
        )

    return run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_scaling(run, tmp_path, mode, factor):
    purifier = IdentityPurifier() if factor == 1 else ScalingPurifier(factor=factor)
    found, _, tensors = run(purifier, tmp_path, mode=mode, predict_compression=True)
    assert found["jacobian/share_below_0.25"]["value"] == (factor < 0.25)
    assert found["jacobian/share_above_1"]["value"] == (factor > 1)
    assert found["jacobian/largest"]["value"] == pytest.approx(factor, rel=1e-6)
    assert found["jacobian/frobenius"]["value"] == pytest.approx(factor * math.sqrt(N), rel=1e-6)
    for name in ("share_below_0.25", "share_above_1", "largest", "frobenius"):
        assert (found[f"jacobian/{name}"]["n"], found[f"jacobian/{name}"]["missing"]) == (3, 0)
    predicted = found["jacobian/uniform_compression_rate"]
    assert predicted["value"] == pytest.approx(factor, rel=1e-6)
    assert predicted["n"] == 7
    assert tensors["jacobian/singular_values"][:3].allclose(torch.tensor(factor), rtol=1e-6)


@pytest.mark.parametrize("differentiation", ["forward", "reverse"])
def test_a_known_matrix(run, tmp_path, differentiation):
    purifier = LinearPurifier()
    _, rows, tensors = run(purifier, tmp_path, mode="dense", differentiation=differentiation)
    want = purifier.values
    for row in [rows[index] for index in range(3)]:
        assert row["share_below_0.25"] == pytest.approx(float((want < 0.25).double().mean()))
        assert row["share_above_1"] == pytest.approx(float((want > 1).double().mean()))
        assert row["largest"] == pytest.approx(2, rel=1e-6)
        assert row["frobenius"] == pytest.approx(float(want.norm()), rel=1e-6)
    assert "largest" not in rows.get(3, {})
    values = tensors["jacobian/singular_values"]
    assert values.shape == (7, N)
    np.testing.assert_allclose(values[:3], want.expand(3, N), rtol=1e-4)
    assert values[3:].isnan().all()
    for name, truth in (("right", purifier.right), ("left", purifier.left)):
        vectors = tensors[f"jacobian/{name}_vectors"]
        assert vectors.shape == (7, 2, *SHAPE)
        overlap = (vectors[:3].flatten(2).double() @ truth[:, :2]).abs()
        np.testing.assert_allclose(overlap, torch.eye(2).expand(3, 2, 2), atol=1e-4)
    pushed = tensors["jacobian/right_vectors"][0].flatten(1).double() @ purifier.matrix.T
    left = tensors["jacobian/left_vectors"][0].flatten(1).double() * values[0, :2, None]
    np.testing.assert_allclose(pushed, left, atol=1e-5)  # signs included


@pytest.mark.parametrize("differentiation", ["forward", "reverse"])
def test_without_the_matrix(run, tmp_path, differentiation):
    purifier = LinearPurifier()
    _, rows, tensors = run(
        purifier, tmp_path, mode="matrix_free", differentiation=differentiation, rows_per_pass=3
    )
    truths = {
        "share_below_0.25": float((purifier.values < 0.25).double().mean()),
        "share_above_1": float((purifier.values > 1).double().mean()),
        "frobenius": float(purifier.values.norm()),
    }
    for row in [rows[index] for index in range(3)]:
        assert row["largest"] == pytest.approx(2, rel=1e-6)
        for name, truth in truths.items():
            assert row[f"{name}_low"] <= truth <= row[f"{name}_high"]
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    shares = tensors["jacobian/density_shares"]
    assert shares.shape == tensors["jacobian/density_values"].shape == (7, 4, 20)
    np.testing.assert_allclose(shares[:3].nansum(2), 1, atol=1e-6)
    assert tensors["jacobian/singular_values"].shape == (7, 2)
    # The probes of every image are its own.
    assert len({row["frobenius"] for row in rows.values() if "frobenius" in row}) == 3


@pytest.mark.parametrize("mode", MODES)
def test_batches_and_order_do_not_matter(run, tmp_path, mode):
    first = [4, 0, 6, 2]  # of these the first two are measured
    options = {"mode": mode, "images": 2, "predict_compression": True, "indices": first}
    options |= {"probes": 2, "lanczos_steps": 6}
    _, one, tensors = run(chain(), tmp_path / "one", batch_size=1, **options)
    _, all_, together = run(chain(), tmp_path / "all", batch_size=4, **options)
    assert {index for index, row in one.items() if "largest" in row} == {0, 4}
    assert one.keys() == all_.keys() == set(first)
    for index in first:
        assert one[index].keys() == all_[index].keys()
        for name, value in one[index].items():
            same = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert all_[index][name] == same
    for name, values in tensors.items():
        torch.testing.assert_close(values, together[name], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("mode", MODES)
def test_resume(run, tmp_path, mode):
    want = run(FailsOnce(), tmp_path / "whole", mode=mode, batch_size=2)
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(FailsOnce(at=2), tmp_path / "broken", mode=mode, batch_size=2)
    got = run(FailsOnce(), tmp_path / "broken", mode=mode, batch_size=2, resume=True)
    assert got[:2] == want[:2]
    assert got[2].keys() == want[2].keys()
    for name, values in want[2].items():
        assert torch.equal(got[2][name].nan_to_num(-1), values.nan_to_num(-1))
    assert (tmp_path / "broken" / "jacobian_spectrum.png").exists()


def test_it_is_the_jacobian_of_the_runs_chain_and_noise(run, npz, tmp_path):
    purifier = chain()
    _, rows, _ = run(purifier, tmp_path, mode="dense", images=1)
    image = torch.from_numpy(np.load(npz)["images"][:1]).permute(0, 3, 1, 2).double()
    matrix = torch.autograd.functional.jacobian(
        lambda x: purifier.purify(x, FixedNoise(5), torch.tensor([0])), image
    )
    values = singular_values(matrix.view(N, N))
    assert rows[0]["largest"] == pytest.approx(float(values[0]), rel=1e-5)
    assert rows[0]["frobenius"] == pytest.approx(float(values.norm()), rel=1e-5)


def test_the_prediction_is_the_compression_rate_of_small_perturbations(run, tmp_path):
    _, rows, _ = run(
        chain(), tmp_path, images=0, predict_compression=True, more=[CompressionRate(eps=1e-2)]
    )
    lines = (tmp_path / "records" / "rows.jsonl").read_text().splitlines()
    measured = {
        row["index"]: row["compression_rate"]
        for row in map(json.loads, lines)
        if row["protocol"] == "uniform"
    }
    assert measured.keys() == rows.keys() == set(range(7))
    for index, row in rows.items():
        assert row["uniform_compression_rate"] == pytest.approx(measured[index], rel=2e-3)
    assert len(set(measured.values())) == 7


def test_only_the_prediction_needs_no_tensors_and_draws_nothing(run, tmp_path):
    found, _, tensors = run(chain(), tmp_path, images=0, predict_compression=True)
    assert set(found) == {"jacobian/uniform_compression_rate"}
    assert not any("jacobian" in name for name in tensors)
    assert not list(tmp_path.glob("jacobian_*.png"))


@pytest.mark.parametrize("mode", MODES)
def test_pictures_and_settings(run, tmp_path, mode):
    run(LinearPurifier(), tmp_path, mode=mode, images=None)
    for name in ("spectrum", "vectors"):
        assert (tmp_path / f"jacobian_{name}.png").stat().st_size > 10_000
    settings = read_summary(tmp_path / "summary.json")["settings"]
    assert settings["jacobian_mode"] == mode
    assert settings["jacobian_images"] == 7
    assert settings["jacobian_differentiation"] == "forward mode"
    assert ("jacobian_probes" in settings) == (mode == "matrix_free")


def test_a_purifier_without_forward_mode(run, tmp_path):
    with pytest.raises(InputError, match="set differentiation: reverse"):
        run(RoundingPurifier(), tmp_path / "forward", mode="dense")
    assert not (tmp_path / "forward" / "records" / "rows.jsonl").exists()
    found, _, _ = run(
        RoundingPurifier(), tmp_path / "reverse", mode="matrix_free", differentiation="reverse"
    )
    assert found["jacobian/largest"]["value"] == pytest.approx(1, rel=1e-6)
    settings = read_summary(tmp_path / "reverse" / "summary.json")["settings"]
    assert settings["jacobian_differentiation"] == "reverse mode"


def test_the_global_generators_are_left_alone(run, tmp_path):
    purifier = chain()  # networks draw their first weights
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run(purifier, tmp_path, mode="matrix_free", images=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_what_is_refused(run, tmp_path, npz):
    with pytest.raises(InputError, match="fewer than the 48"):
        run(IdentityPurifier(), tmp_path, top_k=48)
    module = PurifiedClassifier(
        IdentityPurifier(), from_module(nn.Flatten(), N, SHAPE), protocols=()
    )
    trainer = tiny.trainer(tmp_path, JacobianSpectrum(), precision="bf16-mixed")
    with pytest.raises(InputError, match="use 32-true"):
        trainer.test(module, SmallImages(source=npz, batch_size=2))
    trainer = tiny.trainer(tmp_path, JacobianSpectrum())
    loader = SmallImages(source=npz, batch_size=2)
    loader.setup("test")
    with pytest.raises(InputError, match="as datamodule"):
        trainer.test(module, loader.test_dataloader())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sparse"}, "expected dense or matrix_free"),
        ({"differentiation": "both"}, "expected forward or reverse"),
        ({"images": -1}, "images of JacobianSpectrum is -1; expected 0 or more"),
        ({"top_k": 0}, "top_k of JacobianSpectrum is 0; expected 1 or more"),
        ({"probes": 1}, "probes of JacobianSpectrum is 1; expected 2 or more"),
        ({"lanczos_steps": 0}, "expected 1 or more"),
        ({"rows_per_pass": 0}, "expected 1 or more"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InputError, match=message):
        JacobianSpectrum(**options)
